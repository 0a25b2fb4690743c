"""A gateway that sends anything: nothing flat that is not, no holding that was not told, no crash.

Fifteen hundred messages; `make fuzz MESSAGES=1000000` sends a million. What failed once has a test
of its own where the fault was.
"""

import asyncio
import gc
import math
import os
import shutil
import tempfile
import traceback
import tracemalloc
from collections import Counter, defaultdict
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import Any, NamedTuple

import eventkit.event
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ib_gateway_simulator import SimulatedGateway
from ib_gateway_simulator.gateway.scripts import Cut, Message
from ib_gateway_simulator.protocol import account_messages, messages, wire
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.errors import GatewayError
from position_sync_dagster.gateway.connection import IBConnectionManager, MessageReader
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.sync.drain import drain
from tests.support.constants import replace_constant
from tests.support.settings import make_settings
from tests.support.short_owner import refresh
from tests.support.told import (
    ACCOUNTS,
    BOOK,
    CONIDS,
    DROPPED,
    END,
    KEPT,
    LOST,
    Told,
    is_whole,
    portfolio,
    position,
)
from tests.support.waiting import DEADLINE_S

MESSAGES = int(os.environ.get("FUZZ_MESSAGES", "1500"))
FIRST_SEED = os.environ.get("FUZZ_SEED", "0")
PHASES = [Phase.generate, Phase.shrink][: int(os.environ.get("FUZZ_PHASES", "2"))]
# What a script does not end is waited for so long; what comes too late counts as not said.
SHORT_S = 0.25

# Scripts of one seed: a failure is found again with its seed alone, and nothing piles up.
SCRIPTS = 25

# -- messages ---------------------------------------------------------------------------------

accounts = st.sampled_from(ACCOUNTS)
conids = st.sampled_from(CONIDS)
quantities = st.sampled_from([-300, -2, -1, 0, 1, 2, 5, 0.5, 100])
prices = st.sampled_from([0.0, 0.01, 1.5, 33.3])
rows = st.builds(position, accounts, conids, quantities)
values = st.builds(portfolio, accounts, conids, quantities, prices)

ODD = st.sampled_from(
    ["", "nan", "inf", "-Infinity", "1.7976931348623157E308", "x", "1e400", "--1"]
)
ODD_CONIDS = st.sampled_from(["0", "-5", "", "x", str(2**40), "1.5", "1e3", "nan"])


def replaced(row, at, text):
    """Return a row with one other field."""
    return (*row[:at], text, *row[at + 1 :])


other_conids = st.builds(replaced, rows, st.just(3), ODD_CONIDS)
other_conids |= st.builds(replaced, values, st.just(2), ODD_CONIDS)

FOREIGN = st.sampled_from(["", "U1", "DUOTHER99"])
other_accounts = st.builds(replaced, rows, st.just(2), FOREIGN)
other_accounts |= st.builds(replaced, values, st.just(19), FOREIGN)

no_symbols = st.builds(replaced, rows, st.just(4), st.sampled_from(["", " "]))
odd_costs = st.builds(replaced, rows, st.just(15), ODD)
odd_terms = st.builds(replaced, rows, st.sampled_from([5, 6, 7, 8, 9]), ODD)
odd_values = st.builds(replaced, values, st.integers(14, 18), ODD)

odd_rows = st.builds(position, accounts, conids, ODD)
odd_rows |= st.builds(portfolio, accounts, conids, ODD)
odd_rows |= other_conids | other_accounts | no_symbols | odd_costs | odd_terms | odd_values

cut_rows = st.builds(lambda row, at: row[:at], st.one_of(rows, values), st.integers(0, 13))
raw = st.sampled_from([b"\0\0\0\x04\xff\xfe\x80a", b"\0\0\0\0", b"\0\0\0\x05garba"])
CODES = [100, 162, 200, 321, 326, 399, 2100, 2101, 2103, 2104, 2107, 2150, 10197]


def notice(code, req_id):
    """Return a message of type 4."""
    return messages.error(req_id, code, f"notice {code}: usfarm")


