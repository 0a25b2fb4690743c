"""A close in a lake with one, ten and a hundred thousand closes a year."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from benchmarks.bench import Bench
from benchmarks.closes.history import ACCOUNT, FIRST_CONID, write_history
from benchmarks.outcome import Line, Target
from benchmarks.timing import median
from position_sync_dagster.defs.assets.latest_positions import latest_positions
from position_sync_dagster.domain.execution import FROM_GATEWAY, Execution, Side
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.money.defs.strategies import strategy_exposure
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.reports.figures import read_figures
from position_sync_dagster.money.strategies.leg_followers import RollFollower
from position_sync_dagster.settings import Settings, load_settings

SIZES = (1_000, 10_000, 100_000)
# The number of holdings that close while it is measured.
FRESH = 10

MOST = 1.3


def growth(bench: Bench) -> None:
    """Measure the processor time of what follows a close, by the closes of the year before."""
    found: dict[str, dict[int, float]] = {}
    for closes in bench.size(SIZES, (100, 200)):
        for what, seconds in measured(bench, closes).items():
            found.setdefault(what, {})[closes] = seconds * 1000
    lines = []
    for what, by_size in found.items():
        smallest = min(by_size)
        for closes, ms in by_size.items():
            line = Line(what=what, state=f"{closes:,} closes a year", ours=ms, samples=5)
            if closes != smallest:
                line = Line(
                    what=what, state=line.state, ours=ms, samples=5,
                    against=f"{smallest:,} a year", theirs=by_size[smallest],
                    target=Target(ratio=MOST),
                )  # fmt: skip
            lines.append(line)
    bench.report.add("Processor time of what follows a close", lines)


def measured(bench: Bench, closes: int) -> dict[str, float]:
    """Return the processor seconds of each step in a lake with so many closes."""
    now = datetime.now(UTC)
    folder = bench.new_folder(f"{closes}")
    write_history(MoneyLake(folder), closes, now)
    file = folder / "strategies.yaml"
    file.write_text("strategies: [{strategy_id: roller, follow_rolls: true, legs: []}]")
    lake = MoneyLake(folder)
    lake.registry.sync.add_active(
        conid=FIRST_CONID - 1, symbol="SYM1", right="CALL", strike=100.0, expiry="20281215",
        strategy_id="roller", account=ACCOUNT,
    )  # fmt: skip
    CloseExplainer(lake).explain()
    settings = load_settings(_env_file=None, lake=str(folder))
    follower = RollFollower(lake, settings.model_copy(update={"strategies_file": file}))
    of: dict[str, list[float]] = {}

    def timed(what: str, work: Callable[[], object]) -> None:
        began = time.process_time()
        work()
        of.setdefault(what, []).append(time.process_time() - began)

    for round_number in range(5):
        at = datetime.now(UTC)
        conids = [2_000_000 + FRESH * round_number + number for number in range(FRESH)]
        lake.position_changes.add([_change(conid, at) for conid in conids])
        rows = [_execution(conid, at) for conid in conids]
        timed("explain new closes", lambda rows=rows: CloseExplainer(lake).explain(rows))
        timed("explain again", lambda: CloseExplainer(lake).explain())
        timed("follow rolls", follower.follow)
        timed("explain in a new process", lambda: CloseExplainer(MoneyLake(folder)).explain())
        strategy_exposure.derive(lake, settings, None)
        timed("read the page", lambda: read_figures(lake, settings, datetime.now(UTC)))
        timed("derive the tables", lambda: _derive(lake, settings))
    return {what: median(samples) for what, samples in of.items()}


def _derive(lake: MoneyLake, settings: Settings) -> None:
    latest_positions.derive(lake, settings, None)
    strategy_exposure.derive(lake, settings, None)


def _change(conid: int, at: datetime) -> PositionChange:
    return PositionChange(
        change_id=f"new-{conid}", account=ACCOUNT, conid=conid, symbol="SYM1", sec_type="OPT",
        right=Right.CALL, strike=100.0, expiry=None, multiplier=100.0, currency="USD", before=1.0,
        after=0.0, average_cost=50.0, market_price=1.5, since=at - timedelta(minutes=2),
        seen_at=at, gateway_id="g", snapshot_id="s",
    )  # fmt: skip


def _execution(conid: int, at: datetime) -> Execution:
    return Execution(
        execution_id=f"new-{conid}", account=ACCOUNT, conid=conid, symbol="SYM1", sec_type="OPT",
        time=at, side=Side.SELL, quantity=1.0, price=1.5, commission=0.65,
        commission_currency="USD", realized_pnl=99.35, currency="USD", source=FROM_GATEWAY,
        statement="", order_id=f"new-{conid}", stated_at=at,
    )  # fmt: skip
