"""A day in less than a minute: all that happens, and what must be true at every step.

An hour takes half a second; the intervals of the settings are shortened likewise.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from ib_gateway_simulator import load_book
from position_sync_dagster.domain import login_lines, streamed_holding
from position_sync_dagster.domain.clock import Backoff, utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.leg import LegState, make_leg
from position_sync_dagster.gateway import account_downloads, login
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import START, DeltaLakePositionWriter
from position_sync_dagster.lake.storage.maintenance import maintain
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.sync.drain import drain
from position_sync_dagster.sync.stream import gateway_link, lines
from position_sync_dagster.sync.stream.streamer import IBPositionStreamer, StreamTables
from tests.support.booked_legs import terms_of
from tests.support.extent import EVERYTHING
from tests.support.unkind_hours import UnkindHours

A, B = "DUSIM0001", "DUSIM0002"
SIZE = {A: 1, B: 100}
"""Every position of an account is a multiple of this: so a row shows whose it is."""

RIGHTS = {"C": "CALL", "P": "PUT"}
PART = 1 if EVERYTHING else 2
"""Each leg of the demo's book takes part, in `make test` each second one."""

LINES, CUT = 100 // PART, 60 // PART
HOUR_S = 0.5
STRATEGIES, LEGS = 8, 18 // PART


class Auditor:
    """A handler that checks each update against its leg: each leg has prices of its own.

    A position of 0 is wrong unless the holding was closed before, and a value that is unknown
    unless the quantity is a new one, of which the broker said no value yet.
    """

    def __init__(self, book):
        self.book = book
        self.received = 0
        self.wrong = []
        self.newest = {}
        self.odd_prices = set()

    async def on_position_update(self, update):
        self.received += 1
        before = self.newest.get((update.account, update.conid))
        self.newest[update.account, update.conid] = update
        repeated = before and before.position == update.position
        # Of a new quantity the broker has said no value yet: that row may be repeated.
        if update.market_value is None and repeated and before.market_value is not None:
            self.wrong.append(("unknown", update))
        known = self.book[update.conid]
        if (update.symbol, update.right, update.strike) != known["facts"]:
            self.wrong.append(("contract", update))
        priced = update.value_source == "TICK" and update.market_price is not None
        usual = update.conid not in self.odd_prices
        if priced and usual and int(update.market_price) // 10 != known["index"]:
            self.wrong.append(("price", update))
        if update.position not in known["positions"][update.account]:
            self.wrong.append(("position", update))


class Sleeper:
    """A reader of the ledger that sleeps from the first hour on; another one looks each hour.

    Meanwhile files of the ledger are merged and deleted.
    """

    def __init__(self, ledger):
        self.ledger = ledger
        self.awake, self.seen = ledger.follow(START), []
        self.before, self.token = [], ""
        self.merged = self.deleted = 0

    def hour(self, hour):
        self.seen += ids_of(self.awake)
        if hour == 0:
            reader = self.ledger.follow(START)
            while (added := reader.read()) is not None:
                self.before.extend(added.rows.get_column("update_id"))
                self.token = added.token
        elif hour % 3 == 0:
            done = maintain(self.ledger.table, clean_now=True)
            self.merged += done.compacted
            self.deleted += done.deleted

    def wake(self):
        """Resume from the token, and compare: each row of the ledger once, in its order."""
        self.seen += ids_of(self.awake)
        later = ids_of(self.ledger.follow(self.token))
        rows = self.ledger.table.rows().sort("ledger_version", "timestamp", "update_id")
        written = rows.get_column("update_id").to_list()
        assert self.before + later == written
        assert self.seen == written
        assert len(later) > len(self.before) > 0
        assert self.merged > 0
        assert self.deleted > 0


def ids_of(reader):
    """Return the ids of the rows that are new to a reader, in the order in which it gets them."""
    found = []
    while (added := reader.read()) is not None:
        found.extend(added.rows.get_column("update_id"))
    return found


def two_accounts():
    """Return the demo's book with two accounts: each third leg is the second's, some are both's."""
    book = load_book("demo")
    openings = []
    for number, opening in enumerate(book.openings[::PART]):
        theirs = replace(opening, account=B, quantity=opening.quantity * SIZE[B])
        openings += [theirs] if number % 3 == 0 else [opening]
        openings += [theirs] if number % 10 == 1 else []
    accounts = (book.accounts[0], replace(book.accounts[0], name=B))
    return replace(book, accounts=accounts, openings=tuple(openings))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lines, "PROBE_WAIT", Backoff(first_s=0.5, longest_s=1.0))
    monkeypatch.setattr(gateway_link, "RECONNECT", Backoff(first_s=0.1, longest_s=0.1))
    monkeypatch.setattr(account_downloads, "AGAIN", Backoff(first_s=0.1, longest_s=0.3))
    monkeypatch.setattr(streamed_holding, "SETTLE", timedelta(seconds=1))
    monkeypatch.setattr(login_lines, "GRACE_S", 1.0)
    monkeypatch.setattr(login, "MAX_REQUESTS", 100)  # a second of the day is two minutes
    monkeypatch.setattr(login_lines, "RENEWAL", Backoff(first_s=0.5, longest_s=1.0))


