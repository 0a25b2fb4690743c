"""Differences between the broker's holdings and the tables, from the first sight to the end; pure.

`after_comparison` decides what becomes of each break: it begins, is confirmed, changes or ends.
`ReconciliationResult.judged_by` decides what counts as confirmed in the result of one comparison:
there a break has lasted for `CONFIRM_AFTER`, while its state is CONFIRMED at its second sight. The
key of a break is its type, account and conid.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from position_sync_dagster.domain.clock import elapsed

# Minimum tolerance for the value of one unit, in currency: half the spread of a cheap option.
LEAST_DIFFERENCE = 0.05


class DiscrepancyType(StrEnum):
    """The kinds of difference between the tables and the broker.

    MISSING: held at the broker, no row here. SURPLUS: a row here with a quantity, nothing at the
    broker. QUANTITY: both, with different quantities. STALE: the value is older than allowed, or of
    unknown age. LEG_QUANTITY: strategies claim more of a holding than there is. LEG_MISMATCH: a leg
    names another symbol, right, strike or expiry than the contract of its conid has. STATEMENT: a
    row of a past day differs from the broker's statement of that day. UNEXPLAINED: a holding
    closed, and no fact says why.

    Breaks of all comparisons are rows of one table. The core looks for the first six
    (`LOOKED_FOR`), and an extension for the others.
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


@dataclass(frozen=True, slots=True)
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
        snapshot_id: The newest list of positions in which it was seen to change.
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


# What is the same of a difference whenever it is seen; see `break_key`.
BreakKey = tuple[str, str, int]


def break_key(difference: Break | Discrepancy) -> BreakKey:
    """Return what is the same of a difference whenever it is seen: its type, and the holding."""
    return (difference.type, difference.account, difference.conid)


def after_comparison(
    compared: Iterable[Break], differences: Mapping[BreakKey, Break], at: datetime
) -> tuple[list[Break], list[Break]]:
    """Return the breaks that a comparison opens or changes, and those that it ends.

    A break ends as soon as one comparison that looked for it does not find it.

    Args:
        compared: The stored breaks that were looked for, oldest first. Of two with one key the
            older one goes on, with what a person said of it; the other one ends.
        differences: What was found, as new breaks: one that is not stored begins so.
        at: The time of the comparison.
    """
    new = dict(differences)
    changed, over = [], []
    for stored in compared:
        again = new.pop(break_key(stored), None)
        if again is None:
            over.append(ended(stored, at))
            continue

        after = seen_again(stored, again)
        if after != stored:
            changed.append(after)

    return [*changed, *new.values()], over


def seen_again(opened: Break, seen: Break) -> Break:
    """Return a break after a comparison that found it again; the same one if nothing changed.

    At its second sight it is CONFIRMED. An acceptance ends when the quantities change.

    Args:
        opened: The break as it is stored.
        seen: What was found, as a new break: its `opened_at` is the time of this comparison.
    """
    is_same_expected = _equal(opened.expected, seen.expected)
    is_same_actual = _equal(opened.actual, seen.actual)
    if opened.state is not BreakState.OPENED and is_same_expected and is_same_actual:
        return replace(opened, gateway_id=seen.gateway_id)  # which may be another one now

    note = opened.note
    if opened.state is BreakState.ACCEPTED:
        facts = (opened.accepted_by, opened.expected, opened.actual, opened.note)
        by, broker, tables, why = ("?" if fact is None else fact for fact in facts)
        note = f"{by} accepted {broker} against {tables} ({why}); that has changed"

    return replace(
        seen,
        break_id=opened.break_id,
        state=BreakState.CONFIRMED,
        opened_at=opened.opened_at,
        confirmed_at=opened.confirmed_at or seen.opened_at,
        note=note,
    )


def ended(opened: Break, at: datetime) -> Break:
    """Return a break that a comparison finds no more: RESOLVED, or ACCEPTED if it was so."""
    was_accepted = opened.state is BreakState.ACCEPTED
    return replace(
        opened, state=opened.state if was_accepted else BreakState.RESOLVED, resolved_at=at
    )


def _equal(first: float | None, second: float | None) -> bool:
    """Return whether two quantities are the same: None is no holding, NaN an unknown quantity."""
    if first is None or second is None:
        return first is second
    both_unknown = first != first and second != second
    return first == second or both_unknown


# How long a difference lasts before a result counts it as confirmed: a change at the broker becomes
# a row by one drain, which begins within 5 s and takes some seconds.
CONFIRM_AFTER = timedelta(seconds=15)


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
        return tuple(entry for entry in self.discrepancies if entry not in self.unconfirmed)

    @property
    def ok(self) -> bool:
        """Whether the snapshot was complete and a person accepted every discrepancy."""
        return self.complete and not self.discrepancies

    def count(self, kind: DiscrepancyType) -> int:
        """Count the discrepancies of one type."""
        return sum(discrepancy.type is kind for discrepancy in self.discrepancies)

    def judged_by(self, open_breaks: Iterable[Break]) -> "ReconciliationResult":
        """Return the result without what a person has accepted, and with what is not confirmed.

        A difference is confirmed once its break has been open for `CONFIRM_AFTER`. One without a
        break is not: `ReconciliationService.look` records none.
        """
        recorded = {break_key(brk): brk for brk in open_breaks}
        discrepancies = []
        unconfirmed = []
        accepted = 0
        for discrepancy in self.discrepancies:
            brk = recorded.get(break_key(discrepancy))
            if brk is not None and brk.state is BreakState.ACCEPTED:
                accepted += 1
                continue

            discrepancies.append(discrepancy)
            if brk is None or elapsed(brk.opened_at, self.at) < CONFIRM_AFTER:
                unconfirmed.append(discrepancy)

        return replace(
            self,
            discrepancies=tuple(discrepancies),
            accepted=accepted,
            unconfirmed=tuple(unconfirmed),
        )