notices = st.builds(notice, st.sampled_from(CODES), st.sampled_from([-1, -1, 1, 77, 2**31]))
ends = st.builds(account_messages.account_download_end, st.one_of(accounts, st.just("")))
characters = st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")
texts = st.text(characters, max_size=8)

net_liquidation = st.just("NetLiquidation")
account_values = st.builds(account_messages.account_value, accounts, net_liquidation, texts, texts)
clocks = st.sampled_from(["23:59", "00:00", "", "x", "99:99"])
account_times = st.builds(account_messages.account_time, clocks)
strays = st.integers(-1, 120).map(lambda kind: (str(kind), "6", "55", "1", "1.5", "3", "0"))
unknown = st.lists(texts, max_size=6).map(lambda fields: ("999", *fields))

PROFIT = ("95", "9", "3", "1.0", "1.0", "1.0", "9.0")
OTHER_LOGIN = ("15", "1", "DUOTHER99,")
short = st.sampled_from([("4", "2"), ("54", "1"), ("8",)])
other = account_values | account_times | strays | unknown
other |= st.sampled_from([PROFIT, OTHER_LOGIN]) | short
other = other.filter(lambda fields: fields[0] not in ("61", "62", "7", "49"))


def some(strategy, most=40):
    """Return lists, half of them long: alone, Hypothesis prefers a few elements."""
    short = most // 4
    long = most // 2
    return st.lists(strategy, max_size=short) | st.lists(strategy, min_size=long, max_size=most)


noise = st.one_of(odd_rows, odd_rows, cut_rows, notices, other, values, raw)
stream = some(st.one_of(rows, rows, values, odd_rows, notices, other, ends))

# The first half of a position.
HALF = wire.frame(position(ACCOUNTS[0], CONIDS[0], 9))[:40]

# -- phases -----------------------------------------------------------------------------------


def a_list(sent, end, after, cut_at):
    """Return a list: its end may come twice or never, and the connection may end in it."""
    told = [*sent, *([END] * end), *after]
    if cut_at is None:
        return told

    return [*told[:cut_at], HALF, Cut.HERE]


no_rows = st.lists(other, max_size=2)
clean = some(st.one_of(rows, rows, rows, values, odd_rows, notices, other))
dirty = some(st.one_of(rows, rows, rows, noise))
broken = st.lists(st.sampled_from([LOST, DROPPED, KEPT]), min_size=1, max_size=2)
after = st.lists(rows | odd_rows, max_size=3)


def without(account, sent, after):
    """Return a whole list that names nothing of an account."""
    return a_list([row for row in sent if account not in row], 1, after, None)


def interrupted(sent, codes, at):
    """Return a whole list in which the gateway loses IB, or has it back."""
    return [*sent[:at], *codes, *sent[at:], END]


ENDS = st.sampled_from([1, 1, 1, 1, 1, 2])
ODD_ENDS = st.sampled_from([1, 2, 2, 0])
after_odd = st.lists(rows | values | odd_rows, max_size=3)
cuts = st.none() | st.integers(0, 12)

lists = st.builds(a_list, no_rows, st.just(1), st.just([]), st.none())
lists |= st.builds(without, accounts, clean, st.lists(rows, max_size=1))
lists |= st.builds(a_list, clean, ENDS, after, st.none())
lists |= st.builds(a_list, dirty, ODD_ENDS, after_odd, cuts)
lists |= st.builds(interrupted, clean, broken, st.integers(0, 9))
downloads = st.tuples(stream, st.sampled_from([True, True, True, False]))

listed = st.tuples(st.just("list"), lists)
phases = listed | listed | st.tuples(st.just("list"), st.just([END]))
phases |= st.tuples(st.just("told"), stream)
phases |= st.tuples(st.just("download"), downloads)
phases |= st.tuples(st.just("told"), broken)
phases |= st.tuples(st.just("refresh"), st.tuples(lists, downloads))
phases |= st.tuples(st.just("login"), st.sets(accounts, min_size=1))
scripts = st.lists(phases, min_size=1, max_size=12)
logins = st.integers(1, 3)