@pytest.mark.usefixtures("quick")
async def test_a_day_of_faults_and_changes(simulate, settings_for, tmp_path, eventually):
    random = Random(11)  # the seed of the day
    lake = Lake(tmp_path / "lake", fsync=False)
    await lake.initialize()
    gateway = {
        "max_lines": LINES, "tick_interval_s": 0.2, "pnl_interval_s": 0.2, "max_messages_per_s": 0,
        "time_zone": "America/New_York",
    }  # fmt: skip
    async with simulate(two_accounts(), **gateway) as sim:
        book = {}
        for row in _legs(sim):
            facts = (row["symbol"], RIGHTS[row["right"]], row["strike"])
            known = {"index": len(book), "facts": facts, "positions": {A: set(), B: set()}}
            known = book.setdefault(row["conid"], known)
            known["positions"][row["account"]].add(row["quantity"])
        settings = settings_for(
            sim, max_lines=LINES, reserved_lines=5, refresh_interval_s=3 * HOUR_S,
            overflow_interval_s=HOUR_S, gateway_timeout_s=3.0, account_quiet_s=1.0,
            value_band=0.0, line_silence_s=1.0,
        )  # fmt: skip
        streamer = IBPositionStreamer(
            lake.registry, lake.queue, settings=settings,
            tables=StreamTables(
                broker_positions=lake.broker_positions, contracts=lake.contracts
            ),
        )  # fmt: skip
        auditor = Auditor(book)
        streamer.register_handler(auditor)
        streamer.register_handler(DeltaLakePositionWriter(table=lake.updates))
        sleeper = Sleeper(lake.updates.sync)
        day = Day(sim, lake, streamer, auditor, random, eventually)
        day.pin_all()
        await streamer.start()
        try:
            for hour in range(24):
                await day.hour(hour)
                await offload(sleeper.hour, hour)
            await eventually(day.ledger_agrees)
            await day.check_times()
        finally:
            await streamer.stop()
        sleeper.wake()
        assert auditor.wrong[:3] == []
        assert auditor.received > 500
        assert day.unkind.left == set()
        assert CUT < day.most_lines <= LINES - 5  # the reserve stays free
        assert day.learned == {True, False}
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)
        assert sim.stats()["lines_in_use"] == 0


def _legs(sim):
    return [row for row in sim.positions() if row["quantity"]]


