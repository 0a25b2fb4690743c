"""Subscriptions that take no line: PnLSingle of holdings, and PnL of accounts with their values.

A subscription to profits that is refused, brings no message, or falls silent is due: it is
requested again, each time after a longer delay, until a message comes that counts.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from math import inf
from random import Random
from typing import Any, Generic, TypeVar

from ib_async import IB, AccountValue

from position_sync_dagster.domain import line
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway import codes, ib_async_internals, translate
from position_sync_dagster.gateway.codes import ACCOUNT_READY, MessageType
from position_sync_dagster.gateway.holdings import HoldingsBook, PnlValues
from position_sync_dagster.gateway.login import Login

# A subscription to profits that is silent for so long may have ended without a notice.
PROFIT_SILENCE_S = 900.0


# The code of a model, of which a whole account or holding has none.
NO_MODEL = ""


@dataclass(slots=True, eq=False)
class Subscription:
    """When the profits of one holding or account are requested, and requested again.

    Attributes:
        key: Account and conid; the conid of a whole account is 0.
        due_at_s: When it is requested; once it is, when it is requested again unless a message that
            counts comes before. In monotonic seconds.
        attempts: Requests in a row that brought no value; 0 once one has.
        request: The id of its request as sent; None while the gateway has none.
    """

    key: Key
    due_at_s: float = -inf
    attempts: int = 0
    request: str | None = None


Sub = TypeVar("Sub", bound=Subscription)


class ProfitSubscriptions(ABC, Generic[Sub]):
    """Subscriptions to profits that are requested until messages come, and again without them.

    One that is refused or silent, or whose values do not count, is requested again after a delay
    that doubles each time. In a subclass `_take` keeps the values of a message, and `_ended`
    forgets those of a subscription.

    Args:
        ib: The connection.
        kind: The type of its messages.
        values: The number of values in each of them.
        send: Sends a request by its id, for an account and a conid.
        withdraw: Cancels a request.
    """

    def __init__(
        self,
        ib: IB,
        kind: MessageType,
        values: int,
        send: Callable[[int, str, int], None],
        withdraw: Callable[[int], None],
    ) -> None:
        self._ib = ib
        self._send = send
        self._withdraw = withdraw
        # The fields of a whole message: the values stand behind its type and the id of its request.
        self._length = 2 + values
        self._backoff = Backoff(first_s=line.LINE_SILENCE_S, longest_s=900.0, jitter=(0.8, 1.2))
        self._random = Random()  # noqa: S311 - jitter of a delay
        # In the order of requests; `PnlSubscriptions` has them by holding, `AccountSummaries` by
        # account.
        self._all: dict[Any, Sub] = {}
        self._by_request: dict[str, Sub] = {}  # those that the gateway has
        ib_async_internals.read_messages(ib, kind, self._read)
        ib.errorEvent += self._on_error

    def restored(self) -> None:
        """Expect a message of each: one without is requested again (code 1102)."""
        for subscription in self._all.values():
            self._expect(subscription)

    def dropped(self) -> None:
        """Forget all of them: the gateway dropped them (code 1101).

        Nothing is requested here: positions and lines are requested first. A request whose value is
        awaited is cancelled: if it reached the gateway after the drop, it still runs.
        """
        for subscription in self._all.values():
            if subscription.attempts:  # its value is awaited
                self._cancel(subscription)
            self._ended(subscription)
        self._all.clear()
        self._by_request.clear()

    @abstractmethod
    def _take(self, subscription: Sub, sent: list[float]) -> bool:
        """Take the values of a message, and return whether they count."""

    @abstractmethod
    def _ended(self, subscription: Sub) -> None:
        """Forget the values of a request that the gateway has ended."""

    def _request_due(self, most: int) -> None:
        """Request the first that are due, in place of their requests before, if any.

        Args:
            most: How many at most.
        """
        now = time.monotonic()
        due = (subscription for subscription in self._all.values() if subscription.due_at_s <= now)
        for subscription in list(islice(due, most)):
            self._cancel(subscription)
            request = self._ib.client.getReqId()
            self._send(request, *subscription.key)
            subscription.request = str(request)
            self._by_request[subscription.request] = subscription
            subscription.attempts += 1
            self._postpone(subscription)

    def _expect(self, subscription: Sub) -> None:
        """Make it due after a delay at the latest, unless a message that counts comes before.

        One that is not requested yet is due as it was.
        """
        if subscription.request is None:
            return
        before = subscription.due_at_s
        self._postpone(subscription)
        subscription.due_at_s = min(before, subscription.due_at_s)

    def _postpone(self, subscription: Sub) -> None:
        """Make it due after the delay of its attempts."""
        subscription.attempts = max(subscription.attempts, 1)  # without any it would be due now
        subscription.due_at_s = time.monotonic() + self._backoff.delay_s(
            subscription.attempts, self._random
        )

    def _cancel(self, subscription: Sub) -> None:
        """Cancel its request, if the gateway has one."""
        if subscription.request is not None:
            self._withdraw(int(subscription.request))
            del self._by_request[subscription.request]
            subscription.request = None

    def _read(self, fields: list[str]) -> bool:
        """Take the values of a message; False: it is malformed, or of no subscription here."""
        subscription = self._by_request.get(fields[1]) if len(fields) >= self._length else None
        if subscription is None:
            return False
        try:
            sent = [float(text or translate.UNSET) for text in fields[2 : self._length]]
        except ValueError:
            return False
        if self._take(subscription, sent):
            subscription.due_at_s = time.monotonic() + PROFIT_SILENCE_S
            subscription.attempts = 0
        elif not subscription.attempts:  # the first that does not count, after some that did
            self._expect(subscription)
        return True

    def _on_error(self, request: int, code: int, _text: str, _contract: object) -> None:
        """Request a subscription again later that the gateway refused, and forget its values."""
        if codes.is_notice(code):
            return
        subscription = self._by_request.pop(str(request), None)
        if subscription is not None:
            # No cancel: the gateway has forgotten it, and would answer 300.
            subscription.request = None
            self._postpone(subscription)
            self._ended(subscription)


# Maximum number of holdings requested in one step: half of what the whole process may send in a
# second. None is requested while other messages wait to be sent.
HOLDINGS_AT_ONCE = 20


class PnlSubscriptions(ProfitSubscriptions[Subscription]):
    """Subscribes to the values of some holdings, which come about once a second, without a line.

    The gateway sends nothing for a conid that is not held, and DBL_MAX for a value that it does
    not know (recorded: ibkr-go pnl_single.txt).

    Args:
        ib: The connection.
        book: Gets the values.

    Attributes:
        has_news: Whether a message came that counts, for the publication, which sets it back.
        valued: The holdings of which one came, for the flush, which empties it.
    """

    def __init__(self, ib: IB, book: HoldingsBook) -> None:
        client = ib.client
        super().__init__(
            ib,
            MessageType.PNL_SINGLE,
            len(PnlValues._fields),
            lambda request, account, conid: client.reqPnLSingle(request, account, NO_MODEL, conid),
            client.cancelPnLSingle,
        )
        self._book = book
        self.has_news = False
        self.valued: set[Key] = set()

    @property
    def keys(self) -> frozenset[Key]:
        """Return the (account, conid) that are subscribed or requested."""
        return frozenset(subscription.key for subscription in self._by_request.values())

    def keep(self, keys: Iterable[Key]) -> None:
        """Subscribe to exactly these holdings, the most important ones first.

        What nobody wants any more is cancelled, and its values are forgotten. `step` sends the
        requests. Nothing is cancelled on a connection that ended: its requests ended with it, and a
        new one has subscriptions of its own.
        """
        before = self._all
        self._all = {key: before.pop(key, Subscription(key)) for key in dict.fromkeys(keys)}
        if self._ib.isConnected():
            for unwanted in before.values():
                self._cancel(unwanted)
                self._ended(unwanted)

    def step(self) -> None:
        """Request what is due, and soon those of which PnLSingle missed a move (`Profit`)."""
        if not self._ib.isConnected():
            return
        for key in self._book.missed.take() & self._all.keys():
            self._expect(self._all[key])
        if not ib_async_internals.unsent_messages(self._ib):  # they are more urgent
            self._request_due(HOLDINGS_AT_ONCE)

    def dropped(self) -> None:
        """Forget the values of all of them, which `step` requests anew (code 1101)."""
        wanted = list(self._all)
        super().dropped()
        self.keep(wanted)

    def restored(self) -> None:
        """Expect a message of each: one without is requested again (code 1102).

        Until the message comes, the daily profit from before the interruption does not count.
        """
        for key in self._all:
            self._book.forget_pnl(key)
        super().restored()

    def _take(self, subscription: Subscription, sent: list[float]) -> bool:
        """Take the values of a message into the book; return whether they count there."""
        counts = self._book.put_pnl(subscription.key, PnlValues(*sent))
        if counts:
            self.has_news = True
            self.valued.add(subscription.key)
        return counts

    def _ended(self, subscription: Subscription) -> None:
        self._book.forget_pnl(subscription.key)


# Maximum number of accounts subscribed in one step: the gateway takes 50 messages a second, and
# market data come first.
NEW_AT_ONCE = 10

# Its currency is the base currency of the account.
NET_LIQUIDATION = "NetLiquidation"

# The key of an exchange rate, in the base currency, which comes once for each currency of the
# ledger. [D: "Account Value Keys"]
EXCHANGE_RATE = "ExchangeRate"

# The tags of message 6 that are kept, each with its column. They come in the base currency of the
# account only. The tags of the ledger come by currency and as `BASE`, the sum; only the rate is
# read of them. [D: "Account Value Keys"]
TAGS = {
    NET_LIQUIDATION: "net_liquidation",
    "TotalCashValue": "cash",
    "AvailableFunds": "available_funds",
    "MaintMarginReq": "maintenance_margin",
    "ExcessLiquidity": "excess_liquidity",
    "InitMarginReq": "initial_margin",
}


@dataclass(slots=True, eq=False)
class _Account(Subscription):
    """The values of one account, and its request for profit and loss.

    Attributes:
        values: Amount and currency, by tag.
        values_at: When the newest of them was received.
        rates: The exchange rate of each currency, and when it was received.
        pnl: The daily, unrealized and realized profit.
        pnl_at: When it was received; None: it is unknown.
        is_answered: Whether the request for the profit and loss was answered or refused.
        is_ready: Whether the values that come are valid.
    """

    values: dict[str, tuple[float | None, str]] = field(default_factory=dict)
    values_at: datetime | None = None
    rates: dict[str, tuple[float, datetime]] = field(default_factory=dict)
    pnl: tuple[float | None, ...] = (None, None, None)
    pnl_at: datetime | None = None
    is_answered: bool = False
    is_ready: bool = True


class AccountSummaries(ProfitSubscriptions[_Account]):
    """Keeps the account values and the profit and loss of each account, without reqAccountSummary.

    Nothing is requested before `subscribe`. Values from before the gateway dropped every
    subscription are forgotten. Messages that arrive while the gateway has lost IB are old and are
    ignored. So are values that IB calls not ready. Each account has one `reqPnL`.
    """

    def __init__(self, login: Login) -> None:
        self._login = login
        client = login.ib.client
        super().__init__(
            login.ib,
            MessageType.PNL,
            3,  # the daily, the unrealized and the realized profit
            lambda request, account, _conid: client.reqPnL(request, account, NO_MODEL),
            client.cancelPnL,
        )
        self._start_anew()
        login.ib.accountValueEvent += self._on_value

    def _start_anew(self) -> None:
        """Forget what came, and wait for first answers from now on; nothing is requested here."""
        self._all = {account: _Account((account, 0)) for account in self._login.accounts}
        self._since = time.monotonic()  # `current` waits for first answers from here on

    def subscribe(self) -> None:
        """Request the profit and loss of the next few accounts that are due; call it now and then.

        None is requested without a connection.
        """
        if self._ib.isConnected():
            self._request_due(NEW_AT_ONCE)

    def dropped(self) -> None:
        """Forget everything: the gateway dropped every subscription (1101)."""
        super().dropped()
        self._start_anew()

    def current(self) -> list[AccountSummary]:
        """Return the values of each account whose first answers have arrived.

        A row before that would show a known net liquidation as null for a moment. After the longest
        wait for an answer, accounts without them are returned too, as far as they are known.
        """
        has_waited = time.monotonic() - self._since >= self._login.timeout_s
        summaries = [
            self._summary(account)
            for account in self._all.values()
            if has_waited or (account.is_answered and account.values_at is not None)
        ]
        return [summary for summary in summaries if summary.is_known]

    def _summary(self, account: _Account) -> AccountSummary:
        """Return the values of an account, as far as they are in its base currency."""
        _, currency = account.values.get(NET_LIQUIDATION, (None, None))
        amounts: dict[str, Any] = {
            TAGS[tag]: amount for tag, (amount, unit) in account.values.items() if unit == currency
        }
        daily_pnl, unrealized_pnl, realized_pnl = account.pnl

        rates = {unit: rate for unit, (rate, _at) in account.rates.items()}
        rate_times = [at for _rate, at in account.rates.values()]
        return AccountSummary(
            account=account.key[0],
            currency=currency,
            **amounts,
            daily_pnl=daily_pnl,
            unrealized_pnl=unrealized_pnl,
            realized_pnl=realized_pnl,
            timestamp=utc_now(),
            exchange_rates=json.dumps(rates, sort_keys=True) if rates else None,
            rates_received_at=min(rate_times, default=None),
            values_received_at=account.values_at if currency is not None else None,
            pnl_received_at=account.pnl_at,
            gateway_id=self._login.settings.gateway_id,
        )

    def _on_value(self, value: AccountValue) -> None:
        """Keep a value of the account feed (message 6), if it counts.

        A rate that cannot be read is unknown again.
        """
        # A model is a part of an account, made by an advisor.
        account = self._all.get(value.account)
        if account is None or value.modelCode or self._login.connectivity.lost is not None:
            return
        if value.tag == ACCOUNT_READY:
            account.is_ready = value.value != "false"
        # Without a currency it is no amount. `BASE` is the sum over the currencies of the account:
        # of the values by currency only the rates are read.
        if value.currency in ("", "BASE") or not account.is_ready:
            return

        if value.tag == EXCHANGE_RATE:
            rate = translate.number_of(value.value)
            if rate is not None and rate > 0:
                account.rates[value.currency] = (rate, utc_now())
            else:
                account.rates.pop(value.currency, None)
        elif value.tag in TAGS:
            account.values[value.tag] = (translate.number_of(value.value), value.currency)
            account.values_at = utc_now()

    def _take(self, account: _Account, sent: list[float]) -> bool:
        """Keep the profits of a message, unless the gateway had lost IB: they are old then."""
        if self._login.connectivity.lost is None:
            account.pnl = tuple(map(translate.known, sent))
            account.pnl_at = utc_now()
            account.is_answered = True
        return True  # an old one, too, shows that the subscription lives

    def _ended(self, account: _Account) -> None:
        """Forget the profits; a refusal is an answer, and no other is waited for."""
        account.pnl = (None, None, None)
        account.pnl_at = None
        account.is_answered = True
