"""Another version of Dagster may lack a private symbol: everything runs, and says so once."""

from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace

import dagster as dg
import pytest

from position_sync_dagster.dagster_host import dagster_internals
from position_sync_dagster.dagster_host.dagster_internals import Internal
from position_sync_dagster.defs import maintenance
from position_sync_dagster.defs.assets import daily_positions
from position_sync_dagster.defs.checks.check_results import check_evaluation, unknown_result
from position_sync_dagster.settings import load_settings

ALL = [one for one in vars(dagster_internals).values() if isinstance(one, Internal)]
SYMBOLS = [(internal, name) for internal in ALL for name in internal.symbols]


@pytest.fixture(autouse=True)
def _load_again():
    dagster_internals._load.cache_clear()
    yield
    dagster_internals._load.cache_clear()


@pytest.fixture
def remove(monkeypatch):
    """Remove symbols from Dagster, as another version of it might."""

    def removed(internal: Internal, *names: str) -> None:
        for name in names or internal.symbols:
            monkeypatch.delattr(import_module(internal.symbols[name]), name, raising=False)

    return removed


@pytest.mark.parametrize(("internal", "name"), SYMBOLS)
def test_a_symbol_that_is_missing_is_logged_once_with_what_happens_instead(
    internal, name, remove, caplog
):
    assert getattr(internal.load(), name) is not None
    dagster_internals._load.cache_clear()
    remove(internal, name)
    assert internal.load() is None
    assert internal.load() is None
    (line,) = caplog.messages
    assert f"no {internal.symbols[name]}.{name}. " in line
    assert line.endswith(f"{internal.without}.")


@pytest.mark.parametrize(
    "internal", [dagster_internals.EVENT_TABLES, dagster_internals.TICKS], ids=["events", "ticks"]
)
def test_what_cannot_be_deleted_from_dagsters_storage_stays(internal, remove):
    now = datetime.now(UTC)
    with dg.instance_for_test() as instance:
        remove(internal, next(iter(internal.symbols)))
        if internal is dagster_internals.TICKS:
            maintenance.forget_old_ticks(instance, now=now)
        else:
            assert maintenance.forget_old_events(instance, before=now, keep=0) == 0
            assert maintenance.lost_runs(instance) == []


def test_a_check_without_its_materialization_is_still_logged(remove):
    remove(dagster_internals.CHECKED_EVENT)
    target = SimpleNamespace(storage_id=1, run_id="run", timestamp=0.0)
    event = check_evaluation(
        dg.AssetCheckKey(dg.AssetKey("an_asset"), "a_check"), unknown_result("why"), target
    )
    assert (event.check_name, event.target_materialization_data) == ("a_check", None)


@pytest.mark.parametrize("name", dagster_internals.LOADING.symbols)
def test_the_trading_days_are_looked_up_where_they_cannot_be_passed_on(name, remove):
    remove(dagster_internals.LOADING, name)
    days, first = daily_positions.known_days(load_settings())
    assert days.calendar == load_settings().calendar
    assert first <= datetime.now(UTC).date()


def test_an_engine_is_made_once_for_a_database_and_the_oldest_is_forgotten(monkeypatch):
    made = []

    def create(url, **options):
        made.append(url)
        return object()

    engine_for = dagster_internals._keeping(create)
    options = {"connect_args": {"timeout": 5}}
    assert engine_for("one", **options) is engine_for("one", **options)
    assert engine_for("one") is not engine_for("one", **options)
    for number in range(dagster_internals.ENGINES_KEPT):
        engine_for(str(number))
    engine_for("one")
    assert made.count("one") == 3
