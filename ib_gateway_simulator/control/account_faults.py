"""Faults of positions and of the account feed."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any, get_args

from ib_gateway_simulator.accounts.download_ends import DownloadEnd
from ib_gateway_simulator.accounts.odd_row import OddRow
from ib_gateway_simulator.accounts.profit_and_loss import PnlAnswer, SingleAnswer
from ib_gateway_simulator.control.arguments import NotNegative, Sent, WholeNumber
from ib_gateway_simulator.control.readings import Readings
from ib_gateway_simulator.errors import ActionError
from ib_gateway_simulator.protocol.contract import Contract


class AccountFaults(Readings):
    """Changes what one gateway answers about accounts."""

    def silence_account(self, account: str, notice: bool = True) -> int:
        """End the feed of an account, and return how many clients had it.

        The clients get 2100, or with `notice` false not a word; in both cases no values, portfolio
        rows and times follow, and a new request works. 2100 is recorded by ibkr-go (pnl_single)
        and means that the client has no account data any more (IB, "System Message Codes"). A
        feed that ends as if it had been unsubscribed, without a notice, is reported in IbPy
        issues/12.
        """
        self._check_account(account)
        ended = self._gateway.accounts.updates.end_account(account, notice=notice)
        self._gateway.flush()
        return ended

    def download_end(
        self, account: str, delay_s: NotNegative | None = 0.0, blank: bool = False
    ) -> None:
        """Set when the end of an account's next downloads comes: `delay_s` after the last row.

        None means never. With `blank` the end has an empty account name. Two faults are reported:
        downloads without an end, for all but one account in five (ib_insync issues/303), and an
        end with an empty name (ib-ruby issues/9). A late end comes even if its client has requested
        another account since, and the client takes it for the end of that one (ib_async pull/165):
        this is the worst case. The end does not come after 1101 or when the feed of the account
        was silenced.
        """
        self._check_account(account)
        _check_delay(delay_s)
        end = DownloadEnd(delay_s=delay_s, blank=blank)
        self._gateway.accounts.updates.ends.set(account, end)

    def account_pnl(self, account: str, answer: PnlAnswer = "values") -> None:
        """Set how `reqPnL` of an account is answered, from its next message on.

        `unset`: with 1.7976931348623157E308 in each field, the gateway's "no value" (ib_insync
        issues/462, there of a position). `silent`: granted, and never
        answered. `refused`: with 321, also the subscriptions that run (321 is recorded for
        accounts that the login does not serve; it was never recorded that 321 ends a running one).
        """
        self._check_account(account)
        if answer not in get_args(PnlAnswer):
            known = ", ".join(get_args(PnlAnswer))
            raise ActionError("answer", f"{answer!r} is not one of {known}")
        self._gateway.profits.set_answer(account, answer)
        self._gateway.flush()

    def exchange_rate(self, currency: str, rate: NotNegative, account: str | None = None) -> None:
        """Set what a unit of a currency is worth in the base currency of one account, or of all.

        It comes with the next values of each account; 0 is a rate that the gateway does not know.
        Source of the tag ExchangeRate: IB, "Account Value Keys".
        """
        if account is not None:
            self._check_account(account)
        self._gateway.ledger.set_rate(currency, rate, account)

    def account_ready(self, account: str, ready: bool = False) -> None:
        """Send AccountReady as false with the next values of an account, and its amounts as 0.

        IB's server is then being reset, and the values that follow can be out of date or incorrect
        (IB, "Account Updates"). With `ready` the values are true again.
        """
        self._check_account(account)
        resetting = self._gateway.ledger.resetting
        if ready:
            resetting.discard(account)
        else:
            resetting.add(account)

    def position_pnl(
        self, account: str, conid: int | None = None, answer: SingleAnswer = "values"
    ) -> None:
        """Set how `reqPnLSingle` of a position, or of every position of an account, is answered.

        `unset`: with 1.7976931348623157E308 in each field (ib_insync issues/462). `silent`:
        granted, and never answered. `ended`: those that run send nothing more, and new requests
        work, as market data subscriptions after 1102 (nautilus_trader pull/3968). `refused`: with
        321, also those that run. `frozen`: each message repeats the last values. `yesterday`: the
        daily profit stays as it was, and the rest moves: TWS resets it by a schedule of its own
        (IB, "Profit and Loss"). `closed`: quantity and values are 0 while the lists name the
        position. `other`: another quantity than the lists. All but `unset` were never recorded.
        """
        self._check_account(account)
        if answer not in get_args(SingleAnswer):
            known = ", ".join(get_args(SingleAnswer))
            raise ActionError("answer", f"{answer!r} is not one of {known}")
        self._gateway.profits.set_single_answer(account, conid, answer)
        self._gateway.flush()

    def position_pnl_limit(self, limit: WholeNumber | None = None, refused: bool = True) -> None:
        """Run at most `limit` subscriptions of `reqPnLSingle`; None: any number.

        Further requests are refused with 321, or with `refused` false are never answered. No limit
        is published, and none was recorded.
        """
        if limit is not None and limit < 0:
            raise ActionError("limit", "a number of subscriptions is 0 or more")
        profits = self._gateway.profits
        profits.single_limit = limit
        profits.refuse_beyond = refused

    def portfolio_rows(self, account: str, sent: bool = True) -> None:
        """Send no portfolio row of an account; its downloads end all the same.

        Linked accounts may never send any (thetagang pull/646, ib_async issues/72). With `sent`
        they come again.
        """
        self._check_account(account)
        without = self._gateway.accounts.updates.without_rows
        if sent:
            without.discard(account)
        else:
            without.add(account)

    def positions_end(self, delay_s: NotNegative | None = 0.0, late_rows: WholeNumber = 0) -> None:
        """Set when the end of the next position lists comes: `delay_s` after the first rows.

        None means never. The last `late_rows` rows come only with the end. A client's next request
        is answered after the end: a client that stopped waiting and requests again first receives
        the tail of the previous list, which ib_async takes for the whole answer (its wrapper knows
        one request for positions at a time). Requests that often time out before their end are
        reported in ib_insync issues/689 and in Lean.Brokerages.InteractiveBrokers pull/13; their
        order was never recorded.
        """
        _check_delay(delay_s)
        if late_rows < 0:
            raise ActionError("late_rows", "a number of rows is 0 or more")
        positions = self._gateway.accounts.positions
        positions.end_delay_s = delay_s
        positions.late_rows = late_rows

    def empty_lists(self, account: str | None = None, empty: bool = True) -> None:
        """Name no holding of an account, or of any, in lists of positions and in downloads.

        They end properly, and every trade is sent as it happens. Empty lists of positions of an
        account that held some are reported after a restart of the gateway (thetagang issues/272).
        It was never recorded that its downloads are empty too: this is the worst case. With `empty`
        false lists and downloads name the holdings again.
        """
        if account is not None:
            self._check_account(account)
        names = self._gateway.accounts.names
        if account is not None:
            names = (account,)

        unlisted = self._gateway.accounts.rows.unlisted
        if empty:
            unlisted.update(names)
        else:
            unlisted.difference_update(names)

    def holding(
        self,
        account: str,
        conid: int,
        position: Sent,
        symbol: str | None = None,
        price: float | None = None,
    ) -> dict[str, Any]:
        """Send a row of a holding exactly as given, now and in every list, and return it.

        The row is sent to the subscribers of positions and of its account, and it is in each
        position list and account download. A row of an account that the login does not know (also
        an empty name) is in every download. The row replaces the holding of the same account and
        conid until that trades. Its other fields are those of the contract, or of the book's first
        option if the book does not know the conid. None as position removes the row.

        This can play a quantity that is no number (`nan`, `inf`, 1.7976931348623157E308, the
        gateway's "no value" in ib_insync issues/462), quantities as decimals (ib_insync
        issues/542), conid 0, symbols and accounts that are blank or foreign, and portfolio rows at
        a price of 0 or -1, which stands for none there as in ticks. No capture shows
        such values in a position, but clients must expect them in any number or text field.
        """
        rows = self._gateway.accounts.rows
        if position is None:
            if not rows.remove_odd(account, conid):
                raise ActionError("conid", f"there is no odd row of {account!r} with conid {conid}")
            return {"account": account, "conid": conid, "position": None}

        contracts = self._gateway.book.contracts
        like = contracts.get(conid) or _first_option(contracts.values())
        contract = replace(like, conid=conid, symbol=like.symbol if symbol is None else symbol)
        row = OddRow(
            account=account,
            contract=contract,
            quantity=position,
            priced_as=like.conid,
            price=price,
        )
        self._gateway.accounts.send_odd(row)
        self._gateway.flush()
        odd = {"account": account, "conid": conid, "position": position}
        return {**odd, "symbol": contract.symbol}

    def _check_account(self, account: str) -> None:
        if account not in self._gateway.ledger.accounts:
            raise ActionError("account", f"there is no account {account!r} on this login")


def _first_option(contracts: Collection[Contract]) -> Contract:
    options = (contract for contract in contracts if contract.is_option)
    return next(options, next(iter(contracts)))


def _check_delay(delay_s: float | None) -> None:
    if delay_s is not None and not 0 <= delay_s < math.inf:
        raise ActionError("delay_s", "a delay is 0 seconds or more, or null for never")
