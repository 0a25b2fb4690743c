"""A leg, the search and what expires, over HTTP and real tables."""

from datetime import UTC, datetime, timedelta

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.money.trading_days import day_began
from tests.integration.web.test_figures import row
from tests.support.legs import leg


async def test_a_leg_has_the_values_of_today_alone_and_says_where_each_came_from(client, lake):
    now = utc_now()
    before = day_began("XNYS", now) - timedelta(seconds=1)
    just_before = now - timedelta(seconds=2)
    rows = [
        row(1, timestamp=before, update_id="yesterday"),
        row(1, timestamp=just_before, update_id="first", run_id="run"),
        row(1, timestamp=now, update_id="last", market_value=None, account="U1"),
        row(1, timestamp=now, update_id="other", account="U2"),
    ]
    lake.updates.sync.append(rows)
    answer = (await client.get("/api/v1/leg", params={"account": "U1", "conid": 1})).json()
    values = answer["values"]
    assert [value["update_id"] for value in values] == ["first", "last"]
    assert [value["market_value"] for value in values] == [-300.0, None]
    assert values[0]["run_id"] == "run"
    assert answer["position"]["market_value"] is None

    for parameters in ({"account": "U1", "conid": 2}, {"account": "none", "conid": 1}):
        missing = await client.get("/api/v1/leg", params=parameters)
        assert missing.status_code == 404
    assert (await client.get("/api/v1/leg", params={"account": "U1"})).status_code == 422


async def test_one_search_finds_strategies_underlyings_and_legs_by_any_words(client, lake):
    lake.registry.sync.add_many([leg(1, "SPY condor")])
    lake.updates.sync.append([row(1), row(2, right=Right.CALL), row(3, symbol="QQQ")])

    async def kinds(text: str) -> list[str]:
        answer = await client.get("/api/v1/search", params={"text": text})
        return [match["kind"] for match in answer.json()["matches"]]

    assert await kinds("spy") == ["strategy", "underlying", "leg", "leg"]
    assert await kinds("575c sPy") == ["leg"]
    assert await kinds("condor") == ["strategy"]
    assert await kinds("  ") == []


async def test_what_expires_within_days_is_listed_with_what_may_be_assigned(client, lake):
    today = datetime.now(UTC)
    later = (today + timedelta(days=30)).date()
    usual = dict(underlying_price=600.0, implied_vol=0.2, strike=700.0, multiplier=100.0)
    usual["expiry"] = later
    deep = {"market_price": 100.0, "market_value": -20_000.0}
    rows = [row(1, **usual, **deep), row(2, **usual, market_value=None)]
    lake.updates.sync.append(rows)

    near = (await client.get("/api/v1/expiry")).json()
    assert near["expiries"] == []
    assert [early_assignment["conid"] for early_assignment in near["early_assignments"]] == [1]
    assert [(entry["conid"], entry["reason"]) for entry in near["not_judged"]] == [
        (2, "it has no value")
    ]

    far = (await client.get("/api/v1/expiry", params={"days": 40})).json()
    assert [expiry["conid"] for expiry in far["expiries"]] == [1, 2]
    assert [expiry["units"] for expiry in far["expiries"]] == [200.0, 200.0]
