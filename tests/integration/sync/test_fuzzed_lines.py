"""A gateway whose market data say anything: no row says what was not told, or what does not count.

Quote, mark, model and profit die apart, marks lie outside the quote or are 0, positions come late,
codes are unknown, data turn delayed. It sends a third of the messages of `test_fuzz.py`, since each
script waits for the rows.
"""

import asyncio
import math
from collections import defaultdict
from functools import partial

import pytest
from hypothesis import strategies as st

from ib_gateway_simulator.protocol import messages
from position_sync_dagster import IBPositionStreamer, StreamTables
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.money.lake import MoneyLake
from tests.integration.sync.test_fuzz import MESSAGES, assert_finite, faultless, play_seeds
from tests.support.settings import make_settings
from tests.support.streams import Recorder
from tests.support.told import ACCOUNTS, END, KEPT, LOST, portfolio, position
from tests.support.waiting import eventually

ACCOUNT = ACCOUNTS[0]
CONIDS = (7001, 7002, 7003)
HELD = 2.0
FARM_BROKEN = messages.error(-1, 2103, "Market data farm connection is broken:usfarm")
FARM_OK = messages.error(-1, 2104, "Market data farm connection is OK:usfarm")
INTERRUPTIONS = (LOST, FARM_BROKEN)
# The requests that begin and end a line, and the profits of a holding.
LINES = ("reqMktData", "cancelMktData")
PROFITS = ("reqPnLSingle", "cancelPnLSingle")
FLUSH_S = 0.04
SHORT_S = 0.3

# -- messages: what is said of a line, before its request is known ----------------------------

prices = st.sampled_from([0.0, 0.01, 0.05, 1.0, 1.5, 4.0, 4.1, 12.0, 60.0, 199.99])
odd_prices = st.one_of(prices, st.sampled_from([-1.0, math.inf, math.nan, 1.7976931348623157e308]))
TICKS = {"bid": (1, 66), "ask": (2, 67), "last": (4, 68), "mark": (37, 37)}
sides = st.tuples(st.sampled_from(["bid", "ask", "bid", "ask", "last"]), odd_prices)
delayed = st.tuples(st.sampled_from(["delayed bid", "delayed ask"]), odd_prices)
marks = st.tuples(st.just("mark"), odd_prices)
models = st.tuples(st.just("model"), st.tuples(odd_prices, st.sampled_from([-0.9, -0.2, -2, 0.5])))
values = st.tuples(st.sampled_from(["portfolio", "profit"]), prices)
late = st.tuples(st.just("position"), st.sampled_from([0.0, 1.0, 7.0]))
kinds = st.tuples(st.just("type"), st.sampled_from([1, 1, 1, 1, 2, 3, 4]))
codes = st.tuples(st.just("code"), st.sampled_from([10999, 399, 2119, 10090, 10167, 300, 354]))
halts = st.tuples(st.just("halted"), st.sampled_from([0, 1]))
said = st.one_of(
    sides, sides, sides, sides, delayed, marks, marks, models, values, values, late, kinds, halts
)
of_line = st.tuples(st.sampled_from(CONIDS), st.one_of(*[said] * 8, codes))
# What alone goes on in a phase: the other parts have died.
quiet = st.sampled_from([("bid",), ("mark",), ("model",), ("profit",), ("bid", "ask", "model")])

OPENING = (("bid", 4.0), ("ask", 4.1), ("last", 4.1), ("mark", 4.0), ("model", (4.1, 0.5)))

some = st.lists(of_line, min_size=1, max_size=40)
alone = st.builds(lambda told, only: [(c, t) for c, t in told if t[0] in only], some, quiet)
notices = st.sampled_from([[FARM_BROKEN], [FARM_BROKEN, FARM_OK], [LOST, KEPT], [FARM_OK]])
phases = st.one_of(some, some, alone, notices)
scripts = st.lists(phases, min_size=2, max_size=8)


QUOTE = ("bid", "ask", "last")


