"""A Dagster instance, a lake, and fixtures that fill its tables."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.holding import (
    Completeness,
    PositionUpdate,
    QueueRequest,
    Source,
    TradingMode,
)
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.reports import reconciliation
from tests.support.empty_lakes import put_tables
from tests.support.holdings import make_holding
from tests.support.migrations import keep_migrations
from tests.support.receiver import Receiver, running_receiver

ACCOUNT = "DUSIM0001"
# Nothing listens there: a connection that is made by mistake is refused at once.
CLOSED_PORT = 1


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> None:
    """Read the migrations of Dagster's storage once: most of what an instance costs."""
    keep_migrations()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Return the settings that the definitions read from the environment."""
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(CLOSED_PORT))
    return load_settings()


@pytest.fixture
def lake(settings: Settings) -> Lake:
    """Return the tables, empty."""
    put_tables(settings.lake)
    return Lake(settings.lake)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Return an instance whose storages are in memory."""
    home = tmp_path / "home"
    home.mkdir()
    with dg.DagsterInstance.ephemeral(tempdir=str(home)) as instance:
        yield instance


@pytest.fixture
def receiver(settings, monkeypatch) -> Iterator[Receiver]:
    """Serve one receiver of messages, which is told at once."""
    with running_receiver() as found:
        monkeypatch.setenv("POSITION_SYNC_ALERT_URLS", found.url)
        monkeypatch.setattr(Settings, "alert_after_s", 0.0)
        yield found


@pytest.fixture
def instance_on_disk(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Return an instance with files, as a code server opens it; it takes a second."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def materialize(
    settings: Settings, instance: dg.DagsterInstance
) -> Callable[..., dg.ExecuteInProcessResult]:
    """Materialize assets with the real resource; a failure is a result, not an exception."""

    def run(*assets: Any, **options: Any) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            list(assets),
            resources={"position_sync": POSITION_SYNC},
            instance=instance,
            raise_on_error=False,
            **options,
        )

    return run


@pytest.fixture
def own_login(lake: Lake, settings: Settings) -> Callable[..., GatewaySession]:
    """Acquire the login and return the session."""

    def take(*, owner=Owner.STREAM, state=SessionState.LIVE, run_id=None, lease_s=60.0, name=None):
        sessions, who = lake.sessions, {"run_id": run_id, "host": "here", "pid": os.getpid()}
        session = sessions.acquire(name or settings.gateway_id, owner, lease_s=60.0, **who)
        return sessions.renew(session, lease_s=lease_s, state=state)

    return take


@pytest.fixture
def write_holdings(lake: Lake) -> Callable[..., None]:
    """Write a broker snapshot that holds one contract of each conid."""

    def write(session, *conids, completeness=Completeness.COMPLETE, account=ACCOUNT):
        now = datetime.now(UTC)
        money = {"average_cost": 100.0, "market_price": 1.5, "market_value": 150.0}
        of_now = {"completeness": completeness, "confirmed_at": now, "unrealized_pnl": 50.0}
        of_login = {"gateway_id": session.gateway_id, "account": account}
        rows = [make_holding(conid, now, **money, **of_now, **of_login) for conid in conids]
        lake.broker_positions.replace(session.gateway_id, rows, session=session)

    return write


@pytest.fixture
def confirmed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a difference fail the check without the wait for the next drain."""
    monkeypatch.setattr(reconciliation, "CONFIRM_AFTER", timedelta(0))


@pytest.fixture
def enqueue(lake: Lake) -> Callable[..., list[str]]:
    """Insert a request for each conid into the queue."""

    def insert(*conids: int) -> list[str]:
        requests = [QueueRequest(conid, "SPY", 2, ACCOUNT) for conid in conids]
        return lake.queue.sync.insert_many(requests)

    return insert


@pytest.fixture
def append_row(lake: Lake, settings: Settings) -> Callable[..., None]:
    """Append a row to the ledger with the timestamp of a moment."""

    def write(conid: int, at: datetime, **values: Any) -> None:
        plain = PositionUpdate(
            conid, "SPY", None, 1.0, 1.5, 150.0, 100.0, 50.0, at, account=ACCOUNT,
            source=Source.STREAM, gateway_id=settings.gateway_id,
            trading_mode=TradingMode.SIMULATED,
        )  # fmt: skip
        lake.updates.sync.append([replace(plain, **values)])

    return write


@pytest.fixture
def seconds_ago() -> Callable[[float], datetime]:
    """Return the moment so many seconds ago."""
    return lambda seconds: datetime.now(UTC) - timedelta(seconds=seconds)


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the `datetime` of a module tell a later time."""

    def shift(module: Any, delta: timedelta) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:
                return datetime.now(UTC) + delta

        monkeypatch.setattr(module, "datetime", Clock)

    return shift
