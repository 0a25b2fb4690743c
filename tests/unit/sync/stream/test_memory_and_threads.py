"""Freed memory goes back to the system, and Polars and Delta Lake have one thread each."""

import gc
import json
import os
import platform
import subprocess
import sys

import psutil

from position_sync_dagster.sync.stream.memory_and_threads import (
    ALLOCATOR,
    ONE_ARENA,
    VARIABLES,
    YOUNG_THRESHOLD,
    limit_native_threads,
    rare_garbage_collection,
    return_freed_memory,
)

BLOCK, BLOCKS, KEPT_EACH = 4_000, 20_000, 500


def test_what_lies_free_among_what_is_used_is_returned():
    process = psutil.Process()
    blocks = [bytes(BLOCK) for _ in range(BLOCKS)]
    kept = blocks[::KEPT_EACH]
    del blocks
    before = process.memory_info().rss
    return_freed_memory()
    returned = before - process.memory_info().rss
    assert len(kept) == BLOCKS / KEPT_EACH
    if platform.libc_ver()[0] == "glibc":
        assert returned > BLOCK * BLOCKS / 2


def looks_while_objects_come(number: int) -> int:
    before = [generation["collections"] for generation in gc.get_stats()]
    kept = [[] for _ in range(number)]
    assert len(kept) == number
    return sum(g["collections"] for g in gc.get_stats()) - sum(before)


def test_python_looks_seldom_for_cycles_and_afterwards_as_before():
    usual, objects = gc.get_threshold(), 200_000
    looks = looks_while_objects_come(objects)  # how many differs from one Python to another
    with rare_garbage_collection():
        seldom = looks_while_objects_come(objects)
        with rare_garbage_collection():  # a second stream, which may end first or last
            pass
    assert gc.get_threshold() == usual
    assert seldom <= objects / YOUNG_THRESHOLD + 1 < looks / 2
    assert looks_while_objects_come(objects) > looks / 2


WORK = """
import json, os, tempfile
from position_sync_dagster.sync.stream.memory_and_threads import limit_native_threads

def work():
    import polars as pl
    from deltalake import DeltaTable, write_deltalake

    with tempfile.TemporaryDirectory() as folder:
        write_deltalake(folder, pl.DataFrame({"conid": [1, 2]}))
        rows = pl.DataFrame(DeltaTable(folder).scan())
    return pl.thread_pool_size(), rows.height

limit_native_threads()
print(json.dumps([*work(), os.environ["POLARS_MAX_THREADS"]]))
"""


def numbers_in_a_process(**variables: str) -> list[object]:
    env = {name: text for name, text in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", WORK], env=env | variables, capture_output=True, check=True
    )
    return json.loads(done.stdout)


def test_polars_has_one_thread_and_a_number_that_the_environment_has_is_kept():
    assert numbers_in_a_process() == [1, 2, "1"]
    assert numbers_in_a_process(POLARS_MAX_THREADS="3") == [3, 2, "3"]


def test_options_of_the_allocator_are_added_to_those_of_polars_and_those_of_a_person_win(
    monkeypatch,
):
    monkeypatch.setenv(ALLOCATOR, "dirty_decay_ms:500,muzzy_decay_ms:1000")
    limit_native_threads()
    assert os.environ[ALLOCATOR] == f"dirty_decay_ms:500,muzzy_decay_ms:1000,{ONE_ARENA}"
    monkeypatch.setenv(ALLOCATOR, "narenas:4")
    limit_native_threads()
    assert os.environ[ALLOCATOR] == "narenas:4"
