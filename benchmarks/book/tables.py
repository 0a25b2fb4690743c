"""The tables at size: a drain from claim to mark, and a reconciliation, as the book grows."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime

import polars as pl

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from position_sync_dagster.domain.holding import BrokerPosition, Completeness
from position_sync_dagster.domain.instrument import Instrument, Right
from position_sync_dagster.domain.queue_request import QueueRequest, Reason
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.book import open_positions, read_book
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.settings import BatchSize, Settings
from position_sync_dagster.sync.broker_view import LakeValues
from position_sync_dagster.sync.drain import SHARE, QueueWorker, drain
from position_sync_dagster.sync.reconciliation import ReconciliationService
from tests.support.settings import make_settings

SIZES = (200, 1_000, 5_000, 20_000)
ACCOUNT = "DUSIM0001"
FIRST_CONID = 920_000_001
BATCH = 50

# With so many waiting, a drain's rows a second have a goal: on fewer, what each drain costs at
# least weighs more.
MANY = 5_000


def tables(bench: Bench) -> None:
    """Drain and reconcile books of growing size."""
    per_row: float | None = None
    for legs in bench.legs or bench.size(SIZES, (200, 1_000)):
        lake = MoneyLake(bench.new_folder(f"lake-{legs}"))
        lake.initialize_sync()
        settings = make_settings(lake="unused", drain_time_limit_s=300)
        hold(lake, settings, legs)
        first = _seconds(lambda lake=lake, settings=settings: _drained(lake, settings))
        wait(lake, legs)
        fresh = MoneyLake(lake.path)
        again = _seconds(lambda lake=fresh, settings=settings: _drained(lake, settings))
        batch = _batch_ms(lake, settings, legs, bench.size(5, 2))
        per_row = per_row or batch
        state = f"{legs:,} legs"
        fast = Target(value=0.2) if legs >= MANY else None
        lines = [
            Line(
                what="drain end to end, rows a second",
                state=state,
                ours=first / legs * 1e3,
                unit="ms a row",
                target=fast,
            ),
            Line(
                what="drain of unchanged holdings, new process's tables",
                state=state,
                ours=again / legs * 1e3,
                unit="ms a row",
                target=fast,
            ),
            Line(
                what="one batch with all waiting, a row",
                state=state,
                ours=batch,
                theirs=per_row,
                against="200 waiting",
                target=Target(ratio=1.5),
            ),
            *_looks(lake, settings, state),
            *_reconciled(lake, settings, state),
        ]
        bench.report.add(f"The tables at {legs:,} legs", lines)


def hold(lake: MoneyLake, settings: Settings, legs: int) -> None:
    """Write the broker's view and a request for each holding."""
    confirm(lake, settings, legs)
    wait(lake, legs)


def wait(lake: MoneyLake, legs: int) -> None:
    """Insert a request for each holding that has none."""
    lake.queue.sync.insert_many(
        QueueRequest(FIRST_CONID + n, f"SYM{n % 40}", 2, ACCOUNT, Reason.REFRESH)
        for n in range(legs)
    )


def confirm(lake: MoneyLake, settings: Settings, legs: int) -> None:
    """Write the broker's view, with a new value of each holding."""
    lake.broker_positions.replace(settings.gateway_id, _positions(settings, legs))


def worker_of(lake: MoneyLake, settings: Settings, batch_size: BatchSize = "auto") -> QueueWorker:
    """Return a worker that takes the values from the tables."""
    return QueueWorker(
        lake.queue,
        batch_size=batch_size,
        values=LakeValues(lake, settings),
        updates=lake.updates,
        settings=settings,
    )


def _positions(settings: Settings, legs: int) -> list[BrokerPosition]:
    now = datetime.now(UTC)
    return [
        BrokerPosition(
            gateway_id=settings.gateway_id,
            account=ACCOUNT,
            position=float(n % 4 + 1),
            average_cost=110.0,
            market_price=1.25 + now.microsecond % 97 / 100,
            market_value=125.0 + now.microsecond % 97,
            unrealized_pnl=15.0,
            received_at=now,
            position_time=now,
            confirmed_at=now,
            snapshot_id="measured",
            completeness=Completeness.COMPLETE,
            instrument=Instrument(
                conid=FIRST_CONID + n,
                symbol=f"SYM{n % 40}",
                sec_type="OPT",
                currency="USD",
                right=Right.CALL,
                strike=100.0 + n % 50,
                expiry=date(2028, 12, 15),
                multiplier=100.0,
            ),
        )
        for n in range(legs)
    ]


def _drained(lake: MoneyLake, settings: Settings) -> None:
    report = asyncio.run(drain(lake, settings))
    if report.unavailable or lake.queue.sync.overview().claimable:
        raise RuntimeError(f"The drain did not end: {report.reason}")


def _batch_ms(lake: MoneyLake, settings: Settings, legs: int, rounds: int) -> float:
    """Time single batches while every leg of the book waits; in milliseconds a row."""
    hold(lake, settings, legs)

    async def batches() -> float:
        worker = worker_of(lake, settings)
        took = []
        for _ in range(min(rounds, SHARE)):
            began = time.perf_counter()
            report = await worker.process_batch()
            took.append((time.perf_counter() - began) * 1e3 / report.claimed)
        return sorted(took)[len(took) // 2]

    return asyncio.run(batches())


def _looks(lake: MoneyLake, settings: Settings, state: str) -> list[Line]:
    """Read what a person looks at, each with tables that were just opened."""
    now = datetime.now(UTC)
    looks: dict[str, tuple[Callable[[MoneyLake], object], float]] = {
        "latest()": (lambda fresh: fresh.updates.sync.latest(), 300.0),
        "status": (lambda fresh: read_status(fresh, settings, now), 1_000.0),
        "positions --limit 20": (
            lambda fresh: open_positions(read_book(fresh, settings, now))[:20],
            1_000.0,
        ),
    }
    return [
        Line(
            what=what,
            state=state,
            ours=_seconds(lambda look=look: look(MoneyLake(lake.path))) * 1e3,  # type: ignore[misc]
            target=Target(value=most),
        )
        for what, (look, most) in looks.items()
    ]


def _reconciled(lake: MoneyLake, settings: Settings, state: str) -> list[Line]:
    """Reconcile a book in which every holding differs from its row."""
    holdings = [
        _other_quantity(holding)
        for holding in _positions(settings, lake.updates.sync.latest().height)
    ]
    lake.broker_positions.replace(settings.gateway_id, holdings)
    service = ReconciliationService(lake, settings)
    ours = _seconds(lambda: asyncio.run(service.run()))
    join = _seconds(lambda: _outer_join(lake))
    return [
        Line(
            what="reconciliation, every holding differs",
            state=state,
            ours=ours * 1e3,
            against="Polars outer join of the tables",
            theirs=join * 1e3,
            target=Target(ratio=3.0),
        )
    ]


def _other_quantity(holding: BrokerPosition) -> BrokerPosition:
    return replace(holding, position=holding.position + 1)


def _outer_join(lake: MoneyLake) -> int:
    """Read both tables and join them, and write what differs, as the least that must be done."""
    key = ["account", "conid"]
    newest = (
        pl.scan_delta(lake.table_path("position_updates"))
        .sort("timestamp")
        .unique(key, keep="last")
    )
    held = pl.scan_delta(lake.table_path("broker_positions"))
    joined = held.join(newest, on=key, how="full", coalesce=True)
    return joined.filter(pl.col("position") != pl.col("position_right")).collect().height


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
