"""What is known of one account, and how long each part of it is awaited; pure.

It has a list of positions, and portfolio values.

After a restart, gateways have answered with a list of positions that ends properly and is empty
(thetagang issues/272). Therefore a list that names no holding of an account does not count by
itself: the account is in doubt, and the holdings stay as they were until a second one, some time
later, says the same. If something speaks against the first list in between, that is contradicted:
the next list that empties the account is a first one again.

The values come in downloads. A download is whole if its end came and nothing spoiled it, such as a
row that could not be read, or a loss of IB. Then they are current until the next one begins, or the
subscription, if it stays open, ends or is spoiled.

Times in seconds are those of a monotonic clock that the caller reads.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.holding import Completeness, Key
from position_sync_dagster.domain.retry import Backoff

# How often a gateway sends an account's values by itself. Source: IB, "Account Updates" (every
# three minutes).
ACCOUNT_INTERVAL_S = 180.0

# After so many intervals without a message, or without a row, an open subscription is silent.
SILENT_INTERVALS = 2

# After so many silent seconds a download of an account is over, also without its end message.
# The account is PARTIAL then, and is downloaded again later.
ACCOUNT_QUIET_S = 5.0

# A download that neither ends nor falls silent is given up after this many timeouts.
LONGEST_TIMEOUTS = 4

# How long after its request an end may come late, for an account whose name no end has. It is
# shorter than the delays between requests become (`ACCOUNT_AGAIN`): one end that never comes does
# not take the ends of the other accounts for ever.
LATE_END = timedelta(minutes=1)

# A list of positions that empties an account counts when a second list says the same so many
# seconds later: gateways send empty lists after a restart.
SECOND_LIST_S = 30.0

# Delays before an account is requested again because its download did not end, or its subscription
# ended soon after the download. After a subscription that lasted there is none.
ACCOUNT_AGAIN = Backoff(first_s=15.0, longest_s=300.0, jitter=(1.0, 1.2))


@dataclass(slots=True, kw_only=True)
class AccountState:
    """One account of a login; each method records what happened to it.

    Attributes:
        emptied_at_s: When the first list that emptied it came; None: the newest list counts.
        is_contradicted: Something since then speaks against that list: the next one is a first one
            again.
        whole_since_s: When its download ended whole, if its values are current.
        is_covered: The newest download that has ended was whole, and nothing came since that speaks
            against it.
        confirmed_at: When the broker last confirmed all of its holdings.
        problem: Why its newest download or subscription failed; None: it did not.
        again_at_s: When it is overdue; infinite while it waits for nothing.
        failures: Requests in a row that brought no lasting values.
        requested_at: When its newest download began.
        ended_at: When its newest download ended, also if the gateway refused it.
        spoiled: Why what came since its request is not whole.
        end_is_due: No end has come since its request: a late one may still come.

    >>> account = AccountState()
    >>> account.take_list(0.0, is_emptied=True)
    >>> account.is_doubted
    True
    >>> account.take_list(30.0, is_emptied=True)
    >>> account.is_doubted
    False
    """

    emptied_at_s: float | None = None
    is_contradicted: bool = False
    whole_since_s: float | None = None
    is_covered: bool = False
    confirmed_at: datetime | None = None
    problem: str | None = None
    again_at_s: float = math.inf
    failures: int = 0
    requested_at: datetime = NEVER
    ended_at: datetime | None = None
    spoiled: str | None = None
    end_is_due: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the newest download that was begun has ended whole, and its values are current.

        While one runs it is not; `is_covered` stays as the download before left it.
        """
        return self.whole_since_s is not None

    @property
    def is_doubted(self) -> bool:
        """Whether its holdings are in doubt: one list emptied it."""
        return self.emptied_at_s is not None

    def needs_second_list(self, now_s: float) -> bool:
        """Return whether a second list should be requested now."""
        return self.emptied_at_s is not None and now_s - self.emptied_at_s >= SECOND_LIST_S

    # Its list of positions.

    def take_list(self, now_s: float, *, is_emptied: bool) -> None:
        """Record a whole list of the positions.

        A second list that empties it ends the doubt after `SECOND_LIST_S`; sooner it shows nothing.

        Args:
            now_s: When it ended.
            is_emptied: Whether the account holds something, and the list names none of it.
        """
        is_first = self.emptied_at_s is None or self.is_contradicted
        if is_emptied and is_first:
            self.emptied_at_s = now_s
            self.is_contradicted = False
        elif not is_emptied or self.needs_second_list(now_s):
            self.end_doubt()

    def contradict(self) -> None:
        """Record what speaks against the list that emptied it, if one did.

        That is a row of an open holding, or an interruption. The next such list is a first one.
        """
        self.is_contradicted = self.is_doubted

    def end_doubt(self) -> None:
        """End the doubt: the newest list names a holding, is the second one, or all are closed."""
        self.emptied_at_s = None
        self.is_contradicted = False

    # Its values.

    def begin(self, at: datetime) -> None:
        """Begin a download of what is due now; what becomes due later is for the next one."""
        self.requested_at = at
        self.again_at_s = math.inf
        self.whole_since_s = None
        self.spoiled = None
        self.end_is_due = True

    def awaited_until_s(
        self, *, began_s: float, heard_s: float, has_spoken: bool, timeout_s: float
    ) -> float:
        """Return when its download is over without an end, unless a message comes before.

        The first message is awaited for `timeout_s`, each later one for `ACCOUNT_QUIET_S`; so is
        the first one if the account did not answer the last time. No download takes longer than
        `LONGEST_TIMEOUTS` times `timeout_s`.

        Args:
            began_s: When the download was requested.
            heard_s: When its newest message came, or it was requested.
            has_spoken: Whether a message of it came.
            timeout_s: The longest wait for one answer of the gateway.
        """
        patience_s = ACCOUNT_QUIET_S if has_spoken or self.failures else timeout_s
        return min(heard_s + patience_s, began_s + LONGEST_TIMEOUTS * timeout_s)

    def may_end_late(self, now: datetime) -> bool:
        """Return whether an end that names no account may be that of its last download."""
        return self.end_is_due and self.requested_at > now - LATE_END

    def complete(self, now_s: float, *, stays_open: bool, is_late: bool = False) -> None:
        """Count its values.

        Args:
            now_s: When its download ended whole.
            stays_open: Whether the subscription stays open; then its failures are forgotten once it
                has lasted (`fail`), not yet.
            is_late: Whether nothing waited for the end any more: the request that was to follow is
                not needed.
        """
        self.whole_since_s = now_s
        self.is_covered = True
        self.problem = None
        if not stays_open:
            self.failures = 0
        if is_late:
            self.again_at_s = math.inf

    def fail(self, now_s: float, why: str, random: Random | None = None) -> None:
        """Request its values again later; at once after a subscription that lasted.

        It lasted if it was current for `ACCOUNT_INTERVAL_S`. Without failures there is no delay.

        Args:
            now_s: When the download failed, or the subscription ended.
            why: Why the values are not whole, for people.
            random: Draws the jitter of the delay before the next request.
        """
        since_s = self.whole_since_s
        has_lasted = since_s is not None and now_s - since_s >= ACCOUNT_INTERVAL_S
        self.failures = 0 if has_lasted else self.failures + 1
        self.again_at_s = now_s + ACCOUNT_AGAIN.delay_s(self.failures, random)
        self.whole_since_s = None
        self.is_covered = False
        self.problem = why

    def spoil(self, now_s: float, why: str, random: Random | None = None) -> None:
        """Record that what came since its request is not whole."""
        self.spoiled = why
        self.is_covered = False
        if self.is_whole:  # its download has ended: no end comes at which it would fail
            self.fail(now_s, why, random)

    def restore(self, now_s: float) -> None:
        """Request at once what waits for its next request: the gateway has IB again."""
        if self.again_at_s != math.inf:
            self.again_at_s = now_s

    def drop(self) -> None:
        """Forget its values: the gateway dropped every subscription.

        Nothing of it is due: an account without `ended_at` is downloaded in any case.
        """
        self.contradict()  # a doubt stays, and the next list that empties it is a first one
        self.whole_since_s = None
        self.is_covered = False
        self.confirmed_at = None
        self.problem = None
        self.again_at_s = math.inf
        self.failures = 0
        self.ended_at = None
        self.spoiled = None
        self.end_is_due = False


