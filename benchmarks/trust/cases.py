"""The cases, each with a simulator and a stream of its own, all at the same time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from benchmarks.bench import Bench
from position_sync_dagster.processes.ports import exchange_json
from tests.support.booked_legs import terms_of

ACCOUNT, CALL, PUT, WING = "DUSIM0001", 921000001, 921000002, 921000003
LEGS = (CALL, PUT, WING)
HERE = Path(__file__).parents[2]
# The number of cases that are played at the same time: each is three processes.
AT_ONCE = 4

# The stream has so long to write its first row.
STARTED_S = 180.0

ONE_ACCOUNT = """\
name: one account
as_of: 2028-06-01
accounts: [{name: DUSIM0001}]
underlyings:
  - {symbol: SPY, conid: 930000001, price: 620, volatility: 0.17}
chains:
  - {name: spy, underlying: SPY, first_conid: 931000000, expiries: [20281215],
     strikes: {start: 600, stop: 620, step: 10}}
positions: [{account: DUSIM0001, chain: spy, quantities: [1]}]
"""


@dataclass(kw_only=True)
class Stage:
    """One case: its simulator, its tables, and what was read.

    Attributes:
        quick: Shorten the waits.
        began: When the case itself began; rows from before do not count.
        rows: What was read, ready to be printed.
    """

    lake: Path
    port: int
    control_port: int
    quick: bool
    began: float = field(default_factory=time.time)
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def act(self, action: str, **arguments: Any) -> None:
        """Do an action of the simulator."""
        exchange_json(self.control_port, f"/{action}", arguments, timeout_s=10.0)

    def begin(self) -> None:
        """Count the seconds from now on."""
        self.began = time.time()

    def at(self, seconds: float) -> bool:
        """Wait until so many seconds after the beginning; False where a quick run ends earlier."""
        if self.quick and seconds > 12:
            return False
        time.sleep(max(0.0, self.began + seconds - time.time()))
        return True

    def table(self, name: str) -> pl.DataFrame:
        """Read a table; it is empty before it exists."""
        with suppress(TableNotFoundError):
            return pl.DataFrame(DeltaTable(self.lake / name).scan())
        return pl.DataFrame()

    def newest(self, conid: int) -> dict[str, Any] | None:
        """Return the newest row of a leg in the account."""
        table = self.table("position_updates")
        if table.is_empty():
            return None
        found = table.filter((pl.col("conid") == conid) & (pl.col("account") == ACCOUNT))
        rows = found.filter(pl.col("source") == "STREAM").sort("timestamp").tail(1).to_dicts()
        return rows[0] if rows else None

    def read(self, conid: int, true: float | None = None, *, delta: bool = False) -> None:
        """Keep what the newest row of a leg says, beside the true price; its delta if asked for."""
        row, now = self.newest(conid), datetime.now(UTC)
        moment = f"{time.time() - self.began:.0f} s"
        market = "" if true is None else f"{true:g}"
        if row is None or row["timestamp"].timestamp() < self.began - 3600:
            self.rows.append((moment, market, "no row", "", "", ""))
            return
        value, position = row["market_value"], row["position"]
        price = "null" if value is None else f"{value / position / 100:.4g}"
        kind = row["price_kind"] or row["value_source"]
        age = "unknown" if row["value_time"] is None else _age(now, row["value_time"])
        note = row.get("note") or ""
        if delta:
            of_model = row["greeks_time"]
            known = "null" if row["delta"] is None else f"{row['delta']:.2f}"
            since = "" if of_model is None else f", {_age(now, of_model)} old"
            note = f"delta {known}{since}"
        self.rows.append((moment, market, price, kind, age, note))

    def read_account(self) -> None:
        """Keep what `broker_positions` says of the account."""
        rows = self.table("broker_positions").filter(pl.col("account") == ACCOUNT).to_dicts()
        row, now = rows[0], datetime.now(UTC)
        confirmed = row["confirmed_at"]
        age = "unknown" if confirmed is None else _age(now, confirmed)
        moment = f"{time.time() - self.began:.0f} s"
        self.rows.append((moment, "", "", row["completeness"], age, ""))


def _age(now: datetime, at: datetime) -> str:
    return f"{(now - at).total_seconds():.0f} s"


def quiet_wing(stage: Stage) -> None:
    """Stop every tick of a short wing without a bid."""
    stage.act("freeze")
    stage.begin()
    for seconds in (10, 60, 150, 300):
        if stage.at(seconds):
            stage.read(WING, 0.02)


def wide_quote(stage: Stage) -> None:
    """Value a leg without a mark, whose last trade was an hour ago."""
    stage.begin()
    for seconds in (10, 90):
        if stage.at(seconds):
            stage.read(CALL, 2.0)


def dead_line(stage: Stage) -> None:
    """Silence one of three lines, and move its price."""
    stage.act("silence_line", conid=PUT)
    stage.act("quote", conid=PUT, bid=60.0, ask=60.2, last=60.1, mark=60.1)
    stage.begin()
    for seconds in (3, 12, 60, 180):
        if stage.at(seconds):
            stage.read(PUT, 60.1)


def dead_quotes(stage: Stage) -> None:
    """Stop quotes and marks of a leg while its model goes on, and move its price."""
    _one_part(stage, "model")


def dead_quotes_with_notice(stage: Stage) -> None:
    """Do the same, and report that the farm is broken (2103)."""
    _one_part(stage, "model", notice=2103)


def mark_alone(stage: Stage) -> None:
    """Stop quotes and the model while marks go on, and move the price."""
    _one_part(stage, "mark")


def _one_part(stage: Stage, only: str, *, notice: int | None = None) -> None:
    stage.act("ticking", conid=PUT, only=[only])
    if notice is not None:
        stage.act("farm", farm="usfarm", code=notice)
    stage.act("quote", conid=PUT, bid=60.0, ask=60.2, last=60.1, mark=60.1)
    stage.begin()
    for seconds in (3, 12, 60):
        if stage.at(seconds):
            stage.read(PUT, 60.1)


def dead_model(stage: Stage) -> None:
    """Stop the model of a leg while its quotes and marks go on."""
    stage.act("ticking", conid=PUT, only=["quote", "mark"])
    stage.begin()
    for seconds in (10, 45, 90):
        if stage.at(seconds):
            stage.read(PUT, delta=True)


def odd_mark(stage: Stage) -> None:
    """Send a mark far outside the quote, and then one of 0 under a bid."""
    stage.act("quote", conid=PUT, bid=4.0, ask=4.1, last=4.05, mark=1.5)
    stage.begin()
    if stage.at(3):
        stage.read(PUT, 4.05)
    stage.act("quote", conid=PUT, bid=4.0, ask=4.1, last=4.05, mark=0.0)
    if stage.at(8):
        stage.read(PUT, 4.05)


def dead_login(stage: Stage) -> None:
    """Lose every line in a restore that says that data were kept, and move the prices."""
    stage.act("after_restore", lines="dead")
    stage.act("connectivity", state="lost")
    time.sleep(2)
    stage.act("connectivity", state="restored_data_kept")
    stage.act("quote", conid=PUT, bid=60.0, ask=60.2, last=60.1, mark=60.1)
    stage.begin()
    for seconds in (10, 45, 180):
        if stage.at(seconds):
            stage.read(PUT, 60.1)


def ended_account(stage: Stage) -> None:
    """End the account feed with 2100; its next downloads do not end."""
    stage.act("download_end", account=ACCOUNT, delay_s=None)
    stage.act("silence_account", account=ACCOUNT)
    stage.begin()
    for seconds in (10, 60, 240):
        if stage.at(seconds):
            stage.read_account()


def restore_in_login(stage: Stage) -> None:
    """Restore IB while a new connection waits for its positions."""
    stage.act("quote", conid=PUT, bid=60.0, ask=60.2, last=60.1, mark=60.1)
    stage.begin()
    stage.at(8)
    stage.act("connectivity", state="restored_data_kept")
    stage.begin()
    for seconds in (3, 10, 60):
        if stage.at(seconds):
            stage.read(PUT, 60.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case: what happens before its stream starts, and after its first rows."""

    name: str
    play: Callable[[Stage], None]
    quotes: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    offline: bool = False
    book: str | None = None


