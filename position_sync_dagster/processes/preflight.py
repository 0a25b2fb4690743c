"""The preflight of `doctor`: checks of this machine, the tables and the gateways before a start.

It connects to a gateway for less than a minute, uses one market data line at a time, and writes
nothing.
"""

import asyncio
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from position_sync_dagster import errors
from position_sync_dagster.dagster_files import document
from position_sync_dagster.domain.clock import elapsed, utc_now
from position_sync_dagster.domain.gateway_session import PAUSED, GatewaySession, SessionState
from position_sync_dagster.domain.holding import BrokerPosition, Completeness
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.position_update import TradingMode, trading_mode_of
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.gateway.codes import NOT_PERMITTED, GatewayCode
from position_sync_dagster.gateway.connection import GatewayConnection, connect
from position_sync_dagster.gateway.market_data import Refusal
from position_sync_dagster.lake.storage.object_store import absolute_path
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.threads import together
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports import signs_of_life
from position_sync_dagster.money.reports.alerts import not_understood
from position_sync_dagster.money.strategies.strategies_file import load_strategies
from position_sync_dagster.processes.home import holder_of
from position_sync_dagster.processes.repair import examine_files
from position_sync_dagster.processes.unknown_settings import warnings_of
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import exchange_of

# The release of ib_async, without its patch number, that the tests run with.
TESTED_IB_ASYNC = "2.1"


class Level(StrEnum):
    """How serious a finding is."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: The name of the check.
        remedy: What to do; empty for a good finding.
    """

    check: str
    level: Level
    text: str
    remedy: str = ""


