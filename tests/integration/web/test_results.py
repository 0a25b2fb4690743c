"""Results of a campaign, by the command, HTTP and an assistant alike."""

from datetime import date
from typing import Any

import pytest

from position_sync_dagster.cli.mcp import told
from position_sync_dagster.lake.schema import frame_of
from position_sync_dagster.money.campaigns.campaign_days import CAUSES
from position_sync_dagster.money.defs.explained_days import closed_campaigns
from position_sync_dagster.money.past.movements import MovementKind
from position_sync_dagster.money.tables import PROFIT_EXPLAINED
from position_sync_dagster.settings import Settings
from tests.support import command_line
from tests.support.derived_rows import put_rows
from tests.support.spy_rows import row
from tests.unit.money.campaigns.test_closed_campaigns import (
    OTHER,
    PUT,
    SHARES,
    booked,
    leg,
    moved,
)

TUESDAY = date(2026, 3, 3)

# Sell two puts at 5.00 on a Monday, and buy them back at 2.00 on Friday.
MOVEMENTS = [
    moved(PUT, -2.0, 5.0, 2, fee=-1.3, order_id="1"),
    moved(PUT, 2.0, 2.0, 6, fee=-1.3, order_id="2"),
]


def explain(lake, days):
    """Record the profits of strategies, by day of March 2026."""
    frames = {}
    for day, profits in days.items():
        session = date(2026, 3, day)
        explained = {"session_date": session, "account": "U1", "currency": "USD"}
        explained |= dict.fromkeys(CAUSES, 0.0)
        rows = [
            explained | {"strategy_id": name, "profit": profit} for name, profit in profits.items()
        ]
        frames[session] = frame_of(PROFIT_EXPLAINED, rows)
    put_rows(lake.derived_table(PROFIT_EXPLAINED), frames)


def put_campaign(lake):
    """Put the campaign, and explain a day of it."""
    lake.movements.derive(lambda: MOVEMENTS)
    lake.registry.sync.add_many([leg(PUT, "csp")])
    explain(lake, {TUESDAY.day: {"csp": -300.0}})
    closed_campaigns.derive(lake, Settings(lake=lake.path), None)


def put_campaigns_with_days(lake):
    """Put the campaign with all its days, and an open one whose put was assigned on Friday.

    It sold the put at 1.50 on Monday, and has 100 shares at 45.
    """
    wheel = [
        moved(OTHER, -1.0, 1.5, 2, order_id="3"),
        booked(OTHER, 1.0, 0.0, 6, MovementKind.ASSIGNMENT),
        booked(SHARES, 100.0, 45.0, 6, MovementKind.ASSIGNMENT),
    ]
    lake.movements.derive(lambda: MOVEMENTS + wheel)
    lake.registry.sync.add_many([leg(PUT, "csp"), leg(OTHER, "wheel")])
    shares = row(
        SHARES, account="U1", symbol="XYZ", position=100.0, market_price=46.0, market_value=4600.0,
        right=None, strike=None, expiry=None, sec_type="STK", multiplier=1.0, delta=None,
    )  # fmt: skip
    lake.updates.sync.append([shares])
    csp = (-100.0, -200.5, 300.0, 400.0, 197.9)
    of_wheel = (-20.0, 5.0, -30.0, 10.0, 40.0)
    days = {2 + n: {"csp": csp[n], "wheel": of_wheel[n]} for n in range(5)}
    explain(lake, days)
    closed_campaigns.derive(lake, Settings(lake=lake.path), None)


@pytest.fixture
def campaign(lake):
    put_campaign(lake)
    [campaign] = command_line.json_of("results", "--list")
    return campaign


def test_a_campaign_says_what_it_brought_and_what_was_at_risk(campaign):
    assert campaign["profit"] == pytest.approx(1000 - 400 - 2.6)
    assert campaign["capital_at_risk"] == pytest.approx(2 * 100 * (50 - 5))
    assert campaign["return_on_risk"] == pytest.approx(597.4 / 9000)
    assert campaign["return_per_year"] == pytest.approx(597.4 / 9000 * 365 / 4)
    assert campaign["worst"] is campaign["best"] is campaign["delta"] is None
    assert campaign["why_unknown"] == (
        "worst, best, delta, gamma, vega, theta, repricing: 4 of its 5 days have no recorded profit"
    )
    assert campaign["profit_unknown"] is None


async def test_http_and_an_assistant_say_what_the_command_says(client, settings, campaign):
    groups = command_line.json_of("results", "--by", "month")
    assert [group["group"] for group in groups] == ["2026-03"]
    days = command_line.json_of("results", "--days")
    assert [day["day"] for day in days] == ["2026-03-03", "2026-03-06"]
    assert [day["profit"] for day in days] == [-300.0, None]
    assert [day["realised"] for day in days] == [0.0, pytest.approx(597.4)]

    served = (await client.get("/api/v1/results", params={"by": "month"})).json()
    assert served["results"] == groups
    assert served["days"] == days
    listed = (await client.get("/api/v1/campaigns", params={"strategy": "csp"})).json()
    assert listed["campaigns"] == [campaign]
    later = await client.get("/api/v1/results", params={"since": "2026-03-07"})
    assert later.json()["results"] == []
    for refused in ({"since": "soon"}, {"by": "colour"}):
        assert (await client.get("/api/v1/results", params=refused)).status_code == 422

    of_march = told(settings, "results", by="month", since="2026-03-01")
    assert of_march == {"results": groups}
    assert told(settings, "campaigns", strategy="csp") == {"campaigns": [campaign]}


