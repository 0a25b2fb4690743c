"""The sensor that tells people, over a real instance and a receiver: of checks and of limits."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from position_sync_dagster.definitions import defs as definitions
from position_sync_dagster.defs.assets.queue_and_ledger import active_strategies
from position_sync_dagster.defs.checks.evaluation import TableCheck
from position_sync_dagster.defs.checks.tables import requests_are_answered
from position_sync_dagster.defs.resources import cursor_of
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.instrument import Instrument, Right
from position_sync_dagster.money.defs import alerts as alerts_module
from position_sync_dagster.money.defs.alerts import Messages, check_states, tell_people, watched
from position_sync_dagster.money.defs.strategies import (
    OF_VALUE,
    limit_checks,
    strategy_exposure,
)
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.reports import alerts
from position_sync_dagster.money.reports.alerts import AlertCursor
from position_sync_dagster.money.reports.decisions import Kind, decisions
from position_sync_dagster.money.reports.figures import read_figures
from position_sync_dagster.settings import load_settings
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.defs.conftest import ACCOUNT
from tests.support.browser import MISSING, is_installed, open_page
from tests.support.demo_program import wait_for
from tests.support.executions import executed
from tests.support.receiver import PASSWORD, serving_pages

Tick = Callable[..., dg.SensorResult | dg.SkipReason]

KEY = dg.AssetCheckKey(dg.AssetKey("position_queue"), "requests_are_answered")


@pytest.fixture
def tick(instance: dg.DagsterInstance, composition) -> Tick:
    """Evaluate the sensor with the cursor that it stored last."""
    messages = Messages(composition, alerts.Deliveries())
    stored: list[str | None] = [None]

    def evaluate(cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
        # What a tick finds is stored with it, and sent by the next one.
        for _ in range(2):
            with dg.build_sensor_context(instance=instance, cursor=cursor or stored[0]) as context:
                result = tell_people(context, messages)
            if isinstance(result, dg.SensorResult):
                stored[0] = result.cursor
        return result

    return evaluate


@pytest.fixture
def evaluated(instance: dg.DagsterInstance) -> Callable[..., None]:
    def report(*, passed: bool, **values) -> None:
        of_key = {"asset_key": KEY.asset_key, "check_name": KEY.name}
        evaluation = dg.AssetCheckEvaluation(**of_key, passed=passed, **values)
        instance.report_runless_asset_event(evaluation)

    return report


def broken(evaluated) -> None:
    text = "1 requests are FAILED. Retry them."
    what_to_do = {"what_to_do": "Retry them."}
    severity = dg.AssetCheckSeverity.WARN
    evaluated(passed=False, severity=severity, description=text, metadata=what_to_do)


def test_a_break_and_its_end_are_each_sent_once(tick, evaluated, receiver):
    tick()
    assert receiver.messages == []
    broken(evaluated)
    tick()
    broken(evaluated)
    tick()
    ((title, body),) = receiver.taken()
    assert title == "WARN: position_queue: requests_are_answered"
    assert "1 requests are FAILED." in body
    assert "What to do: Retry them." in body

    link = "http://127.0.0.1:3000/assets/position_queue?view=checks"
    assert f"{link}&checkDetail=requests_are_answered" in body
    evaluated(passed=True, description="None failed.")
    tick()
    tick()
    assert [title.split(":")[0] for title, _ in receiver.taken()] == ["WARN", "Passes again"]


def test_a_message_waits_for_a_receiver_that_is_away_and_no_url_is_stored(
    tick, evaluated, receiver, monkeypatch
):
    receiver.answer = 503
    broken(evaluated)
    result = tick()
    assert receiver.asked == 1
    assert receiver.messages == []
    assert "1 messages wait" in result.skip_reason.skip_message
    assert PASSWORD not in result.cursor + result.skip_reason.skip_message
    tick()
    assert receiver.asked == 1, "it backs off"
    receiver.answer = 200
    monkeypatch.setattr(alerts, "RETRY_AFTER", timedelta())
    result = tick()
    assert [title.split(":")[0] for title, _ in receiver.taken()] == ["WARN"]
    assert cursor_of(AlertCursor, result.cursor).outbox == {}


def test_without_receivers_it_does_nothing(tick, settings):
    assert "names no receiver" in tick().skip_message


def test_every_check_is_watched(composition):
    graph = definitions().get_repository_def().asset_graph
    assert set(watched(composition)) == set(graph.asset_check_keys)


def test_a_check_whose_run_failed_is_a_break(world, instance, monkeypatch):
    world.set(batch_size="many")
    every = dg.AssetSelection.all_asset_checks()
    result = world.materialize(requests_are_answered, selection=every)
    assert not result.success
    keys = watched(world.composition)
    states = {state.name: state for state in check_states(instance, "http://ui", keys)}
    state = states["position_queue: requests_are_answered"]
    assert state.passed is False
    assert f"http://ui/runs/{result.run_id}" in state.what_to_do
    # Of a limit, the newest record may be a plan as well.
    monkeypatch.setattr(alerts_module.strategies, "LIMIT_PREFIX", "requests_are")
    states = {state.name: state for state in check_states(instance, "http://ui", keys)}
    assert states[f"position_queue: requests_are_answered{OF_VALUE}"].passed is None


def test_the_urls_are_never_shown(monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_ALERT_URLS", f"json://a:{PASSWORD}@x tgram://{PASSWORD}/1")
    settings = load_settings()
    urls = [url.get_secret_value() for url in settings.alert_urls]
    assert urls == [f"json://a:{PASSWORD}@x", f"tgram://{PASSWORD}/1"]
    assert PASSWORD not in f"{settings!r} {settings} {settings.model_dump_json()}"


FILE = """\
strategies:
  - strategy_id: condor
    limits: {currency: USD, unrealized_pnl: {min: -1500}}
    legs:
      - {conid: 1, symbol: SPY}
