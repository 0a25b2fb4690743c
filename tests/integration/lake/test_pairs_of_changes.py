"""Two changes of a table, one committed inside the other, on the real delta-rs.

The first change has read and decided when the second one commits. What is there afterwards must be
what one of the two orders leaves: nothing lost, and nothing twice. `make test` tries each change
inside some others, `make chaos` inside all of them.
"""

import shutil
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import write_deltalake

from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.domain.reconciliation import Discrepancy, DiscrepancyType
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.schema import LATEST_POSITIONS
from position_sync_dagster.lake.storage import commits, merges
from position_sync_dagster.lake.storage.opening import Upkeep
from position_sync_dagster.lake.storage.table import Table
from tests.support.contracts import contract_details
from tests.support.derived_rows import put_rows
from tests.support.extent import part_of
from tests.support.holdings import make_holding
from tests.support.queues import finish_each, requests_of
from tests.support.whole_lake import WholeLake

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
LOGIN = "127.0.0.1:7497"
# Commits before the pair, and the number of files from which they are merged here.
FILES = 6

# Small files are merged soon, and no writer waits for the one in the same test.
QUICK = Upkeep(lock_wait_s=0.001, compact_from=FILES)

# In so many others, beside itself, `make test` commits each change.
INSIDE_OTHERS = 1

Work = Callable[[WholeLake], Any]


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def update(number: int) -> PositionUpdate:
    return PositionUpdate(number, "SPY", None, 1.0, 1.0, 1.0, 1.0, 1.0, at(number))


def holding(number: int) -> BrokerPosition:
    return make_holding(number, NOW, gateway_id=LOGIN, account="DUSIM1")


def execution(number: int) -> Execution:
    given = {"execution_id": f"e{number}", "account": "DUSIM1", "time": at(number)}
    return Execution(**dict.fromkeys(f.name for f in fields(Execution)) | given)


def discrepancy(number: int) -> Discrepancy:
    return Discrepancy(
        type=DiscrepancyType.MISSING, account="DUSIM1", conid=number, symbol="SPY", expected=1.0,
        actual=None, detail="held, no row",
    )  # fmt: skip


def leg(lake: WholeLake, number: int) -> None:
    lake.registry.sync.add_active(
        conid=number, symbol="SPY", right="PUT", strike=1.0, expiry="20270115", strategy_id="s"
    )


def ids(lake: WholeLake, *conids: int) -> list[str]:
    rows = lake.queue.table.rows(columns=["request_id", "conid"])
    return rows.filter(pl.col("conid").is_in(conids)).get_column("request_id").to_list()


def opened(path: Path | str, **more: Any) -> WholeLake:
    """Return the lake as another process opens it."""
    return WholeLake(path, fsync=False, upkeep=QUICK, **more)


def later(lake: WholeLake) -> WholeLake:
    """Return the lake as a process whose clock is years ahead sees it: every lease is over."""
    return opened(lake.path, clock=lambda: datetime.now(UTC) + timedelta(days=999))


def own(lake: WholeLake, login: str) -> None:
    lake.sessions.acquire(login, Owner.REFRESH, lease_s=600, run_id=None, host="h", pid=1)


def end_session(lake: WholeLake, login: str) -> None:
    session = lake.sessions.current(login)
    assert session is not None
    lake.sessions.end(session)


def derive(lake: WholeLake, number: int) -> None:
    table = Table(lake.table_path("latest_positions"), LATEST_POSITIONS, upkeep=QUICK)
    row = dict.fromkeys(LATEST_POSITIONS.columns) | {"account": "DUSIM1", "conid": number}
    put_rows(table, pl.DataFrame([row], schema=LATEST_POSITIONS.polars))


