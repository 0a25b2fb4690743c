"""The numbers that a report derives from its batches."""

from dataclasses import asdict

from position_sync_dagster.lake.updates.append import AppendResult
from position_sync_dagster.sync.counts import (
    BatchReport,
    DrainCounts,
    DrainReport,
    LedgerCounts,
)


def batch(version: int | None, rows: int = 0, reason: str | None = None) -> BatchReport:
    commit = None if version is None else AppendResult(version=version, rows=rows)
    return BatchReport(
        **asdict(LedgerCounts.of(commit)),
        batch_id="b", claimed=5, succeeded=3, failed=1, released=1, oldest_wait_s=1.0,
        duration_s=0.1, reason=reason,
    )  # fmt: skip


def drained(*batches: BatchReport, unavailable: str | None = None) -> DrainReport:
    return DrainReport(
        **asdict(sum(batches, DrainCounts())), batches=batches,
        rescued=0, duration_s=1.0, exhausted=True, unavailable=unavailable,
    )  # fmt: skip


def test_a_drain_counts_over_its_batches():
    report = drained(batch(7, 3), batch(None), batch(9, 4))
    assert (report.claimed, report.succeeded, report.failed, report.released) == (15, 9, 3, 3)
    assert (report.rows, report.version_from, report.version_to) == (7, 6, 9)


def test_a_drain_without_rows_has_no_versions():
    report = drained(batch(None))
    assert (report.rows, report.version_from, report.version_to) == (0, None, None)


def test_an_outage_comes_before_the_reason_of_a_batch():
    batches = (batch(7, 3, "first"), batch(8, 3, "last"), batch(9, 3))
    assert drained(*batches).reason == "last"
    assert drained(*batches, unavailable="outage").reason == "outage"
    assert drained(batch(7)).reason is None
