"""The sensor that tells people, over a real instance and a receiver on this machine."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import pytest

from position_sync_dagster.definitions import defs as definitions
from position_sync_dagster.defs import alerts as alerts_module
from position_sync_dagster.defs.alerts import check_states, tell_people, watched
from position_sync_dagster.defs.checks.strategies import OF_VALUE
from position_sync_dagster.defs.checks.tables import requests_are_answered
from position_sync_dagster.defs.resources import POSITION_SYNC, cursor_of, cursor_text
from position_sync_dagster.settings import load_settings
from position_sync_dagster.sync.alerts import AlertCursor
from tests.support.receiver import PASSWORD

Tick = Callable[..., dg.SensorResult | dg.SkipReason]

KEY = dg.AssetCheckKey(dg.AssetKey("position_queue"), "requests_are_answered")


@pytest.fixture
def tick(instance: dg.DagsterInstance) -> Tick:
    """Evaluate the sensor with the cursor that it stored last."""
    stored: list[str | None] = [None]

    def evaluate(cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
        with dg.build_sensor_context(instance=instance, cursor=cursor or stored[0]) as context:
            result = tell_people(context)
        if isinstance(result, dg.SensorResult):
            stored[0] = result.cursor
        return result

    return evaluate


@pytest.fixture
def evaluated(instance: dg.DagsterInstance) -> Callable[..., None]:
    def report(*, passed: bool, **values) -> None:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=KEY.asset_key, check_name=KEY.name, passed=passed, **values
            )
        )

    return report


def broken(evaluated) -> None:
    evaluated(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description="1 requests are FAILED. Retry them.",
        metadata={"what_to_do": "Retry them."},
    )


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
    tick, evaluated, receiver
):
    receiver.answer = 503
    broken(evaluated)
    result = tick()
    assert (receiver.asked, receiver.messages) == (1, [])
    assert "1 messages wait" in result.skip_reason.skip_message
    assert PASSWORD not in result.cursor + result.skip_reason.skip_message
    tick()
    assert receiver.asked == 1, "it backs off"
    receiver.answer = 200
    cursor = cursor_of(AlertCursor, result.cursor)
    result = tick(cursor_text(replace(cursor, failing={0: datetime.now(UTC)})))
    assert [title.split(":")[0] for title, _ in receiver.taken()] == ["WARN"]
    assert cursor_of(AlertCursor, result.cursor).outbox == ()


def test_without_receivers_it_does_nothing(tick, settings):
    assert "names no receiver" in tick().skip_message


def test_every_check_is_watched(settings):
    graph = definitions().get_repository_def().asset_graph
    assert set(watched()) == set(graph.asset_check_keys)


def test_a_check_whose_run_failed_is_a_break(instance, settings, lake, monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_BATCH_SIZE", "many")
    result = dg.materialize(
        [requests_are_answered], selection=dg.AssetSelection.all_asset_checks(),
        resources={"position_sync": POSITION_SYNC}, instance=instance, raise_on_error=False,
    )  # fmt: skip
    assert not result.success
    keys = watched()
    states = {state.name: state for state in check_states(instance, "http://ui", keys)}
    state = states["position_queue: requests_are_answered"]
    assert state.passed is False
    assert f"http://ui/runs/{result.run_id}" in state.what_to_do
    # Of a limit, the newest record may be a plan as well.
    monkeypatch.setattr(alerts_module.strategies, "PREFIX", "requests_are")
    states = {state.name: state for state in check_states(instance, "http://ui", keys)}
    assert states[f"position_queue: requests_are_answered{OF_VALUE}"].passed is None


def test_the_urls_are_never_shown(monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_ALERT_URLS", f"json://a:{PASSWORD}@x tgram://{PASSWORD}/1")
    settings = load_settings()
    assert [url.get_secret_value() for url in settings.alert_urls] == [
        f"json://a:{PASSWORD}@x",
        f"tgram://{PASSWORD}/1",
    ]
    assert PASSWORD not in f"{settings!r} {settings} {settings.model_dump_json()}"