# -- one session ------------------------------------------------------------------------------


class Said(NamedTuple):
    """What was said in a phase.

    Attributes:
        messages: All of them.
        lists_at: Where the answers to reqPositions begin in them.
        listed: Whether the client counted the last of these lists as whole.
        whole: Whether the client has read all of it.
    """

    messages: list[Message]
    lists_at: list[int]
    listed: bool
    whole: bool

    def parts(self):
        """Return the messages, and where the list that counted begins, in one part or in two."""
        if not self.listed:
            return [(self.messages, None)]

        *before, newest = self.lists_at
        if before and is_whole(self.messages[before[-1] : newest]):  # a refresh asks twice
            return [(self.messages[:newest], before[-1]), (self.messages[newest:], 0)]
        return [(self.messages, newest)]


class Session:
    """One gateway, one client with its tables; checks after each phase what is believed.

    Attributes:
        played: How many messages were sent, and which errors were survived.
    """

    def __init__(self, gateway, path, played, accounts):
        self.gateway = gateway
        self.played = played
        self.told = Told(accounts)
        self.listing = [END]
        self.offline = False
        self.before = ()
        self.known = None
        self.published = {}
        self.written = set()
        self.refresh_emptied = set()
        self.settings = make_settings(
            gateway_port=gateway.port,
            gateway_timeout_s=DEADLINE_S / 2,
            positions_interval_s=1e-3,
            second_list_s=1e-3,
            refresh_interval_s=60,
            session_lease_s=600,  # the machine may be busy with other things
            lease_s=600,
            fsync=False,
        )
        self.lake = MoneyLake(path, fsync=False)
        self.manager = IBConnectionManager(self.settings)
        gateway.answer("reqAccountUpdates", [])

    async def connection(self):
        """Return the connection, on which all is remembered that the one before knew."""
        if self.known is None or not self.known.is_connected:
            self.set_listing(self.listing, at_login=True)
        connection = await self.manager.get_connection()
        if connection is not self.known:
            self.known = connection
            self.offline = False
            self.told.emptied.clear()  # the next list is a first one
            connection.feed.book.remember(self.before)
        return connection

    def set_listing(self, listing, *, at_login=False):
        """Set the next answer to reqPositions; interrupted, it is requested again, and whole then.

        ib_async asks once at the log-in, and nobody may believe that answer.
        """
        self.listing = [message for message in listing if message not in (LOST, DROPPED, KEPT)]
        self.gateway.answer("reqPositions", [[END]] * at_login + [listing, self.listing])

    def set_downloads(self, sent, ends):
        for account in self.told.accounts:
            end = []
            if ends:
                end = [account_messages.account_download_end(account)]

            self.gateway.answer("reqAccountUpdates", [[*sent, *end]], account)

    async def log_in(self, names):
        """Log the gateway in as another user, whose login manages these accounts."""
        self.told.accounts = tuple(sorted(names))
        was_connected = self.known is not None and self.known.is_connected
        self.gateway.log_in_as(list(self.told.accounts))
        if was_connected:
            await asyncio.wait_for(self.known.lost.wait(), DEADLINE_S)

    async def play(self, kind, script):
        """Say what a phase of a script has, and check what is believed and written after it."""
        self.played[kind] += 1
        if kind == "login":
            await self.log_in(script)
            return

        connection = await self.connection()
        feed = connection.feed
        be_patient(feed, SHORT_S)
        self.gateway.said.clear()
        if kind == "refresh":
            self.told.emptied |= self.refresh_emptied

        listed_at = feed.states.listed_at
        began = datetime.now(UTC)
        was_offline = self.offline
        published = await self.act(kind, script, feed)

        whole = await answers(connection)
        listed = feed.states.listed_at not in (None, listed_at)
        phase = Said(*messages_of(self.gateway.said), listed=listed, whole=whole)
        allowed = self.hear(phase)

        self.check(feed, (kind, script))
        if whole and self.offline:
            assert connection.connectivity.lost is not None, "the gateway has lost IB, and counts"
            assert kind != "list" or not listed, "a list without IB counts"
        if was_offline and not {KEPT, DROPPED}.intersection(filter(is_fields, phase.messages)):
            times = [held.confirmed_at for held in feed.book.holdings]
            assert all(at is None or at < began for at in times), "confirmed without IB"
            assert not listed, "a list without IB counts"
            assert not published, "published without IB"

        self.before = feed.book.reported().values()
        if kind == "refresh":
            self.refresh_emptied = set(self.told.emptied)
            await self.check_tables(allowed, published)

    async def act(self, kind, script, feed):
        """Have the client do what a phase is about; return whether it published."""
        published = False
        try:
            if kind == "told":
                self.gateway.say(script)
            elif kind == "list":
                self.set_listing(script)
                await feed.snapshot()
            elif kind == "download":
                self.set_downloads(*script)
                await feed.download()
            else:
                self.set_listing(script[0])
                self.set_downloads(*script[1])
                published = (await refresh(self.lake, self.settings)).connected
                await drain(self.lake, self.settings)
        except (GatewayError, ConnectionError) as error:
            self.played[type(error).__name__] += 1
        return published

    def hear(self, phase):
        """Take what was said; return which quantities each holding may have had meanwhile."""
        self.played["messages"] += len(phase.messages)
        if phase.listed:
            self.played["whole lists"] += 1
            newest = phase.messages[phase.lists_at[-1] :]
            assert is_whole(newest), "a list that is not whole counts"

        notices = [message for message in phase.messages if message in (LOST, KEPT, DROPPED)]
        if notices:
            self.offline = notices[-1] == LOST

        allowed: defaultdict[Any, set[Any]] = defaultdict(set)
        for part, list_at in phase.parts():
            for key, quantities in self.told.after(part, list_at=list_at).items():
                allowed[key] |= quantities
            self.told.hear(part, list_at=list_at, whole=phase.whole)
        return allowed

    def check(self, feed, phase):
        for holding in feed.book.holdings:
            allowed = self.told.allowed.get(holding.key)
            assert allowed is not None, f"{holding.key} was not told"
            assert holding.position in allowed, (
                f"{holding.key} has {holding.position:g}, told was {allowed}, after {phase}"
            )
            assert_finite(holding)
        assert len(feed.book.holdings) <= len(CONIDS) * len(self.told.accounts)

    async def check_tables(self, allowed, published):
        """Check that the tables hold what was told until they were written, and nothing else."""
        stored = self.lake.broker_positions.read(self.settings.gateway_id)
        position_of = {row.key: row.position for row in stored}
        if not published:
            assert position_of == self.published, "published although nothing was refreshed"
        for key, quantity in position_of.items():
            known = set()
            if key in self.published:
                known = {self.published[key]}

            assert quantity in known | allowed[key], f"{key} is written as {quantity:g}"

        self.published = position_of
        for row in await self.lake.updates.latest_updates():
            key = (row.account, row.conid)
            assert key in position_of, f"a row of {key}, which nobody told"
            if row.update_id not in self.written:
                managed = row.account in self.told.accounts
                assert managed or row.position == 0, f"a row of {key}, which is not managed"
                assert row.position in allowed[key], f"{key} is written as {row.position:g}"
            self.written.add(row.update_id)
            assert_finite(row)

    async def recover(self, names, *, emptied):
        """Say everything whole: then the client and its tables know everything.

        Args:
            names: The accounts of the login.
            emptied: Whether the last of them holds nothing any more.
        """
        await self.log_in(names)
        truth = {}
        for account in names[: len(names) - emptied]:
            for place, conid in enumerate(CONIDS[:3]):
                truth[account, conid] = float(1 + place)

        for doublings in range(12):
            if await self._is_known(truth, SHORT_S * 2**doublings):
                break
        else:
            raise AssertionError("the gateway said everything, and the client does not know it")
        assert self.open_in(self.before) == truth
        return truth

    def open_in(self, rows):
        """Return the open holdings of the login, of all that is kept."""
        names = self.told.accounts
        position_of = {(row.account, conid_of(row)): row.position for row in rows if row.position}
        return {key: quantity for key, quantity in position_of.items() if key[0] in names}

    def set_truth(self, truth, *, at_login=False):
        listing = [*(position(*key, held) for key, held in truth.items()), END]  # type: ignore[call-arg]
        self.set_listing(listing, at_login=at_login)
        for name in self.told.accounts:
            rows = [portfolio(*key, held) for key, held in truth.items() if key[0] == name]  # type: ignore[call-arg]
            end = account_messages.account_download_end(name)
            self.gateway.answer("reqAccountUpdates", [[*rows, end]], name)

    async def _is_known(self, truth, patience_s):
        connection = await self.connection()
        be_patient(connection.feed, patience_s)
        self.set_truth(truth)
        try:
            self.gateway.say([KEPT])
            await answers(connection)
            await connection.feed.snapshot()
            await connection.feed.download()
        except (GatewayError, ConnectionError):
            return False  # a row that could not be read ends the first connection
        finally:
            self.before = connection.feed.book.reported().values()
        return connection.feed.is_complete  # a loaded machine is slow to answer

    async def publish(self, truth):
        """Refresh the tables from the truth."""
        for _ in range(2):  # the tables may not know yet that an account is empty
            self.set_truth(truth, at_login=True)
            report = await refresh(self.lake, self.settings)
            if report.incomplete_accounts == ():
                break
        assert report.incomplete_accounts == ()
        await drain(self.lake, self.settings)
        stored = self.lake.broker_positions.read(self.settings.gateway_id)
        assert self.open_in(stored) == truth
        assert self.open_in(await self.lake.updates.latest_updates()) == truth


