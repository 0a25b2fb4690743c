"""A stream's process has one thread each of Polars and Delta Lake, and other processes are free."""

import json
import os
import subprocess
import sys

from position_sync_dagster.sync.stream.memory_and_threads import (
    ALLOCATOR,
    ONE_ARENA,
    VARIABLES,
    limit_native_threads,
)

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