"""
LIMIT = "limit_strategy_condor_unrealized_pnl_min"
OWN = f"strategy_exposure: {LIMIT}"
VALUE = f"{OWN} (its value)"


@pytest.fixture
def file(strategies_file) -> Path:
    strategies_file.write_text(FILE)
    return strategies_file


# How the title of a message begins.
TOLD = ("WARN:", "ERROR:", "Passes again:")


@pytest.fixture
def publish(file, world, lake, tick, receiver) -> Callable[..., list[str]]:
    """Write a row, publish the exposure, evaluate the sensor; return the titles of new messages."""
    world.derive(active_strategies)
    session = world.own()

    def step(
        profit: float | None, *, state: SessionState = SessionState.LIVE, **values: Any
    ) -> list[str]:
        nonlocal session
        before = len(receiver.messages)
        session = lake.sessions.renew(session, lease_s=60.0, state=state)
        world.row(1, 0, unrealized_pnl=profit, **values)
        world.derive(strategy_exposure)
        assert isinstance(tick(), dg.SensorResult)
        titles = []
        for message in receiver.messages[before:]:
            lines = f"{message['title']}\n{message['message']}".splitlines()
            titles += [line for line in lines if line.startswith(TOLD)]
        return titles

    return step


def test_a_limit_that_is_crossed_and_kept_again_sends_each_once(publish, receiver):
    assert publish(-1500.0) == [], "the limit itself is allowed"
    assert publish(-1612.5) == [f"ERROR: {OWN}"]
    (_title, body) = receiver.taken()[-1]
    assert "strategy condor: unrealized_pnl -1,612.50 USD; the min is -1,500 USD." in body
    assert "What to do: Decide about the position" in body
    assert publish(-1700.0) == []
    assert publish(-900.0) == [f"Passes again: {OWN}"]


def test_what_is_not_known_is_said_once_and_ends_no_break(publish):
    assert publish(-1600.0) == [f"ERROR: {OWN}"]
    assert publish(None) == [f"WARN: {VALUE}"]
    assert publish(None) == []
    assert publish(-1600.0) == [f"Passes again: {VALUE}"]
    assert publish(100.0, state=SessionState.BLIND) == [f"WARN: {VALUE}"]
    assert publish(100.0) == [f"Passes again: {OWN}", f"Passes again: {VALUE}"]


def test_a_mistake_in_the_file_is_said_and_forgets_no_break(publish, file, receiver):
    assert publish(-1600.0) == [f"ERROR: {OWN}"]
    file.write_text(FILE.replace("-1500", "nan"))
    assert publish(-1600.0) == ["ERROR: strategy_exposure: limits_are_read"]
    assert "line 3, column 51: min 'nan' cannot be used" in receiver.taken()[-1][1]
    file.write_text(FILE)
    assert publish(-1600.0) == ["Passes again: strategy_exposure: limits_are_read"]
    assert publish(0.0) == [f"Passes again: {OWN}"]


PUT = Instrument(
    conid=1, symbol="SPY", sec_type="OPT", currency="USD", multiplier=100.0, right=Right.PUT,
    strike=450.0, expiry=date(2028, 12, 15),
)  # fmt: skip
OF_KIND = """\
strategies:
  - {strategy_id: income, legs: [{conid: 1, symbol: SPY, quantity: -1}], since: 2026-01-01}
  - {kinds: [short-put], limits: {reached: {max: 0.5}}}
