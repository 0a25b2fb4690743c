"""The sensor `tell_people`: a message when a check fails or passes again, or something happened."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import dagster as dg

from position_sync_dagster.defs import resources
from position_sync_dagster.defs.checks import evaluation as checks
from position_sync_dagster.defs.checks.tables import login_is_made
from position_sync_dagster.defs.composition import Composition, composition_of
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import LakeError
from position_sync_dagster.money.defs import statements, strategies
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports import alerts, happenings
from position_sync_dagster.money.strategies import strategies_file
from position_sync_dagster.money.strategies.messages import Happened

# A check must have failed for so many seconds before that is sent: most mend themselves.
ALERT_AFTER_S = 60.0

# Seconds between two ticks while there is no receiver: a tick costs as much as one of the
# drain's resources.sensor.
WITHOUT_RECEIVERS_S = 60


def watched(composition: Composition[MoneyLake]) -> list[dg.AssetCheckKey]:
    """Return every check of the project, without those of limits."""
    keys = [check.check_key for check in composition.checks]
    keys = [key for key in keys if not key.name.startswith(strategies.LIMIT_PREFIX)]
    return [*keys, *statements.imported.check_keys]


class Messages(NamedTuple):
    """What a tick has: its composition, and the messages on their way to the receivers."""

    composition: Composition[MoneyLake]
    deliveries: alerts.Deliveries


@dg.definitions
def alert_definitions(context: dg.ComponentLoadContext) -> dg.Definitions:
    """Define the sensor, which ticks seldom while there is no receiver."""
    composition = composition_of(context, MoneyLake)
    interval_s = WITHOUT_RECEIVERS_S
    if composition.read_settings().alert_urls:
        interval_s = resources.TICK_S
    messages = Messages(composition, alerts.Deliveries())
    sensor = resources.sensor(
        tell_people,
        messages,
        automation=composition.automation,
        minimum_interval_s=interval_s,
    )
    return dg.Definitions(sensors=[sensor])


def tell_people(
    context: dg.SensorEvaluationContext, messages: Messages
) -> dg.SensorResult | dg.SkipReason:
    """Send a message when a check fails or passes again, and when something happened, each once.

    It looks every 5 s, or each minute while POSITION_SYNC_ALERT_URLS names no receiver.
    """
    composition = messages.composition
    settings = composition.read_settings()
    urls = settings.alert_urls
    if not urls:
        return dg.SkipReason("POSITION_SYNC_ALERT_URLS names no receiver")
    now = utc_now()
    before = resources.cursor_of(alerts.AlertCursor, context.cursor)
    wanted = strategies_file.saved_messages(settings.strategies_file)

    # What is sent has been stored: after a kill its texts are the same, and known to be sent.
    cursor, sent = messages.deliveries.send_due(
        before, urls, utc_now, is_quiet=wanted.is_quiet(now)
    )
    after = timedelta(seconds=ALERT_AFTER_S)
    told = before.told
    news: Sequence[alerts.Message] = ()
    with suppress(LakeError):  # a check says which table cannot be read
        lake = composition.opened(settings).lake
        told, news = happenings.follow_happenings(
            lake, settings.calendar, told, wanted, now=now, after=after
        )

    checked = watched(composition)
    checked += strategies.watched_limits(settings, before.breaks, wanted)
    if not wanted.has(Happened.LOGIN):
        checked.remove(login_is_made.check_key)
    keys = list(map(composition.keys.of_check, checked))

    cursor = alerts.follow(
        replace(cursor, told=told),
        check_states(composition.instance_of(context), settings.ui_url, keys),
        now=now,
        after=after,
        severities=settings.alert_severities,
        receivers=len(urls),
        news=news,
    )
    text = f"{len(cursor.breaks)} checks do not pass; {sent} messages sent"
    unsent = sum(map(len, cursor.outbox.values()))
    if unsent:
        text += f"; {unsent} messages wait"
    return dg.SensorResult(skip_reason=text, cursor=resources.cursor_text(cursor))


def check_states(
    instance: dg.DagsterInstance, ui_url: str, keys: Sequence[dg.AssetCheckKey]
) -> Iterator[alerts.CheckState]:
    """Return the newest result of each check that has one.

    A check that is planned in an unfinished run has no new result. A limit has two states: whether
    it holds, and whether its number is known. A broken limit whose number becomes unknown is still
    broken.
    """
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key in keys:
        if key in records:
            state = _state_of(instance, key, records[key], ui_url)
            yield state
            if key.name.startswith(strategies.LIMIT_PREFIX):
                evaluation = checks.evaluation_of(records[key])
                is_known = None
                if evaluation is not None:
                    is_known = checks.UNKNOWN not in evaluation.metadata
                name = f"{state.name}{strategies.OF_VALUE}"
                yield replace(state, name=name, passed=is_known, what_to_do="")


def _state_of(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey, record: Any, ui_url: str
) -> alerts.CheckState:
    asset = key.asset_key.to_user_string()
    ui = ui_url.rstrip("/")
    state = partial(
        alerts.CheckState,
        name=f"{asset}: {key.name}",
        link=f"{ui}/assets/{asset}?view=checks&checkDetail={key.name}",
    )

    evaluation = checks.evaluation_of(record)
    if evaluation is None or record.event is None:
        at = datetime.fromtimestamp(record.create_timestamp, UTC)
        run = instance.get_run_by_id(record.run_id)
        has_failed = run is not None and run.status is dg.DagsterRunStatus.FAILURE
        return state(
            at=at,
            passed=False if has_failed else None,
            description="The run that should have evaluated the check failed.",
            what_to_do=f"Read the run's log: {ui}/runs/{record.run_id}",
        )

    what_to_do = ""
    if checks.WHAT_TO_DO in evaluation.metadata:
        what_to_do = str(evaluation.metadata[checks.WHAT_TO_DO].value)
    # The state of a limit's number says that it is unknown: the limit itself stays as it was.
    is_broken = checks.UNEVALUATED in evaluation.metadata
    is_broken &= not key.name.startswith(strategies.LIMIT_PREFIX)
    passed: bool | None = evaluation.passed
    if checks.UNKNOWN in evaluation.metadata and not is_broken:
        passed = None

    return state(
        at=datetime.fromtimestamp(record.event.timestamp, UTC),
        passed=passed,
        severity=evaluation.severity.value,
        description=evaluation.description or "",
        what_to_do=what_to_do,
    )
