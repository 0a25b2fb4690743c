"""Changes of positions, and why holdings closed: the records, and which of them count."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.instrument import Right, contract_name


class Cause(StrEnum):
    """Why a holding, or a part of it, closed.

    CASH_SETTLED: it expired with a value, which was paid. CORPORATE_ACTION: any but a split.
    CORRECTED: the broker cancelled or corrected the trade that had opened it.
    """

    TRADED = "TRADED"
    EXPIRED_WORTHLESS = "EXPIRED_WORTHLESS"
    ASSIGNED = "ASSIGNED"
    EXERCISED = "EXERCISED"
    CASH_SETTLED = "CASH_SETTLED"
    SPLIT = "SPLIT"
    CORPORATE_ACTION = "CORPORATE_ACTION"
    TRANSFERRED = "TRANSFERRED"
    CORRECTED = "CORRECTED"
    UNEXPLAINED = "UNEXPLAINED"


class Stage(StrEnum):
    """Whether a statement of the broker says it; it then replaces what was provisional."""

    PROVISIONAL = "PROVISIONAL"
    STATED = "STATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedHolding:
    """The holding that a row of `position_changes` or of `closures` is about.

    Attributes:
        account: IB account.
        conid: IB's contract id.
        symbol: Symbol of the underlying, as IB writes it.
        sec_type: IB's security type.
        right: CALL or PUT; null of what is no option.
        strike: Strike of an option. Unit: as quoted.
        expiry: Expiry of an option or a future.
    """

    change_id: str
    account: str
    conid: int
    symbol: str
    sec_type: str
    right: Right | None
    strike: float | None
    expiry: date | None


TERMS = tuple(field.name for field in fields(ChangedHolding))


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionChange(ChangedHolding):
    """A change of a quantity, as the owner of the login saw it: a row of `position_changes`.

    Attributes:
        change_id: Id of the change; the same if it is recorded again.
        multiplier: Units of the underlying in one contract.
        currency: ISO code of the currency.
        before: Signed quantity before. Unit: contracts or shares.
        after: Signed quantity after. Unit: contracts or shares.
        average_cost: Average cost of one contract or share before. Unit: `currency`.
        market_price: The broker's last price before. Unit: as quoted.
        since: Until when the broker is known to have confirmed `before` (UTC).
        seen_at: When the new quantity was received (UTC).
        gateway_id: The login that saw it.
        snapshot_id: The account download that the row was part of.
        run_id: The Dagster run that wrote the row.
    """

    multiplier: float
    currency: str
    before: float
    after: float
    average_cost: float | None
    market_price: float | None
    since: datetime | None
    seen_at: datetime
    gateway_id: str
    snapshot_id: str
    run_id: str | None = None

    @property
    def key(self) -> Key:
        """The holding's (account, conid)."""
        return (self.account, self.conid)

    @property
    def by(self) -> float:
        """Return by how much the quantity changed, with a sign."""
        return self.after - self.before

    @property
    def closed(self) -> float:
        """Return the part of `before` that is gone, with its sign; 0 if nothing was closed."""
        if self.before * self.after < 0:
            return self.before
        return self.before - self.after if abs(self.after) < abs(self.before) else 0.0

    @property
    def is_option(self) -> bool:
        """Return whether it is an option, on whatever underlying."""
        return self.right is not None and self.strike is not None

    @property
    def units(self) -> float | None:
        """Return the change of the underlying if the closed options were exercised or assigned."""
        if self.right is None:
            return None
        each = 1.0 if self.sec_type == "FOP" else self.multiplier  # one future for an option on it
        return self.closed * each * (1 if self.right is Right.CALL else -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure(ChangedHolding):
    """The cause of a close, or of a part of it: a row of the table `closures`.

    Of the rows of a change those that were judged last count.

    Attributes:
        change_id: The change of position_changes that it explains.
        closed_at: When it was seen to be gone, or was traded (UTC).
        quantity: What was closed, with the sign it had. Unit: contracts or shares.
        price: Price of one unit; null where it is not known. Unit: as quoted.
        cause: TRADED, EXPIRED_WORTHLESS, ASSIGNED, EXERCISED, CASH_SETTLED, SPLIT,
            CORPORATE_ACTION, TRANSFERRED, CORRECTED or UNEXPLAINED.
        stage: PROVISIONAL, or STATED by a statement of the broker.
        detail: Why, in words.
        realized_pnl: Realized profit of what was closed: as stated, or of a worthless expiry its
            cost. Unit: `currency`.
        currency: ISO code of the currency.
        executions: Evidence: ids of executions, separated by commas.
        order_ids: Evidence: the permanent ids of their orders, separated by commas.
        events: Evidence: ids of statement_events, separated by commas.
        statement: Evidence: the statement that says it.
        counter_conid: Evidence: the holding that came or went with it, by its conid.
        judged_at: When it was judged (UTC).
        run_id: The Dagster run that wrote the row.
    """

    closed_at: datetime
    quantity: float
    price: float | None
    cause: Cause
    stage: Stage
    detail: str
    realized_pnl: float | None
    currency: str
    executions: str | None = None
    order_ids: str | None = None
    events: str | None = None
    statement: str | None = None
    counter_conid: int | None = None
    judged_at: datetime | None = None
    run_id: str | None = None

    @property
    def name(self) -> str:
        """Return the contract as a trader writes it."""
        return contract_name(self)


NEW_YORK = ZoneInfo("America/New_York")
"""The days of closes, as those of statements, are New York's."""

_WORDS = {
    Cause.TRADED: "traded",
    Cause.EXPIRED_WORTHLESS: "expired",
    Cause.CASH_SETTLED: "expired and settled in cash",
    Cause.ASSIGNED: "assigned",
    Cause.EXERCISED: "exercised",
    Cause.SPLIT: "split",
    Cause.CORPORATE_ACTION: "closed by a corporate action",
    Cause.TRANSFERRED: "transferred",
    Cause.CORRECTED: "corrected by the broker",
}
_AT_EXPIRY = frozenset({Cause.EXPIRED_WORTHLESS, Cause.CASH_SETTLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldingEnd:
    """That nothing of a holding is left since a time, and why.

    Attributes:
        causes: The causes that count of its last change; none while it is not judged.
    """

    seen_at: datetime
    causes: tuple[Closure, ...]

    @property
    def text(self) -> str | None:
        """What happened and when, such as "expired on 2026-11-20"; None while it is not known."""
        if not self.causes or any(one.cause not in _WORDS for one in self.causes):
            return None
        words = dict.fromkeys(_WORDS[one.cause] for one in self.causes)
        last = max(self.causes, key=lambda one: one.closed_at)
        at_expiry = all(one.cause in _AT_EXPIRY for one in self.causes) and last.expiry is not None
        day = last.expiry if at_expiry else last.closed_at.astimezone(NEW_YORK).date()
        return f"{' and '.join(words)} on {day}"


def counted_ends(texts: Iterable[str]) -> str | None:
    """Return what happened to several legs, with their number; None if there are none.

    >>> counted_ends(["traded on 2026-11-19", "expired on 2026-11-20", "traded on 2026-11-19"])
    'one expired on 2026-11-20, 2 traded on 2026-11-19'
    """
    counts = sorted(Counter(texts).items())
    return ", ".join(f"{'one' if n == 1 else n} {text}" for text, n in counts) or None


def knows_more(new: Sequence[Closure], old: Sequence[Closure]) -> bool:
    """Return whether new causes of a close replace the ones that counted.

    A stated cause replaces a provisional one and never the other way round. A provisional cause is
    not replaced by less: the gateway may name its executions on their day alone.
    """
    if [_content(one) for one in new] == [_content(one) for one in old]:
        return False
    if is_stated(new):
        return True
    return not old or (not is_stated(old) and _known(new) >= _known(old))


def is_stated(ones: Sequence[Closure]) -> bool:
    """Return whether a statement says the cause of all that was closed."""
    return bool(ones) and all(one.stage is Stage.STATED for one in ones)


def _known(ones: Sequence[Closure]) -> float:
    total = sum(abs(one.quantity) for one in ones) or 1.0
    return sum(abs(one.quantity) for one in ones if one.cause is not Cause.UNEXPLAINED) / total


def _content(one: Closure) -> Closure:
    return replace(one, judged_at=None, run_id=None)
