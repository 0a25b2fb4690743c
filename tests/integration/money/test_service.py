"""A stream with the parts of money, as Dagster runs it, and what its status shows."""

from dataclasses import replace

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.money.reports.book import read_book
from position_sync_dagster.money.reports.figures import read_figures
from position_sync_dagster.money.reports.status import leg_states, read_status
from position_sync_dagster.money.stream_parts import with_money
from position_sync_dagster.sync.drain import drain
from position_sync_dagster.terminal.board import describe
from tests.support.booked_legs import PUT, A, B, leg
from tests.support.streams import Service, eventually, published, settings_for, simulate

OFTEN = {"account_interval_s": 0.3}


async def test_the_status_has_the_lines_the_greeks_the_accounts_and_what_was_valued(lake):
    described = {"strategy_id": "s", "symbol": "AAPL", "right": "C", "strike": 999}
    async with simulate(pnl_interval_s=0.1) as sim:
        await lake.registry.add_active(**leg(PUT))
        await lake.registry.add_active(**described, expiry="20281215")
        service = Service(lake, settings_for(sim, **OFTEN), complete=with_money)

        def status():
            return read_status(lake, service.settings, utc_now())

        await eventually(lambda: status().lines_in_use == 5)
        shown_status = status()
        assert shown_status.session_state == "LIVE"
        assert shown_status.lines_text == "5 of 100 (4 for underlyings)"
        assert shown_status.lines_in_use == 5
        assert shown_status.underlying_lines == 4
        assert shown_status.blind_since is None
        assert "of 5 options without greeks of IB" in shown_status.greeks
        assert shown_status.legs_held == 1
        assert shown_status.positions == 9
        assert shown_status.trading_mode == "SIMULATED"
        assert (await drain(lake, service.settings)).succeeded >= 8

        shown_status = status()
        assert shown_status.legs_streamed == 1
        assert shown_status.legs_queued == 8
        assert shown_status.to_dict()["at"] == shown_status.at.isoformat()
        overview = read_figures(lake, service.settings, utc_now())
        assert overview.held == 9
        assert overview.current == 9

        await eventually(lambda: all(leg.problem for leg in lake.registry.unresolved))
        [unknown] = lake.registry.unresolved
        book = read_book(lake, service.settings, utc_now())
        assert leg_states([unknown], book) == [LegState.ARMED]
        assert f"{unknown.described} of strategy s: {unknown.problem}" in status().unresolved_legs
        await eventually(lambda: [account.account for account in status().accounts] == [A, B])
        await eventually(lambda: None not in (status().accounts[0].daily_pnl,))
        await service.end()

    shown_status = status()
    first = shown_status.accounts[0]
    lines = dict(describe(shown_status))
    assert f"net liquidation {first.net_liquidation:,.2f} USD (" in lines[A]
    assert f"daily P&L {first.daily_pnl:,.2f} USD (" in lines[A]
    unknown_profit = replace(shown_status, accounts=(replace(first, daily_pnl=None),))
    assert dict(describe(unknown_profit))[A].endswith(", daily P&L –")


async def test_each_row_of_a_close_names_the_run_that_wrote_it(lake):
    async with simulate() as sim:
        service = Service(lake, settings_for(sim), complete=with_money)
        await eventually(lambda: len(published(lake, service.settings)) == 9)
        sim.close_position(A, PUT)
        named = []
        for table in (lake.position_changes, lake.executions, lake.closures):
            await eventually(lambda table=table: table.records())
            named += [record.run_id for record in table.records()]
        assert set(named) == {"run-1"}
