"""A year of statements with forty campaigns, by Dagster and the command, against sums by hand."""

import csv
from collections import defaultdict
from datetime import date
from decimal import Decimal
from itertools import accumulate
from typing import Any

import dagster as dg
import polars as pl
import pytest

from tests.support.command_line import call, json_of, run
from tests.support.traded_year import NOBODY, Told, traded_year

STEPS = (
    ("active_strategies",),
    ("flex_statements", "executions", "statement_events"),
    ("closed_campaigns",),
)

YEAR = traded_year()


@pytest.fixture
def results_of_the_year(world, folder, strategies_file):
    """Materialize the statements of the year as a stranger would, without a gateway."""
    from position_sync_dagster.definitions import defs

    for name, content in YEAR.files().items():
        folder.joinpath(name).write_bytes(content)
    strategies_file.write_text(YEAR.strategies())
    for names in STEPS:
        keys = {dg.AssetKey(name) for name in names}
        job = defs().resolve_implicit_global_asset_job_def().get_subset(asset_selection=keys)
        assert job.execute_in_process(instance=world.instance).success


def sums_by_hand(campaigns: list[Told]) -> dict[str, Any]:
    """Return the results of campaigns in `Decimal`, each formula written out."""
    wins = [winner.profit for winner in campaigns if winner.profit > 0]
    losses = [loser.profit for loser in campaigns if loser.profit < 0]
    by_day: dict[date, Decimal] = defaultdict(Decimal)
    for campaign in campaigns:
        by_day[max(campaign.days)] += campaign.profit
    curve = [Decimal(0), *accumulate(by_day[day] for day in sorted(by_day))]
    drawdown = max(max(curve[: end + 1]) - total for end, total in enumerate(curve))
    risks = [told.risk for told in campaigns]
    number = len(campaigns)
    profit = sum(campaign.profit for campaign in campaigns)
    return {
        "number": number,
        "wins": len(wins),
        "win_rate": len(wins) / number,
        "profit": profit,
        "fees": sum(campaign.fees for campaign in campaigns),
        "average_win": sum(wins) / len(wins) if wins else None,
        "average_loss": sum(losses) / len(losses) if losses else None,
        "expectancy": profit / number,
        "profit_factor": sum(wins) / -sum(losses) if losses else None,
        "return": None if None in risks else profit / sum(risks),
        "drawdown": drawdown,
    }


GROUPS = {
    "strategy": lambda one: one.strategy,
    "kind": lambda campaign: campaign.kind,
    "month": lambda campaign: f"{max(campaign.days):%Y-%m}",
    "underlying": lambda campaign: (campaign.shares + campaign.legs)[0]["symbol"].split()[0],
}


RATIOS = ("profit_factor", "return")


def assert_alike(found: dict[str, Any], expected: dict[str, Any], where: Any) -> None:
    """Compare money, which leaves in whole cents, within half a cent, and ratios with digits."""
    for name, value in expected.items():
        if value is None or isinstance(value, str):
            assert found[name] == value, (where, name)
        elif isinstance(value, Decimal) and name not in RATIOS:
            assert found[name] == round(found[name], 2), (where, name)
            assert found[name] == pytest.approx(float(value), abs=0.005 + 1e-6), (where, name)
        else:
            assert found[name] == pytest.approx(float(value), abs=1e-6), (where, name)


def test_a_year_of_forty_campaigns_is_what_a_sum_by_hand_says(results_of_the_year, folder):
    assert len(YEAR.told) == 40
    for by, group_of in GROUPS.items():
        groups = defaultdict(list)
        for told in YEAR.told:
            groups[group_of(told), told.currency].append(told)

        row_of = {(row["group"], row["currency"]): row for row in json_of("results", "--by", by)}
        assert row_of.keys() == groups.keys()
        for key, told in groups.items():
            assert_alike(row_of[key], sums_by_hand(told), key)

    rows = {(row["opened"], row["strategy_id"]): row for row in json_of("results", "--list")}
    assert len(rows) == 40
    for told in YEAR.told:
        opened, closed = min(told.days), max(told.days)
        row = rows[str(opened), told.strategy]
        expected = {
            "kind": told.kind,
            "ended": told.ended,
            "closed": str(closed),
            "days": (closed - opened).days,
            "rolls": told.rolls,
            "profit": told.profit,
            "fees": told.fees,
            "premium_received": told.received,
            "premium_paid": told.paid,
            "capital_at_risk": told.risk,
        }
        assert_alike(row, expected, told)
        if told.risk is None:
            assert "capital_at_risk: the loss had no bound" in row["why_unknown"]
    assert {row["strategy_id"] for row in rows.values()} >= {NOBODY, "wheel-2"}
    of_nobody = [row for row in rows.values() if row["strategy_id"] == NOBODY]
    assert all("worst, best: " in row["why_unknown"] for row in of_nobody)  # no close is recorded

    # Each of its lots is closed, and all of them together brought what the year did.
    lots = [*csv.DictReader(run("export", "lots").splitlines())]
    assert all(lot["closed"] and lot["profit"] and not lot["why_unknown"] for lot in lots)
    for currency in ("USD", "EUR"):
        in_currency = [lot for lot in lots if lot["currency"] == currency]
        for name, amount_of in (
            ("profit", lambda campaign: campaign.profit),
            ("fees", lambda campaign: campaign.fees),
        ):
            by_hand = sum(amount_of(told) for told in YEAR.told if told.currency == currency)
            total = sum(Decimal(lot[name]) for lot in in_currency)
            assert total == pytest.approx(by_hand, abs=Decimal("0.005"))
    kinds = {(lot["opened_by"], lot["closed_by"]) for lot in lots}
    assert {("ASSIGNMENT", "TRADE"), ("TRADE", "EXPIRATION"), ("EXERCISE", "TRADE")} <= kinds

    written = call("export", "campaigns", "--format", "parquet").stdout_bytes
    assert pl.read_parquet(written).height == 40
    moved = [*csv.DictReader(run("export", "movements", "--since", "2025-12-01").splitlines())]
    assert {row["day"][:7] for row in moved} <= {"2025-12", "2026-01"}
