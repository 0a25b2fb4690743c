"""The supervisor: a sensor that keeps exactly one stream of each login running."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from functools import partial

import dagster as dg

from position_sync_dagster.defs import runs
from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.supervision import JobRun, Supervision, supervise

RUNS_SEEN = 8
"""Number of runs read: enough to recognize a crash loop up to its longest delay."""

STARTS_AT_ONCE = 4
"""Maximum number of streams that start at once, until they have a lease. Each start takes some
seconds of a processor. Of forty at once, some would take longer than the supervisor waits."""


@runs.sensor(job_name=runs.STREAM_JOB)
def supervise_stream(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Request a stream run if none is alive; report a run as failed if its process is gone.

    It looks every 5 s, and starts the stream of a login when its lease has ended: after a clean
    end, a crash, a kill. Terminating its run pauses it until this sensor is switched off and on, or
    the job launched.

    The logins are those of the gateways file, if there is one; each login is a partition of runs.
    """
    settings = POSITION_SYNC.read_settings()
    lake, instance = runs.cached_lake(settings), runs.cached_instance(context)
    since = context.last_sensor_start_time
    logins = {login.gateway_id: login for login in settings.logins}
    known = set[str]()
    if settings.gateways_file is not None:
        known = set(instance.get_dynamic_partitions(str(runs.LOGINS.name)))
    supervisor = _Supervisor(
        lake,
        instance,
        logins.keys() | known,
        supervised_since=None if since is None else datetime.fromtimestamp(since, UTC),
        heartbeats=_heartbeats(context.cursor),
    )
    if settings.gateways_file is None:
        requests = supervisor.tick([(settings, None)])
        changes: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    else:
        removed = sorted(known - logins.keys())
        ended = [name for name in removed if supervisor.has_ended(name)]
        # A new login may be a renamed old one: the gateway serves only one of them at a time.
        new = sorted(logins.keys() - known) if ended == removed else []
        requests = supervisor.tick(
            (login, name) for name, login in logins.items() if name in known or name in new
        )
        changes = [runs.LOGINS.build_add_request(new)] if new else []
        changes += [runs.LOGINS.build_delete_request(ended)] if ended else []
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else "; ".join(supervisor.reasons) or "no login",
        dynamic_partitions_requests=changes,
        cursor=json.dumps(supervisor.heartbeats_seen) if supervisor.heartbeats_seen else None,
    )


@dataclass(eq=False, repr=False)
class _Supervisor:
    """The decisions of one tick, and their effects.

    The sessions of all logins are read at once, and so are their runs that have not ended. The
    ended runs of a login are read only if the decision needs them.
    """

    lake: tables.Lake
    instance: dg.DagsterInstance
    names: Collection[str]
    _: KW_ONLY
    supervised_since: datetime | None
    heartbeats: Mapping[str, str]

    def __post_init__(self) -> None:
        self._sessions = self.lake.sessions.current_of(self.names)
        self._streams = runs.streams_in_progress(self.instance)
        self.heartbeats_seen: dict[str, str] = {}
        self.reasons: list[str] = []

    def tick(self, logins: Iterable[tuple[Settings, str | None]]) -> list[dg.RunRequest]:
        """Return the requests for the streams of logins that need one.

        Args:
            logins: Each with its partition.
        """
        decided = [(*one, self._decide(one[0], one[0].gateway_id, one[1])) for one in logins]
        now = datetime.now(UTC)
        owned = {name for name, session in self._sessions.items() if session.is_alive(now)}
        starting = sum(
            not decision.start and login.gateway_id in self._streams.keys() - owned
            for login, _partition, decision in decided
        )
        requests = []
        for login, partition, decision in decided:
            is_first = login.gateway_id not in owned  # a successor waits for the lease before it
            reason = decision.reason
            if decision.start and is_first and starting >= STARTS_AT_ONCE:
                reason = f"{starting} other streams are starting: this one follows them"
            elif decision.start:
                starting += is_first
                tags = {**login.run_tags, runs.REASON: decision.tag}
                requests.append(dg.RunRequest(partition_key=partition, tags=tags))
            self.reasons.append(f"{partition}: {reason}" if partition else reason)
        return requests

    def has_ended(self, name: str) -> bool:
        """Return whether a login that was removed from the gateways file has no run left."""
        if name not in self._streams:
            return True
        decision = self._decide(POSITION_SYNC.read_settings(), name, name)
        self.reasons.append(f"{name} is no longer in the gateways file: {decision.reason}")
        return False

    def _decide(self, settings: Settings, name: str, partition: str | None) -> Supervision:
        session, last = self._sessions.get(name), self.heartbeats.get(name)
        decide = partial(
            supervise,
            session=session,
            now=datetime.now(UTC),
            supervised_since=self.supervised_since,
            rotate_after_s=settings.rotate_after_s,
            last_future_heartbeat=None if last is None else datetime.fromisoformat(last),
        )
        unended = self._unended(partition)
        decision = decide(unended)
        if len(decision.lost) == len(unended):  # ended runs decide, if there are any
            decision = decide(
                runs.recent_runs(self.instance, runs.STREAM_JOB, limit=RUNS_SEEN, login=partition)
            )
        if decision.future_heartbeat is not None:
            self.heartbeats_seen[name] = decision.future_heartbeat.isoformat()
        for run_id in decision.lost:
            run = self.instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                why = "Its process is gone: its lease on the gateway ended and was not given up."
                if run.status is dg.DagsterRunStatus.NOT_STARTED:
                    why = "It was created, and what created it ended before it was submitted."
                self.instance.report_run_failed(run, why)
        if decision.paused and session is not None:
            self.lake.sessions.annotate(session, decision.reason)  # for `status`
        return decision

    def _unended(self, partition: str | None) -> list[JobRun]:
        if partition is not None:
            return self._streams.get(partition, [])
        return [run for streams in self._streams.values() for run in streams]


def _heartbeats(cursor: str | None) -> dict[str, str]:
    """Return the heartbeats in the future that the last tick found, by login."""
    try:
        found = json.loads(cursor) if cursor else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
