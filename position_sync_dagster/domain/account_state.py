"""What is known of one account: its list of positions, and its portfolio values; pure.

An account is a frozen record with two states that most events do not share: one of its positions,
one of its values. `TABLE` is the whole state machine; what is not in it changes nothing. Times in
seconds are those of a monotonic clock that the caller reads.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.retry import Backoff

# Delays before an account is requested again because its download did not end, or its subscription
# ended soon after the download. After a subscription that lasted there is none.
AGAIN = Backoff(first_s=15.0, longest_s=300.0, jitter=(1.0, 1.2))


class PositionsState(StrEnum):
    """Whether the list of positions says what an account holds.

    After a restart, gateways have answered with a list that ends properly and is empty (thetagang
    issues/272). Therefore a list that names no holding of an account does not count by itself: the
    holdings stay as they were until a second one, some time later, says the same.

    KNOWN: the newest list counts. EMPTIED: a first list emptied the account. CONTRADICTED: the
    same, and since then a row of an open holding came, or an interruption: the next such list is a
    first one again.
    """

    KNOWN = "KNOWN"
    EMPTIED = "EMPTIED"
    CONTRADICTED = "CONTRADICTED"


class ValuesState(StrEnum):
    """Whether the portfolio values of an account are whole.

    MISSING: its newest download did not end whole, or its subscription ended. DOWNLOADING: they
    were requested, and the end is awaited. WHOLE: the download ended, and they are current.
    """

    MISSING = "MISSING"
    DOWNLOADING = "DOWNLOADING"
    WHOLE = "WHOLE"


class AccountEvent(StrEnum):
    """What happens to an account.

    LIST_NAMED: a whole list names a holding of it, or it holds nothing. LIST_EMPTIED: it holds
    something, and the list names none. LIST_EMPTIED_AGAIN: the same, when a second list counts.
    ROW_OPEN: a row of an open holding came. ROWS_CLOSED: messages have closed each of its holdings.

    REQUESTED: its download begins. DOWNLOAD_OVER: nothing waits for its end any more, whatever the
    result. COMPLETED: what came is whole. FAILED: the download did not end whole, or the
    subscription ended. CANCELLED: the download was cancelled. SPOILED: what came since its request
    is not whole. END_CAME: its end message came. DUE: it is to be requested again at once.

    INTERRUPTED: the gateway lost IB. RESTORED: it has IB again. DROPPED: it dropped every
    subscription.
    """

    LIST_NAMED = "LIST_NAMED"
    LIST_EMPTIED = "LIST_EMPTIED"
    LIST_EMPTIED_AGAIN = "LIST_EMPTIED_AGAIN"
    ROW_OPEN = "ROW_OPEN"
    ROWS_CLOSED = "ROWS_CLOSED"
    REQUESTED = "REQUESTED"
    DOWNLOAD_OVER = "DOWNLOAD_OVER"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SPOILED = "SPOILED"
    END_CAME = "END_CAME"
    DUE = "DUE"
    INTERRUPTED = "INTERRUPTED"
    RESTORED = "RESTORED"
    DROPPED = "DROPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOccurrence:
    """An event of an account, with what it says.

    Attributes:
        now_s: When it happens.
        at: The same moment by the clock of the rows.
        why: Why the values are not whole, for people.
        jitter: The factor of the delay before the next request.
        stays_open: Whether the subscription stays open after its download; then it counts as a
            success only after it has lasted.
    """

    now_s: float
    at: datetime = NEVER
    why: str | None = None
    jitter: float = 1.0
    stays_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """One account of a login.

    Attributes:
        lasts_s: How long a subscription must last to count as a success.
        second_s: How much later a second list that empties the account counts; it is due then.
        emptied_at_s: When the first list that emptied it came; None: the newest list counts.
        whole_since_s: When its download ended whole, if its values are current.
        problem: Why they are not.
        again_at_s: When it is overdue; infinite while it waits for nothing.
        failures: Requests in a row that brought no lasting values.
        requested_at: When its newest download began.
        ended_at: When that ended, also if the gateway refused it.
        spoiled: Why what came since its request is not whole.
        end_is_due: No end has come since its request.

    >>> account = AccountState(lasts_s=180.0, second_s=30.0)
    >>> account.after_list(0.0, is_emptied=True).is_doubted
    True
    >>> account.after_list(0.0, is_emptied=True).after_list(30.0, is_emptied=True).is_doubted
    False
    """

    lasts_s: float
    second_s: float
    positions: PositionsState = PositionsState.KNOWN
    values: ValuesState = ValuesState.MISSING
    emptied_at_s: float | None = None
    whole_since_s: float | None = None
    problem: str | None = None
    again_at_s: float = math.inf
    failures: int = 0
    requested_at: datetime = NEVER
    ended_at: datetime | None = None
    spoiled: str | None = None
    end_is_due: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether its newest download ended and its values are current."""
        return self.values is ValuesState.WHOLE

    @property
    def is_doubted(self) -> bool:
        """Whether its holdings are in doubt: one list emptied it."""
        return self.positions is not PositionsState.KNOWN

    def is_overdue(self, now_s: float) -> bool:
        """Return whether its values should be requested again now."""
        return self.again_at_s <= now_s

    def needs_second_list(self, now_s: float) -> bool:
        """Return whether a second list should be requested now."""
        return self.emptied_at_s is not None and now_s - self.emptied_at_s >= self.second_s

    def completeness(self, *, is_listed: bool, has_odd_rows: bool) -> Completeness:
        """Return how much of it the broker has confirmed.

        Args:
            is_listed: Whether a whole list of the positions is valid.
            has_odd_rows: Whether a holding of it is set aside.
        """
        if not is_listed or self.is_doubted:
            return Completeness.UNKNOWN
        if self.is_whole and not has_odd_rows:
            return Completeness.COMPLETE
        return Completeness.PARTIAL

    def after_list(self, now_s: float, *, is_emptied: bool) -> "AccountState":
        """Return the account after a whole list of the positions.

        Args:
            now_s: When it ended.
            is_emptied: Whether the account holds something, and the list names none of it.
        """
        if not is_emptied:
            return self.after(AccountEvent.LIST_NAMED, now_s)
        if self.positions is PositionsState.EMPTIED and self.needs_second_list(now_s):
            return self.after(AccountEvent.LIST_EMPTIED_AGAIN, now_s)
        return self.after(AccountEvent.LIST_EMPTIED, now_s)

    def after(
        self,
        event: AccountEvent,
        now_s: float,
        *,
        at: datetime = NEVER,
        why: str | None = None,
        jitter: float = 1.0,
        stays_open: bool = False,
    ) -> "AccountState":
        """Return the account after an event, by `TABLE`; what it says is an occurrence."""
        occurrence = AccountOccurrence(
            now_s=now_s, at=at, why=why, jitter=jitter, stays_open=stays_open
        )
        account = self
        of_positions = OF_POSITIONS.get((self.positions, event))
        if of_positions is not None:
            account = of_positions.follow(account, occurrence)
            account = replace(account, positions=of_positions.to)

        of_values = OF_VALUES.get((self.values, event))
        if of_values is not None:
            account = of_values.follow(account, occurrence)
            account = replace(account, values=of_values.to or account.values)
        return account


