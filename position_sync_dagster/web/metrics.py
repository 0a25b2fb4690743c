"""`/metrics`: the state of the product as Prometheus scrapes it, from the tables.

A gauge whose number is unknown has no sample: an absent series is no zero. No account, no position
and no amount of money is among them. `deploy/grafana` draws them, `deploy/prometheus` has alerts.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.responses import PlainTextResponse, Response

from position_sync_dagster import dagster_files
from position_sync_dagster.domain.clock import seconds_since
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.position_updates import SyncUpdates
from position_sync_dagster.money.reports import signs_of_life
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.reports.status import LoginStatus, Status
from position_sync_dagster.web.served_figures import Shared

# What stands before the name of each metric.
METRICS_PREFIX = "position_sync"

# All scrapes of this time share an answer, in seconds.
SHARED_S = 5.0

# The state of a login that never had a stream.
NEVER_OWNED = "NONE"

# The packages whose versions are told.
PACKAGES = ("dagster", "deltalake", "ib-async", "polars")

Sample = tuple[tuple[str, ...], float | None]


class MetricsPage:
    """Answers scrapes; those of SHARED_S share one read of the tables.

    Args:
        figures: Reads the figures of now; the pages share the read.
        updates: The ledger, whose rows are counted.
    """

    def __init__(self, figures: Callable[[datetime], Figures], updates: SyncUpdates) -> None:
        self._figures = figures
        self._rows = RowCounter(updates)
        self._shared = Shared(self._read, timedelta(seconds=SHARED_S))

    def answer(self, accepted: str, now: datetime) -> Response:
        """Return the metrics in the format that a client accepts; blocks.

        Args:
            accepted: The header Accept of the scrape.
            now: The moment.
        """
        try:
            registry = self._shared.at(now)
        except PositionSyncError as error:
            return PlainTextResponse(str(error), 503)

        encode, kind = choose_encoder(accepted)
        return Response(encode(registry), headers={"Content-Type": kind})

    def _read(self, now: datetime) -> CollectorRegistry:
        registry = CollectorRegistry(auto_describe=False)
        metrics = metrics_of(self._figures(now), self._rows.read())
        registry.register(_Collected(metrics))
        return registry


class _Collected(Collector):
    """Metrics that were read already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class RowCounter:
    """Counts the rows of the ledger by source: all of them once, and then what was added."""

    def __init__(self, updates: SyncUpdates) -> None:
        self._updates = updates
        self._rows: Counter[str] = Counter()
        self._version = 0

    def read(self) -> Mapping[str, int]:
        """Return the number of rows by source; blocks."""
        added = self._updates.count_after(self._version)
        self._rows.update(added.rows)
        self._version = added.version
        return self._rows


def metrics_of(figures: Figures, rows: Mapping[str, int]) -> Iterator[Metric]:
    """Yield all metrics; blocks."""
    status = figures.status
    yield _versions()
    yield from _of_logins(status.each_login)
    yield from _of_legs(figures)
    yield from _of_queue(status)

    written = CounterMetricFamily(
        f"{METRICS_PREFIX}_rows_written",
        "Rows of position_updates, by what wrote them.",
        labels=["source"],
    )
    for source, count in sorted(rows.items()):
        written.add_metric([source], count)
    yield written

    yield from _of_ticks()
    yield _gauge(
        "attention", "Notices that ask for a person, as `position-sync status` lists them.",
        [((), len(status.attention))],
    )  # fmt: skip


def _gauge(name: str, text: str, samples: Iterable[Sample], *labels: str) -> GaugeMetricFamily:
    """Return a gauge; a sample whose number is unknown is left out."""
    gauge = GaugeMetricFamily(f"{METRICS_PREFIX}_{name}", text, labels=labels)
    for values, number in samples:
        if number is not None:
            gauge.add_metric(values, number)
    return gauge


def _of_logins(logins: Sequence[LoginStatus]) -> Iterator[Metric]:
    text = "1 for the state that the stream of a login is in, 0 for the others."
    yield _gauge("login_state", text, _states_of(logins), "gateway", "state")

    lines = _by_login(logins, "lines_in_use")
    yield _gauge("lines_in_use", "Market data lines in use.", lines, "gateway")
    limits = _by_login(logins, "line_limit")
    yield _gauge("line_limit", "Market data lines that a login may use.", limits, "gateway")


