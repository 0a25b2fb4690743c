"""A day of faults for a whole book: followed holdings, computed greeks, and legs with lines.

`make chaos` plays it with 600 holdings and a gateway that follows 500 of them.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from ib_gateway_simulator import load_book
from position_sync_dagster.domain.clock import Backoff
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.update import GreeksSource, ValueOrigin
from position_sync_dagster.gateway import holdings, pnl_subscriptions
from position_sync_dagster.sync.stream import (
    contracts,
    model_greeks,
    router,
)
from position_sync_dagster.sync.stream import streamer as link
from tests.support.extent import EVERYTHING

A = "DUSIM0001"
HALTED, MOVING = 930000002, 930000001
FIRST, FIRST_HALTED = 931000000, 932000000
# Strikes of each chain: a book has six times as many options.
STRIKES, LIMIT = (100, 500) if EVERYTHING else (8, 30)

ACTIVE = 5
BOOK = f"""
name: whole
accounts: [{{name: {A}}}]
underlyings:
  - {{symbol: SPY, conid: {MOVING}, price: 620, volatility: 0.17}}
  - {{symbol: AAPL, conid: {HALTED}, price: 230, volatility: 0.28}}
option_market: {{}}
chains:
  - {{name: spy, underlying: SPY, first_conid: {FIRST}, expiries: [20281215, 20291221],
     strikes: {{start: {620 - STRIKES // 2}, stop: {620 - STRIKES // 2 + STRIKES - 1}, step: 1}}}}
  - {{name: aapl, underlying: AAPL, first_conid: {FIRST_HALTED}, expiries: [20281215],
     strikes: {{start: {230 - STRIKES // 2}, stop: {230 - STRIKES // 2 + STRIKES - 1}, step: 1}}}}
positions:
  - {{account: {A}, chain: spy, quantities: [1, -2, 3]}}
  - {{account: {A}, chain: aapl, quantities: [-1, 2]}}
"""


@pytest.fixture
def whole_book(tmp_path, monkeypatch):
    """Return the book; all intervals are short."""
    for module, name, value in (
        (router, "PUBLISH_S", 0.3),
        (router, "CHOOSE_S", 1.0),
        (holdings, "FOLLOWED", timedelta(seconds=1)),
        (model_greeks, "BATCH_S", 0.2),
        (model_greeks, "FIRST_S", 0.2),
        (model_greeks, "OLD", timedelta(seconds=2)),
        (model_greeks, "CHOOSE_S", 0.5),
        (pnl_subscriptions, "HOLDINGS_AT_ONCE", 1000),
        (link, "RECONNECT", Backoff(first_s=0.1, longest_s=0.1)),
        (contracts, "PROBE_WAIT", Backoff(first_s=0.5, longest_s=1.0)),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setitem(contracts.RETRY_WAITS, 10197, Backoff(first_s=1.0, longest_s=2.0))
    path = tmp_path / "whole.yaml"
    path.write_text(BOOK)
    return replace(load_book(path), as_of=None)


class Watcher:
    """Reads what the stream publishes, and compares it with the simulator."""

    def __init__(self, sim, streamer, lake):
        self.sim, self.streamer, self.lake = sim, streamer, lake
        self.most_lines = 0
        self.missing = []

    def __repr__(self):
        return f"missing: {self.missing}; {self.streamer.detail}; {self.streamer.greeks}"

    def rows(self):
        rows = self.lake.broker_positions.read(self.streamer.settings.gateway_id)
        return {row.instrument.conid: row for row in rows if row.position}

    def held(self):
        return {row["conid"]: row["quantity"] for row in self.sim.positions() if row["quantity"]}

    def followed(self):
        return [row for row in self.rows().values() if row.followed]

    def with_greeks(self, symbol):
        return [
            row
            for row in self.rows().values()
            if row.instrument.symbol == symbol and row.greeks is not None
        ]

    def is_whole(self, *halted):
        """Return whether all that can be known is known, of the quantities that are held.

        Args:
            halted: The symbols of which no greeks can be computed.
        """
        stats, rows, streamer = self.sim.stats(), self.rows(), self.streamer
        self.most_lines = max(self.most_lines, stats["lines_in_use"])
        streamed = {c for (_, c), state in streamer.routes.items() if state is LegState.STREAMED}
        options = [row for conid, row in rows.items() if conid not in streamed]
        self.missing = [
            text
            for text, holds in {
                "LIVE": streamer.state is SessionState.LIVE,
                "the quantities": {c: row.position for c, row in rows.items()} == self.held(),
                "values": all(row.market_value is not None for row in rows.values()),
                "lines": len(streamed) == ACTIVE,
                "the count of lines": stats["lines_in_use"] == streamer.lines_in_use,
                "subscriptions": stats["pnl_subscriptions"] <= LIMIT,
                "followed holdings": len(self.followed()) >= LIMIT - ACTIVE - 1,
                "greeks": all(
                    (row.greeks is None) == (row.instrument.symbol in halted) for row in options
                ),
            }.items()
            if not holds
        ]
        return not self.missing


async def test_a_day_of_faults_for_the_whole_book(
    simulate, streaming, lake, whole_book, eventually
):
    contracts = whole_book.contracts
    for conid in range(FIRST, FIRST + ACTIVE):
        one = contracts[conid]
        await lake.registry.add_active(
            conid=conid, symbol=one.symbol, right=one.right, strike=one.strike,
            expiry=one.expiry, strategy_id="s",
        )  # fmt: skip
    async with simulate(
        whole_book, pnl_interval_s=0.2, tick_interval_s=0.2, refresh_interval_s=3.0
    ) as sim:
        sim.position_pnl_limit(LIMIT)
        async with streaming(
            sim, underlying_lines=5, reserved_lines=5, line_silence_s=1.0, account_quiet_s=1.0,
            refresh_interval_s=1.0,
        ) as (streamer, received):  # fmt: skip
            day = Watcher(sim, streamer, lake)

            # The gateway refuses to follow more than a part of the book.
            await eventually(day.is_whole)
            unfollowed = [row for row in day.rows().values() if not row.followed]
            assert {row.value_source for row in unfollowed} <= {ValueOrigin.PORTFOLIO, None}
            of_options = [*day.with_greeks("SPY"), *day.with_greeks("AAPL")]
            assert {row.greeks.greeks_source for row in of_options} == {GreeksSource.MODEL}

            # An underlying is halted: its options have no greeks, and all their values.
            sim.ticking(HALTED, ["model"])
            await eventually(lambda: day.is_whole("AAPL"))
            assert "(AAPL)" in streamer.greeks
            sim.ticking(HALTED)
            await eventually(day.is_whole)

            # Another session of the login takes the market data, and ends.
            sim.set_permission(None, 10197)
            await eventually(lambda: streamer.lines_in_use == 0)
            await eventually(lambda: len(day.followed()) >= LIMIT - 1)
            sim.set_permission(None, None)
            await eventually(day.is_whole)

            # An option expires; and a split replaces one by another contract.
            gone, came = FIRST_HALTED, max(contracts)
            sim.close_position(A, came)
            await eventually(lambda: came not in day.rows())
            sim.expire(A, FIRST_HALTED + 1)
            sim.split(A, gone, came, -4)
            await eventually(lambda: {gone, gone + 1, came} & day.rows().keys() == {came})
            await eventually(day.is_whole)
            assert day.rows()[came].position == -4

            # The nightly restart.
            await sim.restart(down_s=0.3)
            await eventually(lambda: streamer.state is not SessionState.LIVE)
            await eventually(day.is_whole)
            assert ACTIVE < day.most_lines <= ACTIVE + 2
            assert sim.stats()["peak_lines"] <= ACTIVE + 2
            newest = {update.conid: update.position for update in received.updates}
            streamed = range(FIRST, FIRST + ACTIVE)
            assert {conid: newest[conid] for conid in streamed} == {
                conid: day.held()[conid] for conid in streamed
            }