def good(check: str, text: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(check, Level.GOOD, text)


def warning(check: str, text: str, remedy: str, *, unless: bool = False) -> Finding:
    """Return a finding that does not stop the program, but may surprise its user.

    Args:
        unless: Whether nothing is wrong: then it needs no action.
    """
    if unless:
        return good(check, text)
    return Finding(check, Level.WARNING, text, remedy)


def bad(check: str, text: str, remedy: str) -> Finding:
    """Return a finding that must be corrected."""
    return Finding(check, Level.BAD, text, remedy)


# What returns the findings of a check, by its name.
Looks = Mapping[str, Callable[[], list[Finding]]]


def bounded(looks: Looks, *, within_s: float) -> list[Finding]:
    """Run the checks side by side; return their findings, in order, and which timed out.

    An error of this package is a finding, which is bad. Each check runs in a daemon thread: a disk
    or a store that hangs must not block the preflight.
    """
    begun = {check: Future[list[Finding]]() for check in looks}

    def work(check: str) -> None:
        try:
            begun[check].set_result(looks[check]())
        except errors.PositionSyncError as error:
            begun[check].set_result([bad(check, error.what, error.remedy)])
        except Exception as error:  # noqa: BLE001 - it is raised in the caller's thread
            begun[check].set_exception(error)

    for check in looks:
        threading.Thread(target=work, args=(check,), daemon=True).start()
    wait(begun.values(), within_s)

    findings: list[Finding] = []
    for check, answer in begun.items():
        if answer.done():
            findings += answer.result()
        else:
            remedy = "Check whether a disk hangs, and try again."
            findings.append(bad(check, f"no answer within {within_s:g} s", remedy))
    return findings


# Time limit of all checks at the gateway together, in seconds.
WITHIN_S = 38.0

# Time limit of one answer, in seconds.
ANSWER_S = 8.0

# Maximum number of exchanges on which a market data line is tried, one after the other, and the
# time limit of each in seconds.
MOST_EXCHANGES = 5
TRIAL_S = 5.0

# A difference of clocks that neither whole seconds nor the way of the answer explain.
CLOCK_S = 5.0

RUN_AGAIN = "Run it again; if this stays, look for a dialog in TWS that waits for a click."

LIVE_DATA = 1
_KINDS = {1: "live", 2: "frozen", 3: "delayed", 4: "delayed and frozen"}

# What to do about a market data line, by what it lacks.
_SUBSCRIBE = "Subscribe to its data in IB's client portal; until then the queue values it."
_DELAYED = " Where delayed data will do, set POSITION_SYNC_DELAYED_FALLBACK=true."
_GREEKS = (
    "Subscribe to the data of its underlying as well: the gateway computes greeks from both. While "
    "its exchange is closed there may be none."
)


def of_session(session: GatewaySession) -> Finding:
    """Return a finding from the session of a live owner, instead of a second connection."""
    text = f"{session.gateway_id} is {session.state}: "
    text += f"the {session.owner.lower()} owns the login, so nothing else was checked"
    fine = session.state == "LIVE" and not session.detail
    text += "" if fine else f"; {session.detail}"
    if session.state is SessionState.BLIND:
        return bad("gateway", text, "Check whether TWS or IB Gateway runs and is logged in.")
    return warning("gateway", text, "See `position-sync status`.", unless=fine)


async def of_gateway(settings: Settings) -> list[Finding]:
    """Connect, run the checks, and disconnect; return the findings, within `WITHIN_S` seconds."""
    findings: list[Finding] = []  # what is found before a timeout counts
    try:
        async with asyncio.timeout(WITHIN_S):
            await _survey(settings, findings)
    except TimeoutError:
        findings.append(bad("gateway", "not every check was answered in time", RUN_AGAIN))
    except (errors.GatewayError, errors.SettingsError) as error:
        findings.append(bad("gateway", error.what, error.remedy))
    return findings


async def _survey(settings: Settings, findings: list[Finding]) -> None:
    """Add what is found on one connection, as it is found."""
    connection = await connect(settings, timeout_s=ANSWER_S)
    notices: list[tuple[int, str]] = []
    try:
        connection.on_message.append(lambda code, text: notices.append((code, text)))
        findings += _identity(connection, settings)
        findings.append(await _clock(connection, ANSWER_S))
        connection.connectivity.require_ib()
        await connection.feed.ensure(timedelta(seconds=settings.refresh_interval_s))
        findings += _accounts(connection, notices)
        await _lines(connection, settings, findings)
    finally:
        await connection.close()


def _client() -> Iterator[Finding]:
    """Yield a warning about another release of ib_async than the tested one; it may work."""
    installed = version("ib_async")
    if not installed.startswith(f"{TESTED_IB_ASYNC}."):
        yield warning(
            "ib_async",
            f"ib_async {installed} is installed; the tests run with {TESTED_IB_ASYNC}",
            f"Install the tested one (pip install 'ib-async=={TESTED_IB_ASYNC}.*').",
        )


def _identity(connection: GatewayConnection, settings: Settings) -> Iterator[Finding]:
    text = f"{connection.gateway_id} answers, server version {connection.ib.client.serverVersion()}"
    yield good("gateway", text)
    yield from _client()
    modes = sorted({str(trading_mode_of(account)) for account in connection.accounts})
    chosen = modes != [TradingMode.LIVE] or settings.trading_mode is not None
    text = f"{', '.join(connection.accounts)}: {', '.join(modes)}"
    text += "" if chosen else "; any mode is accepted"
    yield warning(
        "accounts",
        text,
        "Set POSITION_SYNC_TRADING_MODE=LIVE once that is what you mean.",
        unless=chosen,
    )


async def _clock(connection: GatewayConnection, timeout_s: float) -> Finding:
    """Compare the clocks; the gateway answers in whole seconds (reqCurrentTime)."""
    async with asyncio.timeout(timeout_s):
        gateway_time = await connection.ib.reqCurrentTimeAsync()
    return of_clock(gateway_time, utc_now())


def of_clock(gateway_time: datetime, now: datetime) -> Finding:
    """Return a finding from the time of the gateway and that of this machine."""
    ahead_s = (gateway_time - now).total_seconds()
    if abs(ahead_s) <= CLOCK_S:
        return good("clock", f"within {CLOCK_S:g} s of the gateway's")

    side = "behind" if ahead_s > 0 else "ahead of"
    text = f"{abs(ahead_s):.0f} s {side} the gateway's"
    return bad("clock", text, "Set both clocks by NTP: ages and leases depend on them.")


def _accounts(
    connection: GatewayConnection, notices: Iterable[tuple[int, str]]
) -> Iterator[Finding]:
    feed = connection.feed
    taken = [text for code, text in notices if code == GatewayCode.ACCOUNT_NOT_SERVED]
    text = f"another client uses it (2101): {taken[0]}" if taken else "nobody else uses it (2101)"
    remedy = "End the other program's account subscription, or give it another login."
    yield warning("account feed", text, remedy, unless=not taken)

    operations = document("docs/operations.md")
    for account in connection.accounts:
        held = [row for row in feed.book.holdings if row.account == account and row.position]
        valued = sum(row.market_value is not None for row in held)
        state = feed.completeness[account]
        text = f"{account}: {len(held)} positions, {valued} with a value, {state}"
        fine = state is Completeness.COMPLETE and valued == len(held)
        remedy = f"See {operations}, “An account is PARTIAL”."
        yield warning("positions", text, remedy, unless=fine)

    for problem in feed.problems:
        yield warning("positions", problem, f"See {operations}.")


async def _lines(
    connection: GatewayConnection, settings: Settings, findings: list[Finding]
) -> None:
    """Try one line for each exchange with a holding, one after the other."""
    details = await connection.details(
        trial_conids(connection.feed.book.holdings, settings.sec_types)
    )
    if not details:
        text = "not tried: nothing is held, or the gateway has no details of it"
        findings.append(warning("market data", text, "Run it again once a position is held."))
        return

    for contract in details.values():
        findings.append(await _trial(connection, contract, TRIAL_S))
        if findings[-1].check == "lines":
            return

    text = f"at least one of {settings.max_lines} is free; no gateway reports how many others use"
    findings.append(good("lines", text))


def _name(details: ContractDetails) -> str:
    return f"{details.local_symbol or details.conid} ({details.sec_type}, {details.exchange})"


# How often a trial looks for a tick.
TRIAL_POLL_S = 0.05


async def _tried(
    connection: GatewayConnection, details: ContractDetails, timeout_s: float
) -> tuple[Quote | None, Refusal | None]:
    """Request a line, wait for its first tick or its refusal, and cancel it.

    Of an option the greeks are awaited as well.
    """
    lines = connection.lines
    refusals: list[Refusal] = []
    ticked: Quote | None = None
    lines.on_refusal.append(refusals.append)
    lines.subscribe(details)
    ends_s = time.monotonic() + timeout_s
    try:
        while not refusals and connection.is_connected and time.monotonic() < ends_s:
            quote = lines.quote(details.conid)
            if quote is not None and quote.received_at is not None:
                ticked = quote
                if details.right is None or quote.delta is not None:
                    break
            await asyncio.sleep(TRIAL_POLL_S)
    finally:
        lines.cancel(details.conid)
        lines.on_refusal.remove(refusals.append)
    return ticked, refusals[0] if refusals else None


async def _trial(
    connection: GatewayConnection, details: ContractDetails, timeout_s: float
) -> Finding:
    """Return from a trial line what market data there is, or that no line is free."""
    quote, refusal = await _tried(connection, details, timeout_s)
    name = _name(details)
    if refusal is not None:
        if refusal.code == GatewayCode.TOO_MANY_LINES:
            remedy = "End other programs on this login, or lower what they stream."
            return bad("lines", "no line is free: others use all of them (101)", remedy)

        text = f"{name} is refused ({refusal.code}): {refusal.text}"
        if refusal.code in NOT_PERMITTED:
            return warning("market data", text, _SUBSCRIBE + _DELAYED)
        return bad("market data", text, _SUBSCRIBE)

    if quote is None:
        text = f"{name} did not tick within {timeout_s:g} s"
        return warning("market data", text, "Run it again while its exchange is open.")

    kind = quote.market_data_type or LIVE_DATA
    text = f"{name} ticks, {_KINDS.get(kind, str(kind))}"
    if details.right is not None and quote.delta is None:
        text += f"; no greeks (tick 13) came within {timeout_s:g} s"
        return warning("market data", text, _GREEKS)

    remedy = "Subscribe to the exchange's live data, or accept values that are not live."
    return warning("market data", text, remedy, unless=kind == LIVE_DATA)


def trial_conids(holdings: Iterable[BrokerPosition], sec_types: Iterable[str]) -> list[int]:
    """Return the conids for the trial lines: one of each exchange held."""
    types = set(sec_types)
    chosen: dict[tuple[str, str, str], int] = {}
    for row in sorted(holdings, key=lambda row: row.instrument.conid):
        instrument = row.instrument
        if row.position and instrument.sec_type in types:
            chosen.setdefault(
                (instrument.sec_type, instrument.exchange, instrument.currency), instrument.conid
            )
    return list(chosen.values())[:MOST_EXCHANGES]


# Less free space than this is bad, in bytes: a day of a streamed book takes a few hundred MB before
# it is compacted.
TOO_LITTLE_DISK = 2**30


def check_settings(
    settings: Settings, environ: Mapping[str, str], *, env_file: str | None
) -> list[Finding]:
    """Return a finding for each unknown setting; a malformed setting fails before this check.

    Raises:
        SettingsError: The exchange is not known.
    """
    unknown = warnings_of(environ, env_file=env_file)
    exchange_of(settings.calendar)  # raises if it is not known
    if unknown:
        remedy = "Correct the name, or remove it."
        return [warning("settings", line, remedy) for line in unknown]

    gateway = settings.gateways_file or settings.gateway_address
    mode = settings.trading_mode or "the mode that is found"
    text = f"gateway {gateway}, lake {settings.lake}, {mode}"
    return [good("settings", text)]


def check_alerts(settings: Settings) -> list[Finding]:
    """Return the receivers of messages that apprise does not understand.

    Raises:
        MissingExtraError: There are receivers, and apprise is not installed.
    """
    remedy = "https://appriseit.com/services/ says how each service is written."
    wrong = not_understood(settings.alert_urls) if settings.alert_urls else []
    return [bad("alerts", f"apprise does not understand receiver {n}", remedy) for n in wrong]


def check_strategies_file(settings: Settings) -> list[Finding]:
    """Return whether the strategies file can be read, if there is one.

    Raises:
        StrategiesFileError: It cannot be read.
    """
    if settings.strategies_file is None:
        return [good("strategies file", "none is configured: the registry's table decides")]
    load_strategies(settings.strategies_file)
    return [good("strategies file", f"{settings.strategies_file} can be read")]


def check_lake(lake: MoneyLake, *, files: bool = False) -> list[Finding]:
    """Return whether the log of each table can be read.

    In an object store each table takes dozens of requests: they are examined at once.

    Args:
        files: Whether to read each data file as well, where no log is damaged.
    """
    tables = lake.all_tables
    examined = together(Table.damage, tables)
    text = f"{len(tables)} at {lake.path}, the log of each can be read or is not there yet"
    if files and not any(examined):
        examined = []
        for table in tables:
            if table.exists():
                examined += examine_files(table)
        text += f"; {len(examined):,} data files were read"

    damage = [bad("tables", error.what, error.remedy) for error in examined if error is not None]
    if not damage and not lake.exists:
        text = f"none at {lake.path} yet: the first start makes them"
    return damage or [good("tables", text)]


def check_disk(path: str) -> list[Finding]:
    """Return the free space of the lake's disk."""
    if "://" in absolute_path(path):
        return [good("disk", f"the lake is in an object store ({path})")]
    folder = Path(absolute_path(path))
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.1f} GiB free at {folder}"
    if free >= TOO_LITTLE_DISK:
        return [good("disk", text)]
    return [bad("disk", text, "Free some space, or set POSITION_SYNC_LAKE to another disk.")]


