"""How many rows a change reads and writes, counted at the table: not more in a larger queue."""

import json
from random import Random

import pytest

from position_sync_dagster.domain.clock import RetryPolicy
from position_sync_dagster.domain.update import QueueRequest, QueueStatus, Reason
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage import lifecycle_table
from position_sync_dagster.lake.storage.lifecycle_table import PART_ROWS
from position_sync_dagster.lake.storage.table import Table
from tests.support.extent import EVERYTHING

SMALL, LARGE = 2 * PART_ROWS, 10 * PART_ROWS


@pytest.fixture
def scanned(monkeypatch):
    """Return the heights of all frames that are read from the table, in order."""
    heights = []

    def counted(method):
        def call(*arguments, **more):
            frame = method(*arguments, **more)
            heights.append(frame.height)
            return frame

        return call

    for method in (Table.scan, Table.read_rows):
        monkeypatch.setattr(Table, method.__name__, counted(method))
    return heights


def written(path, version):
    """Return the rows of the files that a commit added, by the log."""
    entries = (path / "_delta_log" / f"{version:020}.json").read_text().splitlines()
    actions = [json.loads(entry) for entry in entries]
    return sum(
        json.loads(action["add"]["stats"])["numRecords"] for action in actions if "add" in action
    )


@pytest.mark.parametrize("waiting", [SMALL, LARGE])
def test_a_claim_a_mark_a_release_and_an_insert_rewrite_few_rows_and_read_none(
    tmp_path, scanned, waiting
):
    path = tmp_path / "queue"
    queue = PositionQueue(path, fsync=False).sync
    queue.initialize()
    queue.insert_many(QueueRequest(conid, "SPY", account="A") for conid in range(1, waiting + 1))
    queue.claim_batch(1)  # the live rows are in memory from here on
    scanned.clear()
    rows = []

    def count():
        rows.append(written(path, queue.store.table.version()))

    batch = queue.claim_batch(50)
    count()
    queue.mark_success([request.request_id for request in batch[:40]])
    count()
    queue.mark_failed_many({batch[40].request_id: "x"})
    count()
    queue.release([request.request_id for request in batch[41:]])
    count()
    queue.insert(waiting + 1, "SPY")
    count()
    assert scanned == []
    assert max(rows) <= 2 * PART_ROWS + 50
    fresh = PositionQueue(path, fsync=False).sync
    assert fresh.counts() == {
        QueueStatus.PENDING: waiting - 40,
        QueueStatus.PROCESSING: 1,
        QueueStatus.SUCCESS: 40,
        QueueStatus.FAILED: 0,
    }


def test_rows_that_older_releases_wrote_in_one_part_are_divided_by_the_next_change(
    tmp_path, monkeypatch
):
    path = tmp_path / "queue"
    old = PositionQueue(path, fsync=False).sync
    old.initialize()
    with monkeypatch.context() as older:
        older.setattr(lifecycle_table, "PART_ROWS", 10**9)
        ids = old.insert_many(QueueRequest(conid, "SPY") for conid in range(1, 2_501))
    assert old.store.snapshot().live["part"].unique().to_list() == ["0"]
    queue = PositionQueue(path, fsync=False).sync
    queue.claim_batch(50)
    live = PositionQueue(path, fsync=False).sync.store.snapshot().live
    assert sorted(live["request_id"]) == sorted(ids)
    assert sorted(live.group_by("part").len()["len"]) == [500, 1_000, 1_000]
    queue.mark_success(ids[:2_000])
    live = PositionQueue(path, fsync=False).sync.store.snapshot().live
    assert sorted(live["request_id"]) == sorted(ids[2_000:])
    assert live["part"].unique().to_list() == ["0"], "a few rows lie in one part"


def rows_of(queue):
    """Return the live rows, in an order of their own."""
    live = getattr(queue, "sync", queue).store.snapshot().live
    return live.select(sorted(live.columns)).sort("request_id")


@pytest.mark.parametrize("seed", range(3) if EVERYTHING else [1])
def test_whatever_changes_another_process_reads_the_rows_that_this_one_knows(
    tmp_path, monkeypatch, clock, seed
):
    monkeypatch.setattr(lifecycle_table, "PART_ROWS", 2 + seed)
    random, path = Random(seed), tmp_path / "queue"
    queue = PositionQueue(path, fsync=False, clock=clock).sync
    queue.initialize()
    # As many rows as a part has, all in the first one; one more divides them.
    queue.insert_many(QueueRequest(100 + n, "SPY") for n in range(2 + seed))
    queue.insert(200, "SPY")
    assert rows_of(PositionQueue(path, fsync=False)).equals(rows_of(queue))
    claimed: list[str] = []
    for _ in range(60):
        clock.advance(20)
        some = random.sample(claimed, min(len(claimed), random.randint(1, 4)))
        match random.choice(
            [
                "insert",
                "insert",
                "raise",
                "changed",
                "claim",
                "claim",
                "mark",
                "fail",
                "end",
                "renew",
            ]
        ):
            case "insert":
                first = random.randint(1, 60)
                queue.insert_many(
                    QueueRequest(first + n, "SPY") for n in range(random.randint(1, 9))
                )
            case "raise":
                queue.insert_many([QueueRequest(random.randint(1, 60), "SPY", 1) for _ in range(3)])
            case "changed":
                queue.insert_many(
                    QueueRequest(random.randint(1, 60), "SPY", reason=Reason.CHANGED)
                    for _ in range(5)
                )
            case "claim":
                claimed += [one.request_id for one in queue.claim_batch(random.randint(1, 6))]
            case "mark":
                queue.mark_success([one for one in some if queue.holds(one)])
            case "fail":
                held = [one for one in some if queue.holds(one)]
                queue.mark_failed_many(dict.fromkeys(held, "x"), retryable=random.random() < 0.5)
            case "end":
                queue.release([one for one in some if queue.holds(one)])
                queue.rescue()
                queue.retry(
                    [one.request_id for one in queue.get_batch(None, 2, QueueStatus.FAILED)]
                )
            case "renew":
                queue.renew([one for one in some if queue.holds(one)])
        claimed = [one for one in claimed if queue.holds(one)]
        known, stored = rows_of(queue), rows_of(PositionQueue(path, fsync=False))
        assert stored.equals(known)
        assert known["request_id"].is_unique().all()
    assert stored["part"].n_unique() > 1


def test_a_step_that_ends_one_request_and_changes_one_of_another_part_rewrites_both_parts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(lifecycle_table, "PART_ROWS", 2)
    path = tmp_path / "queue"
    once_more = RetryPolicy(max_attempts=2, base_delay_s=0.0)
    queue = PositionQueue(path, fsync=False, retry=once_more).sync
    queue.initialize()
    queue.insert_many(QueueRequest(conid, "SPY") for conid in range(1, 7))
    first, *_, last = [request.request_id for request in queue.claim_batch(6)]
    queue.mark_failed(first, "no answer")
    assert [request.request_id for request in queue.claim_batch(6)] == [first]
    queue.mark_failed_many({first: "no answer", last: "no answer"})
    stored = PositionQueue(path, fsync=False).sync
    assert stored.store.snapshot().live["part"].n_unique() == 3
    for one in (queue, stored):
        assert one.counts() == {
            QueueStatus.PENDING: 1,
            QueueStatus.PROCESSING: 4,
            QueueStatus.SUCCESS: 0,
            QueueStatus.FAILED: 1,
        }
