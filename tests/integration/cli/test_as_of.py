"""`--as-of`: what the commands show of a moment in the past, from rows alone."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.position_update import GreeksSource, PositionUpdate, Source
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.money.as_of import MomentError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.known_names import UnknownStrategyError
from tests.support.command_line import call
from tests.support.holdings import make_row
from tests.unit.money.past.test_causes import details

NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def row(conid: int, at: datetime, value: float, **more: Any) -> PositionUpdate:
    return make_row(conid, at, market_value=value, currency="USD", value_time=at, **more)


@pytest.fixture
def told(lake) -> MoneyLake:
    """Write a row at noon, one of noon that comes an hour later, and one that comes at two."""
    moment = NOON
    lake = MoneyLake(lake.path, fsync=False, clock=lambda: moment)
    legs = [make_leg(conid=1, symbol="SPY", strategy_id="a", added_at=NOON - HOUR)]
    lake.registry.sync.replace_all(legs)
    lake.updates.sync.append([row(1, NOON, 100.0), row(2, NOON, 7.0)])
    moment = NOON + HOUR
    lake.updates.sync.append([row(1, NOON + timedelta(minutes=1), 150.0)])
    moment = NOON + 2 * HOUR
    lake.updates.sync.append([row(1, moment, 200.0)])
    lake.registry.sync.replace_all([])
    return lake


def values(at: datetime, *options: str) -> list[float]:
    answer = call("positions", "--json", "--as-of", at.isoformat(), *options)
    assert f"{at:%Y-%m-%d %H:%M:%S} UTC" in answer.stderr
    return [row["market_value"] for row in json.loads(answer.stdout)]


def test_positions_are_shown_as_they_were_known(told) -> None:
    half_past = NOON + HOUR / 2
    assert values(half_past) == [100.0, 7.0]
    assert values(NOON + HOUR) == [150.0, 7.0]
    assert values(NOON + 3 * HOUR) == [200.0, 7.0]
    assert values(half_past, "--strategy", "a") == [100.0], "the leg was active then"
    shown = call("positions", "--as-of", "2026-03-09T12:30:00Z").stdout
    assert shown.startswith("As of 2026-03-09 12:30:00 UTC: what had been committed by then.\n")


def test_the_exposure_of_a_moment_has_the_legs_and_ages_of_then(told) -> None:
    shown = call("exposure", "--as-of", "2026-03-09T12:30:00Z").stdout
    assert shown.startswith("As of 2026-03-09 12:30:00 UTC")
    answer = json.loads(call("exposure", "--json", "--as-of", "2026-03-09T12:30:00Z").stdout)
    (strategy,) = answer["strategies"]
    assert strategy["name"] == "a"
    assert strategy["value"] == 100.0
    assert strategy["oldest_age_s"] == 1800.0
    assert [row["value"] for row in answer["rest"]] == [7.0]
    later = json.loads(call("exposure", "--json", "--as-of", "2026-03-09T15:00:00Z").stdout)
    assert later["strategies"] == [], "the leg was removed at two"


def test_the_dollar_delta_of_then_of_a_contract_in_cents_is_in_its_currency(lake) -> None:
    """A value by PnLSingle has no price, which would show the unit."""
    lake.contracts.put([details(7, sec_type="FOP", price_magnifier=100)])
    greeks = {"delta": 0.5, "underlying_price": 450.0, "greeks_source": GreeksSource.MODEL}
    terms = dict(right=Right.CALL, strike=460.0, multiplier=5_000.0, market_price=None)
    lake.updates.sync.append([row(7, NOON, 625.0, **terms, **greeks)])
    answer = json.loads(call("exposure", "--json", "--as-of", f"{utc_now().isoformat()}").stdout)
    assert [entry["dollar_delta"] for entry in answer["rest"]] == [0.5 * 5_000 * 4.5]


def test_figures_reasons_and_what_if_are_of_a_moment(told) -> None:
    answers = {}
    for command in ("figures", "why", "what-if"):
        shown = call(command, "--json", "--as-of", "2026-03-09T12:30:00Z")
        assert "As of 2026-03-09 12:30:00 UTC" in shown.stderr
        answers[command] = json.loads(shown.stdout)

    assert [row["market_value"] for row in answers["figures"]["positions"]] == [100.0, 7.0]
    assert "limits" in answers["figures"]["not_kept"]
    assert "needs --json" in call("figures", "--as-of", "2026-03-09T12:30:00Z").stderr
    for command in ("why", "what-if"):
        assert "a" in {row["strategy"] for row in answers[command]}, "the leg was active then"


def test_what_was_shown_otherwise_then_is_marked_where_it_stands(lake) -> None:
    lake = MoneyLake(lake.path, fsync=False, clock=lambda: NOON)
    lake.registry.sync.replace_all(
        [make_leg(conid=1, symbol="SPY", strategy_id="a", added_at=NOON - HOUR)]
    )
    queued = row(2, NOON, 7.0, symbol="QQQ", source=Source.QUEUE)
    lake.updates.sync.append([row(1, NOON, 100.0), queued])

    moment = ("--as-of", "2026-03-09T12:30:00Z")
    sums = call("exposure", *moment).stdout.splitlines()
    marked = {line.split()[0] for line in sums if "≈" in line}
    assert marked == {"≈", "UNATTRIBUTED", "total", "QQQ"}, sums
    assert sums[-1].startswith("≈ marks 1 of 2 legs, and the sums with one: ")
    legs = call("positions", *moment).stdout.splitlines()
    assert [line.split()[0] for line in legs if "≈" in line] == ["QQQ", "≈"]
    for command in ("why", "what-if"):
        assert "≈ marks 1 of 2 legs" in call(command, *moment).stdout

    live = [*call("exposure").stdout, *call("positions").stdout]
    assert "≈" not in live


@pytest.mark.parametrize("command", ["positions", "exposure", "figures", "why", "what-if"])
def test_a_moment_without_an_answer_is_an_error(told, command) -> None:
    with pytest.raises(MomentError, match="in the future"):
        call(command, "--json", "--as-of", "2999-01-01T00:00:00Z")
    with pytest.raises(MomentError, match="has no row of 2026-03-09"):
        call(command, "--json", "--as-of", "2026-03-09T11:59:59Z")
    result = call(command, "--as-of", "noon")
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_a_strategy_of_which_nothing_closed_is_not_called_unknown(told) -> None:
    for moment in (["--as-of", "2026-03-09T12:30:00Z"], []):
        shown = call("positions", "--closed", "--strategy", "a", *moment).stdout
        assert "No change of a position has been recorded yet." in shown
    with pytest.raises(UnknownStrategyError, match="no active strategy 'b'"):
        call("positions", "--closed", "--strategy", "b")


def test_without_the_broker_nothing_is_compared(told) -> None:
    with pytest.raises(BrokerUnavailableError, match="Start `position-sync dev`"):
        call("reconcile")