def _nothing_more(account: AccountState, _event: AccountOccurrence) -> AccountState:
    return account


def _begin_doubt(account: AccountState, event: AccountOccurrence) -> AccountState:
    return replace(account, emptied_at_s=event.now_s)


def _end_doubt(account: AccountState, _event: AccountOccurrence) -> AccountState:
    return replace(account, emptied_at_s=None)


def _begin(account: AccountState, event: AccountOccurrence) -> AccountState:
    """Begin a download: what becomes due from now on is not part of it."""
    return replace(
        account,
        requested_at=event.at,
        again_at_s=math.inf,
        whole_since_s=None,
        spoiled=None,
        end_is_due=True,
    )


def _note_end(account: AccountState, event: AccountOccurrence) -> AccountState:
    return replace(account, ended_at=event.at)


def _complete(account: AccountState, event: AccountOccurrence) -> AccountState:
    """Count its values; a subscription that stays open has to last first."""
    failures = account.failures if event.stays_open else 0
    return replace(account, whole_since_s=event.now_s, problem=None, failures=failures)


def _complete_late(account: AccountState, event: AccountOccurrence) -> AccountState:
    """Count its values; it need not be requested again."""
    return replace(_complete(account, event), again_at_s=math.inf)


def _fail(account: AccountState, event: AccountOccurrence) -> AccountState:
    """Request it again later; at once after a subscription that lasted."""
    whole_since_s = account.whole_since_s
    has_lasted = whole_since_s is not None and event.now_s - whole_since_s >= account.lasts_s
    failures = 0 if has_lasted else account.failures + 1
    again_at_s = event.now_s + AGAIN.delay_s(failures) * event.jitter
    return replace(
        account, failures=failures, whole_since_s=None, problem=event.why, again_at_s=again_at_s
    )


