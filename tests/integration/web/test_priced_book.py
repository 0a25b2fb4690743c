"""What is priced of a book, over real tables."""

from datetime import UTC, datetime

from position_sync_dagster.lake.contracts import ContractsTable
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.risk.recorded_risk import read_risk
from position_sync_dagster.web.served_figures import PageFigures
from tests.support.large_lake import FIRST_CONID, make_lake


def test_contracts_of_legs_are_read_with_the_book_and_those_of_other_holdings_too(
    tmp_path, monkeypatch
):
    settings = make_lake(tmp_path / "lake", 4, 2, rounds=1)
    lake = MoneyLake.of(settings)
    now = datetime.now(UTC)
    figures = PageFigures(settings, lake)
    figures.figures(now)
    asked = []
    get = ContractsTable.get

    def watched(table: ContractsTable, conids: object) -> object:
        asked.append(conids)
        return get(table, conids)

    monkeypatch.setattr(ContractsTable, "get", watched)
    _book, legs = figures.risk(now)
    of_all = {FIRST_CONID + number for number in range(4)}
    assert legs.given.details.keys() == of_all
    assert asked == []

    lake.registry.sync.remove_active(FIRST_CONID)
    _book, _scenarios, legs = read_risk(lake, settings, now)
    assert legs.given.details.keys() == of_all