# For how long what a gateway said that is new is shown.
HEARD_WITHIN = timedelta(days=7)

# Maximum number of new things that a line names.
MOST_NAMED = 5


def check_heard(lake: MoneyLake) -> list[Finding]:
    """Return what gateways said lately that neither recordings nor the simulator know."""
    if not lake.heard_messages.table.exists():
        return []
    rows = lake.heard_messages.records(since=utc_now() - HEARD_WITHIN)
    names = {f"{row.kind} {row.name}" for row in rows if row.is_new}
    if not names:
        return [good("heard", "nothing new in a week")]

    named = "; ".join(sorted(names)[:MOST_NAMED])
    text = f"{len(names)} things are new in a week: {named}"
    remedy = f"A report helps: {document('docs/do/rehearse.md')}."
    return [warning("heard", text, remedy)]


# The time limit of all checks of this machine and of the tables together, in seconds. It and
# `WITHIN_S` are less than a minute.
LOCAL_S = 17.0

# The check that reads who owns each login.
LOGINS_CHECK = "logins"


def run_preflight(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    env_file: str | None,
    dagster_home: Path,
) -> list[Finding]:
    """Check everything within a minute; write nothing and keep no market data line.

    Args:
        environ: The environment of this process.
        env_file: The file with settings, None for none.
        dagster_home: Where Dagster keeps its state.
    """
    lake = MoneyLake(settings.lake, use="look")
    sessions: dict[str, GatewaySession] = {}
    findings = bounded(
        {
            "settings": lambda: check_settings(settings, environ, env_file=env_file),
            "alerts": lambda: check_alerts(settings),
            "strategies file": lambda: check_strategies_file(settings),
            "tables": lambda: check_lake(lake),
            "disk": lambda: check_disk(settings.lake),
            "heard": lambda: check_heard(lake),
            "programs": lambda: check_programs(dagster_home),
            LOGINS_CHECK: lambda: check_streams(lake, settings, dagster_home, sessions),
            "checks": lambda: check_results(dagster_home),
            "Dagster home": lambda: check_home(dagster_home),
        },
        within_s=LOCAL_S,
    )
    if any(finding.check == LOGINS_CHECK for finding in findings):
        # Who owns the login is not known: to connect could take a client id from a stream.
        text = "not asked: it is not known whether a stream owns the login"
        return [*findings, bad("gateway", text, "Correct what is bad above first.")]
    return [*findings, *asyncio.run(_gateways(settings.logins, sessions))]