"""


def test_half_of_the_greatest_profit_of_a_kind_is_told_when_it_is_reached_and_left(
    publish, file, lake, world, receiver
):
    file.write_text(OF_KIND)
    world.derive(active_strategies)
    sold = executed(PUT, -1.0, 2.0, world.ago(60.0), account=ACCOUNT)
    CloseExplainer(lake).explain([sold])

    def worth(value: float) -> list[str]:
        return publish(0.0, position=-1.0, market_value=value)

    assert worth(-120.0) == [], "79 of 200"
    assert worth(-80.0) == ["ERROR: strategy_exposure: limit_strategy_income_reached_max"]
    text = receiver.taken()[-1][1]
    assert "strategy income: reached 59.5 %; the max is 50.0 %." in text
    figures = read_figures(lake, load_settings(), datetime.now(UTC))
    [sums] = figures.to_dict()["strategies"]
    assert sums["profit_reached"] == pytest.approx(119 / 200)
    [decision] = decisions(figures, (), (), {"early_assignments": [], "expiries": []})
    assert (decision.kind, decision.step) == (
        Kind.TARGET, "take the profit, or set another target",
    )  # fmt: skip
    assert worth(-150.0) == ["Passes again: strategy_exposure: limit_strategy_income_reached_max"]


@pytest.mark.skipif(not is_installed(), reason=MISSING)
def test_a_target_that_is_reached_needs_a_decision_on_the_page_until_it_is_left(
    publish, file, lake, world
):
    file.write_text(OF_KIND)
    world.derive(active_strategies)
    CloseExplainer(lake).explain([executed(PUT, -1.0, 2.0, world.ago(60.0), account=ACCOUNT)])
    publish(0.0, position=-1.0, market_value=-80.0)

    with serving_pages(PageFigures(load_settings())) as port, open_page(port) as page:
        page.open("/money")
        page.wait_for_text("59.5 %", "Take the profit, or set another target")
        publish(0.0, position=-1.0, market_value=-150.0)
        wait_for("it is left", lambda: "Take the profit" not in page.text())
        page.wait_for_text("24.5 %")


def test_limits_and_logins_that_are_not_chosen_are_not_told(publish, file, receiver):
    file.write_text(f"messages: {{about: []}}\n{FILE}")
    assert publish(-1600.0) == []
    own = "    messages: [limit]\n    legs:"
    file.write_text(f"messages: {{about: []}}\n{FILE.replace('    legs:', own)}")
    assert publish(-1700.0) == [f"ERROR: {OWN}"]


@pytest.fixture
def limit_check(file) -> TableCheck[MoneyLake]:
    """Return the check of the limit in the file."""
    (check,) = limit_checks(load_settings())
    return check


def test_each_limit_is_a_check_of_the_asset(limit_check, world, publish):
    publish(-1600.0)
    result = world.materialize(strategy_exposure, limit_check)
    evaluations = [e for e in result.get_asset_check_evaluations() if e.check_name == LIMIT]
    assert [e.passed for e in evaluations] == [False, False], "with the table, and on its own"
    assert len({e.description for e in evaluations}) == 1


def test_definitions_load_beside_a_file_with_a_mistake(file):
    file.write_text(FILE.replace("-1500", "nan"))
    assert limit_checks(load_settings()) == []
