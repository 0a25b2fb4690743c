"""The demo: the whole system on a simulated gateway, with a live status and an acceptance test.

The exit code is 0 for a run without a time limit, however it is stopped. A run with a time limit
ends with 0 if all figures of the acceptance test are met and with 1 if not. If it is stopped
before its time, nothing was tested, and the code says what stopped it: 128 + n for signal n.

This module and the commands in `cli/simulated.py` need the simulator, a distribution of its own;
nothing else of the package does.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from polars import col

from ib_gateway_simulator.books.book import Book, Opening
from ib_gateway_simulator.books.dates import dated
from ib_gateway_simulator.books.loader import BOOKS, load_book
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.past_sessions import PastLeg, PastSessions, closing_market, play_sessions
from position_sync_dagster.dagster_files import LAUNCHED_BY
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.instrument import RIGHTS, parse_expiry
from position_sync_dagster.domain.leg import ActiveContract, Leg
from position_sync_dagster.domain.position_update import (
    GreeksSource,
    PositionUpdate,
    PriceKind,
    Source,
    ValueOrigin,
    trading_mode_of,
)
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.money.past.statement_folder import import_statements
from position_sync_dagster.money.profit.todays_profit import day_and_close_before
from position_sync_dagster.money.reports.columns import printable
from position_sync_dagster.money.reports.figures import Figures, read_figures
from position_sync_dagster.money.strategies.strategies_file import load_strategies
from position_sync_dagster.money.trading_days import session_before
from position_sync_dagster.processes import home as homes
from position_sync_dagster.processes import ports, supervisor
from position_sync_dagster.processes.child_process import ChildProcess, StopRequest, StopRequested
from position_sync_dagster.processes.live_status import (
    LOOK_INTERVAL_S,
    AcceptanceResult,
    Display,
    choose_display,
    frames,
)
from position_sync_dagster.processes.ports import LOOPBACK, NEXT_PORTS, NoAnswerError, exchange_json
from position_sync_dagster.settings import PREFIX, Settings, load_settings
from position_sync_dagster.sync.confirmations import CONFIRMED
from position_sync_dagster.sync.exchange_days import exchange_of
from position_sync_dagster.terminal.text import command_as_typed

# The number of past trading days that have a statement.
SESSIONS = 40

# The exchange whose closes the simulator counts from.
CALENDAR = "XNYS"

# How long before the close the last rows of the day were written.
BEFORE_CLOSE = timedelta(seconds=5)


def past_sessions(calendar: str, now: datetime) -> list[date]:
    """Return the trading days before that of the demo, oldest first.

    The day of the demo has a statement of its own (`state_the_day`). A prepared one would say, from
    the evening on, that nothing else happened on the day.
    """
    _today, session, _closed_at = day_and_close_before(calendar, now)
    days = [session]
    while len(days) < SESSIONS:
        days.insert(0, session_before(calendar, days[0]))
    return days


def last_close(calendar: str, now: datetime) -> datetime:
    """Return the close of the last trading day before that of the demo."""
    _today, _session, closed_at = day_and_close_before(calendar, now)
    return closed_at


def days_since_close(now: datetime) -> float:
    """Return how many days ago the simulator's previous close was."""
    return (now - last_close(CALENDAR, now)) / timedelta(days=1)


def book_of(home: homes.Home) -> Path:
    """Return the file of the book of a home, whose expiries are those of its first start."""
    return home.path / "book.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was before the first start of a home."""

    book: Book
    closed_at: datetime
    closing: Market
    past: PastSessions


def prepare_book(home: homes.Home, now: datetime) -> History:
    """Write the book of a home and its strategies, and return what was before them."""
    today, _session, closed_at = day_and_close_before(CALENDAR, now)
    days = past_sessions(CALENDAR, now)
    trades = exchange_of(CALENDAR).is_trading_day
    text = dated((BOOKS / "demo.yaml").read_text("utf-8"), today, trades)
    strategies = (BOOKS / "demo_strategies.yaml").read_text("utf-8")
    strategies = dated(strategies, today, trades)
    strategies = strategies.replace("history", f"{days[0]}")
    strategies_of(home).write_text(strategies, "utf-8")

    book_of(home).write_text(text, "utf-8")
    book = load_book(book_of(home))
    closing = closing_market(book, closed_at)
    past = play_sessions(book, days, closing)
    costs = ", ".join(f"{conid}: {cost:.4f}" for conid, cost in past.costs.items())
    book_of(home).write_text(f"{text}\ncosts: {{{costs}}}\n", "utf-8")
    return History(book=load_book(book_of(home)), closed_at=closed_at, closing=closing, past=past)