async def _gateways(
    logins: Sequence[Settings], sessions: Mapping[str, GatewaySession]
) -> list[Finding]:
    """Check all gateways at once: by the session of its owner, or by a connection without one.

    With several logins each finding names its login.
    """

    async def look_at(login: Settings) -> list[Finding]:
        session = sessions.get(login.gateway_id)
        return await of_gateway(login) if session is None else [of_session(session)]

    of_logins = await asyncio.gather(*map(look_at, logins))
    if len(logins) == 1:
        return of_logins[0]

    findings = []
    for login, of_login in zip(logins, of_logins, strict=True):
        for finding in of_login:
            check = f"{login.gateway_id}: {finding.check}"
            findings.append(replace(finding, check=check))
    return findings


def check_programs(home: Path) -> list[Finding]:
    """Return whether Dagster's programs work; none running after an end in order is good too."""
    programs = signs_of_life.read(home)
    if programs.problems:
        return [
            bad("programs", text, "Then look at `position-sync status`.")
            for text in programs.problems
        ]
    if programs.ticked_at is None:
        return [good("programs", "none runs")]
    return [good("programs", f"the last sensor tick was at {programs.ticked_at:%H:%M:%S} UTC")]


# How old a tick may be if the programs work.
LATE_AFTER = timedelta(seconds=signs_of_life.LATE_S)