def _spoil(account: AccountState, event: AccountOccurrence) -> AccountState:
    return replace(account, spoiled=event.why)


def _spoil_whole(account: AccountState, event: AccountOccurrence) -> AccountState:
    return _fail(_spoil(account, event), event)


def _take_end(account: AccountState, _event: AccountOccurrence) -> AccountState:
    return replace(account, end_is_due=False)


def _make_due(account: AccountState, event: AccountOccurrence) -> AccountState:
    return replace(account, again_at_s=event.now_s)


def _make_waiting_due(account: AccountState, event: AccountOccurrence) -> AccountState:
    """Request at once what waits for its next request."""
    return account if account.again_at_s == math.inf else _make_due(account, event)


def _forget_values(account: AccountState, _event: AccountOccurrence) -> AccountState:
    return AccountState(
        lasts_s=account.lasts_s,
        second_s=account.second_s,
        positions=account.positions,
        emptied_at_s=account.emptied_at_s,
    )


class PositionsTransition(NamedTuple):
    """What an event does to the positions of an account in some states; see `ValuesTransition`."""

    states: tuple[PositionsState, ...]
    event: AccountEvent
    to: PositionsState
    follow: Callable[[AccountState, AccountOccurrence], AccountState]


class ValuesTransition(NamedTuple):
    """What an event does to the values of an account in some states.

    Attributes:
        states: The states in which it does so.
        event: The event.
        to: The next state; None: the state stays.
        follow: What else follows.
    """

    states: tuple[ValuesState, ...]
    event: AccountEvent
    to: ValuesState | None
    follow: Callable[[AccountState, AccountOccurrence], AccountState]


_KNOWN, _EMPTIED, _CONTRADICTED = PositionsState
_MISSING, _DOWNLOADING, _WHOLE = ValuesState
_ANY_POSITIONS = tuple(PositionsState)
_DOUBTED = (_EMPTIED, _CONTRADICTED)
_ANY_VALUES = tuple(ValuesState)