CASES = (
    Case(
        name="a quiet short wing: no bid, ask 0.05, mark 0.02",
        play=quiet_wing,
        quotes={WING: {"ask": 0.05, "last": 1.2, "mark": 0.02, "last_age_s": 3600}},
    ),
    Case(name="2100: the account feed ended", play=ended_account, book=ONE_ACCOUNT),
    Case(
        name="a wide quote 1.00/3.00 with a last trade of 1.10 an hour ago",
        play=wide_quote,
        quotes={CALL: {"bid": 1, "ask": 3, "last": 1.1, "no_mark": True, "last_age_s": 3600}},
    ),
    Case(name="a dead line among live ones", play=dead_line),
    Case(name="quotes dead, tick 13 goes on", play=dead_quotes),
    Case(name="quotes dead, tick 13 goes on, with 2103", play=dead_quotes_with_notice),
    Case(name="quotes dead, tick 37 goes on", play=mark_alone),
    Case(name="tick 13 dead, quotes go on", play=dead_model),
    Case(name="a mark of 1.50, then of 0, under a quote of 4.00/4.10", play=odd_mark),
    Case(name="every line dead after 1102", play=dead_login),
    Case(name="a restore during the log-in", play=restore_in_login, offline=True),
)


def cases(bench: Bench) -> None:
    """Play every case and print what the newest row said."""
    folder = bench.new_folder("trust")
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = list(threads.map(lambda case: _played(case, folder, quick=bench.quick), CASES))
    bench.report.say(f"{'after':>7} {'true':>6} {'value':>8}  {'kind':<11} {'age':>8}  note")
    for case, rows in zip(CASES, found, strict=True):
        bench.report.say(f"[bold]{case.name}[/]")
        for moment, true, value, kind, age, note in rows:
            bench.report.say(f"{moment:>7} {true:>6} {value:>8}  {kind:<11} {age:>8}  {note}")