class AccountStates(dict[str, AccountState]):
    """The accounts of a login by their names, each with its state.

    Attributes:
        listed_at: When the newest list of positions arrived whole; None: none is valid.
        odd_rows: Why the newest row of a holding cannot be used, by account, also of other logins',
            and conid.
    """

    def __init__(self, accounts: Iterable[str]) -> None:
        super().__init__((account, AccountState()) for account in accounts)
        self.listed_at: datetime | None = None
        self.odd_rows: defaultdict[str, dict[int, str]] = defaultdict(dict)

    def completeness(self, account: str) -> Completeness:
        """Return how much of an account the broker has confirmed.

        Without a whole list of positions, or in doubt, it is UNKNOWN. It is COMPLETE after a whole
        download, while each row of it can be used; else PARTIAL.
        """
        state = self[account]
        if self.listed_at is None or state.is_doubted:
            return Completeness.UNKNOWN
        if state.is_covered and not self.odd_rows[account]:
            return Completeness.COMPLETE
        return Completeness.PARTIAL

    @property
    def set_aside(self) -> dict[Key, str]:
        """Why the holdings of `odd_rows` are set aside."""
        return {
            (account, conid): why
            for account, rows in self.odd_rows.items()
            for conid, why in rows.items()
        }

    def drop(self) -> None:
        """Forget what the broker said of them: the gateway dropped every subscription."""
        self.listed_at = None
        for state in self.values():
            state.drop()

    @property
    def doubted(self) -> list[str]:
        """Return the accounts whose holdings are in doubt, sorted."""
        return sorted(account for account, state in self.items() if state.is_doubted)

    def overdue(self, now_s: float) -> list[str]:
        """Return the accounts whose values should be requested again now."""
        return [account for account, state in self.items() if state.again_at_s <= now_s]
