"""Reconciliation: compare the broker's holdings with the tables; pure."""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.leg_contract import contract_mismatch
from position_sync_dagster.domain.pricing.confirmation import confirmed_time
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.domain.update import PositionUpdate


class DiscrepancyType(StrEnum):
    """The kinds of difference between the tables and the broker.

    MISSING: held at the broker, no row here. SURPLUS: a row here with a quantity, nothing at the
    broker. QUANTITY: both, with different quantities. STALE: the value is older than allowed, or of
    unknown age. LEG_QUANTITY: strategies claim more of a holding than there is. LEG_MISMATCH: a leg
    names another symbol, right, strike or expiry than the contract of its conid has. STATEMENT: a
    row of a past day differs from the broker's statement of that day.
    """

    MISSING = "MISSING"
    SURPLUS = "SURPLUS"
    QUANTITY = "QUANTITY"
    STALE = "STALE"
    LEG_QUANTITY = "LEG_QUANTITY"
    LEG_MISMATCH = "LEG_MISMATCH"
    STATEMENT = "STATEMENT"


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
class ReconciliationResult:
    """The outcome of one comparison.

    Attributes:
        complete: Whether the snapshot covers every account. If not, nothing is called SURPLUS,
            since an absent holding proves nothing.
        checked: The number of (account, conid) compared.
    """

    at: datetime
    complete: bool
    checked: int
    discrepancies: tuple[Discrepancy, ...]

    @property
    def ok(self) -> bool:
        """Whether the snapshot was complete and nothing differs."""
        return self.complete and not self.discrepancies

    def count(self, kind: DiscrepancyType) -> int:
        """Count the discrepancies of one type."""
        return sum(d.type is kind for d in self.discrepancies)


def compare(
    snapshot: Iterable[BrokerPosition],
    latest: Iterable[PositionUpdate],
    legs: Iterable[ActiveContract],
    *,
    complete: bool,
    now: datetime,
    stale_after: timedelta,
    details: Mapping[int, ContractDetails] | None = None,
    agreed: Set[Key] = frozenset(),
    covers: Callable[[str], bool] | None = None,
) -> ReconciliationResult:
    """Compare one broker snapshot with the latest rows and the registry.

    Args:
        snapshot: Every holding of every account; a position of zero counts as not held.
        latest: The newest row per (account, conid).
        legs: The legs of strategies.
        complete: Whether the snapshot covers every account.
        now: The moment of the comparison.
        stale_after: A value that its source has not confirmed for longer is STALE.
        details: The contract details that are known, by conid.
        agreed: Holdings whose row is known to agree and to be new enough; `latest` may lack them.
        covers: Whether the snapshot covers an account; by default it covers all if it is complete.
    """
    legs = [leg for leg in legs if leg.removed_at is None]
    broker = {p.key: p for p in snapshot}
    rows = {(u.account, u.conid): u for u in latest}
    every = broker.keys() | rows.keys() | agreed
    keys = sorted(every - agreed)
    found = (
        _difference(
            key,
            broker.get(key),
            rows.get(key),
            complete=complete if covers is None else covers(key[0]),
            now=now,
            stale_after=stale_after,
        )
        for key in keys
    )
    return ReconciliationResult(
        at=now,
        complete=complete,
        checked=len(every),
        discrepancies=(
            *(one for one in found if one is not None),
            *_overclaimed(broker, legs),
            *(_overclaimed_in_any_account(broker, legs) if complete else ()),
            *_mismatched(legs, details or {}),
        ),
    )


def _difference(
    key: Key,
    holding: BrokerPosition | None,
    row: PositionUpdate | None,
    *,
    complete: bool,
    now: datetime,
    stale_after: timedelta,
) -> Discrepancy | None:
    """Compare one holding of the broker with its newest row; one of them may be None."""
    held = holding.position if holding else 0.0
    if row is None:
        if not held:
            return None
        kind, detail = DiscrepancyType.MISSING, "held at the broker, no row"
    elif held == 0 and row.position != 0:
        if holding is None and not complete:
            return None
        kind, detail = DiscrepancyType.SURPLUS, "not held at the broker"
    elif held != row.position:
        kind, detail = DiscrepancyType.QUANTITY, "quantities differ"
    elif held and (why := _stale(row, holding, now, stale_after)) is not None:
        kind, detail = DiscrepancyType.STALE, why
    else:
        return None
    account, conid = key
    return Discrepancy(
        type=kind,
        account=account,
        conid=conid,
        symbol=holding.instrument.symbol if holding else row.symbol if row else "",
        expected=held,
        actual=row.position if row else None,
        detail=detail,
    )


def _stale(
    row: PositionUpdate, holding: BrokerPosition | None, now: datetime, stale_after: timedelta
) -> str | None:
    """Return why the value of a row is too old; None if it is not."""
    confirmed = confirmed_time(row, holding, now)
    if confirmed is None:
        return "the row's time lies in the future: its age is unknown"
    if now - confirmed <= stale_after:
        return None
    return f"the value is {(now - confirmed).total_seconds():.0f} s old"


def _overclaimed(
    broker: Mapping[Key, BrokerPosition], legs: Iterable[ActiveContract]
) -> list[Discrepancy]:
    """Find the holdings of which strategies claim more than there is."""
    claims: dict[Key, float] = {}
    symbols: dict[Key, str] = {}
    for leg in legs:
        if leg.account is not None and leg.quantity is not None:
            key = (leg.account, leg.conid)
            claims[key] = claims.get(key, 0.0) + leg.quantity
            symbols[key] = leg.symbol
    over: list[Discrepancy] = []
    for key, claimed in sorted(claims.items()):
        held = broker[key].position if key in broker else 0.0
        if _is_too_much(claimed, held):
            over.append(
                Discrepancy(
                    type=DiscrepancyType.LEG_QUANTITY,
                    account=key[0],
                    conid=key[1],
                    symbol=symbols[key],
                    expected=held,
                    actual=claimed,
                    detail="strategies claim more than is held",
                )
            )
    return over


def _overclaimed_in_any_account(
    broker: Mapping[Key, BrokerPosition], legs: Iterable[ActiveContract]
) -> list[Discrepancy]:
    """Find the contracts of which strategies claim more than all accounts hold together.

    Only contracts with a leg without an account are compared; the claims of legs with an account
    count too.
    """
    claims: dict[int, list[ActiveContract]] = {}
    for leg in legs:
        if leg.quantity is not None:
            claims.setdefault(leg.conid, []).append(leg)
    held: dict[int, float] = {}
    for (_account, conid), holding in broker.items():
        held[conid] = held.get(conid, 0.0) + holding.position
    over: list[Discrepancy] = []
    for conid, of_contract in sorted(claims.items()):
        claimed = sum(leg.quantity or 0.0 for leg in of_contract)
        free = any(leg.account is None for leg in of_contract)
        if free and _is_too_much(claimed, held.get(conid, 0.0)):
            over.append(
                Discrepancy(
                    type=DiscrepancyType.LEG_QUANTITY,
                    account="",
                    conid=conid,
                    symbol=of_contract[0].symbol,
                    expected=held[conid],
                    actual=claimed,
                    detail="strategies claim more than all accounts hold",
                )
            )
    return over


def _is_too_much(claimed: float, held: float) -> bool:
    """Return whether a claim on what is held is greater, or on the other side."""
    return bool(held) and (claimed * held < 0 or abs(claimed) > abs(held))


def _mismatched(
    legs: Iterable[ActiveContract], details: Mapping[int, ContractDetails]
) -> list[Discrepancy]:
    """Find the legs that name another contract than their conid; one break a contract."""
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
