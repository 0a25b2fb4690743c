"""Subscriptions to profit and loss, which take no line: of accounts, and of single holdings.

One that is refused, or that brings no message, is requested again.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from random import Random

from ib_async import IB, PnL

from position_sync_dagster.domain.broker_position import Key, key_of
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway import ib_async_internals
from position_sync_dagster.gateway.accounts.holdings import HoldingsBook, PnlValues
from position_sync_dagster.gateway.changes import ChangeNotifier, PendingChanges
from position_sync_dagster.gateway.codes import MessageType, is_notice
from position_sync_dagster.gateway.ib_async_internals import account_pnl_request, forget_account_pnl

NEW_AT_ONCE = 10
"""Maximum number of accounts subscribed in one step: the gateway takes 50 messages a second, and
market data come first."""

LONGEST_S = 900.0
JITTER = (0.8, 1.2)


@dataclass(slots=True)
class _Subscription:
    """The state of one account.

    Attributes:
        due_at: When it is requested, or requested again unless a message comes before.
        attempts: Requests in a row that brought no value.
    """

    due_at: float = -inf
    attempts: int = 0


class AccountPnlSubscriptions:
    """Keeps one `reqPnL` for each account.

    A subscription that is refused, or that brings no message, is requested again after a delay
    that doubles each time. ib_async refuses a second request of the same account until the first
    one is cancelled or forgotten.

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
    ) -> None:
        self._ib = ib
        self._subscriptions = {account: _Subscription() for account in accounts}
        self._on_pnl = on_pnl
        self._on_refused = on_refused
        self._backoff = Backoff(first_s=silence_s, longest_s=LONGEST_S, jitter=JITTER)
        self._random = Random()  # noqa: S311 - jitter of a delay
        ib.pnlEvent += self._on_message
        ib.errorEvent += self._on_error

    def step(self) -> None:
        """Request the accounts that are due, the next few of them."""
        if not self._ib.isConnected():
            return
        now = time.monotonic()
        due = [account for account, one in self._subscriptions.items() if one.due_at <= now]
        for account in due[:NEW_AT_ONCE]:
            self._request(account)

    def restored(self) -> None:
        """Expect a message of each account; an account without one is requested again."""
        for one in self._subscriptions.values():
            one.attempts = max(one.attempts, 1)
            one.due_at = min(one.due_at, time.monotonic() + self._delay_s(one))

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
        one.due_at = time.monotonic() + self._delay_s(one)

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
                # No cancel: the gateway has forgotten the request, and would answer 300.
                forget_account_pnl(self._ib, account)
                one.attempts = max(one.attempts, 1)
                one.due_at = time.monotonic() + self._delay_s(one)
                self._on_refused(account)


PNL_VALUE = 6
"""The place of the value among the fields of a PnLSingle message; it is the last that is read."""


class PnlSubscriptions:
    """Subscribes to the values of some holdings, which come about once a second, without a line.

    The gateway sends nothing for a conid that is not held, and DBL_MAX for a value that it does
    not know (recorded: ibkr-go pnl_single.txt). ib_async refuses a second subscription of the same
    key until the first is cancelled: hence the set.

    Args:
        ib: The connection.
        book: Gets the values.
    """

    def __init__(self, ib: IB, book: HoldingsBook) -> None:
        self._ib = ib
        self._book = book
        self._requests: dict[str, Key] = {}
        self._keys: frozenset[Key] = frozenset()
        self._wanted: dict[object, frozenset[Key]] = {}
        self._fresh = False
        self._valued: ChangeNotifier[Key, None] = ChangeNotifier()
        ib_async_internals.read_messages(ib, MessageType.PNL_SINGLE, self._read)

    @property
    def keys(self) -> frozenset[Key]:
        """Return the (account, conid) that are subscribed: the same object until it changes."""
        return self._keys

    def keep(self, owner: object, keys: Iterable[Key]) -> None:
        """Subscribe to exactly these holdings for an owner, besides those of other owners."""
        self._wanted[owner] = frozenset(keys)
        wanted = frozenset().union(*self._wanted.values())
        if wanted == self._keys:
            return
        ended = self._keys - wanted
        if ended:
            self._requests = {sent: key for sent, key in self._requests.items() if key in wanted}
        for account, conid in sorted(ended):
            self._ib.cancelPnLSingle(account, "", conid)
            self._book.clear_daily_pnl((account, conid))
        for account, conid in sorted(wanted - self._keys):
            self._ib.reqPnLSingle(account, "", conid)
            request = ib_async_internals.pnl_single_request(self._ib, account, conid)
            self._requests[str(request)] = key_of(account, conid)
        self._keys = wanted

    def release(self, owner: object) -> None:
        """Cancel the subscriptions that only this owner wanted."""
        if self._wanted.pop(owner, None) and self._ib.isConnected():
            self.keep(self, ())

    def dropped(self) -> None:
        """Forget all of them: the gateway dropped them (code 1101).

        Sends nothing: positions and lines are requested first, then `keep` subscribes again.
        """
        for account, conid in self._keys:
            ib_async_internals.forget_pnl_single(self._ib, account, conid)
            self._book.clear_daily_pnl((account, conid))
        self._keys, self._requests = frozenset(), {}

    def watch(self) -> PendingChanges[Key, None]:
        """Collect from now on which holdings get a new profit or value."""
        return self._valued.watch()

    def take_fresh(self) -> bool:
        """Return whether a message came since the last call."""
        fresh, self._fresh = self._fresh, False
        return fresh

    def _read(self, fields: list[str]) -> bool:
        key = self._requests.get(fields[1]) if len(fields) > PNL_VALUE else None
        if key is None:
            return False
        try:
            sent = PnlValues(*[float(text or 0) for text in fields[2 : PNL_VALUE + 1]])
        except ValueError:
            return False
        self._fresh = True
        if self._book.put_pnl(key, sent):
            self._valued.note(key, None)
        return True