# How long a stream may be away beside programs that work: another one follows it.
AWAY = timedelta(minutes=1)


def check_streams(
    lake: MoneyLake, settings: Settings, home: Path, living: dict[str, GatewaySession]
) -> list[Finding]:
    """Return each login without a stream, if Dagster's programs work: they start one.

    The sessions of living owners are put into `living`. No table is made or migrated.

    Raises:
        PositionSyncError: The gateways file or the table of sessions cannot be read.
    """
    now = utc_now()
    logins = settings.logins  # reads the gateways file
    if not lake.sessions.table.exists():
        return []

    ticked_at = signs_of_life.read(home).ticked_at
    is_ticking = ticked_at is not None and elapsed(ticked_at, now) < LATE_AFTER
    findings = []
    for login in logins:
        session = lake.sessions.current(login.gateway_id)
        if session is None:
            continue
        if session.is_alive(now):
            living[login.gateway_id] = session
            continue

        since = session.seen_until(now)
        detail = session.detail or ""
        if is_ticking and (detail.startswith(PAUSED) or elapsed(since, now) > AWAY):
            text = f"{login.gateway_id} has had none since {since:%Y-%m-%d %H:%M:%S} UTC"
            text += f"; {detail}" if detail else ""
            findings.append(bad("streams", text, "See `position-sync status`."))

    return findings


def check_results(home: Path) -> list[Finding]:
    """Return the checks that failed at the last tick: those of values are bad."""
    remedy = "Its page in Dagster says what to do."
    findings = []
    for check in signs_of_life.failing_checks(home):
        if not check.is_unknown:
            level = Level.BAD if check.is_of_values else Level.WARNING
            findings.append(Finding("checks", level, f"{check.name}: {check.text}", remedy))
    return findings


def check_home(home: Path) -> list[Finding]:
    """Return who uses Dagster's home, and whether others may read what is in it.

    That of a fresh clone has its configuration alone, which is no secret; `dev` closes it.
    """
    is_open = home.is_dir() and stat.S_IMODE(home.stat().st_mode) & 0o077
    if is_open and any(file.name != "dagster.yaml" for file in home.iterdir()):
        text = f"{home} is open to other users of this machine"
        return [warning("Dagster home", text, f"chmod 700 {home}")]
    return [good("Dagster home", f"{home}, in use by {holder_of(home) or 'nobody'}")]
