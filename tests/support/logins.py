"""Several simulated logins: a gateway each, and the file that names them."""

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.book.generated import GeneratedBook, generate
from tests.support.demo_program import clean_environment
from tests.support.ports import NO_CERTIFICATES, free_port

# Lines that a stream leaves to others, as the settings do by default.
RESERVED_LINES = 5

HANGS_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One login: its book, and its gateway as a process.

    Attributes:
        port: Of the gateway.
        max_lines: Market data lines of the login.
        broker: The control port of the gateway.
    """

    name: str
    account: str
    book: GeneratedBook
    port: int
    max_lines: int
    process: subprocess.Popen[bytes]
    broker: httpx.Client

    @classmethod
    def start(
        cls, folder: Path, number: int, *, legs: int, active: int, max_lines: int = 100
    ) -> "Login":
        """Start the gateway of a login with a generated book."""
        name = f"login-{number}"
        account = f"DUSIM{number:04}"
        port = free_port()
        book = generate(folder / name, legs, active, account)
        options = f"--host 127.0.0.1 --port {port} --control-port 0 --max-lines {max_lines}"
        words = [*options.split(), "--seed", str(number), "--book", str(book.book)]
        process = subprocess.Popen(
            [sys.executable, "-m", "ib_gateway_simulator", *words],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        broker = httpx.Client(
            base_url=f"http://127.0.0.1:{ports['control_port']}",
            timeout=HANGS_S,
            trust_env=False,
            verify=NO_CERTIFICATES,
        )
        return cls(
            name=name, account=account, book=book, port=port, max_lines=max_lines,
            process=process, broker=broker,
        )  # fmt: skip

    @property
    def budget(self) -> int:
        """The lines that its stream may use."""
        return self.max_lines - RESERVED_LINES

    @property
    def wanted_lines(self) -> int:
        """The lines that its stream uses when all that can have one: underlyings, then legs."""
        return min(len(self.book.active), self.budget)

    def post(self, action: str, **arguments: Any) -> None:
        """Make the gateway do something."""
        answer = self.broker.post(f"/{action}", json=arguments)
        assert answer.status_code == 200, answer.text

    def fill(self, conid: int, quantity: float) -> None:
        """Trade in its account."""
        self.post("fill", account=self.account, conid=conid, quantity=quantity)

    def stats(self) -> dict[str, Any]:
        """Return the gateway's counts."""
        counts: dict[str, Any] = self.broker.get("/stats").raise_for_status().json()
        return counts

    def positions(self) -> dict[tuple[str, int], float]:
        """Return what the broker holds."""
        rows = self.broker.get("/positions").raise_for_status().json()
        return {(row["account"], row["conid"]): row["quantity"] for row in rows}

    def close(self) -> None:
        """End the gateway."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.broker.close()


def write_gateways(path: Path, logins: Iterable[Login]) -> None:
    """Write the gateways file, as an editor saves it."""
    entries = [
        {
            "name": login.name,
            "port": login.port,
            "max_lines": login.max_lines,
            "accounts": [login.account],
        }
        for login in logins
    ]
    written = path.with_suffix(".new")
    written.write_text(yaml.safe_dump({"gateways": entries}, sort_keys=False))
    written.replace(path)


def write_strategies(path: Path, logins: Iterable[Login]) -> None:
    """Write one file of the strategies of all logins."""
    texts = [login.book.strategies.read_text() for login in logins]
    lists = [text.removeprefix("strategies:\n") for text in texts]
    path.write_text("strategies:\n" + "".join(lists))