def require_living_book(home: homes.Home, today: date) -> None:
    """Raise if the first options of a home's book have expired, or if it has none.

    Raises:
        HomeError: A new home is needed.
    """
    if book_of(home).exists():
        contracts = load_book(book_of(home)).contracts.values()
        if f"{today:%Y%m%d}" <= min(contract.expiry for contract in contracts if contract.expiry):
            return
    raise homes.HomeError(
        f"The options of the demo in {home.path} have expired, or an older version made it.",
        remedy="Remove this folder, or name another one with --home (make demo HOME_DIR=...).",
    )


def write_closes(settings: Settings, history: History) -> None:
    """Write the rows of the last close, and the oldest statement, whose day is the first."""
    rows = closing_rows(history, settings.gateway_id)
    MoneyLake.of(settings).updates.sync.append(rows)

    settings.flex_folder.mkdir(exist_ok=True)
    name, content = next(history.past.statements())
    (settings.flex_folder / name).write_bytes(content)


def write_statements(settings: Settings, history: History) -> None:
    """Write the statements of the past sessions, and import them."""
    for name, content in history.past.statements():
        (settings.flex_folder / name).write_bytes(content)

    lake = MoneyLake.of(settings)
    import_statements(lake, settings)
    MovementBook(lake).update()


def closing_rows(history: History, gateway_id: str) -> Iterator[PositionUpdate]:
    """Yield the last rows before the close, with the greeks of options."""
    for opening in history.book.openings:
        if opening.quantity:
            yield _row(history, opening, gateway_id)


def _row(history: History, opening: Opening, gateway_id: str) -> PositionUpdate:
    """Return the row of a holding as the queue writes it, from a portfolio row of the broker."""
    market = history.closing
    contract = history.book.contracts[opening.conid]
    at = history.closed_at - BEFORE_CLOSE
    price = market.close_price(opening.conid)
    value = opening.quantity * price * contract.multiplier
    cost = opening.average_cost
    if cost is None:
        cost = market.opening_cost(opening.conid)

    row = PositionUpdate(
        conid=contract.conid,
        symbol=contract.symbol,
        right=RIGHTS.get(contract.right),
        position=opening.quantity,
        market_price=price * contract.price_magnifier,
        market_value=value,
        average_cost=cost,
        unrealized_pnl=value - opening.quantity * cost,
        timestamp=at,
        account=opening.account,
        sec_type=contract.sec_type.value,
        strike=contract.strike if contract.is_option else None,
        expiry=parse_expiry(contract.expiry) if contract.expiry else None,
        multiplier=contract.multiplier,
        currency=contract.currency,
        price_kind=PriceKind.PORTFOLIO,
        value_time=at,
        source=Source.QUEUE,
        value_source=ValueOrigin.PORTFOLIO,
        gateway_id=gateway_id,
        trading_mode=trading_mode_of(opening.account),
        local_symbol=contract.local_symbol,
    )
    greeks, spot = market.at_close(opening.conid)
    if greeks is None:
        return row

    return replace(
        row,
        implied_vol=greeks.implied_vol,
        delta=greeks.delta,
        gamma=greeks.gamma,
        vega=greeks.vega,
        theta=greeks.theta,
        underlying_price=spot,
        greeks_source=GreeksSource.GATEWAY,
        greeks_time=at,
    )


# The time in seconds in which each leg must have a current row, if the tables already exist.
DEMO_LIMIT_S = 60.0

# The path that values each leg.
Paths = Mapping[Key, str]


