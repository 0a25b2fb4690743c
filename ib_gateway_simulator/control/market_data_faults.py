"""Faults of market data: missing lines, permissions, quotes and ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field

from ib_gateway_simulator.control.arguments import Hours, NotNegative, WholeNumber
from ib_gateway_simulator.control.readings import Readings
from ib_gateway_simulator.errors import ActionError
from ib_gateway_simulator.market.quote import Pin
from ib_gateway_simulator.market.sessions import checked
from ib_gateway_simulator.market_data.ticks import Kind

Lines = Literal["dead", "alive"]
ModelUnit = Literal["quoted", "major"]


class MarketDataFaults(Readings):
    """Changes what the market data lines of one gateway send."""

    def set_line_limit(self, limit: WholeNumber) -> None:
        """Change the number of lines; running ones go on even above a lower limit."""
        if limit < 0:
            raise ActionError("limit", "a line limit is 0 or more")
        self._gateway.market_data.lines.limit = limit

    def set_permission(self, conid: int | None = None, code: int | None = None) -> None:
        """Set the market data permission of one contract, or of all; code None permits."""
        self._gateway.market_data.set_permission(conid, code)
        self._gateway.flush()

    def answer_line(self, conid: int, code: int | None = None, ticking: bool = False) -> None:
        """Answer requests for lines of a contract with any code; None ends that.

        Nothing else follows, except with `ticking`: then the ticks of a running line follow. IB
        adds codes, and its list leaves some out: 10197 and 10167 were reported by users first.
        """
        self._check_contract(conid)
        codes = self._gateway.market_data.odd_codes
        if code is None:
            codes.pop(conid, None)
        else:
            codes[conid] = (code, ticking)

    def pin_quote(
        self,
        conid: int,
        bid: float | None = None,
        ask: float | None = None,
        last: float | None = None,
        mark: float | None = None,
        no_mark: bool = False,
        release: bool = False,
        last_age_s: NotNegative | None = None,
    ) -> None:
        """Hold a contract's quote at these values; with `release` it moves again.

        A side that is not given does not exist. Without `mark` the mark follows from the sides,
        with `no_mark` none is sent. A given mark is sent as it is, also outside the quote and at
        0: IB calculates it apart from the quote (IB, "Tick Types": 37, mark price). With
        `last_age_s` the last trade is that old and none follows (the time of the last trade is
        tick 45); else trades go on at `last`.
        """
        self._check_contract(conid)
        if last_age_s is not None and not 0 <= last_age_s < math.inf:
            raise ActionError("last_age_s", "the age of a trade is 0 seconds or more")
        at = None
        if last_age_s is not None:
            at = int(self._gateway.now() - last_age_s)

        pin = Pin(bid=bid, ask=ask, last=last, mark=mark, no_mark=no_mark, traded_at=at)
        self._gateway.market.pin(conid, None if release else pin)

    def say_delayed(self, said: bool = True) -> None:
        """Set whether new lines of delayed data say so by messages 58 and 10167.

        Their ticks have the types of delayed data in any case (IB, "Available Tick Types": 66 to
        76). A line without these messages was never recorded: the worst case.
        """
        self._gateway.market_data.delayed_unsaid = not said

    def model_unit(self, conid: int, unit: ModelUnit = "quoted") -> None:
        """Set the unit of a contract's option model where prices are quoted in cents.

        `quoted` is the unit of its prices, `major` that of its currency. The model's price, the
        price of its underlying, and the greeks that have a unit are in this unit. IB documents
        neither for contracts with a price magnifier (IB, "Contract Details").
        """
        self._check_contract(conid)
        if unit not in get_args(ModelUnit):
            raise ActionError("unit", f"{unit!r} is not one of {', '.join(get_args(ModelUnit))}")
        self._gateway.market.set_model_unit(conid, major=unit == "major")

    def model_computed(self, conid: int, computed: bool = False) -> None:
        """Send the option computations of a contract as zeros; with `computed` as they are.

        Underlying price, volatility and greeks are exactly 0, beside a quote that is whole. Users
        report them of ticks that come before the model has its inputs; no capture shows them.
        """
        self._check_contract(conid)
        self._gateway.market.set_model_computed(conid, computed=computed)

    def broker_price(self, conid: int, factor: NotNegative = 1.0) -> None:
        """Value a contract in portfolio rows and PnLSingle by another price than that of its lines.

        The price is the mark times `factor`. IB calculates the values of accounts apart from the
        ticks of a line; no source was found that says how far the two may differ.
        """
        self._check_contract(conid)
        if not 0 <= factor < math.inf:
            raise ActionError("factor", "a factor of a price is 0 or more")
        self._gateway.market.broker_factors[conid] = factor

    def freeze(self, frozen: bool = True) -> None:
        """Stop the ticks without any notice (a closed market), or continue them.

        A line that opens meanwhile has a last trade from before, as frozen data are the last data
        of the session (IB, "Market Data Types").
        """
        self._gateway.market_data.freeze(frozen)

    def set_hours(self, conid: int | None = None, hours: Hours = "") -> None:
        """Set when a contract trades, or when all do; without hours around the clock.

        `hours` are "0930-1600" on Monday to Friday in the time zone of the contract, or "CLOSED".
        Outside them running lines do not tick; a new line sends its quote once. Contract details
        list them as `tradingHours` and `liquidHours` (IB, "Requesting Contract Details").
        """
        if conid is not None:
            self._check_contract(conid)
        try:
            self._gateway.sessions.set(conid, checked(hours))
        except ValueError as error:
            raise ActionError("hours", str(error)) from None

    def contract_details(self, conid: int, answered: bool = False) -> None:
        """Never answer a request for details that fits a contract; with `answered` answer again.

        Requests of single contracts that get neither details nor an error, while others are
        answered: ib_insync issues/474, ib_async issues/27.
        """
        self._check_contract(conid)
        unanswered = self._gateway.reference_data.unanswered
        if answered:
            unanswered.discard(conid)
        else:
            unanswered.add(conid)

    def silence_line(self, conid: int, reset: bool = False) -> int:
        """Silence the running lines of a contract, and return how many there are.

        Such a line stays granted and counted and never speaks again, while the gateway says that
        its farm is OK; a new request for the contract gets a line that works. With `reset` the
        silenced lines that still run speak again from the next change on. Single subscriptions
        stay dead for hours after a farm notice of OK: nautilus_trader pull/3968, IBC issues/143.
        """
        self._check_contract(conid)
        lines = self._gateway.market_data.lines
        return lines.set_silent(not reset, lambda contract: contract.conid == conid)

    def after_restore(self, lines: Lines) -> None:
        """Set what happens to running lines after 1102, and after 2104 to those of its farm.

        Alive ones go on by themselves, as IB describes 1102 and 2104. Dead ones stay granted and
        counted and never speak again, until they are requested anew. Two reports show dead lines:
        a 2104 that came seconds after 2103 and no tick for hours (nautilus_trader pull/3968), and
        no tick after the 1102 of the nightly reset (IBC issues/143). Lines that are dead already
        stay dead.
        """
        if lines not in get_args(Lines):
            raise ActionError("lines", f"{lines!r} is not one of {', '.join(get_args(Lines))}")
        self._gateway.market_data.dead_after_restore = lines == "dead"

    def ticking(
        self, conid: int, only: Annotated[list[Kind], Field(min_length=1)] | None = None
    ) -> None:
        """Restrict the ticks of a contract to some kinds; None sends all ticks again.

        `size` stands for the sizes of bid and ask and the volume, while the prices stand still;
        `quote` for prices and sizes of bid, ask and last trade; `mark` for mark prices; `model` for
        option computations. Every type ticks by itself, when it changes (IB, "Tick Types"), and the
        types come from parts of a gateway that may die separately: IBC issues/371 has live quotes
        without option computations. A new line of the contract is restricted too.
        """
        self._check_contract(conid)
        if only is not None and (not only or not set(only) <= set(get_args(Kind))):
            raise ActionError("only", f"give some of {', '.join(get_args(Kind))}, or null for all")
        self._gateway.market_data.restrict(conid, None if only is None else tuple(only))

    def tick_lines(self, message: Sequence[str]) -> int:
        """Send a message on every running line, and return how many there are.

        Its field `line` is the id of the request. This plays a type of tick, or a form of it, that
        no recording has: IB adds types, and a report of a rehearsal names them.
        """
        lines = [line for line in self._gateway.market_data.lines if not line.silent]
        for line in lines:
            line.client.send(tuple(str(line.req_id) if f == "line" else f for f in message))
        self._gateway.flush()
        return len(lines)

    def _check_contract(self, conid: int) -> None:
        if self._gateway.market_data.contract(conid) is None:
            raise ActionError("conid", f"no contract of the book has conid {conid}")
