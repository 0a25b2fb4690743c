"""Reconciliation: compare the broker's holdings with the tables; pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import NEGLIGIBLE, ActiveContract, contract_mismatch


class DiscrepancyType(StrEnum):
    """The kinds of difference between the tables and the broker.

    MISSING: held at the broker, no row here. SURPLUS: a row here with a quantity, nothing at the
    broker. QUANTITY: both, with different quantities. STALE: the value is older than allowed, or of
    unknown age. LEG_QUANTITY: strategies claim more of a holding than there is. LEG_MISMATCH: a leg
    names another symbol, right, strike or expiry than the contract of its conid has. STATEMENT: a
    row of a past day differs from the broker's statement of that day. UNEXPLAINED: a holding
    closed, and no fact says why.
    """

    MISSING = "MISSING"
    SURPLUS = "SURPLUS"
    QUANTITY = "QUANTITY"
    STALE = "STALE"
    LEG_QUANTITY = "LEG_QUANTITY"
    LEG_MISMATCH = "LEG_MISMATCH"
    STATEMENT = "STATEMENT"
    UNEXPLAINED = "UNEXPLAINED"


class BreakState(StrEnum):
    """The states of a discrepancy in `reconciliation_breaks`."""

    OPENED = "OPENED"
    CONFIRMED = "CONFIRMED"
    RESOLVED = "RESOLVED"
    ACCEPTED = "ACCEPTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """One difference between the broker and the tables.

    Attributes:
        expected: The broker's quantity; None where it has none.
        actual: Ours; None where we have none.
    """

    type: DiscrepancyType
    account: str
    conid: int
    symbol: str
    expected: float | None
    actual: float | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One discrepancy, from the reconciliation that first saw it until it is gone.

    The columns of the table `reconciliation_breaks` follow it.

    Attributes:
        break_id: Unique id of the break.
        gateway_id: The login that was reconciled, as in gateway_sessions, or "statement:DAY" for a
            day of daily_positions that was compared with the broker's statement, or "closures".
        account: IB account that holds the position.
        conid: IB's contract id of the instrument.
        symbol: Symbol of the underlying, as IB writes it.
        type: MISSING, SURPLUS, QUANTITY, STALE, LEG_QUANTITY, LEG_MISMATCH, STATEMENT or
            UNEXPLAINED.
        expected: The broker's quantity; null when it has none. Unit: contracts or shares.
        actual: The quantity in the tables; null when they have none. Unit: contracts or shares.
        detail: The difference in words.
        state: OPENED (seen once), CONFIRMED (seen again), RESOLVED (gone), or ACCEPTED by a person:
            it keeps this state when it is gone, and loses it when the quantities change.
        opened_at: When it was first seen.
        confirmed_at: When it was seen again; null before.
        resolved_at: When it was gone; null before.
        accepted_at: When a person accepted it; null if nobody did.
        accepted_by: The person who accepted it.
        note: Why that person accepted it, or what happened to that acceptance.
        snapshot_id: The newest account download in which it was seen to change.
        run_id: The Dagster run of that reconciliation.
        last_seen_at: When the row last changed because the break was seen.
    """

    break_id: str
    gateway_id: str
    account: str
    conid: int
    symbol: str
    type: DiscrepancyType
    expected: float | None
    actual: float | None
    detail: str
    state: BreakState
    opened_at: datetime
    confirmed_at: datetime | None = None
    resolved_at: datetime | None = None
    accepted_at: datetime | None = None
    accepted_by: str | None = None
    note: str | None = None
    snapshot_id: str | None = None
    run_id: str | None = None
    last_seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationResult:
    """The outcome of one comparison.

    Attributes:
        complete: Whether the snapshot covers every account. If not, nothing is called SURPLUS,
            since an absent holding proves nothing.
        checked: The number of (account, conid) compared.
        discrepancies: Not in the `repr`, which asyncio computes of the result of each task.
        accepted: The number of further discrepancies, which a person has accepted as they are.
        unconfirmed: Those discrepancies that were first seen only seconds ago: the next drain may
            resolve them.
    """

    at: datetime
    complete: bool
    checked: int
    discrepancies: tuple[Discrepancy, ...] = field(repr=False)
    accepted: int = 0
    unconfirmed: tuple[Discrepancy, ...] = field(default=(), repr=False)

    @property
    def confirmed(self) -> tuple[Discrepancy, ...]:
        """The discrepancies that have lasted."""
        return tuple(one for one in self.discrepancies if one not in self.unconfirmed)

    @property
    def ok(self) -> bool:
        """Whether the snapshot was complete and a person accepted every discrepancy."""
        return self.complete and not self.discrepancies

    def count(self, kind: DiscrepancyType) -> int:
        """Count the discrepancies of one type."""
        return sum(d.type is kind for d in self.discrepancies)