def expect_paths(held: Iterable[Key], legs: Iterable[ActiveContract]) -> Paths:
    """Return the path that must value each leg held: an active conid streams in each account."""
    active = {leg.conid for leg in legs if leg.removed_at is None}
    paths: dict[Key, str] = {}
    for account, conid in held:
        paths[account, conid] = Source.STREAM if conid in active else Source.QUEUE
    return paths


def current_paths(rows: pl.DataFrame, *, since: datetime) -> Paths:
    """Return the legs whose newest row was written at `since` or later, and the path that did it.

    A row of an earlier run counts if the broker has confirmed its value in this one.

    Args:
        rows: The newest row of each leg, with the time at which its source last confirmed it.
        since: The start of the run.
    """
    confirmed = pl.when(col.position != 0).then(CONFIRMED)
    rows = rows.filter(pl.max_horizontal("timestamp", confirmed) >= since)
    rows = rows.select("account", "conid", "source")
    return {(account, conid): source for account, conid, source in rows.iter_rows()}


def is_complete(expected: Paths, found: Paths) -> bool:
    """Return whether each leg has a current row from its own path."""
    return expected.items() <= found.items()


def evaluate(
    expected: Paths,
    found: Paths,
    *,
    complete_after_s: float | None,
    limit_s: float,
    underlyings: int,
    counts: Mapping[str, Any],
) -> tuple[AcceptanceResult, ...]:
    """Compare the figures of a run with the figures that the demo promises.

    Args:
        expected: As `expect_paths` returns it.
        found: As `current_paths` returns it.
        complete_after_s: Seconds from the start until each leg had a current row; None if that
            did not happen.
        limit_s: The time allowed for it, in seconds.
        underlyings: The number of underlyings of the holdings; each gets a line when the details
            of its options are known.
        counts: What the simulator counted, as its control port answers: `peak_lines` is the
            highest number of lines in use at once.
    """
    wanted = Counter[str]()
    valued = Counter[str]()
    streamed = set[int]()
    for (account, conid), path in expected.items():
        wanted[path] += 1
        valued[path] += found.get((account, conid)) == path
        if path == Source.STREAM:
            streamed.add(conid)

    duration = "not complete"
    in_time = False
    if complete_after_s is not None:
        duration = f"{complete_after_s:.1f} s"
        in_time = complete_after_s <= limit_s

    current = expected.keys() & found.keys()
    lines = len(streamed)
    peak = counts["peak_lines"]
    peak_wanted = f"{lines} legs + at most {underlyings} underlyings"
    is_in_bounds = 0 <= peak - lines <= underlyings

    results = [_compared("legs with a current row", len(expected), len(current))]
    results += [_compared(f"  by {source}", wanted[source], valued[source]) for source in Source]
    results += [
        _compared("order messages at the broker", 0, len(counts["orders_received"])),
        AcceptanceResult("all current after", f"at most {limit_s:.0f} s", duration, in_time),
        AcceptanceResult("peak of market data lines", peak_wanted, f"{peak}", is_in_bounds),
    ]
    return tuple(results)


def _compared(name: str, wanted: int, found: int) -> AcceptanceResult:
    return AcceptanceResult(name, f"{wanted}", f"{found}", wanted == found)


# The programs of a demo, the simulator and Dagster, and its history.
#
# Both programs end with this process, whatever ends it. The simulator ends last, so that the stream
# can close its gateway session while the gateway still answers. What happens in the simulated
# market is in the simulator's `books/demo_day.yaml`. After three and a half minutes a statement of
# the day confirms it. `prepare_book` makes its history; the newest five days are recorded in
# `daily_positions` at the first start.

# Seconds from the start to the statement of the day, which a real broker makes in the night.
STATED_S = 215.0

# The number of these days, the newest ones, that the first start records in `daily_positions`. The
# others are left for a backfill by the user.
RECORDED = 35


def record(demo_run: "DemoRun") -> None:
    """Launch the runs that import the statements and record the newest of the sessions.

    Raises:
        NoAnswerError: Dagster's UI does not answer or refuses.
    """
    launch(demo_run.ui_port, "import_statements", {})

    days = past_sessions(demo_run.settings.calendar, datetime.now(UTC))
    tags = {
        "dagster/asset_partition_range_start": days[-RECORDED].isoformat(),
        "dagster/asset_partition_range_end": days[-1].isoformat(),
    }
    launch(demo_run.ui_port, "close_day", tags)