def messages_of(said):
    """Return all messages of a phase, and where the answers to reqPositions begin in them."""
    messages_said: list[Any] = []
    lists_at = []
    for request, told in said:
        if request is not None and request.name == "reqPositions":
            lists_at.append(len(messages_said))
        messages_said += told
    return messages_said, lists_at


def is_fields(message):
    """Return whether a message is fields, neither bytes nor the end."""
    return isinstance(message, tuple)


def conid_of(row):
    """Return the conid of a holding, or of a row of the ledger."""
    if isinstance(row, PositionUpdate):
        return row.conid

    return row.instrument.conid


def be_patient(feed, timeout_s):
    """Set how long a list or a download is waited for; a log-in has a minute."""
    feed._timeout_s = timeout_s
    feed.values._timeout_s = timeout_s
    replace_constant("account_quiet_s", timeout_s / 2)


def assert_finite(row):
    numbers = (row.position, row.market_price, row.market_value)
    numbers += (row.unrealized_pnl, row.average_cost)
    assert all(number is None or math.isfinite(number) for number in numbers), row


async def answers(connection):
    """Return whether all that was sent has been read: the connection answers behind it."""
    if not connection.is_connected:
        return False
    answer = asyncio.ensure_future(connection.ib.reqCurrentTimeAsync())
    lost = asyncio.ensure_future(connection.lost.wait())
    try:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
        return answer.done() and not lost.done() and answer.exception() is None
    finally:
        answer.cancel()
        lost.cancel()
        await asyncio.gather(answer, lost, return_exceptions=True)