# The state machine, one row for each event; docs/stream.md draws it.
TABLE: tuple[PositionsTransition | ValuesTransition, ...] = (
    PositionsTransition(_ANY_POSITIONS, AccountEvent.LIST_NAMED, _KNOWN, _end_doubt),
    PositionsTransition((_KNOWN, _CONTRADICTED), AccountEvent.LIST_EMPTIED, _EMPTIED, _begin_doubt),
    PositionsTransition((_EMPTIED,), AccountEvent.LIST_EMPTIED_AGAIN, _KNOWN, _end_doubt),
    PositionsTransition((_EMPTIED,), AccountEvent.ROW_OPEN, _CONTRADICTED, _nothing_more),
    PositionsTransition(_DOUBTED, AccountEvent.ROWS_CLOSED, _KNOWN, _end_doubt),
    PositionsTransition((_EMPTIED,), AccountEvent.INTERRUPTED, _CONTRADICTED, _nothing_more),
    PositionsTransition((_EMPTIED,), AccountEvent.DROPPED, _CONTRADICTED, _nothing_more),
    ValuesTransition(_ANY_VALUES, AccountEvent.REQUESTED, _DOWNLOADING, _begin),
    ValuesTransition(_ANY_VALUES, AccountEvent.DOWNLOAD_OVER, None, _note_end),
    ValuesTransition((_DOWNLOADING,), AccountEvent.COMPLETED, _WHOLE, _complete),
    ValuesTransition((_MISSING, _WHOLE), AccountEvent.COMPLETED, _WHOLE, _complete_late),
    ValuesTransition(_ANY_VALUES, AccountEvent.FAILED, _MISSING, _fail),
    ValuesTransition((_DOWNLOADING,), AccountEvent.CANCELLED, _MISSING, _make_due),
    ValuesTransition((_MISSING, _DOWNLOADING), AccountEvent.SPOILED, None, _spoil),
    ValuesTransition((_WHOLE,), AccountEvent.SPOILED, _MISSING, _spoil_whole),
    ValuesTransition(_ANY_VALUES, AccountEvent.END_CAME, None, _take_end),
    ValuesTransition(_ANY_VALUES, AccountEvent.DUE, None, _make_due),
    ValuesTransition(_ANY_VALUES, AccountEvent.RESTORED, None, _make_waiting_due),
    ValuesTransition(_ANY_VALUES, AccountEvent.DROPPED, _MISSING, _forget_values),
)

OF_POSITIONS = {
    (state, row.event): row
    for row in TABLE
    if isinstance(row, PositionsTransition)
    for state in row.states
}
OF_VALUES = {
    (state, row.event): row
    for row in TABLE
    if isinstance(row, ValuesTransition)
    for state in row.states
}


class AccountStates:
    """The accounts of a login, each with its state.

    Args:
        accounts: Their names.
        lasts_s: As in `AccountState`.
        second_s: As in `AccountState`.
    """

    def __init__(self, accounts: Iterable[str], *, lasts_s: float, second_s: float) -> None:
        new = AccountState(lasts_s=lasts_s, second_s=second_s)
        self._states = dict.fromkeys(accounts, new)

    def __getitem__(self, account: str) -> AccountState:
        return self._states[account]

    def __contains__(self, account: object) -> bool:
        return account in self._states

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    @property
    def doubted(self) -> list[str]:
        """Return the accounts whose holdings are in doubt, sorted."""
        return sorted(filter(self.is_doubted, self._states))

    def is_doubted(self, account: str) -> bool:
        """Return whether the holdings of an account are in doubt."""
        return account in self._states and self._states[account].is_doubted

    def overdue(self, now_s: float) -> list[str]:
        """Return the accounts whose values should be requested again now."""
        return [account for account, state in self._states.items() if state.is_overdue(now_s)]

    def need_second_list(self, now_s: float) -> bool:
        """Return whether a second list of the positions should be requested now."""
        return any(state.needs_second_list(now_s) for state in self._states.values())

    def take_list(self, account: str, now_s: float, *, is_emptied: bool) -> None:
        """Record a whole list; see `AccountState.after_list`."""
        self._states[account] = self._states[account].after_list(now_s, is_emptied=is_emptied)

    def record(self, account: str, event: AccountEvent, now_s: float, **what: Any) -> None:
        """Record an event of an account; `what` are the arguments of `AccountState.after`."""
        self._states[account] = self._states[account].after(event, now_s, **what)

    def record_all(self, event: AccountEvent, now_s: float) -> None:
        """Record an event of every account."""
        for account in self._states:
            self.record(account, event, now_s)
