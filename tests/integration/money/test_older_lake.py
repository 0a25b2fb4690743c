"""A lake that an older release was writing: the tables of money are those of this release."""

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from position_sync_dagster.lake.schema import VERSION_PROPERTY
from position_sync_dagster.money.campaigns.campaign_days import CAUSES
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.results import read_campaigns
from position_sync_dagster.money.defs.explained_days import closed_campaigns
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.causes import CAUSE_OF
from position_sync_dagster.money.past.closes import Closure, Stage
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.past.movement_book import (
    MovementBook,
    movements_with_inferred,
)
from position_sync_dagster.money.profit.returns import Period, read_returns
from position_sync_dagster.money.tables import CLOSED_CAMPAIGNS
from position_sync_dagster.settings import Settings
from tests.support.booked_days import MONDAY, SPY, Booked, Books, held, paid, traded
from tests.support.contracts import contract_details
from tests.support.hosts import ROOT

# What a row of `movements` and a cause say of a contract alike.
TERMS = ("symbol", "sec_type", "right", "strike", "expiry", "currency")


def unpacked(name: str, folder: Path) -> Settings:
    """Unpack a lake of the repository; return the settings that name it."""
    with tarfile.open(ROOT / "tests" / "support" / name) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder / "lake")  # noqa: S202 - an archive of this repository
    (folder / "flex").mkdir()
    return Settings(lake=str(folder / "lake"), flex_folder=folder / "flex")


async def opened(name: str, folder: Path) -> tuple[MoneyLake, Settings]:
    """Unpack a lake of the repository, and open it as a program of this release does."""
    settings = unpacked(name, folder)
    lake = MoneyLake.of(settings)
    await lake.initialize()
    return lake, settings


LAKES = ("older-lake.tar.gz", "lake-with-history.tar.gz", "lake-with-trades.tar.gz")


@pytest.mark.parametrize("name", LAKES)
async def test_the_tables_of_money_of_an_older_lake_are_migrated(tmp_path, name):
    lake, _settings = await opened(name, tmp_path)
    for table in lake.tables:
        stored = DeltaTable(str(table.path))
        properties = stored.metadata().configuration
        assert properties[VERSION_PROPERTY] == str(table.spec.version), table.path
        assert {field.name for field in stored.schema().fields} == {*table.spec.columns}
    assert "multiplier" in lake.executions.table.rows().columns


async def test_a_lake_with_history_keeps_it_and_a_corrected_statement_changes_it(tmp_path):
    """A put that was assigned beside 50 shares of nobody, all of which were sold at 598."""
    lake, settings = await opened("lake-with-history.tar.gz", tmp_path)
    evidence = [closure.evidence for closure in lake.closures.records()]
    assert evidence == [["e40-1-0-2026-03-06"], ["e41--150-598-2026-03-09"]]
    [campaign] = read_campaigns(lake)
    stored = DeltaTable(str(lake.derived_table(CLOSED_CAMPAIGNS).path))
    assert {field.name for field in stored.schema().fields} == {*CLOSED_CAMPAIGNS.columns}
    closed_campaigns.derive(lake, settings, None)
    [made_again] = read_campaigns(lake)
    names = ("why_unknown", "entry_unknown", "cost_per_share", "profit_reached", *CAUSES)
    newer = {name: getattr(made_again, name) for name in names}
    assert made_again == replace(campaign, **newer)
    assert made_again.cost_per_share == pytest.approx(589.01)
    assert (made_again.worst, made_again.best) == (-101.0, 917.0)  # by its three recorded days
    assert [getattr(made_again, name) for name in CAUSES] == [300.0, 0.0, 0.0, 0.0, 0.0]
    assert campaign.profit == 917.0
    assert made_again.profit_reached == pytest.approx(917 / 1100)  # of the premium
    [returned] = read_returns(lake, settings, Period.ALL)
    assert returned.days_known == 3
    assert returned.profit == pytest.approx(1326.0)
    assert CloseExplainer(lake).explain().rows == 0

    books = Books(lake, settings, settings.flex_folder)
    sold = traded(SPY, -150, 599, MONDAY, ibCommission="-3")
    dividend = paid("Dividends", 30, MONDAY, conid=SPY["conid"], symbol="SPY")
    corrected = Booked(held=[held(SPY, 0, 599)], trades=[sold], cash=[dividend])
    books.state(MONDAY, corrected, generated="20260401;000000")
    [corrected_campaign] = CampaignBook(lake).rows()
    assert corrected_campaign.profit == 1017.0
    profits = books.explained(MONDAY).select("strategy_id", "profit")
    assert dict(profits.iter_rows()) == pytest.approx({"UNATTRIBUTED": 209.0, "w": 418.0})


def cause_of(inferred: dict[str, Any]) -> Closure:
    """Return the cause from which a row followed."""
    same = {name: inferred[name] for name in ("change_id", "account", "conid", *TERMS)}
    return Closure(
        **same,
        closed_at=inferred["at"],
        quantity=-inferred["quantity"],
        cause=CAUSE_OF[inferred["kind"]],
        stage=Stage.PROVISIONAL,
        detail="",
        counter_conid=inferred["counter_conid"],
        judged_at=inferred["stated_at"],
    )


@pytest.mark.parametrize("of_one_file", [False, True], ids=["files", "one file"])
async def test_a_lake_with_trades_of_the_day_keeps_their_multipliers_and_each_movement(
    tmp_path, of_one_file
):
    """The release of commit 6a471e36 wrote it, with its stream and its import of statements.

    It had the multipliers of eleven trades in JSON, and named the statements of 41 by their file.
    No contract details are there, and no statements, from which they could be known again.
    """
    settings = unpacked("lake-with-trades.tar.gz", tmp_path)
    movements = f"{settings.lake}/movements"
    for table in ("movements", "statement_events") if of_one_file else ():
        rows = pl.read_delta(f"{settings.lake}/{table}")
        file = pl.when(pl.col("statement").is_not_null()).then(pl.lit("by-day.xml"))
        named = rows.with_columns(statement=file, stated_at=pl.col("stated_at").max())
        named.write_delta(f"{settings.lake}/{table}", mode="overwrite")
    told = ("movement_id", "source", "day", "quantity", "multiplier", "cash", "fee")
    before = pl.read_delta(movements).select(told).sort("movement_id")
    assert dict(before["source"].value_counts().iter_rows()) == {
        "API": 11, "STATEMENT": 41, "INFERRED": 3,
    }  # fmt: skip

    lake = MoneyLake.of(settings)
    await lake.initialize()
    by_source = lake.executions.table.rows().group_by("source")
    multipliers = dict(by_source.agg(pl.col("multiplier").unique()).iter_rows())
    assert multipliers == {"GATEWAY": [100.0], "FLEX": [None]}
    # What follows from causes was in the table too. It is told from these now, each once.
    for option in lake.movements.table.rows(pl.col("source") == "INFERRED").to_dicts():
        if option["right"] is not None:
            lake.closures.add([cause_of(option)])
            lake.contracts.put([contract_details(option["conid"], multiplier=100.0)])
    assert_frame_equal(movements_with_inferred(lake).select(told).sort("movement_id"), before)
    MovementBook(lake).update()
    after = movements_with_inferred(lake).select(told).sort("movement_id")
    assert_frame_equal(after, before)
    stated = pl.read_delta(movements).select(told).sort("movement_id")
    assert_frame_equal(stated, before.filter(pl.col("source") != "INFERRED"))
