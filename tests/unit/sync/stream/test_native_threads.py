"""A stream's process has one thread each of Polars and Delta Lake, and other processes are free."""

import json
import os
import subprocess
import sys
from contextlib import suppress

from position_sync_dagster.sync.stream.memory_and_threads import (
    ALLOCATOR,
    ONE_ARENA,
    VARIABLES,
    one_native_thread_each,
)

WORK = """
import json, os, tempfile
from position_sync_dagster.sync.stream.memory_and_threads import VARIABLES, one_native_thread_each

def work():
    import polars as pl
    from deltalake import DeltaTable, write_deltalake

    with tempfile.TemporaryDirectory() as folder:
        write_deltalake(folder, pl.DataFrame({"conid": [1, 2]}))
        rows = pl.DataFrame(DeltaTable(folder).scan())
    return pl.thread_pool_size(), rows.height

with one_native_thread_each():
    found = work()
print(json.dumps([*found, [name in os.environ for name in VARIABLES]]))
"""


def numbers_in_a_process(**variables: str) -> list[object]:
    env = {name: text for name, text in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", WORK], env=env | variables, capture_output=True, check=True
    )
    return json.loads(done.stdout)


def test_polars_has_one_thread_and_the_environment_is_as_before():
    assert numbers_in_a_process() == [1, 2, [False, False]]


def test_a_number_that_the_environment_has_is_kept():
    assert numbers_in_a_process(POLARS_MAX_THREADS="3") == [3, 2, [True, False]]


def test_the_environment_is_as_before_after_an_error(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with suppress(ZeroDivisionError), one_native_thread_each():
        assert [os.environ[name] for name in VARIABLES] == ["1", "1"]
        raise ZeroDivisionError
    assert not any(name in os.environ for name in VARIABLES)


def test_options_of_the_allocator_are_added_to_those_of_polars_and_those_of_a_person_win(
    monkeypatch,
):
    monkeypatch.setenv(ALLOCATOR, "dirty_decay_ms:500,muzzy_decay_ms:1000")
    with one_native_thread_each():
        options = os.environ[ALLOCATOR]
        assert options == f"dirty_decay_ms:500,muzzy_decay_ms:1000,{ONE_ARENA}"
        os.environ[ALLOCATOR] = f"dirty_decay_ms:500,{options}"  # Polars is imported
    assert os.environ[ALLOCATOR] == "dirty_decay_ms:500,muzzy_decay_ms:1000"
    monkeypatch.setenv(ALLOCATOR, "narenas:4")
    with one_native_thread_each():
        assert os.environ[ALLOCATOR] == "narenas:4"
