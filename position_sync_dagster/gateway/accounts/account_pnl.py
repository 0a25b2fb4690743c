"""The profit and loss of whole accounts: one subscription each, tried again while it is refused."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from random import Random

from ib_async import IB, PnL

from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway.codes import is_notice
from position_sync_dagster.gateway.ib_async_internals.requests import (
    account_pnl_request,
    forget_account_pnl,
)

NEW_AT_ONCE = 10
"""So many accounts are subscribed in one step: the gateway takes 50 messages a second, and market
data come first."""

LONGEST_S = 900.0
JITTER = (0.8, 1.2)


@dataclass(slots=True)
class _Subscription:
    """The state of one account.

    Attributes:
        due_at: When it is requested, or requested again, unless it speaks before.
        attempts: Requests in a row that brought no value.
    """

    due_at: float = -inf
    attempts: int = 0


class AccountPnlSubscriptions:
    """Keeps one `reqPnL` for each account.

    A subscription that is refused, or that says nothing, is requested again after a delay that
    doubles each time. ib_async refuses a second request of the same account until the first one is
    cancelled or forgotten.

    Args:
        on_pnl: Called with each message.
        on_refused: Called with an account whose subscription ended with an error.
        silence_s: The first delay, in seconds.
    """

    def __init__(
        self,
        ib: IB,
        accounts: Iterable[str],
        *,
        on_pnl: Callable[[PnL], None],
        on_refused: Callable[[str], None],
        silence_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self._ib = ib
        self._subscriptions = {account: _Subscription() for account in accounts}
        self._on_pnl = on_pnl
        self._on_refused = on_refused
        self._backoff = Backoff(first_s=silence_s, longest_s=LONGEST_S, jitter=JITTER)
        self._monotonic = monotonic
        self._random = random or Random()  # noqa: S311 - jitter of a delay
        ib.pnlEvent += self._on_message
        ib.errorEvent += self._on_error

    def step(self) -> None:
        """Request the accounts that are due, the next few of them."""
        if not self._ib.isConnected():
            return
        now = self._monotonic()
        due = [account for account, one in self._subscriptions.items() if one.due_at <= now]
        for account in due[:NEW_AT_ONCE]:
            self._request(account)

    def restored(self) -> None:
        """Expect a message of each account: one that stays silent is requested again."""
        for one in self._subscriptions.values():
            one.attempts = max(one.attempts, 1)
            one.due_at = min(one.due_at, self._monotonic() + self._delay_s(one))

    def dropped(self) -> None:
        """Make all of them due: the gateway dropped them (code 1101)."""
        for account in self._subscriptions:
            forget_account_pnl(self._ib, account)
            self._subscriptions[account] = _Subscription()

    def _request(self, account: str) -> None:
        if account_pnl_request(self._ib, account) is not None:
            self._ib.cancelPnL(account)
        self._ib.reqPnL(account)
        one = self._subscriptions[account]
        one.attempts += 1
        one.due_at = self._monotonic() + self._delay_s(one)

    def _delay_s(self, one: _Subscription) -> float:
        return self._backoff.delay_s(one.attempts, self._random)

    def _on_message(self, pnl: PnL) -> None:
        one = self._subscriptions.get(pnl.account)
        if one is not None and not pnl.modelCode:
            one.due_at, one.attempts = inf, 0
            self._on_pnl(pnl)

    def _on_error(self, request: int, code: int, _text: str, _contract: object) -> None:
        if request < 0 or is_notice(code):
            return
        for account, one in self._subscriptions.items():
            if account_pnl_request(self._ib, account) == request:
                # Without a cancel: the gateway knows the request no more, and would answer 300.
                forget_account_pnl(self._ib, account)
                one.attempts = max(one.attempts, 1)
                one.due_at = self._monotonic() + self._delay_s(one)
                self._on_refused(account)
