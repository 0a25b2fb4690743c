"""A deployment as `deploy/` describes it, with several logins: real processes, all of it."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.figures import read_figures
from position_sync_dagster.settings import Settings, load_settings
from tests.support import postgres
from tests.support.hosts import Host
from tests.support.logins import Login, write_gateways, write_strategies
from tests.support.object_store import ObjectStore, running_store
from tests.support.promises import current_by_login

HANGS_S = 1_800.0
SERVICES = ("code", "daemon", "webserver")

Key = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large it is.

    Attributes:
        legs, active: Of each login.
        latency_s: Of each request to the store.
    """

    logins: int
    legs: int
    active: int
    latency_s: float


class Deployment:
    """Two hosts, what they share, and the gateways; `close` ends all of it."""

    def __init__(self, folder: Path, size: Size) -> None:
        folder.mkdir(parents=True)
        self.size = size
        self._stack = ExitStack()
        self.store: ObjectStore = self._stack.enter_context(running_store())
        self.database = self._stack.enter_context(postgres.running())
        self.logins: list[Login] = []
        for number in range(1, size.logins + 1):
            login = Login.start(folder / "logins", number, legs=size.legs, active=size.active)
            self._stack.callback(login.close)
            self.logins.append(login)
        write_gateways(folder / "gateways.yaml", self.logins)
        write_strategies(folder / "strategies.yaml", self.logins)
        environment = (
            self.database.environment
            | self.store.environment
            | {
                "POSITION_SYNC_LAKE": self.store.lake(),
                "POSITION_SYNC_TRADING_MODE": "SIMULATED",
                "POSITION_SYNC_GATEWAYS_FILE": str(folder / "gateways.yaml"),
                "POSITION_SYNC_STRATEGIES_FILE": str(folder / "strategies.yaml"),
            }
        )
        self._stack.enter_context(patch.dict(os.environ, environment))
        self.settings: Settings = load_settings()
        self.lake = MoneyLake.of(self.settings)
        self.hosts = {name: Host(folder / name, environment) for name in "ab"}
        for host in self.hosts.values():
            self._stack.callback(host.kill)
        self.store.proxy.change(latency_s=size.latency_s)
        self.began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def legs(self) -> int:
        """All holdings."""
        return self.size.logins * self.size.legs

    def until(self, what: str, condition: Callable[[], Any], *, every_s: float = 0.1) -> float:
        """Wait for something; return the seconds.

        Raises:
            RuntimeError: It does not happen.
        """
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > HANGS_S:
                raise RuntimeError(f"It does not happen: {what}.")
            time.sleep(every_s)
        return time.monotonic() - began

    def exists(self) -> bool:
        """Return whether the ledger is there."""
        return self.lake.updates.table.exists()

    def has_rows(self, number: float) -> bool:
        """Return whether so many holdings have a row."""
        return self.lake.updates.sync.latest().height >= number

    def current(self) -> dict[str, int]:
        """Count the holdings of each login whose value is current now."""
        return current_by_login(read_figures(self.lake, self.settings, utc_now()))

    def position(self, key: Key, since: datetime) -> float | None:
        """Return the newest position of a holding."""
        account, conid = key
        found = self.lake.updates.sync.newest_of([conid], since).rows
        return next((row.position for row in found.values() if row.account == account), None)

    def session(self, login: Login) -> GatewaySession | None:
        """Return the newest session of a login."""
        return self.lake.sessions.current(login.name)

    def streams(self, login: Login, *, after: GatewaySession | None = None) -> bool:
        """Return whether a login has all its lines, in another session than that before."""
        found = self.session(login)
        if found is None or (after is not None and found.session_id == after.session_id):
            return False
        live = found.is_alive(utc_now()) and found.state is SessionState.LIVE
        return live and found.lines_in_use == login.wanted_lines
