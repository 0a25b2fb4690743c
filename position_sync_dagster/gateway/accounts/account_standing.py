"""Which accounts have current values, why others have none, and when to request those again."""

import time
from collections import Counter
from collections.abc import Callable
from random import Random

from position_sync_dagster.domain.retry import Backoff

AGAIN = Backoff(first_s=15.0, longest_s=300.0, jitter=(1.0, 1.2))
"""Waits until an account is requested again whose download did not end, or whose subscription ended
soon after its download. The first request after a subscription that lasted has no delay."""


class AccountStanding:
    """Keeps, for each account, whether its newest download is whole and what is wrong otherwise.

    Args:
        lasts_s: A subscription that lasted so long was a good one.
        random: The jitter of the waits.
        monotonic: The clock of the waits, in seconds.
    """

    def __init__(
        self,
        *,
        lasts_s: float,
        random: Random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lasts_s = lasts_s
        self._random = random
        self._monotonic = monotonic
        self._whole_since: dict[str, float] = {}
        self._problems: dict[str, str] = {}
        self._failures: Counter[str] = Counter()
        self._again_at: dict[str, float] = {}

    @property
    def overdue(self) -> list[str]:
        """Return the accounts that should be requested again now."""
        now = self._monotonic()
        return [account for account, at in self._again_at.items() if at <= now]

    @property
    def problems(self) -> list[str]:
        """Return why accounts have no current values, by account."""
        return [f"account {account}: {why}" for account, why in sorted(self._problems.items())]

    def is_whole(self, account: str | None) -> bool:
        """Return whether the newest download of an account ended, and nothing ended it since."""
        return account in self._whole_since

    def has_failed(self, account: str) -> bool:
        """Return whether the last request of an account was in vain."""
        return self._failures[account] > 0

    def invalidate(self) -> None:
        """Forget what is whole, and what is not: the gateway dropped every subscription."""
        self._whole_since.clear()
        self._problems.clear()
        self._again_at.clear()

    def retry_now(self) -> None:
        """Make every account overdue that waits to be requested again."""
        now = self._monotonic()
        self._again_at = dict.fromkeys(self._again_at, now)

    def begin(self, account: str) -> None:
        """Record that a download of an account begins."""
        self._whole_since.pop(account, None)

    def complete(self, account: str, *, stays_open: bool) -> None:
        """Record that a download ended whole.

        Args:
            account: The account.
            stays_open: Whether its subscription goes on. It has to last to be a success.
        """
        self._whole_since[account] = self._monotonic()
        self._problems.pop(account, None)
        self._again_at.pop(account, None)
        if not stays_open:
            self._failures.pop(account, None)

    def interrupt(self, account: str) -> None:
        """Record that nobody waits for a download any more: the account is overdue at once."""
        self._again_at[account] = self._monotonic()

    def fail(self, account: str, why: str) -> None:
        """Record that a download did not end whole."""
        self._failures[account] += 1
        self._await_again(account, why)

    def end(self, account: str, why: str) -> None:
        """Record that a subscription ended, after its download or in it."""
        whole_since = self._whole_since.pop(account, None)
        if whole_since is None:
            self.fail(account, why)
            return
        if self._monotonic() - whole_since >= self._lasts_s:
            self._failures[account] = 0
        self._await_again(account, why)
        self._failures[account] += 1

    def _await_again(self, account: str, why: str) -> None:
        delay_s = AGAIN.delay_s(self._failures[account], self._random)
        self._again_at[account] = self._monotonic() + delay_s
        self._problems[account] = why