FILL: dict[str, Callable[[WholeLake, int], Any]] = {}
FILL["active_strategies"] = lambda lake, n: (
    leg(lake, n),  # type: ignore[func-returns-value]
    n % 2 or lake.registry.sync.remove_active(n),
)
FILL["position_queue"] = lambda lake, n: finish_each(lake.queue, [n])
FILL["position_updates"] = lambda lake, n: lake.updates.sync.append([update(n)])
FILL["broker_positions"] = lambda lake, n: lake.broker_positions.replace(f"login{n}", [holding(n)])
FILL["contracts"] = lambda lake, n: lake.contracts.put([contract_details(n)])


def fill_sessions(lake, n):
    own(lake, f"login{n}")
    end_session(lake, f"login{n}")


FILL["gateway_sessions"] = fill_sessions


def fill_breaks(lake, n):
    for found in ([discrepancy(n)], []):
        lake.breaks.record({f"login{n}": found}, at(n))


FILL["reconciliation_breaks"] = fill_breaks
FILL["executions"] = lambda lake, n: lake.executions.add([execution(n)])
FILL["latest_positions"] = derive

CHANGES: dict[str, dict[str, Work]] = {}
CHANGES["active_strategies"] = {
    "add": lambda lake: leg(lake, 50),
    "add the same": lambda lake: leg(lake, 50),
    "remove": lambda lake: lake.registry.sync.remove_active(1),
    "replace all": lambda lake: lake.registry.sync.replace_all([]),
}
CHANGES["position_queue"] = {
    "insert": lambda lake: lake.queue.sync.insert_many([QueueRequest(60, "SPY")]),
    "claim": lambda lake: lake.queue.sync.claim_batch(limit=2, lease_s=600),
    "succeed": lambda lake: lake.queue.sync.mark_success(ids(lake, 31, 32)),
    "fail": lambda lake: lake.queue.sync.mark_failed(*ids(lake, 31), "no", retryable=False),
    "release": lambda lake: lake.queue.sync.release(ids(lake, 30)),
    "rescue": lambda lake: later(lake).queue.sync.rescue(),
    "retry": lambda lake: lake.queue.sync.retry(ids(lake, 40)),
}
CHANGES["position_updates"] = {
    "append": lambda lake: lake.updates.sync.append([update(50)]),
    "append two": lambda lake: lake.updates.sync.append([update(50), update(51)]),
    "fence": lambda lake: lake.updates.table.fence(LOGIN, 7),
}
CHANGES["broker_positions"] = {
    "replace": lambda lake: lake.broker_positions.replace("login1", [holding(70)]),
    "replace another": lambda lake: lake.broker_positions.replace("login2", [holding(71)]),
}
CHANGES["contracts"] = {
    "put new": lambda lake: lake.contracts.put([contract_details(50)]),
    "put known": lambda lake: lake.contracts.put([contract_details(1), contract_details(50)]),
}
CHANGES["gateway_sessions"] = {
    "acquire": lambda lake: own(lake, "login1"),
    "acquire another": lambda lake: own(lake, "login2"),
    "end": lambda lake: end_session(lake, "held"),
}
CHANGES["reconciliation_breaks"] = {
    "open": lambda lake: lake.breaks.record({"login1": [discrepancy(50)]}, at(99)),
    "resolve": lambda lake: lake.breaks.record({"held": []}, at(99)),
}
CHANGES["executions"] = {
    "add": lambda lake: lake.executions.add([execution(50)]),
    "add two": lambda lake: lake.executions.add([execution(50), execution(51)]),
}
CHANGES["latest_positions"] = {
    "derive": lambda lake: derive(lake, 50),
    "derive otherwise": lambda lake: derive(lake, 51),
}

UPKEEP: dict[str, Callable[[Table], Any]] = {
    "merge": lambda table: merges.compact(table, merges.SMALL_BYTES),
    "clean": lambda table: merges.maintain(table, clean_now=True),
}

# Columns that hold an id, a time or a version: they differ from try to try.
UNTOLD = """
    request_id update_id batch_id part bucket created_at updated_at added_at available_at
    changed_at claimed_at earlier_attempts lease_token lease_expires_at removed_at committed_at
    ledger_version published_version session_id started_at heartbeat_at expires_at ended_at run_id
    recorded_at break_id row_id resolved_at fencing_token
"""


