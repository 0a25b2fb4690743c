"""A running program as it is seen from outside: its process, its broker and its UI."""

import subprocess
import time
from collections.abc import Callable
from typing import Any, ClassVar, TextIO

import httpx


class SeenFromOutside:
    """What the benchmarks of whole programs wait for, make happen and ask.

    Attributes:
        hangs_s: After so many seconds something hangs.
        account: The account in which something happens.
        process: The program.
        output: Its output.
        broker: The control port of its simulator.
        ui_port: The port of its UI.
        began: The start, by the monotonic clock.
    """

    hangs_s: ClassVar[float]
    account: ClassVar[str]
    process: subprocess.Popen[bytes]
    output: TextIO
    broker: httpx.Client
    ui_port: int
    began: float

    def age_s(self) -> float:
        """Give the seconds since the start."""
        return time.monotonic() - self.began

    def until(self, condition: Callable[[], Any], *, every_s: float = 0.05) -> float:
        """Wait for something; give the seconds.

        Raises:
            RuntimeError: It does not happen.
        """
        began = time.monotonic()
        while not condition():
            if self.process.poll() is not None or time.monotonic() - began > self.hangs_s:
                raise RuntimeError(f"It ended or hangs: see {self.output.name}.")
            time.sleep(every_s)
        return time.monotonic() - began

    def happens(self, action: str, conid: int, **more: Any) -> None:
        """Let something happen at the broker."""
        said = {"account": self.account, "conid": conid, **more}
        self.broker.post(f"/{action}", json=said).raise_for_status()

    def ask(self, query: str, **variables: Any) -> Any:
        """Ask the UI's server."""
        answer = httpx.post(
            f"http://127.0.0.1:{self.ui_port}/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
            trust_env=False,
        )
        return answer.raise_for_status().json()["data"]
