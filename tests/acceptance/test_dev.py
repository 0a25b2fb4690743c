"""`position-sync dev` without a gateway: who reaches it, two in one home, a store that is away."""

import json
import logging
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import httpx
import pytest
from dagster._core.scheduler.instigation import TickStatus
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support import demo_program
from tests.support.demo_program import (
    GONE_S,
    LIMIT_S,
    PROGRAM,
    clean_environment,
    processes_of,
    wait_for,
)
from tests.support.object_store import ObjectStore
from tests.support.ports import free_port
from tests.support.store_proxy import CUT, Rule

STAMPED = re.compile(r"(\x1b\[\d+m)?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
"""How an entry of the log begins."""

TICKS = 4
"""Ticks of the two sensors that need the store, in one outage: two of each."""

LINES_OF_A_TICK = 4
"""That the sensor is evaluated, and why it was skipped; of other sensors beside it, the same."""

LINES_OF_ERRORS = 500
"""The first tick of each sensor that fails, which the daemon logs twice, with their traces."""

RUN = " - dagster - "
"""A run that is in progress names each of its steps that fails: how many depends on the machine."""


class Dev:
    """One start of `position-sync dev` in a folder of its own."""

    def __init__(self, folder: Path, *, gateway_port: int | None = None, **more: str) -> None:
        self.folder = folder
        self.gateway_port = gateway_port or free_port()
        self.ui_port = free_port()
        self.output = folder / "output.txt"
        self.home = folder / "dagster_home"
        env = clean_environment() | more
        env |= {
            "DAGSTER_HOME": str(self.home),
            "POSITION_SYNC_GATEWAY_PORT": str(self.gateway_port),
        }
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [PROGRAM, "dev", "--ui-port", str(self.ui_port)],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.output.read_text()

    def serving(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self.ui_port}/server_info"
            return httpx.get(url, timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def gone(self) -> bool:
        self.process.poll()
        return not processes_of(self.folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory, running_store: ObjectStore) -> Iterator[Dev]:
    """Start one without a gateway, on tables in a store, which the last test that asks ends."""
    folder = tmp_path_factory.mktemp("dev")
    tables = {"POSITION_SYNC_LAKE": running_store.lake()}
    started = Dev(folder, **running_store.environment, **tables)
    try:
        wait_for("the UI answers", started.serving)
        yield started
    finally:
        running_store.proxy.reset()
        if started.process.poll() is None:
            started.process.send_signal(signal.SIGINT)
            started.process.wait(LIMIT_S)
        for process in processes_of(folder):
            process.kill()


MUTATION = "mutation { reloadWorkspace { __typename } }"


def test_a_web_page_of_another_site_reaches_nothing(one):
    own = f"127.0.0.1:{one.ui_port}"
    with httpx.Client(base_url=f"http://{own}", timeout=LIMIT_S, trust_env=False) as http:
        for path in ("/", "/server_info", "/graphql", "/stats"):
            assert http.get(path, headers={"Host": "pages.example"}).status_code == 400
            assert http.get(path, headers={"Origin": "http://pages.example"}).status_code == 403
        body = {"query": MUTATION}
        for headers, status in (
            ({"Host": f"pages.example:{one.ui_port}"}, 400),
            ({"Origin": "http://pages.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Content-Type": "text/plain"}, 415),
        ):
            assert http.post("/graphql", json=body, headers=headers).status_code == status
        assert http.get("/graphql", params=body).status_code == 405
        assert http.post("/graphql", params=body).status_code == 415

        assert http.get("/stats").json()["problems"] == []

        # The UI itself: its page, GraphQL, and the subscription by which it follows a run.
        assert "<html" in http.get("/").text
        headers = {"Origin": f"http://{own}", "Host": own}
        answer = http.post("/graphql", json={"query": MUTATION}, headers=headers)
        assert answer.json()["data"]["reloadWorkspace"]["__typename"] == "Workspace"

    def subscribe(origin: str) -> str:
        with connect(
            f"ws://{own}/graphql", origin=origin, subprotocols=["graphql-ws"], open_timeout=LIMIT_S
        ) as socket:
            socket.send(json.dumps({"type": "connection_init"}))
            return json.loads(socket.recv(timeout=LIMIT_S))["type"]

    assert subscribe(f"http://{own}") == "connection_ack"
    with pytest.raises(InvalidStatus) as refused:
        subscribe("http://pages.example")
    assert refused.value.response.status_code == 403


def skipped(home: Path, reason: str) -> int:
    """Return how many ticks of all sensors were skipped for a reason that says so."""
    return sum(reason in one for one in skip_reasons(home))


def skip_reasons(home: Path) -> list[str]:
    """Return why ticks of all sensors were skipped, newest first for each sensor."""
    if not (home / "schedules").is_dir():
        return []
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return [
            tick.tick_data.skip_reason or ""
            for state in instance.all_instigator_state()
            for tick in instance.get_ticks(
                state.instigator_origin_id, state.selector_id, statuses=[TickStatus.SKIPPED]
            )
        ]


def without_runs(lines: list[str]) -> list[str]:
    """Return the lines of a log without the entries of runs and their traces."""
    kept, of_run = [], False
    for line in lines:
        if STAMPED.match(line):
            of_run = RUN in line
        if not of_run:
            kept.append(line)
    return kept


def test_a_store_that_is_away_is_in_the_log_once_for_each_sensor(
    one, running_store, caplog
) -> None:
    caplog.set_level(logging.ERROR, logger="dagster")  # each look says: no settings file
    home, store = one.home, running_store
    wait_for = partial(
        demo_program.wait_for,
        poll_s=2,
        told=lambda: (Counter(skip_reasons(home)), one.text()[-4000:]),
    )
    wait_for("the stream runs", lambda: skipped(home, "its lease holds") >= 2)
    before = len(one.text().splitlines())
    store.proxy.fail(Rule(CUT))
    wait_for("ticks are skipped", lambda: skipped(home, "object store") >= TICKS)
    lines = without_runs(one.text().splitlines()[before:])
    caught = [line for line in lines if "Sensor tick caught an error" in line]
    assert 1 <= len(caught) <= 3
    assert len(lines) < LINES_OF_ERRORS + LINES_OF_A_TICK * TICKS
    after = skipped(home, "its lease holds")
    store.proxy.fail()
    wait_for("the sensors work again", lambda: skipped(home, "its lease holds") > after)


def test_without_a_gateway_it_advises_and_keeps_running_until_it_is_killed(one, tmp_path):
    text = wait_for("the advice", lambda: "No gateway" in one.text() and one.text())
    assert f"No gateway at 127.0.0.1:{one.gateway_port}" in text
    assert "POSITION_SYNC_GATEWAY_PORT" in text
    assert one.process.poll() is None

    second = Dev(one.folder, gateway_port=one.gateway_port)
    assert second.process.wait(LIMIT_S) == 2
    assert "is in use by position-sync dev" in second.output.read_text()
    assert one.serving()

    taken = subprocess.run(
        [PROGRAM, "dev", "--ui-port", str(one.ui_port)],
        cwd=tmp_path,
        env=clean_environment() | {"DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert taken.returncode == 2
    assert f"Port {one.ui_port} of 127.0.0.1 is taken" in taken.stderr

    os.kill(one.process.pid, signal.SIGKILL)
    wait_for("nothing is left", one.gone, within_s=GONE_S, poll_s=0.05)


def test_what_cannot_run_ends_everything_with_its_reason_as_the_last_word(tmp_path):
    (tmp_path / "dagster_home").mkdir()
    (tmp_path / "dagster_home" / "dagster.yaml").write_text("storage: {nowhere: {}}\n")
    started = Dev(tmp_path)
    try:
        assert started.process.wait(LIMIT_S) == 1
        wait_for("nothing is left", started.gone)
        text = started.text()
        assert "Dagster has ended with code 1. Dagster's storage cannot be used: " in text
        assert "nowhere" in text
        assert "Traceback" not in text
    finally:
        for process in processes_of(tmp_path):
            process.kill()
        started.process.wait()