# -- many sessions ----------------------------------------------------------------------------


@contextmanager
def faults():
    """Collect what is raised where nobody would see it: in listeners, callbacks, our readers."""
    found = []

    class Log:
        def exception(self, *_):
            found.append(traceback.format_exc())

    def unreadable(self, message_type, error):
        if innermost(error.__traceback__).startswith("position_sync"):
            found.append(error)
        original(self, message_type, error)

    original = MessageReader._on_unreadable
    logger = eventkit.event.logger
    eventkit.event.logger = Log()
    MessageReader._on_unreadable = unreadable  # type: ignore[method-assign]
    try:
        yield found
    finally:
        eventkit.event.logger = logger
        MessageReader._on_unreadable = original  # type: ignore[method-assign]


def innermost(trace: TracebackType | None) -> str:
    """Return the module in which an error was raised."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""

    return trace.tb_frame.f_globals.get("__name__", "")


def note(found, _loop, context):
    """Note what a loop reports; ib_async itself asks after 1102, and nobody awaits its answer."""
    if not isinstance(context.get("exception"), ConnectionError):
        found.append(context)


@asynccontextmanager
async def silent_gateway(accounts):
    """Serve a login of some accounts that moves nothing, and says nothing that no script has."""
    async with SimulatedGateway(BOOK, autostep=False, max_messages_per_s=0) as gateway:
        gateway.log_in_as(list(accounts))
        yield gateway


@asynccontextmanager
async def faultless(login, lake):
    """Give a gateway of some accounts and the path of a lake; nothing may fail unseen."""
    with faults() as found, tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        asyncio.get_running_loop().set_exception_handler(partial(note, found))
        path = shutil.copytree(lake, Path(folder) / "lake")
        async with silent_gateway(ACCOUNTS[:login]) as gateway:
            yield gateway, path
        assert found == []


async def session(played, lake, login, script, emptied):
    async with faultless(login, lake) as (gateway, path):
        held_session = Session(gateway, path, played, ACCOUNTS[:login])
        try:
            for kind, told in script:
                await held_session.play(kind, told)
            truth = await held_session.recover(ACCOUNTS[:login], emptied=emptied)
            await held_session.manager.close()
            await held_session.publish(truth)
        finally:
            await held_session.manager.close()
        assert gateway.stats()["connections"]["peak"] == 1, "two connections at once"


BOUND = settings(
    max_examples=SCRIPTS, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def play_seed(number, play, *scripts):
    """Play the scripts of one seed."""

    @seed(number)
    @settings(BOUND, phases=PHASES)
    @given(st.tuples(*scripts))
    def scripts_of_seed(script):
        asyncio.run(play(*script))

    try:
        scripts_of_seed()
    except BaseException as error:
        error.add_note(f"Found by FUZZ_SEED={number} FUZZ_MESSAGES=1.")
        raise


def play_seeds(session, wanted, *scripts):
    """Play scripts, seed after seed, until as many messages were sent as are wanted."""
    played: Counter[Any] = Counter()
    first = SystemRandom().randrange(10**9) if FIRST_SEED == "random" else int(FIRST_SEED)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        lake = Path(folder) / "lake"
        MoneyLake(lake, fsync=False).initialize_sync()
        for number in count(first):
            play_seed(number, partial(session, played, lake), *scripts)
            print(number, dict(played), flush=True)
            if played["messages"] >= wanted:
                break
    return played


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_whatever_a_gateway_sends_nothing_is_flat_or_held_that_was_not_told():
    played = play_seeds(session, MESSAGES, logins, scripts, st.booleans())
    assert played["whole lists"]
    assert played["refresh"]
    assert played["login"]


def test_memory_stays_bounded_whatever_a_gateway_sends(tmp_path):
    row = position(ACCOUNTS[0], CONIDS[0], 5)
    absurd = [replaced(row, 14, text) for text in ("", "nan", "inf", "x")]
    cut = [row[:at] for at in range(1, 12)]
    stray = [(str(kind), "6", "55", "1", "1.5", "3", "0") for kind in range(1, 110) if kind != 62]
    told = [portfolio(account, conid, 3) for account in ACCOUNTS for conid in CONIDS]

    async def run():
        sizes = []
        async with silent_gateway(ACCOUNTS) as gateway:
            session = Session(gateway, tmp_path / "lake", Counter(), ACCOUNTS)
            connection = await session.connection()
            for _ in range(8):
                for _ in range(5):
                    gateway.say([*absurd, *cut, *stray, *told])
                    assert await answers(connection)
                gateway.said.clear()
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])

            await session.manager.close()
        return sizes

    tracemalloc.start()
    try:
        sizes = asyncio.run(run())
    finally:
        tracemalloc.stop()
    assert sizes[-1] - sizes[3] < 200_000, sizes
