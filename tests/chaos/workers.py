"""The work of the processes of a chaos campaign: each works until it is killed."""

import asyncio
import os
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from io import FileIO
from pathlib import Path
from random import Random
from time import sleep

from position_sync_dagster.domain.holding import QueueRequest
from position_sync_dagster.errors import LakeError, LeaseLostError, TokenError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import START
from position_sync_dagster.lake.storage import table as storage
from tests.support.drains import drain_for_ever

ACCOUNT = "DUSIM1"
# Few enough that requests for the same position meet.
CONIDS = 400

LEASE_S = 1.0


def insert(lake: Lake, random: Random, records: Path) -> None:
    """Insert requests; record the ids that were acknowledged."""
    with records.open("ab", buffering=0) as out:
        while True:
            requests = [
                QueueRequest(random.randint(1, CONIDS), "SPY", random.randint(1, 2), ACCOUNT)
                for _ in range(random.randint(1, 30))
            ]
            ids = lake.queue.sync.insert_many(requests)
            out.write("".join(f"{request_id}\n" for request_id in ids).encode())


def drain(lake: Lake, random: Random, records: Path) -> None:
    """Drain as the product's worker does, with short leases."""
    asyncio.run(drain_for_ever(lake, random.randint(5, 40), LEASE_S))


def claim(lake: Lake, random: Random, records: Path) -> None:
    """Claim requests; release them, or let their lease expire."""
    while True:
        batch = lake.queue.sync.claim_batch(limit=random.randint(1, 20), lease_s=LEASE_S / 4)
        if batch and random.random() < 0.7:
            try:
                lake.queue.sync.release([request.request_id for request in batch])
            except LeaseLostError:
                continue


def maintain(lake: Lake, random: Random, records: Path) -> None:
    """Merge a few files at a time, write checkpoints, cut the log, vacuum; record how much."""
    storage.COMPACT_FROM = 4
    with records.open("ab", buffering=0) as out:
        while True:
            for table in lake.tables:
                done = storage.maintain(table)
                out.write(f"{done.compacted} {done.deleted}\n".encode())


def doctor(lake: Lake, random: Random, records: Path) -> None:
    """Set what is torn aside, as `position-sync doctor --repair` does."""
    for table in lake.all_tables:
        table.remove_torn()


READERS = 4


def follow(lake: Lake, random: Random, records: Path) -> None:
    """Follow the ledger from its first row on; record each read's token and ids in one line.

    A reader goes on where a killed one of the same file ended. One whose rows a repair took back
    begins again with the first row, and says so.
    """
    with open_first_free(records) as out:
        last = whole_lines(out)
        reader = lake.updates.sync.follow(last[-1][0] if last else START)
        while True:
            try:
                found = reader.read()
                if found is None:
                    sleep(0.01)
                    continue
                ids = found.rows.get_column("update_id")
                out.write(" ".join([found.token, *ids]).encode() + b"\n")
            except TokenError:
                out.truncate(0)
                reader = lake.updates.sync.follow(START)


def open_first_free(records: Path) -> FileIO:
    """Return the first of the files of all readers that no living process follows for."""
    while True:
        for number in range(READERS):
            name = f"{records.name.partition('.follow-')[0]}.follow-{number}"
            out = FileIO(records.with_name(name), "a+")
            with suppress(BlockingIOError):
                flock(out, LOCK_EX | LOCK_NB)
                return out
            out.close()


def whole_lines(out: FileIO) -> list[list[str]]:
    """Return the words of each line that is whole, and cut off the rest."""
    out.seek(0)
    text = out.readall().decode()
    whole = text.rpartition("\n")[0]
    out.truncate(len(whole.encode()) + 1 if whole else 0)
    return [line.split() for line in whole.splitlines()]


WORK = {work.__name__: work for work in (insert, drain, claim, maintain, doctor, follow)}


def main(work: str, path: str, seed: int) -> None:
    """Work until killed; an error of the lake is printed and ends the process."""
    records = Path(f"{path}.{work}-{os.getpid()}-{seed}")
    try:
        WORK[work](Lake(path), Random(seed), records)
    except LakeError as error:
        print(f"{work}: {error!r}")
