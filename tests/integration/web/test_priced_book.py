"""What is priced of a book, over real tables."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from position_sync_dagster.lake.contracts import ContractsTable
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.owned_parts import PostingBook
from position_sync_dagster.money.reports import book, exposure
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.money.risk import priced_legs
from position_sync_dagster.money.risk.recorded_risk import read_risk
from position_sync_dagster.web import served_figures
from position_sync_dagster.web.book_answers import CurveQuery, read_curve
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


@pytest.fixture
def settings(tmp_path):
    return make_lake(tmp_path / "lake", 40, 2, rounds=1)


@pytest.fixture
def calls(monkeypatch):
    """Returns the first argument of each call of a function, from now on."""

    def watch(module: object, name: str) -> list[Any]:
        asked = []
        function: Callable[..., Any] = getattr(module, name)

        def watched(first: Any, *others: Any) -> Any:
            asked.append(first)
            return function(first, *others)

        monkeypatch.setattr(module, name, watched)
        return asked

    return watch


def test_the_curve_of_a_strategy_prices_its_legs_alone_and_is_that_of_the_whole_book(
    settings, calls, monkeypatch
):
    monkeypatch.setattr(served_figures, "SMALL_BOOK", 39)
    now = datetime.now(UTC)
    query = CurveQuery(strategy="SYM000-0")
    whole = PageFigures(settings)
    whole.risk(now)
    of_whole = read_curve(whole, query, now)
    assert of_whole["curves"]

    priced = calls(priced_legs, "option_terms")
    assert read_curve(PageFigures(settings), query, now) == of_whole
    assert {option.conid for option in priced} == {*range(FIRST_CONID, FIRST_CONID + 10)}


def test_legs_are_compared_with_their_contracts_again_only_after_one_of_them_changed(
    settings, calls
):
    lake = MoneyLake.of(settings)
    figures = PageFigures(settings, lake)
    compared = calls(exposure, "contract_mismatch")

    def matching(after_s: float) -> int:
        compared.clear()
        now = datetime.now(UTC) + timedelta(seconds=after_s)
        return len(figures.figures(now).book.claims.matching)

    assert matching(after_s=0) == 40
    assert len(compared) == 40
    assert matching(after_s=10) == 40
    assert compared == []

    details = lake.contracts.get([FIRST_CONID])[FIRST_CONID]
    seen_at = details.seen_at + timedelta(seconds=1)
    lake.contracts.put([replace(details, strike=1.0, seen_at=seen_at)])
    assert matching(after_s=20) == 39
    assert len(compared) == 40


def test_a_status_is_that_of_the_whole_book_and_makes_no_postings(settings, calls):
    lake = MoneyLake.of(settings)
    now = datetime.now(UTC)
    made = calls(PostingBook, "postings")
    status = read_status(lake, settings, now)
    assert made == []
    assert status.legs_held == 40
    assert status == read_status(lake, settings, now, book=book.read_book(lake, settings, now))
    assert len(made) == 1


def test_what_is_open_of_all_strategies_is_computed_at_once(settings, calls):
    computed = calls(book, "open_profits")
    strategies = PageFigures(settings).figures(datetime.now(UTC)).book.strategies
    assert len(strategies) == 4
    for sums in strategies:
        assert sums.since_first_leg.open == pytest.approx(sums.unrealized_pnl)
    assert len(computed) == 1
