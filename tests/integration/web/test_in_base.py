"""Totals over currencies: the same on a terminal, over HTTP, for an assistant and on the page."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from position_sync_dagster.cli.mcp import told
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.money.campaigns.results import Grouping
from position_sync_dagster.money.campaigns.results_in_base import (
    DayRates,
    read_day_rates,
    results_in_base,
)
from position_sync_dagster.money.past.closes import EventKind, StatementEvent
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.web.test_figures import account_of, row, write
from tests.integration.web.test_results import put_campaign
from tests.support import command_line
from tests.unit.money.campaigns.test_results import campaign

FRIDAY = date(2026, 3, 6)


def put_rates(lake, at, **rates):
    sent = ", ".join(f'"{name}": {rate}' for name, rate in rates.items())
    account = replace(account_of(at), currency="EUR", exchange_rates=f"{{{sent}}}")
    lake.account_values.append([account])


async def test_one_total_is_shown_everywhere(lake, settings, client):
    write(lake, row(1, market_value=-300.0), row(2, market_value=100.0, currency="EUR"))
    put_rates(lake, utc_now(), USD=0.8)
    served = (await client.get("/api/v1/figures")).json()["in_base"]
    [total] = served
    assert total["market_value"] == 100.0 - 0.8 * 300.0
    assert total["today"] == pytest.approx(-7.0 * 1.8)
    assert total["rates"] == {"EUR": 1.0, "USD": 0.8}

    assert (await client.get("/api/v1/strategies")).json()["in_base"] == served
    assert told(settings, "figures")["in_base"] == served
    assert command_line.json_of("figures")["in_base"] == served
    assert PageFigures(settings).read(utc_now())[1]["in_base"] == served
    [listed] = command_line.json_of("exposure")["in_base"]
    assert listed["value"] == total["market_value"]
    assert command_line.json_of("status")["in_base"] == [listed]
    for command in ("exposure", "figures"):
        assert "all in EUR: value -140" in command_line.call(command).stdout

    moment = utc_now().isoformat()
    put_rates(lake, utc_now(), GBP=1.2)
    assert command_line.json_of("exposure", "--as-of", moment)["in_base"] == [listed]
    [unknown] = command_line.json_of("figures")["in_base"]
    assert unknown["market_value"] is None
    assert "no exchange rate of USD is known" in unknown["why_unknown"]


async def test_results_count_by_the_rates_that_are_kept_of_the_day(lake, settings, client):
    put_campaign(lake)
    put_rates(lake, datetime(2026, 3, 6, 20, tzinfo=UTC), USD=0.8)
    put_rates(lake, utc_now(), USD=0.5)
    [result] = command_line.json_of("results", "--in-base")
    assert result["currency"] == "EUR"
    assert result["profit"] == pytest.approx(597.4 * 0.8)
    served = (await client.get("/api/v1/results")).json()
    assert served["in_base"] == [result]
    assert told(settings, "results")["in_base"] == [result]
    assert "EUR" in command_line.call("results", "--in-base").stdout


def test_a_rate_of_a_statement_counts_before_that_of_the_gateway(lake):
    closed = [campaign(1.0, 6, account="U1"), campaign(1.0, 5, account="U1")]
    put_rates(lake, datetime(2026, 3, 6, 20, tzinfo=UTC), USD=0.8, GBP=1.1)
    put_rates(lake, datetime(2026, 3, 7, 20, tzinfo=UTC), USD=0.7)
    stated = StatementEvent(
        account="U1", day=FRIDAY, currency="USD", amount=0.81, type="EUR", event_id="rate",
        kind=EventKind.RATE, attributes="{}", source="FLEX", statement="a.xml",
    )  # fmt: skip
    lake.statement_events.add([stated], run_id=None)
    rates = read_day_rates(lake, closed)
    assert rates.bases == {"U1": "EUR"}
    assert rates.of_day == {("U1", FRIDAY): {"USD": 0.81, "GBP": 1.1}}
    assert FRIDAY - timedelta(1) not in {day for _account, day in rates.of_day}


@pytest.mark.parametrize(
    ("of_first", "of_second", "profit"),
    [
        (("EUR", {"USD": 0.8}), ("EUR", {}), 240.0),
        (("EUR", {}), ("EUR", {"USD": 0.8}), 240.0),  # nothing was left in the first one
        ((None, {}), ("EUR", {"USD": 0.8}), 240.0),
        (("EUR", {"GBP": 1.1}), ("EUR", {}), None),
        (("EUR", {"USD": 0.8}), ("GBP", {"USD": 0.7}), None),
    ],
)
def test_what_went_between_accounts_counts_by_the_rates_of_any_if_they_have_one_base_currency(
    lake, of_first, of_second, profit
):
    """It is 200 dollars and 80 euros."""
    of_accounts = (("U1", *of_first), ("U2", *of_second))
    stated = [
        StatementEvent(
            account=account, day=FRIDAY, currency=currency, amount=rate, type=base,
            event_id=f"{account}{currency}", kind=EventKind.RATE, attributes="{}", source="FLEX",
            statement="a.xml",
        )
        for account, base, of_day in of_accounts
        for currency, rate in of_day.items()
    ]  # fmt: skip
    lake.statement_events.add(stated, run_id=None)
    at = datetime(2026, 3, 5, 20, tzinfo=UTC)
    values = [
        replace(account_of(at), account=account, currency=base, exchange_rates=None)
        for account, base, _rates in of_accounts
        if base
    ]
    lake.account_values.append(values)
    closed = [
        campaign(200.0, 6, account="U1,U2"),
        campaign(80.0, 6, currency="EUR", account="U1,U2"),
    ]
    closed = [replace(row, campaign_id="csp:U1:2026-03-02") for row in closed]
    [result] = results_in_base(closed, Grouping.STRATEGY, read_day_rates(lake, closed))
    assert result.profit == profit
    if of_second[0] == "GBP":
        assert result.currency is None
        why = "csp:U1:2026-03-02: its accounts have different base currencies: EUR, GBP"
        assert result.why_unknown == why


def test_how_a_win_stood_counts_by_the_rate_of_its_close_too():
    """The dollars stood at -30 when they were worst, of what is in two currencies nothing says."""
    rates = DayRates({"U1": "EUR"}, {("U1", FRIDAY): {"USD": 0.8}})
    of_two = [
        replace(campaign(5.0, 6, account="U1", worst=-90.0, currency=currency), campaign_id="two")
        for currency in ("USD", "EUR")
    ]
    won = campaign(100.0, 6, account="U1", worst=-30.0)
    [result] = results_in_base([*of_two, won], Grouping.STRATEGY, rates)
    assert result.profit == 5 * 1.8 + 100 * 0.8
    assert result.wins_with_days == 1
    assert result.worst_of_wins == -24.0
