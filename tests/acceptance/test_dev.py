"""`position-sync dev` without a gateway: who reaches it, two in one home, what cannot run."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from tests.support import demo_program
from tests.support.demo_program import LIMIT_S, command, end_all, processes_of, started, wait_for
from tests.support.ports import NO_CERTIFICATES, free_port


class Dev:
    """One start of `position-sync dev` in a folder of its own."""

    def __init__(self, folder: Path, *, gateway_port: int | None = None) -> None:
        self.folder = folder
        self.gateway_port = gateway_port or free_port()
        self.ui_port = free_port()
        self.output = folder / "output.txt"
        self.home = folder / "dagster_home"
        env = {"DAGSTER_HOME": str(self.home), "POSITION_SYNC_GATEWAY_PORT": str(self.gateway_port)}
        words = ("dev", "--ui-port", str(self.ui_port))
        self.process = started(*words, cwd=folder, output=self.output, env=env)

    def text(self) -> str:
        return self.output.read_text()

    def serving(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self.ui_port}/server_info"
            answer = httpx.get(url, timeout=2, trust_env=False, verify=NO_CERTIFICATES)
        except httpx.TransportError:
            return False
        return answer.is_success

    def gone(self) -> bool:
        self.process.poll()
        return not processes_of(self.folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Iterator[Dev]:
    """Start one without a gateway, which the last test that asks ends."""
    folder = tmp_path_factory.mktemp("dev")
    dev = Dev(folder)
    try:
        wait_for("the UI answers", dev.serving)
        yield dev
    finally:
        end_all(dev.process, folder)


MUTATION = "mutation { reloadWorkspace { __typename } }"


def test_a_web_page_of_another_site_reaches_nothing(one):
    own = f"127.0.0.1:{one.ui_port}"
    with httpx.Client(base_url=f"http://{own}", timeout=LIMIT_S, trust_env=False) as http:
        for path in ("/", "/server_info", "/graphql", "/money"):
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

        # The UI itself: its page, GraphQL, and the subscription by which it follows a run.
        assert "<html" in http.get("/").text
        headers = {"Origin": f"http://{own}", "Host": own}
        answer = http.post("/graphql", json={"query": MUTATION}, headers=headers)
        assert answer.json()["data"]["reloadWorkspace"]["__typename"] == "Workspace"

    def subscribe(origin: str) -> str:
        with connect(
            f"ws://{own}/graphql",
            origin=Origin(origin),
            subprotocols=[Subprotocol("graphql-ws")],
            open_timeout=LIMIT_S,
        ) as socket:
            socket.send(json.dumps({"type": "connection_init"}))
            return json.loads(socket.recv(timeout=LIMIT_S))["type"]

    assert subscribe(f"http://{own}") == "connection_ack"
    with pytest.raises(InvalidStatus) as refused:
        subscribe("http://pages.example")
    assert refused.value.response.status_code == 403


def test_without_a_gateway_it_advises_and_keeps_running_until_it_is_killed(one, tmp_path):
    advice = f"Nothing listens at 127.0.0.1:{one.gateway_port}"
    text = wait_for("the advice", lambda: advice in one.text() and one.text())
    assert "POSITION_SYNC_GATEWAY_PORT" in text
    assert one.process.poll() is None

    second = Dev(one.folder, gateway_port=one.gateway_port)
    assert second.process.wait(LIMIT_S) == 2
    assert "is in use by position-sync dev" in second.output.read_text()
    assert one.serving()

    own = {"DAGSTER_HOME": str(tmp_path)}
    taken = command("dev", "--ui-port", str(one.ui_port), cwd=tmp_path, env=own)
    assert taken.returncode == 2
    assert f"Port {one.ui_port} of 127.0.0.1 is taken" in taken.stderr

    os.kill(one.process.pid, signal.SIGKILL)
    wait_for("nothing is left", one.gone, within_s=demo_program.GONE_S, poll_s=0.05)


def test_what_cannot_run_ends_everything_with_its_reason_as_the_last_word(tmp_path):
    (tmp_path / "dagster_home").mkdir()
    (tmp_path / "dagster_home" / "dagster.yaml").write_text("storage: {nowhere: {}}\n")
    dev = Dev(tmp_path)
    try:
        assert dev.process.wait(LIMIT_S) == 1
        wait_for("nothing is left", dev.gone)
        text = dev.text()
        assert "nowhere" in text, "Dagster's own error"
        assert re.search(r"Everything ends\. The daemon \(process \d+\) ended .* 3 times", text)
        assert "Dagster has ended with code 1." in text.splitlines()[-2]
    finally:
        end_all(dev.process, tmp_path)
