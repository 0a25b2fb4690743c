"""Each figure is one number, whichever surface is asked; the table is in docs/architecture.md."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from httpx import AsyncClient

from position_sync_dagster.cli.mcp import told
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.web.test_figures import account_of, row
from tests.support import command_line
from tests.support.legs import leg
from tests.support.sessions import own

SUMS = {"market_value": "value", "today": "daily_pnl", "unrealized": "unrealized_pnl"}
SUMS |= {name: name for name in ("dollar_delta", "theta", "vega", "gamma_1pct")}


@pytest.fixture
def held(lake, settings, monkeypatch) -> None:
    """Hold two legs of a strategy and twenty of none, one of which has no greeks."""
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_ID", settings.gateway_id)
    own(lake, settings.gateway_id, state=SessionState.LIVE)
    greeks = dict(delta=-0.5, gamma=0.01, theta=-0.1, vega=0.3, implied_vol=0.2)
    terms = {"underlying_price": 600.0, "expiry": exchange_date(utc_now()) + timedelta(days=60)}
    lake.registry.sync.add_many([leg(1, "condor"), leg(2, "condor")])
    rows = [row(conid, **greeks, **terms) for conid in range(1, 22)]
    lake.updates.sync.append([*rows, row(22, **terms)])
    lake.account_values.append([account_of(utc_now(), *[-7.0] * 22)])


async def asked(client: AsyncClient, path: str) -> Any:
    return (await client.get(f"/api/v1/{path}")).json()


@pytest.mark.usefixtures("held")
async def test_each_sum_bridge_and_margin_is_one_number_on_every_surface(client, settings):
    parts, page = PageFigures(settings).read(utc_now())
    answers = {
        "page": page,
        "http": await asked(client, "accounts") | await asked(client, "strategies"),
        "figures": await asked(client, "figures"),
        "assistant": told(settings, "figures"),
        "command": await asyncio.to_thread(command_line.json_of, "figures"),
    }
    for surface, answer in answers.items():
        (account,) = answer["accounts"]
        today = account["today"]
        bridge = [today[name] for name in ("account", "open", "closed", "cash", "unexplained")]
        assert bridge == [-160.25, -154.0, 0.0, 0.0, -6.25], surface
        assert account["maintenance_margin"] == 30_000.0, surface
        assert account["cushion"] == 0.4, surface

    exposure = await asyncio.to_thread(command_line.json_of, "exposure")
    rows = parts.to_dicts()
    of_page = {sums["strategy"]: sums for sums in page["strategies"]}
    assert of_page["UNATTRIBUTED"]["known"]["theta"] == 19
    assert of_page["condor"]["known"] == {}

    for name, in_commands in SUMS.items():
        column = {"today": "daily_pnl", "unrealized": "unrealized_pnl"}.get(name, name)
        for strategy, sums in of_page.items():
            amounts = [part[column] or 0.0 for part in rows if part["strategy"] == strategy]
            assert sums[name] == pytest.approx(sum(amounts)), (name, strategy)
            for surface, answer in answers.items():
                [shown] = [row for row in answer["strategies"] if row["strategy"] == strategy]
                assert shown[name] == sums[name], (surface, name, strategy)
            [shown] = [row for row in exposure_rows(exposure) if row["name"] == strategy]
            assert shown[in_commands] == sums[name], (name, strategy)


def exposure_rows(answer: Any) -> list[dict[str, Any]]:
    return [*answer["strategies"], *answer["rest"]]


@pytest.mark.usefixtures("held")
async def test_a_fall_of_five_percent_is_one_number_on_every_surface(client, lake, settings):
    query = {"level": "account", "spot": "-5"}
    (http,) = (await client.get("/api/v1/what-if", params=query)).json()["rows"]
    recorded = await asked(client, "scenarios")
    place = recorded["names"].index("-5 %")
    (strip,) = [row for row in recorded["rows"] if row["level"] == "account"]
    asking = ("what-if", "--spot", "-5", "--level", "account")
    (command,) = await asyncio.to_thread(command_line.json_of, *asking)
    by_strategy = told(settings, "what_if", spot=[-5.0])["what_if"]
    assistant = sum(row["profit"] for row in by_strategy)
    profits = [http["profit"], strip["profits"][place], command["profit"], assistant]
    assert profits == [pytest.approx(http["profit"], rel=1e-3)] * 4
    counts = (http["known"], http["of"], command["known"], strip["known"][place])
    assert counts == (21, 22, 21, 21)