def _played(case: Case, folder: Path, *, quick: bool) -> Sequence[tuple[str, ...]]:
    place = folder / case.play.__name__
    place.mkdir()
    book = "small"
    if case.book is not None:
        path = place / "book.yaml"
        path.write_text(case.book)
        book = str(path)
    legs = [] if case.book else [json.dumps(_leg(conid)) for conid in LEGS]
    with _simulator(book) as (port, control_port):
        stage = Stage(lake=place / "lake", port=port, control_port=control_port, quick=quick)
        for conid, quote in case.quotes.items():
            stage.act("quote", conid=conid, **quote)
        if case.offline:
            stage.act("connectivity", state="lost", answers="none")
        with _stream(stage.lake, port, legs):
            if not case.offline:
                _wait_for_rows(stage, "position_updates" if legs else "broker_positions")
            case.play(stage)
    return stage.rows


def _wait_for_rows(stage: Stage, name: str) -> None:
    deadline = time.monotonic() + STARTED_S
    while stage.table(name).is_empty():
        assert time.monotonic() < deadline, "the stream wrote nothing"
        time.sleep(0.5)
    time.sleep(8)  # the first download ends, and profits are subscribed


def _leg(conid: int) -> dict[str, Any]:
    return {"conid": conid, "strategy_id": "trust", **terms_of(conid)}


@contextmanager
def _simulator(book: str) -> Iterator[tuple[int, int]]:
    process = subprocess.Popen(
        [
            sys.executable, "-m", "ib_gateway_simulator", "--port", "0",
            "--control-port", "0", "--book", book,
        ],
        stdout=subprocess.PIPE,
        cwd=HERE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        yield ports["port"], ports["control_port"]
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _stream(lake: Path, port: int, legs: Sequence[str]) -> Iterator[None]:
    tree = os.environ.get("TREE", str(HERE))
    process = subprocess.Popen(
        [
            sys.executable, str(Path(__file__).with_name("streamer.py")), str(lake), str(port),
            "3600", *legs,
        ],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": tree},
        stderr=(lake.parent / "stream.log").open("w"),
    )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        process.wait()