async def test_a_campaign_opens_with_its_fills_and_rolls(client, campaign):
    name = campaign["campaign_id"]
    answer = await client.get("/api/v1/campaign", params={"id": name})
    served = answer.json()
    assert served == command_line.json_of("campaign", name)
    assert [fill["quantity"] for fill in served["fills"]] == [-2.0, 2.0]
    assert {fill["fee_currency"] for fill in served["fills"]} == {"USD"}
    assert {fill["contract"] for fill in served["fills"]} == {"XYZ 50P 20Mar26"}
    assert served["rolls"] == []

    assert (await client.get("/api/v1/campaign", params={"id": "no"})).status_code == 404
    assert (await client.get("/api/v1/campaign")).status_code == 422


def test_a_person_reads_groups_days_and_fills(campaign):
    assert "csp" in command_line.run("results")
    assert "597" in command_line.run("results", "--days")
    printed = command_line.run("campaign", campaign["campaign_id"])
    assert "XYZ 50P 20Mar26" in printed


async def test_a_campaign_has_its_path_everywhere(client, settings, lake):
    put_campaigns_with_days(lake)
    [campaign] = command_line.json_of("results", "--list")
    assert (campaign["worst"], campaign["best"]) == (-300.5, 597.4)
    assert campaign["delta"] == 0.0
    path = [-100.0, -300.5, -0.5, 399.5, 597.4]
    served = (await client.get("/api/v1/campaigns")).json()
    assert served == {"campaigns": [campaign], "paths": [path]}

    one = command_line.json_of("campaign", campaign["campaign_id"])
    assert [day["stands"] for day in one["days"]] == path
    assert one["days"][1] == {
        "day": "2026-03-03", "currency": "USD", "profit": -200.5, "stands": -300.5,
    }  # fmt: skip
    assert "-300.50" in command_line.run("campaign", campaign["campaign_id"])

    [group] = command_line.json_of("results")
    stood = ("wins", "wins_with_days", "median_worst_of_wins", "worst_of_wins")
    assert [group[name] for name in stood] == [1, 1, -300.5, -300.5]
    assert told(settings, "results") == {"results": [group]}


async def test_an_open_campaign_has_its_path_and_what_its_shares_cost_everywhere(
    client, settings, lake, monkeypatch
):
    put_campaigns_with_days(lake)
    [campaign] = command_line.json_of("results", "--open")
    assert campaign["campaign_id"] == "wheel:U1:2026-03-02"
    assert campaign["brought"] == 150 - 1 - 4500
    assert campaign["cost_per_share"] == pytest.approx(43.51)
    assert campaign["path"] == [-20.0, -15.0, -45.0, -35.0, 5.0]
    assert (campaign["worst"], campaign["best"], campaign["stands"]) == (-45.0, 5.0, 5.0)
    assert campaign["until"] == "2026-03-06"
    assert campaign["entry_unknown"].startswith("no delta of XYZ 45P 20Mar26 was recorded")
    assert campaign["why_unknown"] is None

    served = (await client.get("/api/v1/open-campaigns", params={"strategy": "wheel"})).json()
    assert served["campaigns"] == [campaign]
    assert told(settings, "open_campaigns") == {"open_campaigns": [campaign]}
    unknown = await client.get("/api/v1/open-campaigns", params={"strategy": "no"})
    assert unknown.status_code == 404
    assert "43.51" in command_line.run("results", "--open")

    exposure = {row["name"]: row for row in command_line.json_of("exposure")["strategies"]}
    assert exposure["wheel"]["cost_per_share"] == campaign["cost_per_share"]
    strategies = (await client.get("/api/v1/strategies")).json()["strategies"]
    costs = {row["strategy"]: row["cost_per_share"] for row in strategies}
    assert costs == {"csp": None, "wheel": campaign["cost_per_share"]}
    monkeypatch.setenv("COLUMNS", "250")
    printed = command_line.run("exposure")
    assert "cost/share" in printed
    assert "43.51" in printed


# What was recorded of an open campaign on days of March, and what lacks.
INCOMPLETE: list[tuple[dict[int, dict[str, float | None]], str]] = [
    ({2: {"wheel": -20.0}, 4: {"wheel": 3.0}}, "1 of its 3 days have no recorded profit"),
    ({2: {"wheel": None}, 3: {"wheel": 5.0}}, "1 of its 2 days have no recorded profit"),
    # The strategy was made after these days had been recorded.
    ({2: {"UNATTRIBUTED": 1.0}, 3: {"wheel": 5.0}}, "1 of its 2 days have no recorded profit"),
    ({}, "none of its days is over"),
]


def test_an_open_campaign_without_a_recorded_day_says_how_many_lack(lake):
    put_campaigns_with_days(lake)
    gone: dict[int, Any] = {day: {} for day in (2, 3, 4, 5, 6)}
    for days, why in INCOMPLETE:
        explain(lake, gone | days)
        [campaign] = command_line.json_of("results", "--open")
        unknown = [campaign[name] for name in ("worst", "path", "stands", "until")]
        assert unknown == [None] * 4
        assert campaign["why_unknown"].endswith(why)
