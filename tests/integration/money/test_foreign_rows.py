"""Figures beside rows of the ledger that another program wrote, with every extreme value."""

import json
from dataclasses import replace

import pytest

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.figures import read_figures
from position_sync_dagster.settings import Settings
from tests.integration.lake.test_foreign_rows import LEDGER, rows_of_kind, write
from tests.support.spy_rows import NOW, row


@pytest.mark.parametrize("kind", sorted({*LEDGER.columns.values()}))
def test_a_value_that_no_program_can_use_is_unknown_and_the_others_are_shown(lake, kind):
    ledger = lake.updates.sync
    ledger.append([row(1, market_value=150.0)])
    write(lake.updates.table, rows_of_kind(ledger.latest(), kind, LEDGER, update_id="foreign-{}"))
    ledger.append(replace(row(conid), market_value=7.0, timestamp=NOW) for conid in (2, 3))
    figures = read_figures(MoneyLake(lake.path), Settings(lake=str(lake.path)), NOW)
    shown = json.loads(figures.to_json())
    values = {position["conid"]: position["market_value"] for position in shown["positions"]}
    assert {conid: values[conid] for conid in (1, 2, 3)} == {1: 150.0, 2: 7.0, 3: 7.0}