class Evidence:
    """What a gateway said of each line since its last interruption, and of the broker's values.

    The sides of a quote prove each other: a gateway sends a side when it changes. Those from before
    an interruption count again with the next tick of any of them.
    """

    def __init__(self):
        self.told = defaultdict(set)
        self.before = defaultdict(set)
        self.values = defaultdict(set)

    def copy(self):
        evidence = Evidence()
        for name in ("told", "before", "values"):
            for key, known in getattr(self, name).items():
                getattr(evidence, name)[key] |= known
        return evidence

    def interrupted(self):
        for (conid, name), known in self.told.items():
            if name in QUOTE:
                self.before[conid, name] |= known
        self.told.clear()

    def hear(self, conid, name, value):
        self.told[conid, name].add(value)
        if name in QUOTE:
            for each in QUOTE:
                self.told[conid, each] |= self.before[conid, each]

    def allows(self, name, conid, value):
        return any(math.isclose(value, told) for told in self.told[conid, name])


class LineSession:
    """One stream of three legs from a gateway that says what a script has."""

    def __init__(self, gateway, path, played):
        self.gateway = gateway
        self.played = played
        self.evidence = Evidence()
        self.before = Evidence()
        self.received = Recorder()
        self.lake = MoneyLake(path, fsync=False)
        self.settings = make_settings(
            gateway_port=gateway.port, flush_interval_s=FLUSH_S, min_hold_s=0.1,
            line_silence_s=SHORT_S, row_interval_s=0.1, fsync=False, delayed_fallback=True,
        )  # fmt: skip

    async def run(self, script):
        for conid in CONIDS:
            await self.lake.registry.add_active(
                conid=conid, symbol="XYZ", right="C", strike=100, expiry="20281215", strategy_id="s"
            )

        listing = [*(position(ACCOUNT, conid, HELD) for conid in CONIDS), END]
        self.gateway.answer("reqPositions", [listing])
        for request in (*LINES, *PROFITS, "reqPnL"):
            self.gateway.answer(request, [])
        self.tell_values(1.5)

        lake = self.lake
        tables = StreamTables(broker_positions=lake.broker_positions, contracts=lake.contracts)
        streamer = IBPositionStreamer(
            lake.registry, lake.queue, settings=self.settings, tables=tables
        )
        streamer.register_handler(self.received)
        await streamer.start()
        try:
            await eventually(lambda: set(self.running(LINES)) == set(CONIDS))
            await self.play([(conid, told) for conid in CONIDS for told in OPENING])
            for phase in script:
                await self.play(phase)
        finally:
            await streamer.stop()

    def running(self, names):
        """Return conid → the id of the request that runs, of those of a pair of names."""
        start, cancel = names
        ids = {}
        for request, _ in self.gateway.said:
            if request is not None and request.name == start:
                ids[request.conid or request.contract.conid] = request.req_id
            elif request is not None and request.name == cancel:
                ids = {conid: req_id for conid, req_id in ids.items() if req_id != request.req_id}
        return ids

    def tell_values(self, price):
        rows = [portfolio(ACCOUNT, conid, HELD, price) for conid in CONIDS]
        for conid in CONIDS:
            self.note_value(conid, price)
        self.gateway.answer("reqAccountUpdates", [[*rows, ("54", "1", ACCOUNT)]])

    def note_value(self, conid, price):
        for evidence in (self.evidence, self.before):
            evidence.values[conid].add(price * 100 * HELD)

    async def play(self, phase):
        """Say what a phase has, wait for two flushes, and check the rows since then."""
        at = len(self.received.updates)
        self.before = self.evidence.copy()
        packet = [portfolio(ACCOUNT, conid, HELD, 1.5) for conid in CONIDS]
        for each in phase:
            packet += self.message(*each) if isinstance(each[0], int) else [self.notice(each)]
        self.gateway.say(packet)
        self.played["messages"] += len(packet)
        await asyncio.sleep(3 * FLUSH_S)
        for row in self.received.updates[at:]:
            self.check(row, phase)
        self.played["rows"] += len(self.received.updates) - at

    def notice(self, fields):
        if fields in INTERRUPTIONS:
            self.evidence.interrupted()
        return fields

    def message(self, conid, told):
        kind, value = told
        if kind == "portfolio":
            self.note_value(conid, value)
            return [portfolio(ACCOUNT, conid, HELD, value)]
        if kind == "position":
            return [position(ACCOUNT, conid, value)]
        if kind == "profit":
            request = self.running(PROFITS).get(conid)
            self.note_value(conid, value)
            money = (str(HELD), "1.0", "2.0", "3.0", str(value * 100 * HELD))
            if request is None:
                return []

            return [("95", str(request), *money)]
        request = self.running(LINES).get(conid)
        if request is None:
            return []

        return [self.tick(request, conid, kind, value)]

    def tick(self, request, conid, kind, value):
        if kind == "type":
            return messages.market_data_type(request, value)
        if kind == "halted":
            return messages.tick_generic(request, 49, value)
        if kind == "code":
            return messages.error(request, value, f"code {value}")

        at = kind.startswith("delayed ")
        kind = kind.removeprefix("delayed ")
        for evidence in (self.evidence, self.before):
            if kind == "model":
                evidence.hear(conid, "model", value[0])
                evidence.hear(conid, "delta", value[1])
            else:
                evidence.hear(conid, kind, value)
        if kind == "model":
            price, delta = value
            greeks = ("0.2", str(delta), str(price), "0.0", "0.1", "0.1", "-0.1", "100.0")
            return ("21", str(request), "13", "0", *greeks)
        return messages.tick_price(request, TICKS[kind][at], value, "3", 1)

    def check(self, row, phase):
        """Check a row by what was told: before the phase, or in it."""
        assert_finite(row)
        conid = row.conid
        told = partial(self.allows, row.conid)
        text = f"{row}, after {phase}"
        if row.position != HELD:
            return
        for name in ("bid", "ask", "delta"):
            value = getattr(row, name)
            assert value is None or told(name, value), f"{name} was not told: {text}"

        if row.value_source in (ValueOrigin.PORTFOLIO, ValueOrigin.PNL_SINGLE):
            values = self.before.values[conid] | self.evidence.values[conid]
            assert any(math.isclose(row.market_value, v, abs_tol=0.01) for v in values), text
        if row.value_source is not ValueOrigin.TICK:
            return
        assert row.market_data_type not in (3, 4), f"a delayed price beats the broker: {text}"

        price = row.market_price
        self.played[str(row.price_kind)] += 1
        assert row.note is None, text
        assert row.market_value == pytest.approx(price * 100 * HELD), text

        two_sided = None not in (row.bid, row.ask) and row.bid <= row.ask
        if row.price_kind == "MARK":
            assert told("mark", price), f"no such mark: {text}"

            assert not (price == 0 and (row.bid or 0) > 0), f"a mark of 0 under a bid: {text}"
        elif row.price_kind == "MID":
            assert two_sided, text
            assert price == pytest.approx((row.bid + row.ask) / 2), text
            assert row.ask - row.bid <= max(price, 5 * 0.01), f"a wide mid: {text}"
        elif row.price_kind == "LAST":
            assert told("last", price), text
            assert two_sided, text
            assert row.bid <= price <= row.ask, text
        else:
            assert told("model", price), text

    def allows(self, conid, name, value):
        return self.before.allows(name, conid, value) or self.evidence.allows(name, conid, value)


async def session(played, lake, script):
    async with faultless(1, lake) as (gateway, path):
        await LineSession(gateway, path, played).run(script)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_whatever_a_line_says_a_row_has_nothing_that_was_not_told_or_does_not_count():
    played = play_seeds(session, MESSAGES / 3, scripts)
    assert played["MARK"]
    assert played["MID"]
