"""What an import touches is made anew, however old it is, with all that follows."""

from dataclasses import replace
from datetime import UTC, datetime, time
from typing import Any

import dagster as dg
import pytest

from position_sync_dagster.defs.closing import RANGE_END, RANGE_START
from position_sync_dagster.defs.composition import Composition
from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.money.defs.explained_days import books_close, remake_touched_days
from position_sync_dagster.money.defs.extension import money_extension
from position_sync_dagster.money.lake import newest_day
from position_sync_dagster.money.past.closes import Cause, Closure, Stage
from position_sync_dagster.money.past.statement_folder import import_statements
from position_sync_dagster.money.profit.books import being_made
from position_sync_dagster.money.tables import BOOKS
from position_sync_dagster.settings import load_settings
from tests.support import forced_pairs
from tests.support.booked_days import FRIDAY, THURSDAY, Booked
from tests.support.derived_rows import put_rows
from tests.support.flex_files import ACCOUNT
from tests.support.forced_pairs import Scene


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Scene:
    """Return days that are recorded after the last import, which each test copies."""
    scene = forced_pairs.make_scene(tmp_path_factory.mktemp("recorded"))
    forced_pairs.record(scene)
    return scene


@pytest.fixture
def scene(recorded, tmp_path, monkeypatch) -> Scene:
    """Return recorded days as the program of a test finds them."""
    scene = forced_pairs.copy_of(recorded, tmp_path)
    monkeypatch.setenv("POSITION_SYNC_LAKE", scene.lake_path)
    monkeypatch.setenv("POSITION_SYNC_FLEX_FOLDER", str(scene.folder))
    monkeypatch.setenv("POSITION_SYNC_DAILY_START", f"{THURSDAY}")
    return scene


def look(cursor: str | None = None) -> dg.SensorResult:
    with dg.build_sensor_context(cursor=cursor) as context:
        extension = money_extension(load_settings())
        result = remake_touched_days(context, Composition(extension=extension))
    assert isinstance(result, dg.SensorResult)
    return result


def state_both_days(scene: Scene, bought_at: float) -> None:
    """Import one newer statement of Thursday and Friday; only the price of the put may differ."""
    days = [scene.booked(day, 10.5, bought_at) for day in (THURSDAY, FRIDAY)]
    trades = [trade for booked in days for trade in booked.trades or ()]
    both = Booked(held=days[1].held, trades=trades)
    (scene.folder / "both.xml").write_text(both.xml(THURSDAY, FRIDAY, "20260312;010000", ACCOUNT))
    import_statements(scene.opened(), scene.settings)


@pytest.mark.parametrize(
    ("bought_at", "first"), [(6, THURSDAY), (5, FRIDAY)], ids=["another price", "the same again"]
)
def test_days_that_an_import_touches_and_all_later_ones_are_recorded_again(scene, bought_at, first):
    """The last day of a statement is touched also where no movement differs: by its positions."""
    begun = look()
    assert not begun.run_requests
    assert "No import says anything new" in begun.skip_reason.skip_message
    assert not look(begun.cursor).run_requests, "nothing changed"

    state_both_days(scene, bought_at)
    touched = look(begun.cursor)
    (request,) = touched.run_requests
    assert request.tags[RANGE_START] == f"{first}"
    assert request.tags[RANGE_END] == f"{FRIDAY}"
    assert not look(touched.cursor).run_requests


def judged(cause: Cause, hour: int, **values: Any) -> Closure:
    """Return how an option of Friday evening ended, as it was judged at an hour of Saturday."""
    day = datetime.combine(FRIDAY, time(20, 30), UTC)
    closure = Closure(
        change_id="c", account=ACCOUNT, conid=9, symbol="SPY", sec_type="OPT", right=Right.PUT,
        strike=580.0, expiry=FRIDAY, currency="USD", closed_at=day,
        quantity=2.0, cause=cause, stage=Stage.PROVISIONAL, detail="",
        judged_at=datetime.combine(FRIDAY + A_DAY, time(hour), UTC),
    )  # fmt: skip
    return replace(closure, **values)


def test_a_day_is_recorded_again_once_a_close_of_it_is_judged_otherwise(scene):
    """By its cause alone: it is in no row of movements."""
    closures = scene.opened().closures
    closures.add([judged(Cause.UNEXPLAINED, 1)])
    begun = look()
    closures.add([judged(Cause.EXPIRED_WORTHLESS, 5)])
    touched = look(begun.cursor)
    (request,) = touched.run_requests
    assert request.tags[RANGE_START] == request.tags[RANGE_END] == f"{FRIDAY}"

    closures.add([judged(Cause.EXPIRED_WORTHLESS, 6, detail="in other words")])
    said_again = look(touched.cursor)
    assert not said_again.run_requests
    closures.add([judged(Cause.EXPIRED_WORTHLESS, 7, evidence=["a statement's row"])])
    assert look(said_again.cursor).run_requests, "nothing is inferred any more"


def test_where_the_versions_of_the_last_look_are_gone_all_recorded_days_are_made_again(scene):
    (request,) = look('{"movements": "pv1::999:", "statement_events": "pv1::1:"}').run_requests
    assert request.tags[RANGE_START] == f"{THURSDAY}"


def test_books_whose_sources_changed_since_are_named_so_and_have_no_difference(scene):
    """A run explains the day anew; its books are not made yet."""
    lake = scene.opened()
    forced_pairs.state_correction(scene)
    forced_pairs.explain(scene)
    table = lake.derived_table(BOOKS)
    rows = newest_day(table)
    assert being_made(lake, scene.settings, rows)

    put_rows(table, {FRIDAY: rows.with_columns(difference=205.0)})
    result = books_close.evaluate(lake, scene.settings)
    assert "being made" in str(result.description)
    assert "205" not in str(result.description)

    forced_pairs.book(scene)
    assert not being_made(lake, scene.settings, newest_day(table))
    assert books_close.evaluate(lake, scene.settings).passed
