"""The log of `position-sync dev` while its object store is away."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus

from tests.support.demo_program import (
    LIMIT_S,
    PROGRAM,
    clean_environment,
    processes_of,
    wait_for,
)
from tests.support.object_store import ObjectStore
from tests.support.ports import free_port
from tests.support.store_proxy import CUT, Rule

TICKS = 4
"""Ticks of the two sensors that need the store, in one outage: two of each."""

LINES_OF_A_TICK = 4
"""That the sensor is evaluated, and why it was skipped; of other sensors beside it, the same."""

LINES_OF_AN_ERROR = 800
"""The first tick of each sensor that fails, and a run that was in progress, with their traces."""


@pytest.fixture
def program(tmp_path: Path, store: ObjectStore) -> Iterator[Path]:
    """Start `dev` on tables in the store; return the file with all that it writes."""
    output, home = tmp_path / "output.txt", tmp_path / "dagster_home"
    environment = clean_environment() | store.environment
    environment |= {
        "DAGSTER_HOME": str(home),
        "POSITION_SYNC_LAKE": store.lake(),
        "POSITION_SYNC_GATEWAY_PORT": str(free_port()),
    }
    with output.open("w") as file:
        process = subprocess.Popen(
            [PROGRAM, "dev", "--ui-port", str(free_port())],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield output
    finally:
        store.proxy.fail()
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)
        for left in processes_of(tmp_path):
            left.kill()


def skipped(home: Path, reason: str) -> int:
    """Return how many ticks of all sensors were skipped for a reason that says so."""
    if not (home / "schedules").is_dir():
        return 0
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return sum(
            reason in (tick.tick_data.skip_reason or "")
            for state in instance.all_instigator_state()
            for tick in instance.get_ticks(
                state.instigator_origin_id, state.selector_id, statuses=[TickStatus.SKIPPED]
            )
        )


def test_a_store_that_is_away_is_in_the_log_once_for_each_sensor(program, store) -> None:
    home = program.parent / "dagster_home"
    wait_for("the stream runs", lambda: skipped(home, "its lease holds") >= 2, poll_s=2)
    before = len(program.read_text().splitlines())
    store.proxy.fail(Rule(CUT))
    wait_for("ticks are skipped", lambda: skipped(home, "object store") >= TICKS, poll_s=2)
    lines = program.read_text().splitlines()[before:]
    caught = [line for line in lines if "Sensor tick caught an error" in line]
    assert 1 <= len(caught) <= 3
    assert len(lines) < LINES_OF_AN_ERROR + LINES_OF_A_TICK * TICKS
    after = skipped(home, "its lease holds")
    store.proxy.fail()
    wait_for("the sensors work again", lambda: skipped(home, "its lease holds") > after, poll_s=2)