def state_the_day(demo_run: "DemoRun") -> None:
    """Write the statements of the day, as the simulator makes them, and import them.

    Raises:
        NoAnswerError: The simulator or Dagster's UI does not answer.
        OSError: The folder cannot be written.
    """
    today = datetime.now(UTC)
    folder = demo_run.settings.flex_folder
    for account, text in demo_run.ask("/statements").items():
        file = folder / f"{account}-{today:%Y%m%d}.xml"
        file.write_text(text, encoding="utf-8")
    launch(demo_run.ui_port, "import_statements", {})


# How long a program may take to answer, in seconds: right after a start all of them are busy.
DEMO_ANSWER_S = 60.0

_LAUNCH = """
mutation($job: String!, $tags: [ExecutionTag!]) {
  launchRun(
    executionParams: {
      selector: {
        repositoryLocationName: "position_sync_dagster"
        repositoryName: "__repository__"
        jobName: $job
      }
      executionMetadata: { tags: $tags }
    }
  ) { __typename ... on Error { message } }
}
"""


def launch(ui_port: int, job: str, tags: Mapping[str, str]) -> None:
    """Launch a job of the project through the UI's GraphQL.

    Raises:
        NoAnswerError: The UI does not answer, or it refuses; the message says why.
    """
    tagged = {**tags, LAUNCHED_BY: "demo"}
    variables = {"job": job, "tags": [{"key": k, "value": v} for k, v in tagged.items()]}
    body = {"query": _LAUNCH, "variables": variables}
    answer = exchange_json(ui_port, "/graphql", body, timeout_s=DEMO_ANSWER_S)
    result = (answer.get("data") or {}).get("launchRun") or {}
    if result.get("__typename") != "LaunchRunSuccess":
        why = result.get("message") or answer
        raise NoAnswerError(f"{job} was not launched: {why}.", remedy="Launch it in Dagster.")


# How long a demo that is over waits for runs in progress: cut off, they would have failed.
RUNS_END_S = 60.0

_IN_PROGRESS = """
query {
  runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED]}) {
    ... on Runs { results { jobName } }
  }
}
"""


def has_runs(ui_port: int) -> bool:
    """Return whether runs are in progress that end by themselves; not if the UI does not answer."""
    try:
        answer = exchange_json(
            ui_port, "/graphql", {"query": _IN_PROGRESS}, timeout_s=DEMO_ANSWER_S
        )
    except NoAnswerError:
        return False
    runs = answer["data"]["runsOrError"]["results"]
    return any(run["jobName"] != "stream_positions" for run in runs)