def _states_of(logins: Sequence[LoginStatus]) -> Iterator[Sample]:
    """Yield 1 for the state in which each login is, and 0 for each other state."""
    for login in logins:
        current = login.session_state or NEVER_OWNED
        for state in (*SessionState, NEVER_OWNED):
            yield (login.gateway_id, state), float(state == current)


def _by_login(logins: Sequence[LoginStatus], number: str) -> Iterator[Sample]:
    """Yield the number of this name of each login."""
    for login in logins:
        yield (login.gateway_id,), getattr(login, number)


def _of_legs(figures: Figures) -> Iterator[Metric]:
    status = figures.status
    samples: list[Sample] = [
        (("held",), figures.held),
        (("current",), figures.current),
        (("active",), status.active_legs),
        (("active_held",), status.legs_held),
        (("streamed",), status.legs_streamed),
        (("queued",), status.legs_queued),
        (("unresolved",), len(status.unresolved_legs)),
    ]
    yield _gauge("legs", "Legs: held, with a current value, of active strategies …", samples, "is")

    yield _gauge(
        "oldest_value_age_seconds",
        "Age of the oldest price of a holding; absent while one is unknown.",
        [((), figures.oldest_age_s)],
    )


def _of_queue(status: Status) -> Iterator[Metric]:
    samples: list[Sample] = [((state,), count) for state, count in status.queue.items()]
    text = "Requests of the queue; finished ones as long as the table keeps them."
    yield _gauge("queue_requests", text, samples, "status")
    text = "FAILED requests of the last day whose holding has had no value since."
    yield _gauge("queue_unanswered_requests", text, [((), status.queue_unanswered)])

    # Nothing waits: that is a wait of no time, which an alert compares.
    waited = status.oldest_pending_age_s if status.queue.get("PENDING") else 0.0
    yield _gauge("queue_oldest_wait_seconds", "How long the oldest request waits.", [((), waited)])

    age = seconds_since(status.last_drained_at, status.at)
    text = "Time since a request was last answered by a row."
    yield _gauge("last_drained_age_seconds", text, [((), age)])


def _of_ticks() -> Iterator[Metric]:
    home = dagster_files.dagster_home()
    ticked_at = signs_of_life.read(home).ticked_at
    seconds = ticked_at.timestamp() if ticked_at else None
    text = "How long the last tick of drain_queue took."
    yield _gauge("tick_duration_seconds", text, [((), signs_of_life.tick_duration_s(home))])
    yield _tick_parts(home)
    text = "When a sensor last ticked."
    yield _gauge("last_tick_timestamp_seconds", text, [((), seconds)])

    samples: list[Sample] = []
    for check in signs_of_life.failing_checks(home):
        asset, _colon, name = check.name.partition(": ")
        samples.append(((asset, name, "UNKNOWN" if check.is_unknown else "FAILED"), 1.0))
    text = "1 for each check whose newest result is not passed; the others have no sample."
    yield _gauge("check_not_passed", text, samples, "asset", "check", "result")


def _tick_parts(home: Path) -> HistogramMetricFamily:
    histogram = HistogramMetricFamily(
        f"{METRICS_PREFIX}_tick_part_seconds",
        "How long each part of the ticks of drain_queue took, since the code server started.",
        labels=["part"],
    )
    bounds = [*map(str, dagster_files.BOUNDS_S), "+Inf"]
    for part in signs_of_life.parts_of_ticks(home):
        buckets = list(zip(bounds, accumulate(part.counts), strict=True))
        histogram.add_metric([part.name], buckets, part.total_s)
    return histogram


@cache
def _versions() -> InfoMetricFamily:
    """Return the versions of the product and of what it stands on."""
    info = {package.replace("-", "_"): version(package) for package in PACKAGES}
    info |= {"version": version(dagster_files.PROJECT_NAME), "python": platform.python_version()}
    return InfoMetricFamily(
        METRICS_PREFIX, "Versions of the product and its libraries.", value=info
    )