def table_of(lake: WholeLake, name: str) -> Table:
    return next(t for t in (*lake.tables, *lake.derived_tables) if t.spec.name == name)


def changes_of(name: str) -> dict[str, Work]:
    def of_table(work: Callable[[Table], Any]) -> Work:
        return lambda lake: work(table_of(lake, name))

    return CHANGES[name] | {kind: of_table(work) for kind, work in UPKEEP.items()}


def template(path: Path, name: str) -> Path:
    """Fill a table with finished rows in several files, and a few that changes act on."""
    lake = opened(path)
    table_of(lake, name).initialize()
    for number in range(1, FILES + 1):
        FILL[name](lake, number)
    if name == "position_queue":
        lake.queue.sync.mark_failed(lake.queue.sync.insert(40, "SPY"), "no", retryable=False)
        lake.queue.sync.insert_many(requests_of(range(30, 33)))
        lake.queue.sync.claim_batch(limit=1, lease_s=600)
    elif name == "gateway_sessions":
        own(lake, "held")
    elif name == "reconciliation_breaks":
        lake.breaks.record({"held": [discrepancy(9)]}, at(9))
    return path


Outcome = tuple[list[str], pl.DataFrame]


def errors_of(path: Path, *works: Work) -> list[str]:
    """Do one work after the other; return their errors."""
    errors = []
    for work in works:
        try:
            work(opened(path))
        except LakeError as error:
            errors.append(type(error).__name__)
    return errors


def outcome(path: Path, name: str, *works: Work) -> Outcome:
    """Do one work after the other; return their errors and what the table holds then."""
    errors = errors_of(path, *works)
    table = table_of(opened(path), name)
    assert not table.rows(columns=list(table.spec.key or table.spec.columns)).is_duplicated().any()
    rows = table.rows()
    if table.spec.key:
        assert not rows.select(table.spec.key).is_duplicated().any()
    frame = rows.drop(UNTOLD.split(), strict=False)
    return sorted(errors), frame.sort(frame.columns, nulls_last=True)


def inside(monkeypatch: pytest.MonkeyPatch, path: Path, name: str, *works: Work) -> Outcome:
    """Do the first work, and the second one right before it commits rows, or after it if never."""
    first, meanwhile = works
    errors: list[str] = []

    def committing(*arguments: Any, **more: Any) -> None:
        monkeypatch.setattr(commits, "write_deltalake", write_deltalake)
        errors.extend(errors_of(path, meanwhile))
        write_deltalake(*arguments, **more)

    monkeypatch.setattr(commits, "write_deltalake", committing)
    found, rows = outcome(path, name, first)
    if commits.write_deltalake is committing:
        monkeypatch.undo()
        found_later, rows = outcome(path, name, meanwhile)
        errors.extend(found_later)
    return sorted(found + errors), rows


@pytest.mark.parametrize("name", CHANGES)
def test_two_changes_at_once_leave_what_one_of_the_two_orders_leaves(tmp_path, name, monkeypatch):
    filled = template(tmp_path / "filled", name)
    changes = changes_of(name)
    copies = iter(range(10_000))

    def copy() -> Path:
        return Path(shutil.copytree(filled, tmp_path / f"copy{next(copies)}"))

    @cache
    def in_order(*names: str) -> Outcome:
        return outcome(copy(), name, *(changes[one] for one in names))

    def leaves(found: Outcome, *names: str) -> bool:
        errors, rows = in_order(*names)
        return found[0] == errors and found[1].equals(rows)

    for first, second in sorted(part_of(changes, INSIDE_OTHERS)):
        with monkeypatch.context() as patch:
            found = inside(patch, copy(), name, changes[first], changes[second])
        assert leaves(found, second, first) or leaves(found, first, second), (
            f"{second} inside {first} of {name}: {found}"
        )