class Day:
    """One day on a simulator.

    Attributes:
        pinned: conid → its mark. No other leg has it, and it moves with each step.
        kept: The conids whose quotes are not moved.
    """

    def __init__(self, sim, lake, streamer, auditor, random, eventually):
        self.sim, self.lake, self.streamer, self.auditor = sim, lake, streamer, auditor
        self.book = auditor.book
        self.random, self.eventually = random, eventually
        self.most_lines = 0
        self.limit = LINES
        self.learned = set()
        self.pinned = {}
        self.kept = set()
        self.steps = 0
        self.unkind = UnkindHours(self, (A, B))

    async def hour(self, hour):
        await self._people(hour)
        if hour in self.unkind.left:
            await self.eventually(self._settled)
            await self.unkind.play(hour)
        await self._faults(hour)
        for _ in range(5):
            self.pin_all()
            await asyncio.sleep(HOUR_S / 5)
            self._count()
        await self.eventually(self._settled)
        self._count()

    def pin_all(self):
        """Move the price of every leg, and hold its quote there."""
        for conid in self.book.keys() - self.kept:
            price = round(self.book[conid]["index"] * 10 + 1 + (self.steps % 80) * 0.1, 2)
            self.pinned[conid] = price
            self.sim.pin_quote(conid, bid=price - 0.01, ask=price + 0.01, last=price, mark=price)
        self.steps += 1

    def are_current(self, keys):
        """Return whether the newest rows have the present positions and marks."""
        quantities = self._quantities()
        for key in keys:
            row = self.auditor.newest.get(key)
            if row is None or row.position != quantities.get(key, 0.0):
                return False
            if (row.price_kind, row.market_price) != ("MARK", self.pinned[key[1]]) or row.note:
                return False
        return True

    async def ledger_agrees(self):
        """Return whether the newest row of each holding, streamed or drained, has its position."""
        await drain(self.lake, self.streamer.settings)
        rows = [*await self.lake.updates.latest_updates(), *self.auditor.newest.values()]
        rows.sort(key=lambda row: row.timestamp)
        newest = {(row.account, row.conid): row.position for row in rows}
        quantities = self._quantities()
        ever = {
            (a, conid)
            for conid, known in self.book.items()
            for a in (A, B)
            if known["positions"][a]
        }
        return {key: newest.get(key) for key in ever} == {
            key: quantities.get(key, 0.0) for key in ever
        }

    async def check_times(self):
        """Check that no time of the broker is off by the zone of the gateway."""
        rows = self.lake.broker_positions.read(self.streamer.settings.gateway_id)
        times = [row.value_time for row in rows if row.value_time is not None]
        assert [at for at in times if abs(datetime.now(UTC) - at) > timedelta(minutes=10)] == []

    def _quantities(self):
        return {(row["account"], row["conid"]): row["quantity"] for row in self.sim.positions()}

    def _count(self):
        lines = self.sim.stats()["lines_in_use"]
        self.most_lines = max(self.most_lines, lines)
        self.learned.add(self.streamer.line_limit < LINES)
        assert lines <= self.limit

    async def _people(self, hour):
        """Strategies come and go, positions change, open and close."""
        conids = sorted(self.book)
        strategy = f"s{hour % STRATEGIES}"
        mine = [leg for leg in self.lake.registry.legs if leg.strategy_id == strategy]
        for leg in mine:
            await self.lake.registry.remove_active(leg.conid, strategy)
        chosen = self.random.sample(conids, LEGS)
        added = [
            make_leg(
                conid=conid, strategy_id=strategy, priority=1 + hour % 3, added_at=utc_now(),
                **terms_of(conid, "demo"),
            )
            for conid in chosen if not self.lake.registry.is_active(conid)
        ]  # fmt: skip
        one_by_one = hour % 3 == 0  # as a person adds them; in other hours as a file does
        for legs in [[leg] for leg in added] if one_by_one else [added]:
            await self.lake.registry.add_many(legs)
        for conid in self.random.sample(conids, 4):
            account = self.random.choice([A, B])
            quantity = self.random.choice([-2, 1, 3]) * SIZE[account]
            filled = self.sim.fill(account, conid, quantity)
            self.book[conid]["positions"][account].add(filled["quantity"])
        row = self.random.choice(_legs(self.sim))
        self.book[row["conid"]]["positions"][row["account"]].add(0.0)
        self.sim.close_position(row["account"], row["conid"])

    async def _faults(self, hour):
        sim = self.sim
        if hour == 3:
            await sim.restart(down_s=0.3)  # the nightly reset
        elif hour in (5, 17):
            sim.farm("usfarm", 2103)
            await asyncio.sleep(0.2)
            sim.farm("usfarm", 2104)
        elif hour == 7:
            sim.connectivity("lost")
            sim.connectivity("restored_data_lost")
        elif hour == 9:
            sim.connectivity("lost")
            await asyncio.sleep(0.2)
            sim.connectivity("restored_data_kept")
        elif hour == 12:
            sim.disconnect(busy_s=0.5)
        elif hour == 14:
            # Others take lines: after the next connection the gateway refuses the rest (101).
            sim.set_line_limit(CUT)
            sim.disconnect()
            self.limit = CUT
        elif hour == 20:
            sim.set_line_limit(LINES)
            self.limit = LINES
        elif hour == 23:
            await self.eventually(lambda: self.streamer.line_limit == LINES)

    def _settled(self):
        """Nothing is forgotten, and our count is the gateway's."""
        streamer, held = self.streamer, {(r["account"], r["conid"]) for r in _legs(self.sim)}
        routes = streamer.routes
        if streamer.state is not SessionState.LIVE:
            return False
        if streamer.lines_in_use != self.sim.stats()["lines_in_use"]:
            return False
        streamed = {key for key, state in routes.items() if state is LegState.STREAMED}
        overflow = {key for key, state in routes.items() if state is LegState.OVERFLOW}
        active = {key for key in held if self.lake.registry.is_active(key[1])}
        open_keys = {key for key, state in routes.items() if state is not LegState.CLOSED}
        if not (open_keys == held and streamed <= active and (streamed | overflow) == active):
            return False
        return self.are_current(streamed)