class Pair(NamedTuple):
    """The broker's quantity of a holding and that of our newest row.

    Attributes:
        held: None where the broker reports no such holding.
        ours: None where there is no row.
        confirmed_at: When the source of the row last confirmed its value, as `confirmed_time` says.
    """

    account: str
    conid: int
    symbol: str
    held: float | None
    ours: float | None
    confirmed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The accounts that a comparison covers, its time, and the contract details.

    Attributes:
        complete: Whether the snapshot covers every account.
        now: The moment of the comparison.
        stale_after: A value that its source has not confirmed for longer is STALE.
        details: The contract details that are known, by conid.
        covers: Whether the snapshot covers an account; by default it covers all if it is complete.
    """

    complete: bool
    now: datetime
    stale_after: timedelta
    details: Mapping[int, ContractDetails] = field(default_factory=dict)
    covers: Callable[[str], bool] | None = None


def compare(
    pairs: Sequence[Pair], legs: Iterable[ActiveContract], scope: Scope
) -> ReconciliationResult:
    """Compare what the broker holds with the rows and the registry.

    Args:
        pairs: Each holding and its newest row, in the order of account and conid.
        legs: The legs of strategies.
        scope: What the snapshot covers.
    """
    legs = [leg for leg in legs if leg.removed_at is None]
    named = {leg.conid for leg in legs}
    held = {
        (one.account, one.conid): one.held
        for one in pairs
        if one.held is not None and one.conid in named
    }
    found = (_difference(pair, scope) for pair in pairs)
    return ReconciliationResult(
        at=scope.now,
        complete=scope.complete,
        checked=len(pairs),
        discrepancies=(
            *(one for one in found if one is not None),
            *_overclaimed(held, legs, complete=scope.complete),
            *_mismatched(legs, scope.details),
        ),
    )


def _difference(pair: Pair, scope: Scope) -> Discrepancy | None:
    """Compare one holding of the broker with its newest row."""
    account, conid, symbol, at_broker, ours, confirmed_at = pair
    held = 0.0 if at_broker is None else at_broker
    if ours is None:
        if not held:
            return None
        kind, detail = DiscrepancyType.MISSING, "held at the broker, no row"
    elif held == 0 and ours != 0:
        covered = scope.complete if scope.covers is None else scope.covers(account)
        if at_broker is None and not covered:
            return None
        kind, detail = DiscrepancyType.SURPLUS, "not held at the broker"
    elif held != ours:
        kind, detail = DiscrepancyType.QUANTITY, "quantities differ"
    elif held and (why := _stale(confirmed_at, scope.now, scope.stale_after)) is not None:
        kind, detail = DiscrepancyType.STALE, why
    else:
        return None
    return Discrepancy(
        type=kind,
        account=account,
        conid=conid,
        symbol=symbol,
        expected=held,
        actual=ours,
        detail=detail,
    )


def _stale(confirmed_at: datetime | None, now: datetime, stale_after: timedelta) -> str | None:
    """Return why a value is too old, by the time of its confirmation; None if it is not."""
    if confirmed_at is None:
        return "the row's time lies in the future: its age is unknown"
    if now - confirmed_at <= stale_after:
        return None
    return f"the value is {(now - confirmed_at).total_seconds():.0f} s old"


def _overclaimed(
    positions: Mapping[Key, float], legs: Iterable[ActiveContract], *, complete: bool
) -> list[Discrepancy]:
    """Find where strategies claim more than is held: in an account, then in all of them together.

    All accounts together have the name "". They are compared if every account is covered, and only
    for contracts with a leg without an account; the claims of legs with an account count too.
    """
    claiming = [leg for leg in legs if leg.quantity is not None]
    anywhere = {leg.conid for leg in claiming if complete and leg.account is None}
    held = defaultdict[Key, float](float, positions)
    for (_account, conid), position in positions.items():
        held["", conid] += position
    claims: defaultdict[Key, float] = defaultdict(float)
    symbols: dict[Key, str] = {}
    for leg in claiming:
        for account in (leg.account, "" if leg.conid in anywhere else None):
            if account is not None:
                claims[account, leg.conid] += leg.quantity or 0.0
                symbols.setdefault((account, leg.conid), leg.symbol)
    return [
        Discrepancy(
            type=DiscrepancyType.LEG_QUANTITY,
            account=account,
            conid=conid,
            symbol=symbols[account, conid],
            expected=held[account, conid],
            actual=claimed,
            detail=f"strategies claim more than {'is held' if account else 'all accounts hold'}",
        )
        for (account, conid), claimed in sorted(
            claims.items(), key=lambda one: (not one[0][0], one)
        )
        if _is_too_much(claimed, held[account, conid])
    ]


def _is_too_much(claimed: float, held: float) -> bool:
    """Return whether a claim is larger than the holding, or has the opposite sign."""
    too_much = abs(claimed) > abs(held) * (1 + NEGLIGIBLE)
    return abs(held) > NEGLIGIBLE and (claimed * held < 0 or too_much)


def _mismatched(
    legs: Iterable[ActiveContract], details: Mapping[int, ContractDetails]
) -> list[Discrepancy]:
    """Find the legs that differ from the contract of their conid; one break for each contract."""
    found: dict[Key, list[str]] = {}
    symbols: dict[Key, str] = {}
    for leg in legs:
        contract = details.get(leg.conid)
        difference = contract_mismatch(leg, contract) if contract else None
        if difference:
            key = (leg.account or "", leg.conid)
            found.setdefault(key, []).append(f"strategy {leg.strategy_id}: {difference}")
            symbols.setdefault(key, leg.symbol)
    return [
        Discrepancy(
            type=DiscrepancyType.LEG_MISMATCH,
            account=key[0],
            conid=key[1],
            symbol=symbols[key],
            expected=None,
            actual=None,
            detail="; ".join(differences),
        )
        for key, differences in sorted(found.items())
    ]
