"""A real PostgreSQL server of a test: started, stopped, restarted and killed as a test asks."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from tests.support.demo_program import wait_for
from tests.support.ports import free_port

MISSING = "PostgreSQL is not installed (apt install postgresql)"

USER = "dagster"
DATABASE = "dagster"
PASSWORD = "unu5ual/p@ss :w0rd%41"  # noqa: S105 - each character that a URL would not take


def programs() -> Path | None:
    """Return the folder of the server's programs; None where it is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    path = shutil.which("initdb")
    folders = [*([Path(path).resolve().parent] if path else []), *reversed(debian)]
    return next((folder for folder in folders if (folder / "pg_isready").exists()), None)


def _account() -> dict[str, Any]:
    """Return the account of the server: its own where the tests run as root, which it refuses."""
    if os.getuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Postgres:
    """One server with one database, whose user has a password."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.port = free_port()
        self._binaries = binaries
        self._folder = folder
        self._account = _account()
        self._process: subprocess.Popen[bytes] | None = None
        if self._account:
            os.chown(folder, self._account["user"], self._account["group"])

    def create(self) -> None:
        """Create the database, and start its server."""
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            "initdb", "--pgdata", str(self.data), "--username", USER, "--pwfile", str(secret),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync",
        )  # fmt: skip
        self.start()
        self.query(f"CREATE DATABASE {DATABASE}", dbname="postgres")

    @property
    def data(self) -> Path:
        return self._folder / "data"

    @property
    def arguments(self) -> dict[str, Any]:
        """Return what psycopg2 takes."""
        place = {"host": "127.0.0.1", "port": self.port, "dbname": DATABASE}
        return place | {"user": USER, "password": PASSWORD}

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which each program finds the database."""
        return {
            "PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": USER, "PGPASSWORD": PASSWORD,
            "PGDATABASE": DATABASE, "PGCONNECT_TIMEOUT": "5",
        }  # fmt: skip

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            words: list[Any] = [
                "-D",
                self.data,
                "-p",
                str(self.port),
                "-h",
                "127.0.0.1",
                "-k",
                self._folder,
            ]
            self._process = subprocess.Popen(
                [self._binaries / "postgres", *words, "-c", "fsync=off"], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, cwd="/", start_new_session=True, **self._account,
            )  # fmt: skip
        ready = [self._binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        wait_for("Postgres answers", lambda: subprocess.run(ready, check=False).returncode == 0)

    def stop(self, sig: signal.Signals = signal.SIGINT) -> None:
        """Stop the server; by default with each of its sessions (a fast shutdown)."""
        if self._process is not None:
            self._process.send_signal(sig)
            self._process.wait(60)
            self._process = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stop the server for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def query(self, statement: str, dbname: str = DATABASE) -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows."""
        with closing(psycopg2.connect(**self.arguments | {"dbname": dbname})) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / program, *arguments],
            capture_output=True, text=True, timeout=180, check=False, cwd="/", **self._account,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@contextmanager
def running() -> Iterator[Postgres]:
    """Run a server in a folder that its account can reach, and end it."""
    binaries = programs()
    assert binaries is not None, MISSING
    folder = Path(tempfile.mkdtemp(prefix="position-sync-postgres-"))
    server = Postgres(binaries, folder)
    try:
        server.create()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
