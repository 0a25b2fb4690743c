"""`position-sync dev` without a gateway, and two of them in one home."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.demo_program import (
    GONE_S,
    LIMIT_S,
    PROGRAM,
    clean_environment,
    processes_of,
    wait_for,
)
from tests.support.ports import free_port


class Dev:
    """One start of `position-sync dev` in a folder of its own."""

    def __init__(self, folder: Path, *, gateway_port: int) -> None:
        self.folder = folder
        self.ui_port = free_port()
        self.output = folder / "output.txt"
        env = clean_environment() | {
            "DAGSTER_HOME": str(folder / "dagster_home"),
            "POSITION_SYNC_GATEWAY_PORT": str(gateway_port),
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


@pytest.fixture
def dev(tmp_path) -> Iterator[Callable[..., Dev]]:
    started: list[Dev] = []

    def begin(*, gateway_port: int, folder: Path = tmp_path) -> Dev:
        started.append(Dev(folder, gateway_port=gateway_port))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGINT)
            one.process.wait(LIMIT_S)
    for process in processes_of(tmp_path):
        process.kill()


def test_without_a_gateway_it_advises_and_keeps_running(dev, tmp_path):
    port = free_port()
    one = dev(gateway_port=port)
    wait_for("the UI answers", one.serving)
    text = wait_for("the advice", lambda: "No gateway" in one.text() and one.text())
    assert f"No gateway at 127.0.0.1:{port}" in text
    assert "POSITION_SYNC_GATEWAY_PORT" in text
    assert one.process.poll() is None

    second = dev(gateway_port=port)
    assert second.process.wait(LIMIT_S) == 2
    assert "is in use by position-sync dev" in second.output.read_text()
    assert one.serving()

    (tmp_path / "elsewhere").mkdir()
    taken = subprocess.run(
        [PROGRAM, "dev", "--ui-port", str(one.ui_port)],
        cwd=tmp_path / "elsewhere",
        env=clean_environment() | {"DAGSTER_HOME": str(tmp_path / "elsewhere")},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert taken.returncode == 2
    assert f"Port {one.ui_port} of 127.0.0.1 is taken" in taken.stderr

    os.kill(one.process.pid, signal.SIGKILL)
    wait_for("nothing is left", one.gone, within_s=GONE_S, poll_s=0.05)
