"""Results of a campaign, by the command, HTTP and an assistant alike."""

from datetime import date

import pytest

from position_sync_dagster.cli.mcp import told
from position_sync_dagster.lake.schema import frame_of
from position_sync_dagster.money.defs.explained_days import closed_campaigns
from position_sync_dagster.money.tables import PROFIT_EXPLAINED
from position_sync_dagster.settings import Settings
from tests.support import command_line
from tests.support.derived_rows import put_rows
from tests.unit.money.campaigns.test_closed_campaigns import PUT, leg, moved

TUESDAY = date(2026, 3, 3)


def put_campaign(lake):
    """Sell two puts at 5.00 on a Monday, buy them back at 2.00 on Friday, and explain a day."""
    movements = [
        moved(PUT, -2.0, 5.0, 2, fee=-1.3, order_id="1"),
        moved(PUT, 2.0, 2.0, 6, fee=-1.3, order_id="2"),
    ]
    lake.movements.derive(lambda: movements)
    lake.registry.sync.add_many([leg(PUT, "csp")])
    explained = {"session_date": TUESDAY, "account": "U1", "currency": "USD"}
    explained |= {"strategy_id": "csp", "profit": -300.0}
    put_rows(
        lake.derived_table(PROFIT_EXPLAINED), {TUESDAY: frame_of(PROFIT_EXPLAINED, [explained])}
    )
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
    assert [(day["day"], day["profit"], day["realised"]) for day in days] == [
        ("2026-03-03", -300.0, 0.0),
        ("2026-03-06", None, pytest.approx(597.4)),
    ]

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
