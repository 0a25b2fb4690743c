"""Daily positions: backfills, daylight saving, half days, holidays."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial

import dagster as dg
import pytest

from position_sync_dagster.defs.assets import past_days
from position_sync_dagster.defs.assets.past_days import daily_asset, days_check
from position_sync_dagster.defs.closing import closing, last_days
from position_sync_dagster.defs.composition import tables_and_checks
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.position_update import GreeksSource, ValueOrigin
from position_sync_dagster.domain.queue_request import Answer
from position_sync_dagster.lake.schema import (
    DAILY_POSITIONS,
)
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.statement_days import StatementDays
from position_sync_dagster.settings import load_settings
from position_sync_dagster.sync.exchange_days import closing_times, day_of, exchange_of
from tests.support.flex_files import of_day, statement

DAYS = exchange_of("XNYS")
PARTITIONS = past_days.exchange_partitions(DAYS, date(2025, 1, 2))
DAILY = daily_asset(PARTITIONS, MoneyLake, StatementDays)
days_are_complete = days_check(StatementDays)

# Five trading days around the weekend on which New York turns its clocks.
WEEK = ("2026-03-05", "2026-03-11")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def partition_range(first: str, last: str) -> dict[str, str]:
    return {
        f"dagster/asset_partition_range_{end}": day
        for end, day in (("start", first), ("end", last))
    }


def days_between(first: str, last: str) -> list[date]:
    """Return the trading days from one to another."""
    begin, end = date.fromisoformat(first), date.fromisoformat(last)
    days = (begin + timedelta(days=number) for number in range((end - begin).days + 1))
    return [day for day in days if DAYS.is_trading_day(day)]


@pytest.fixture
def fill(world) -> Callable[..., None]:
    """Fill days as a run does; a run of Dagster takes four times as long."""

    def write(first: str, last: str, clock: Clock = utc_now) -> None:
        days = days_between(first, last)
        service = partial(StatementDays, world.lake, load_settings(), clock=clock)
        past_days.fill(world.lake, service, days)

    return write


@pytest.fixture
def fill_in_run(world) -> Callable[..., dg.ExecuteInProcessResult]:
    def run(first: str, last: str, asset: dg.AssetsDefinition = DAILY) -> dg.ExecuteInProcessResult:
        return world.materialize(asset, tags=partition_range(first, last))

    return run


@pytest.fixture
def table(lake) -> Table:
    return lake.derived_table(DAILY_POSITIONS)


def by_day(table: Table) -> list[tuple[str, float, float]]:
    rows = table.rows().sort("session_date", "conid")
    values = rows.select("session_date", "market_value", "age_s").rows()
    return [(str(day), value, age) for day, value, age in values]


def test_a_backfill_over_five_days_fills_each_with_its_last_value_before_the_close(
    world, fill_in_run, table
):
    for day in range(5, 12):
        world.row(1, utc(f"2026-03-{day:02}T19:59:00"), market_value=float(day))
        world.row(1, utc(f"2026-03-{day:02}T20:59:00"), market_value=float(day) + 0.5)
        world.row(1, utc(f"2026-03-{day:02}T22:00:00"), market_value=-1.0)
    result = fill_in_run(*WEEK)
    assert result.success
    assert by_day(table) == [
        ("2026-03-05", 5.5, 60.0),
        ("2026-03-06", 6.5, 60.0),
        ("2026-03-09", 9.0, 60.0),
        ("2026-03-10", 10.0, 60.0),
        ("2026-03-11", 11.0, 60.0),
    ]

    events = result.asset_materializations_for_node("daily_positions")
    assert [event.partition for event in events] == [row[0] for row in by_day(table)]
    assert {e.metadata["dagster/partition_row_count"].value for e in events} == {1}
    assert {e.metadata["unrealized_pnl/USD"].value for e in events} == {50.0}
    assert {e.metadata["without_daily_pnl"].value for e in events} == {1}
    assert not any("daily_pnl/USD" in e.metadata for e in events)


def test_the_age_at_the_close_is_that_of_the_value_and_not_of_its_row(world, fill, table):
    written = utc("2026-03-05T20:59:00")
    valued = utc("2026-03-05T20:50:00")
    for conid, origin in ((1, ValueOrigin.PORTFOLIO), (2, ValueOrigin.TICK)):
        world.row(conid, written, value_time=valued, value_source=origin)
    world.row(3, written, value_source=ValueOrigin.PORTFOLIO)
    fill("2026-03-05", "2026-03-05")
    assert [age for _day, _value, age in by_day(table)] == [600.0, 60.0, 60.0]


def test_the_age_of_delayed_data_at_the_close_is_that_of_their_last_trade_or_unknown(
    world, fill_in_run, table
):
    delayed = {"value_source": ValueOrigin.TICK, "market_data_type": 3}
    written = utc("2026-03-05T20:59:00")
    traded = utc("2026-03-05T20:40:00")
    world.row(1, written, value_time=traded, **delayed)
    world.row(2, written, **delayed)
    result = fill_in_run("2026-03-05", "2026-03-05")
    assert [age for _day, _value, age in by_day(table)] == [1200.0, None]
    (event,) = result.asset_materializations_for_node("daily_positions")
    assert "oldest_value_age_s" not in event.metadata


def test_an_unchanged_value_is_as_old_at_the_close_as_its_last_confirmation_before_it(
    world, fill, table, settings
):
    written = utc("2026-03-05T20:04:00")
    world.row(1, written, value_time=written, value_source=ValueOrigin.PORTFOLIO, update_id="row")
    for marked, confirmed in (("20:30", "20:29"), ("20:59", "20:58"), ("21:05", "21:04")):
        at = utc(f"2026-03-05T{marked}:00")
        queue = MoneyLake.of(settings, clock=lambda at=at: at).queue.sync  # type: ignore[misc]
        queue.initialize()
        request_id = queue.insert(1, "SPY")
        known = Answer(update_id="row", confirmed_at=utc(f"2026-03-05T{confirmed}:00"))
        queue.mark_success([request_id], answers={request_id: known})
    fill("2026-03-05", "2026-03-05")
    assert [age for _day, _value, age in by_day(table)] == [120.0]


def test_the_same_backfill_again_changes_nothing(world, fill, fill_in_run, table):
    world.row(1, utc("2026-03-05T19:00:00"))
    fill(*WEEK)
    version = table.version()
    again = fill_in_run(*WEEK)
    assert again.success
    assert table.version() == version
    (event, *_) = again.asset_materializations_for_node("daily_positions")
    assert event.tags["dagster/data_version"] == str(version)


def test_a_day_that_is_filled_again_leaves_the_others_alone(world, fill, table):
    world.row(1, utc("2026-03-05T19:00:00"), market_value=1.0)
    world.row(1, utc("2026-03-06T19:00:00"), market_value=2.0)
    fill("2026-03-05", "2026-03-06")
    world.row(1, utc("2026-03-05T19:30:00"), market_value=3.0)
    fill("2026-03-05", "2026-03-05")
    assert [value for _, value, _ in by_day(table)] == [3.0, 2.0]


def test_a_half_day_ends_at_its_own_close(world, fill, table):
    world.row(1, utc("2025-11-28T17:59:00"), market_value=1.0)
    world.row(1, utc("2025-11-28T18:30:00"), market_value=2.0)
    fill("2025-11-28", "2025-11-28")
    assert by_day(table) == [("2025-11-28", 1.0, 60.0)]


def test_a_value_from_before_keeps_its_age_and_one_from_last_week_is_none(world, fill, table):
    world.row(1, utc("2026-03-05T21:00:00"), market_value=1.0)
    fill(*WEEK)
    assert by_day(table) == [("2026-03-05", 1.0, 0.0), ("2026-03-06", 1.0, 86400.0),
                             ("2026-03-09", 1.0, 342000.0)]  # fmt: skip


def test_a_day_that_nothing_is_known_of_stays_missing_and_says_why(
    world, fill_in_run, table, instance
):
    world.row(1, utc("2026-03-05T21:00:00"))
    assert fill_in_run("2026-03-04", "2026-03-05").success
    assert instance.get_materialized_partitions(dg.AssetKey("daily_positions")) == {"2026-03-05"}
    assert skipped(instance) == {
        "2026-03-04": "no row of the ledger is of this day, and nothing is stated of it"
    }
    assert [day for day, *_ in by_day(table)] == ["2026-03-05"]


def test_a_closed_position_shows_on_the_day_it_was_closed_and_not_after(world, fill, table):
    world.row(1, utc("2026-03-05T19:00:00"))
    world.row(1, utc("2026-03-06T19:00:00"), position=0.0)
    fill(*WEEK)
    rows = table.rows().sort("session_date")
    assert rows["position"].to_list() == [1.0, 0.0]


def test_a_range_with_a_day_that_is_not_over_fills_the_others(world, fill_in_run, table, instance):
    for day in range(5, 12):
        world.row(1, utc(f"2026-03-{day:02}T15:00:00"))
    at_noon_of_the_last_day = daily_asset(
        PARTITIONS, MoneyLake, StatementDays, clock=lambda: utc("2026-03-11T17:00:00")
    )
    assert fill_in_run(*WEEK, asset=at_noon_of_the_last_day).success
    assert [day for day, *_ in by_day(table)] == [
        "2026-03-05", "2026-03-06", "2026-03-09", "2026-03-10",
    ]  # fmt: skip
    assert skipped(instance) == {"2026-03-11": "it closes at 2026-03-11 20:00 UTC"}


def test_a_day_is_over_at_the_moment_of_its_close(world, fill, table):
    world.row(1, utc("2026-03-11T15:00:00"))
    fill("2026-03-11", "2026-03-11", clock=lambda: utc("2026-03-11T20:00:00"))
    assert [day for day, *_ in by_day(table)] == ["2026-03-11"]


@pytest.mark.parametrize("day", ["2026-11-26", "2026-07-03", "2026-03-07", "2026-03-08"])
def test_holidays_and_weekends_have_no_partition(day):
    assert day not in PARTITIONS.get_partition_keys()


@pytest.mark.parametrize(
    ("now", "last"),
    [
        ("2026-03-09T20:19:59", "2026-03-06"),
        ("2026-03-09T20:20:00", "2026-03-09"),
        ("2026-03-06T21:20:00", "2026-03-06"),
        ("2026-03-07T12:00:00", "2026-03-06"),
        ("2026-03-08T23:59:00", "2026-03-06"),
        ("2026-03-10T03:00:00", "2026-03-09"),
        ("2026-11-26T12:00:00", "2026-11-25"),
        ("2026-11-26T22:00:00", "2026-11-25"),  # a holiday on a weekday
        ("2026-11-27T21:19:59", "2026-11-25"),
        ("2026-11-27T21:20:00", "2026-11-27"),
        ("2026-12-27T12:00:00", "2026-12-24"),  # one before a weekend
        ("2026-12-28T21:20:00", "2026-12-28"),
    ],
)
def test_a_day_is_a_partition_from_its_close_on(now, last):
    with dg.partition_loading_context(effective_dt=utc(now)):
        assert PARTITIONS.get_last_partition_key() == last
        assert PARTITIONS.get_partition_keys()[-1] == last


def test_days_that_would_settle_at_a_full_hour_are_partitions_a_minute_later():
    days = replace(DAYS, closes_at=time(15, 40))
    partitions = past_days.exchange_partitions(days, date(2026, 3, 2))
    with dg.partition_loading_context(effective_dt=utc("2026-03-09T20:01:00")):
        assert partitions.get_partition_keys()[-2:] == ["2026-03-06", "2026-03-09"]
    with dg.partition_loading_context(effective_dt=utc("2026-03-09T20:00:59")):
        assert partitions.get_last_partition_key() == "2026-03-06"


def test_the_first_partition_is_the_first_day_of_the_ledger_or_the_setting(world, settings):
    assert _first_key() == datetime.now(UTC).date().isoformat()
    world.row(1, utc("2026-03-05T15:00:00"))
    world.row(1, utc("2026-03-06T15:00:00"))
    assert _first_key() == "2026-03-05"
    world.set(daily_start="2026-02-02")
    assert _first_key() == "2026-02-02"


def _first_key() -> str:
    return past_days.exchange_since(load_settings(), StatementDays)[1].isoformat()


def skipped(instance: dg.DagsterInstance) -> dict[str, str]:
    """Return the days of which a run said why it did not fill them."""
    records = instance.fetch_observations(dg.AssetKey("daily_positions"), limit=100).records
    asset_observations = [record.asset_observation for record in records]
    return {
        asset_observation.partition: asset_observation.metadata["skipped"].value
        for asset_observation in asset_observations
    }


@pytest.fixture
def evaluate(settings, instance, monkeypatch) -> Callable[..., list[dg.RunRequest]]:
    """Evaluate a schedule at a time."""
    monkeypatch.setenv("POSITION_SYNC_DAILY_START", "2026-01-02")
    context = dg.ComponentTree.for_test().load_context
    alone = dg.Definitions.merge(closing(context), tables_and_checks(context))
    repository = alone.get_repository_def()

    def requests(name: str, at: str) -> list[dg.RunRequest]:
        schedule = repository.get_schedule_def(name)
        moment = datetime.fromisoformat(at)
        assert schedule.execution_timezone == "America/New_York"
        with dg.build_schedule_context(
            instance=instance, scheduled_execution_time=moment, repository_def=repository
        ) as context:
            return [*(schedule.evaluate_tick(context).run_requests or ())]

    return requests


@pytest.mark.parametrize(("calendar", "warns_after"), [("XNYS", 4), ("XETR", 6), ("24/7", 4)])
def test_days_are_overdue_when_the_exchange_has_not_been_closed_for_so_long(
    world, calendar, warns_after
):
    """Frankfurt closes on Tuesday, December 23, 2025, and opens on Monday after Christmas."""
    world.set(calendar=calendar)
    (daily,) = closing(dg.ComponentTree.for_test().load_context).assets
    policy = daily.get_asset_spec().freshness_policy
    assert policy.warn_window.to_timedelta() == timedelta(days=warns_after)
    assert policy.fail_window.to_timedelta() == timedelta(days=warns_after + 1)


def test_the_schedule_runs_the_day_that_just_closed_and_rests_on_holidays(evaluate):
    def days(at: str) -> list[str | None]:
        return [request.partition_key for request in evaluate("record_day_after_close", at)]

    assert days("2026-03-09T16:20:00-04:00") == ["2026-03-09"]
    assert days("2026-11-26T16:20:00-05:00") == []
    assert days("2026-11-27T16:20:00-05:00") == ["2026-11-27"]


def test_the_last_eight_trading_days_are_recorded_again_by_night(evaluate):
    days = last_days(DAYS, 3, before=date(2026, 11, 30))
    assert list(map(str, days)) == ["2026-11-24", "2026-11-25", "2026-11-27"]
    (request,) = evaluate("record_late_rows", "2028-03-10T06:15:00-05:00")
    assert request.tags["dagster/asset_partition_range_start"] == "2028-02-29"
    assert request.tags["dagster/asset_partition_range_end"] == "2028-03-09"


def test_a_close_has_the_greeks_of_the_gateway_and_none_that_were_computed(world, fill, table):
    at = utc("2026-03-05T20:59:00")
    greeks = dict(delta=0.5, implied_vol=0.2, underlying_price=100.0, greeks_time=at)
    world.row(1, at, greeks_source=GreeksSource.GATEWAY, **greeks)
    world.row(
        2, at, greeks_source=GreeksSource.MODEL, greeks_method="AMERICAN", volatility_time=at,
        **greeks,
    )  # fmt: skip
    fill("2026-03-05", "2026-03-05")
    names = [*greeks, "greeks_source", "greeks_method", "volatility_time"]
    gateway, computed = table.rows().sort("conid").select(names).rows()
    assert gateway == (*greeks.values(), "GATEWAY", None, None)
    assert computed == (None,) * len(names)


def test_the_check_reads_the_table_and_the_calendar(world, fill):
    world.set(daily_start="2026-03-05")
    world.row(1, utc("2026-03-05T20:00:00"))
    fill("2026-03-05", "2026-03-06")
    evaluation = world.fails(days_are_complete)
    assert "1 only older values" in evaluation.description
    assert "statements of 2026-03-06 to " in evaluation.description
    assert evaluation.metadata["only_older_values"].value == 1


def test_values_of_the_evening_before_are_older_than_the_day_of_the_exchange(world, fill):
    world.set(daily_start="2026-03-05")
    world.row(1, utc("2026-03-05T02:00:00"))  # nine in the evening in New York
    fill("2026-03-05", "2026-03-05")
    assert world.fails(days_are_complete).metadata["only_older_values"].value == 1


@pytest.mark.parametrize(("calendar", "before", "after"), [("XNYS", 20, 22), ("XTKS", 5, 23)])
@pytest.mark.parametrize("is_missed", [True, False])
def test_a_ledger_that_begins_after_the_close_of_a_day_does_not_miss_that_day(
    world, fill, calendar, before, after, is_missed
):
    """Eleven at night, UTC, is the next morning in Tokyo."""
    world.set(calendar=calendar)
    hour, first = (before, "2026-03-05") if is_missed else (after, "2026-03-09")
    world.row(1, utc(f"2026-03-05T{hour:02}:00:00"))
    world.row(2, utc("2026-03-06T05:00:00"))
    fill("2026-03-06", "2026-03-06")
    assert f"statements of {first} to " in world.fails(days_are_complete).description


def test_a_day_on_which_nothing_was_held_as_a_statement_says_is_complete(
    world, fill, fill_in_run, tmp_path
):
    world.set(daily_start="2026-03-05", flex_folder=tmp_path)
    for day in ("20260305", "20260306"):
        (tmp_path / f"{day}.xml").write_bytes(statement(first=day, generated=f"{day};210000"))
    world.row(1, utc("2026-03-06T20:00:00"))  # this day has a row, and is not filled
    event = world.event(fill_in_run("2026-03-05", "2026-03-05"), "daily_positions")
    assert event.metadata["dagster/partition_row_count"].value == 0
    evaluation = world.fails(days_are_complete)
    assert "statements of 2026-03-09 to " in evaluation.description
    assert "Materialize 2026-03-06 to " in evaluation.description, "that has a statement"
    (tmp_path / "bad.xml").write_text("<cut")
    fill("2026-03-05", "2026-03-05")
    again = world.fails(days_are_complete)
    assert again.metadata["missing"].value == evaluation.metadata["missing"].value


def test_stated_days_before_the_first_recorded_one_wait_for_a_backfill_and_later_ones_are_gaps(
    world, fill, tmp_path
):
    world.set(flex_folder=tmp_path)
    *stated, last = last_days(DAYS, 5, before=day_of("XNYS", utc_now()))
    for day in stated:
        (tmp_path / f"{day}.xml").write_bytes(of_day(day))
    world.row(1, closing_times("XNYS", [last])[last] - timedelta(seconds=5))
    fill(stated[2].isoformat(), last.isoformat())
    evaluation = world.passes(days_are_complete)
    assert f"Earlier ones, from {stated[0]} on, wait for a backfill" in evaluation.description
    assert evaluation.metadata["days"].value == 3

    fill(stated[0].isoformat(), stated[0].isoformat())
    gap = world.fails(days_are_complete)
    assert gap.metadata["what_to_do"].value == (
        f"Materialize {stated[1]} to {stated[1]} of daily_positions."
    )
    fill(stated[1].isoformat(), stated[1].isoformat())
    assert world.passes(days_are_complete).description == "5 trading days, all recorded"