SIMULATOR_GRACE_S = 1.0
DEMO_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line; a port of 0 leaves the choice to the demo.

    Attributes:
        seconds: The time limit in seconds, after which the acceptance test decides. None runs
            until a request to stop.
        end_with: The process id of a parent. When it ends, the demo ends.
        calm: Whether the simulated day has no fills and no outages.
    """

    home: Path = Path(".demo")
    seconds: float | None = None
    ui_port: int = 0
    gateway_port: int = 0
    control_port: int = 0
    json: bool = False
    end_with: int | None = None
    calm: bool = False


def start_simulator(home: homes.Home, options: Options, gateway_port: int) -> ChildProcess:
    """Start the simulator with the demo's book, and its day unless the options say `calm`.

    Args:
        gateway_port: The simulator listens there, or at the next free port. It binds the port
            itself, so that two demos that start together get different ones.
    """
    command = [sys.executable, "-m", "ib_gateway_simulator", "--book", str(book_of(home))]
    command += ["--host", LOOPBACK, "--port", str(gateway_port), "--next-ports", str(NEXT_PORTS)]
    command += ["--control-port", str(options.control_port), "--end-with", str(os.getpid())]
    command += ["--closed-days", f"{days_since_close(utc_now()):.4f}"]
    if not options.calm:
        command += ["--scenario", str(BOOKS / "demo_day.yaml")]

    return ChildProcess(
        "The simulator",
        command,
        env=homes.home_environment({}, home.dagster_home),
        cwd=home.path,
        log=home.log_file("simulator"),
        grace_s=SIMULATOR_GRACE_S,
    )


def wait_until_ready(child: ChildProcess, stop: StopRequest) -> tuple[int, int]:
    """Wait until the simulator has printed its ports; return the gateway's, then the controls'.

    A busy machine takes long.

    Raises:
        ChildEndedError: The simulator has ended.
        StopRequested: This process shall stop.
    """
    while True:
        for line in child.tail(lines=50).splitlines():
            with suppress(ValueError, KeyError, TypeError):  # another line of the log
                values = json.loads(line)
                return values["port"], values["control_port"]
        child.check()
        stop.pause(DEMO_POLL_S)


# The default port of the simulator. TWS and IB Gateway do not use it, and operating systems assign
# only higher ports to clients.
GATEWAY_PORT = 17497


@dataclass(eq=False, repr=False, kw_only=True)
class DemoRun:
    """The running programs of a demo, and what its tables have.

    Attributes:
        settings: The settings of the home.
        is_first: Whether the home was new.
        since: The start of the run; rows from before it belong to an earlier one.
        ui_port: The port of the Dagster UI.
        control_port: That of the simulator's controls.
        children: The simulator, then Dagster.
        complete_after_s: Seconds from the start until each leg had a current row; None until then.
    """

    home: homes.Home
    settings: Settings
    is_first: bool
    since: datetime
    ui_port: int
    control_port: int
    children: tuple[ChildProcess, ...]
    complete_after_s: float | None = None

    def __post_init__(self) -> None:
        self._lake = MoneyLake.of(self.settings)
        self._complete: tuple[Paths, Paths] | None = None

    def check(self) -> None:
        """Raise if one of the programs has ended.

        Raises:
            ChildEndedError: It has ended.
        """
        for child in self.children:
            child.check()

    def serves(self) -> bool:
        """Return whether the webserver of this demo listens, and no other program at its port."""
        return supervisor.is_serving(self.ui_port, self.children[-1].pid)

    def has_runs(self) -> bool:
        """Return whether runs of this demo are in progress that end by themselves."""
        return self.serves() and has_runs(self.ui_port)

    def ask(self, path: str) -> Any:
        """Return what the simulator's control port has at a path.

        Raises:
            NoAnswerError: The simulator does not answer.
        """
        return exchange_json(self.control_port, path, timeout_s=DEMO_ANSWER_S)

    def addresses(self) -> dict[str, str]:
        """Return the addresses and folders of the parts."""
        return {
            "ui": supervisor.url(self.ui_port),
            "control": f"http://{LOOPBACK}:{self.control_port}",
            "gateway": self.settings.gateway_address,
            "home": str(self.home.path),
            "lake": str(self.home.lake),
            "logs": str(self.home.log_file("*")),
        }

    def read(self) -> Figures:
        """Read the values of the live status, from the tables only what is new.

        Raises:
            LakeError: A table cannot be used.
            NoAnswerError: The simulator does not answer.
        """
        found = read_figures(self._lake, self.settings, utc_now())
        if self.complete_after_s is None:
            self._paths(found)
        return found

    def _paths(self, figures: Figures) -> tuple[Paths, Paths]:
        """Return the path that each leg must have, and those that it has in this run.

        Once each leg has had its own, these stay: an outage afterwards takes nothing back.
        """
        if self._complete is not None:
            return self._complete

        expected = expect_paths(self._held(), figures.book.legs)
        current = current_paths(figures.book.priced, since=self.since)
        if is_complete(expected, current):
            self._complete = (expected, current)
            self.complete_after_s = (figures.status.at - self.since).total_seconds()
        return expected, current

    def _held(self) -> Iterator[Key]:
        """Yield what the simulated accounts hold."""
        for row in self.ask("/positions"):
            if row["quantity"]:
                yield row["account"], row["conid"]

    def acceptance(self, *, limit_s: float) -> tuple[AcceptanceResult, ...]:
        """Read the tables a last time, and return the results of the acceptance test."""
        figures = read_figures(self._lake, self.settings, utc_now())
        expected, current = self._paths(figures)
        return evaluate(
            expected,
            current,
            complete_after_s=self.complete_after_s,
            limit_s=limit_s,
            underlyings=underlyings_of(figures, self.settings),
            counts=self.ask("/stats"),
        )


def underlyings_of(figures: Figures, settings: Settings) -> int:
    """Return how many underlyings of the holdings may have a line of their own."""
    options = figures.book.priced.filter(col.right.is_not_null(), col.position != 0)
    return min(options.get_column("symbol").n_unique(), settings.most_underlyings)


@contextmanager
def start(
    home: homes.Home, options: Options, *, ui_port: int, stop: StopRequest
) -> Iterator[DemoRun]:
    """Start the programs; end them, and all that came from them, when the block ends.

    The settings of the home become the settings of this process. Without a port for the gateway it
    is that of the previous start.

    Args:
        home: The home, whose lock this process holds.
        ui_port: The port of the Dagster UI.
        stop: Raises when this process shall stop.

    Raises:
        PositionSyncError: A program cannot be started, or the home cannot be written.
        StopRequested: This process shall stop.
    """
    since = utc_now()
    is_first = home.is_new
    home.prepare()
    settings = {} if is_first else home.read_settings()
    before = int(settings.get(f"{PREFIX}GATEWAY_PORT", GATEWAY_PORT))

    history = None
    if is_first:
        history = prepare_book(home, since)
    else:
        require_living_book(home, since.date())
    with start_simulator(home, options, options.gateway_port or before) as gateway:
        if history is not None:
            import_strategies(home.lake, strategies_of(home), history.past.legs)

        gateway_port, control_port = wait_until_ready(gateway, stop)
        settings = home.update_settings(
            {
                f"{PREFIX}GATEWAY_HOST": LOOPBACK,
                f"{PREFIX}GATEWAY_PORT": str(gateway_port),
                f"{PREFIX}TRADING_MODE": "SIMULATED",
                f"{PREFIX}UI_URL": supervisor.url(ui_port),
            }
        )
        homes.adopt_environment(settings, home.dagster_home)
        loaded = load_settings(_env_file=None)
        if history is not None:
            write_closes(loaded, history)

        stop.check()
        with supervisor.start(
            env=homes.home_environment(settings, home.dagster_home),
            dagster_home=home.dagster_home,
            ui_port=ui_port,
            cwd=home.path,
            log=home.log_file("dagster"),
        ) as dagster:
            if history is not None:
                write_statements(loaded, history)  # while Dagster starts
            yield DemoRun(
                home=home,
                settings=loaded,
                is_first=is_first,
                since=since,
                ui_port=ui_port,
                control_port=control_port,
                children=(gateway, dagster),
            )


def strategies_of(home: homes.Home) -> Path:
    """Return the file of the strategies with which a home began."""
    return home.path / "strategies.yaml"


def import_strategies(lake_path: Path, strategies: Path, past_legs: Iterable[PastLeg] = ()) -> None:
    """Make the tables with the strategies of a file: changes by the user stay.

    Args:
        lake_path: The folder of the tables.
        strategies: The file.
        past_legs: What they had before, and have no longer.
    """
    lake = MoneyLake(lake_path)
    lake.initialize_sync()
    lake.registry.sync.add_many(map(_leg_of, past_legs))
    lake.registry.sync.replace_all(load_strategies(strategies))


def _leg_of(leg: PastLeg) -> Leg:
    contract = leg.contract
    return make_leg(
        strategy_id=leg.strategy,
        added_at=utc_now(),
        conid=contract.conid,
        symbol=contract.symbol,
        right=contract.right,
        strike=contract.strike,
        expiry=contract.expiry,
        account=leg.account,
        since=leg.since,
    )


UI_PORT = 3000


def run(options: Options) -> int:
    """Run the demo and return the exit code.

    Raises:
        PositionSyncError: The demo could not start, or one of its programs ended.
    """
    screen = choose_display(as_json=options.json)
    home = homes.Home.at(options.home)
    stop = StopRequest(end_with=options.end_with)
    try:
        with (
            homes.exclusive_use(home.dagster_home, purpose="position-sync demo"),
            start(home, options, ui_port=choose_ports(options, screen), stop=stop) as demo_run,
        ):
            results = watch(demo_run, options, screen, stop)
        screen.show_acceptance(results)
    except StopRequested as request:
        with suppress(StopRequested):  # the output is closed
            screen.note(f"Ended ({request.reason}).")
        return 0 if options.seconds is None else request.exit_code
    return 0 if all(result.met for result in results) else 1


def choose_ports(options: Options, screen: Display) -> int:
    """Return the port of the UI.

    Raises:
        PortTakenError: A port that the options name is taken.
    """
    for port, purpose, option in (
        (options.gateway_port, "gateway", "--gateway-port"),
        (options.control_port, "control port", "--control-port (make: CONTROL_PORT=)"),
        (options.ui_port, "Dagster UI", "--ui-port (make: UI_PORT=)"),
    ):
        if port:
            ports.require_free(port, purpose=purpose, option=option)
    if options.ui_port:
        return options.ui_port

    ui_port = ports.first_free(UI_PORT)
    if ui_port != UI_PORT:
        screen.note(f"Port {UI_PORT} is taken: the Dagster UI uses {ui_port}.")
    return ui_port


class Deed(NamedTuple):
    """What is done once, so many seconds after the start, when the first screen is full."""

    after_s: float
    name: str
    act: Callable[[DemoRun], None]


def planned_deeds(demo_run: DemoRun, options: Options) -> list[Deed]:
    """Return what is to be done in a run, in the order of time."""
    deeds = []
    if demo_run.is_first:
        deeds.append(Deed(0.0, "history", record))
    if not options.calm:
        deeds.append(Deed(STATED_S, "statement of the day", state_the_day))
    return deeds


def act_if_due(deeds: list[Deed], demo_run: DemoRun, screen: Display) -> None:
    """Do the first deed if it is due; what it cannot do is shown.

    None is before each leg was current: runs would delay the first screen.
    """
    running_s = time.time() - demo_run.since.timestamp()
    if not deeds or demo_run.complete_after_s is None or running_s < deeds[0].after_s:
        return
    if not demo_run.serves():  # its webserver is being started again
        return

    deed = deeds.pop(0)
    try:
        deed.act(demo_run)
    except (OSError, PositionSyncError) as error:
        screen.note(f"No {deed.name}: {printable(str(error))}")


def watch(
    demo_run: DemoRun, options: Options, screen: Display, stop: StopRequest
) -> tuple[AcceptanceResult, ...]:
    """Show the state until the time limit; return the results of the acceptance test.

    Raises:
        StopRequested: This process shall stop, or the output was closed.
        ChildEndedError: One of the programs has ended.
    """
    addresses = demo_run.addresses()
    screen.event("started", addresses | {"first": demo_run.is_first})
    deadline = demo_run.since.timestamp() + (options.seconds or float("inf"))
    deeds = planned_deeds(demo_run, options)
    shown = [
        ("simulator", f"{addresses['control']}/stats"),
        ("tables", command_as_typed("exposure", "--home", str(options.home))),
        ("logs", addresses["logs"]),
    ]
    was_serving = False

    with screen:
        for serving in frames(
            demo_run.check, demo_run.serves, demo_run.ui_port, screen, demo_run.read, shown
        ):
            if serving and not was_serving:
                was_serving = True
                screen.event("serving", {"ui": addresses["ui"]})
            if serving:
                act_if_due(deeds, demo_run, screen)

            left_s = deadline - time.time()
            if left_s <= 0 and (left_s < -RUNS_END_S or not demo_run.has_runs()):
                break
            pause_s = LOOK_INTERVAL_S
            if demo_run.complete_after_s is not None:
                pause_s = screen.interval_s
            stop.pause(min(left_s, pause_s) if left_s > 0 else LOOK_INTERVAL_S)

        limit_s = (options.seconds or 0) if demo_run.is_first else DEMO_LIMIT_S
        served = "served" if was_serving else "never served"
        pages = AcceptanceResult("Dagster UI", "served", served, was_serving)
        return (*demo_run.acceptance(limit_s=limit_s), pages)
