"""Why holdings closed: through the real client from the day's executions, then from statements."""

import errno
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from ib_gateway_simulator import SimulatedGateway, load_book
from ib_gateway_simulator.books.book import Opening
from position_sync_dagster.errors import LakeError
from position_sync_dagster.gateway import connection
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable
from position_sync_dagster.money.past import causes
from position_sync_dagster.money.past.closes import Cause, Stage
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.past.flex import read_statements
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.money.strategies.leg_followers import RollFollower
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.parts import PublishedGreeks
from position_sync_dagster.sync.stream.position_changes import ChangeWatcher
from position_sync_dagster.sync.stream.publisher import Publisher, Submissions
from tests.support.booked_legs import CALL, CENTS, PUT, STOCK, WORTHLESS, A, B, leg
from tests.support.short_owner import refresh
from tests.support.streams import eventually, settings_for, simulate
from tests.support.unowned import unowned
from tests.unit.sync.stream.test_publisher import HELD, NOW, Feed

INDEX_PUT = 921000006
FUTURE = 920000002
NEXT_CALL = 921000007
NEW_CALL = 921000008
WHOLE, ODD, OLD_NAME, NEW_NAME = range(921000102, 921000106)
TODAY = datetime.now(UTC).date()
SETTLED = f"{TODAY - timedelta(days=1):%Y%m%d}"
# How long after their option shares may come here. It is 15 minutes in the product.
NEAR_S = 6
# A roll is followed once it is so old.
LATER = timedelta(minutes=1)

P = Stage.PROVISIONAL
S = Stage.STATED


def book():
    """Return the small book with more contracts; two of its options had expired before."""
    small = load_book("small")
    contracts = dict(small.contracts)
    call = contracts[CALL]
    index_put = contracts[INDEX_PUT]
    contracts[WORTHLESS] = replace(contracts[WORTHLESS], expiry=SETTLED)
    contracts[INDEX_PUT] = replace(index_put, strike=7000.0, expiry=SETTLED)

    more = [
        replace(call, conid=WHOLE, strike=260.0),
        replace(call, conid=ODD, strike=173.33, multiplier=33.0, trading_class="AAPL1"),
        replace(call, conid=OLD_NAME, strike=225.0),
        replace(call, conid=NEW_NAME, strike=225.0, trading_class="APPL"),
    ]  # fmt: skip

    contracts |= {contract.conid: contract for contract in more}
    sold = Opening(account=B, conid=WHOLE, quantity=-4, average_cost=1500.0)
    bought = Opening(account=A, conid=OLD_NAME, quantity=3, average_cost=1500.0)
    openings = (*small.openings, sold, bought)
    return replace(small, contracts=contracts, openings=openings, as_of=None)


def causes_of(lake, account, conid):
    closures = lake.closures.current()
    of_holding = [row for row in closures if (row.account, row.conid) == (account, conid)]
    return [(closure.cause, closure.stage, closure.quantity) for closure in of_holding]


@dataclass(frozen=True)
class Case:
    """What happens, and what closes: how much, by which provisional and which stated cause.

    Two cases that book `shares` are further apart than shares from their option: what is seen last
    may have happened right after the account was confirmed.
    """

    act: Callable[[SimulatedGateway], object]
    closes: dict[tuple[str, int], float]
    provisional: Cause
    stated: Cause | None = None
    shares: bool = False


def overnight(sim):
    """Assign a put while nobody trades; the reset of the night removes its row."""
    sim.assign(A, PUT)
    sim.reset_day()


def opposite(sim):
    """Fill two accounts, one of which bought what the other one sold."""
    sim.fill(A, CALL, -2)
    sim.fill(B, CALL, 1)


CASES = {}
CASES["partial fills of one order"] = Case(
    lambda sim: sim.fill(A, CALL, -2, parts=2), {(A, CALL): 2}, Cause.TRADED
)
CASES["two accounts, opposite"] = Case(opposite, {(A, CALL): 2, (B, CALL): -1}, Cause.TRADED)
CASES["roll by one combo order"] = Case(
    lambda sim: sim.roll(A, CALL, NEXT_CALL), {(A, CALL): 1}, Cause.TRADED
)
CASES["overnight assignment"] = Case(overnight, {(A, PUT): -3}, Cause.ASSIGNED, shares=True)
CASES["exercise"] = Case(
    lambda sim: sim.exercise(A, NEXT_CALL), {(A, NEXT_CALL): 1}, Cause.EXERCISED, shares=True
)
CASES["worthless expiry"] = Case(
    lambda sim: sim.expire(A, WORTHLESS),
    {(A, WORTHLESS): -2},
    Cause.UNEXPLAINED,
    Cause.EXPIRED_WORTHLESS,
)
CASES["cash-settled expiry"] = Case(
    lambda sim: sim.expire(B, INDEX_PUT, 500.0),
    {(B, INDEX_PUT): 1},
    Cause.UNEXPLAINED,
    Cause.CASH_SETTLED,
)
CASES["split with an odd multiplier and a new conid"] = Case(
    lambda sim: sim.split(B, WHOLE, ODD, -12), {(B, WHOLE): -4}, Cause.UNEXPLAINED, Cause.SPLIT
)
CASES["change of the symbol"] = Case(
    lambda sim: sim.split(A, OLD_NAME, NEW_NAME, 3, kind="IC"),
    {(A, OLD_NAME): 3},
    Cause.UNEXPLAINED,
    Cause.CORPORATE_ACTION,
)
CASES["transfer out"] = Case(
    lambda sim: sim.transfer(B, FUTURE, -1),
    {(B, FUTURE): 1},
    Cause.UNEXPLAINED,
    Cause.TRANSFERRED,
)


def found_since(lake, earlier):
    """Return the causes that count of each holding, of changes that are not among the earlier."""
    found = defaultdict(list)
    for closure in lake.closures.current():
        if closure.change_id not in earlier:
            found[closure.account, closure.conid].append(closure)
    return dict(found)


def explains(found, closes, cause):
    """Return whether this is the cause of all that closed."""
    quantities = {}
    causes = set()
    for holding, closures in found.items():
        quantities[holding] = sum(closure.quantity for closure in closures)
        causes |= {closure.cause for closure in closures}
    return quantities == closes and causes == {cause}


def without_shares(found):
    """Return the causes of what is no share: those of shares follow from them."""
    return {key: ones for key, ones in found.items() if key[1] != STOCK}


def import_statements(lake, sim):
    for account, text in sim.statements().items():
        for statement in read_statements(text.encode(), f"{account}.xml"):
            MovementBook(lake).update([statement])
            lake.executions.add(statement.executions)
            lake.statement_events.add(statement.events)
    CloseExplainer(lake).explain()


@pytest.fixture
def quick(monkeypatch):
    """Shares may come NEAR_S after their option, and the gateway is asked again after them.

    Its day begins twelve hours ago, at whatever hour the test runs.
    """
    monkeypatch.setattr(causes, "ONE_EVENT", timedelta(seconds=NEAR_S))
    monkeypatch.setattr(connection, "_DAY_ZONES", (f"Etc/GMT{datetime.now(UTC).hour - 12:+d}",))


@pytest.mark.usefixtures("quick")
async def test_each_cause_is_provisional_at_once_and_stated_by_the_statement(
    streaming, lake, tmp_path
) -> None:
    lake.registry.sync.add_active(**leg(CALL, "roller", account=A))
    file = tmp_path / "strategies.yaml"
    changes = {}
    file.write_text("strategies: [{strategy_id: roller, follow_rolls: true, legs: []}]")
    async with simulate(book()) as sim:
        settings = settings_for(sim, strategies_file=file)
        rolls = RollFollower(lake, settings, clock=lambda: datetime.now(UTC) + LATER)
        looks_s = (0.0, 1.0, 3.0, NEAR_S + 1.0)
        explainer = CloseExplainer(lake)
        stream = streaming(sim, followers=(explainer, rolls), execution_looks_s=looks_s)
        async with stream as (streamer, _):
            held = [row["conid"] for row in sim.positions() if row["quantity"]]

            def known():
                rows = lake.broker_positions.rows(streamer.settings.gateway_id)
                valued = rows.filter(rows["position"] != 0, rows["market_value"].is_not_null())
                return valued.height >= len(held) and len(lake.contracts.get()) >= len(set(held))

            def apart():
                """Whether what A has was confirmed long after its shares changed."""
                records = lake.position_changes.records()
                moved = [
                    record.seen_at
                    for record in records
                    if (record.account, record.conid) == (A, STOCK)
                ]
                rows = lake.broker_positions.rows(streamer.settings.gateway_id)
                held_rows = rows.filter(pl.col("account") == A, pl.col("position") != 0)
                of_exercise = held_rows.filter(pl.col("conid").is_in([STOCK, NEXT_CALL]))
                confirmed_at = of_exercise["confirmed_at"].min()
                return not moved or confirmed_at - max(moved) > timedelta(seconds=NEAR_S)

            await eventually(known)
            for name, case in CASES.items():
                if case.shares:
                    await eventually(apart)
                earlier = {closure.change_id for closure in lake.closures.records()}
                case.act(sim)

                def judged(case=case, earlier=earlier):
                    options = without_shares(found_since(lake, earlier))
                    return explains(options, case.closes, case.provisional) and options

                def told(name=name, earlier=earlier):
                    return f"{name}: {without_shares(found_since(lake, earlier))}"

                found = await eventually(judged, told)
                changes[name] = {
                    judged_close.change_id for ones in found.values() for judged_close in ones
                }
                assert {closure.stage for ones in found.values() for closure in ones} == {P}
                if name == "roll by one combo order":
                    await eventually(
                        lambda: [leg.conid for leg in lake.registry.legs] == [NEXT_CALL]
                    )
    provisional = {(closure.account, closure.conid): closure for closure in lake.closures.current()}
    assert provisional[A, NEXT_CALL].counter_conid == STOCK
    opened = [
        execution.order_id
        for execution in lake.executions.records()
        if execution.conid == NEXT_CALL
    ]
    assert provisional[A, CALL].order_ids == opened[0]

    import_statements(lake, sim)
    stated = lake.closures.current()
    assert {closure.stage for closure in stated} == {S}, [
        closure for closure in stated if closure.stage is P
    ]
    for name, case in CASES.items():
        found = [closure for closure in stated if closure.change_id in changes[name]]
        assert {closure.cause for closure in found} == {case.stated or case.provisional}, name


async def test_what_closed_while_nobody_watched_is_found_by_the_next_refresh(lake) -> None:
    async with simulate(book()) as sim:
        settings = settings_for(sim)
        await refresh(lake, settings, [CloseExplainer(lake)])
        assert not lake.position_changes.records()
        sim.close_position(A, CENTS)
        sim.fill(A, STOCK, 10)
        sim.refuse_executions()
        await refresh(lake, settings, [CloseExplainer(lake)])
        assert causes_of(lake, A, CENTS) == [(Cause.UNEXPLAINED, P, 2.0)]

        sim.refuse_executions(refused=False)
        await refresh(
            lake, settings, [CloseExplainer(lake)]
        )  # nothing changed, and the gateway is asked again
        changes = {(change.conid, change.by) for change in lake.position_changes.records()}
        assert changes == {(CENTS, -2.0), (STOCK, 10.0)}
        assert causes_of(lake, A, CENTS) == [(Cause.TRADED, P, 2.0)]
        await refresh(lake, settings, [CloseExplainer(lake)])
        assert len(lake.position_changes.records()) == 2


def killed(*_args, **_more):
    """Stand for a process that is killed between two commits."""
    raise RuntimeError("killed")


async def test_a_quantity_that_moves_on_after_a_kill_before_its_publication_is_recorded_from_there(
    lake, monkeypatch
) -> None:
    async with simulate(book()) as sim:
        settings = settings_for(sim)
        held = {(row["account"], row["conid"]): row["quantity"] for row in sim.positions()}
        shares = held[A, STOCK]
        calls = held[A, CALL]
        await refresh(lake, settings, [CloseExplainer(lake)])
        sim.fill(A, STOCK, 10)
        sim.fill(A, CALL, -1)
        sim.fill(A, NEW_CALL, 2)
        sim.fill(B, CENTS, 1)

        with monkeypatch.context() as broken:
            broken.setattr(BrokerPositionsTable, "replace", killed)
            for _ in range(2):  # the second process finds what the first one left
                with pytest.raises(RuntimeError, match="killed"):
                    await refresh(lake, settings, [CloseExplainer(lake)])

        sim.fill(A, STOCK, 5)
        sim.fill(A, CALL, 1)
        sim.fill(A, NEW_CALL, 1)
        sim.close_position(B, CENTS)
        for _ in range(2):
            await refresh(lake, settings, [CloseExplainer(lake)])

        moves = defaultdict(list)
        for change in lake.position_changes.records():
            moves[change.account, change.conid].append((change.before, change.after))
        assert moves.pop((A, STOCK)) == [(shares, shares + 10), (shares + 10, shares + 15)]
        assert moves.pop((A, CALL)) == [(calls, calls - 1), (calls - 1, calls)]
        assert moves.pop((A, NEW_CALL)) == [(0.0, 2.0), (2.0, 3.0)]
        assert moves.pop((B, CENTS)) == [(0.0, 1.0), (1.0, 0.0)]
        assert not moves


@pytest.mark.parametrize("failing", ["changes", "positions"])
async def test_a_quantity_that_moves_again_after_a_failed_write_is_recorded_from_there_and_once(
    lake, monkeypatch, failing
) -> None:
    """The changes are stored although their table failed; the positions come after them."""
    context = unowned(settings=Settings(), clock=lambda: NOW)
    held = replace(HELD, gateway_id=context.settings.gateway_id)
    feed = Feed(held)
    watcher = ChangeWatcher(context, lake.position_changes, [CloseExplainer(lake)])
    publisher = Publisher(
        context, lake.queue, lake.broker_positions, Submissions(),
        greeks=PublishedGreeks(), watcher=watcher,
    )  # fmt: skip
    publisher.attach(feed)
    await publisher.publish(feed)

    def fail(*_args, **_more):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    failing_calls = {
        "changes": [(lake.position_changes.table._synced, "sync_through")],
        "positions": [(lake.broker_positions, "replace"), (lake.broker_positions, "update")],
    }
    feed.put(replace(held, position=5.0, position_time=NOW + timedelta(seconds=1)))
    with monkeypatch.context() as broken:
        for owner, name in failing_calls[failing]:
            broken.setattr(owner, name, fail)
        with pytest.raises((LakeError, OSError)):
            await publisher.publish(feed)

    for second, quantity in ((2, 0.0), (3, 1.0)):
        at = NOW + timedelta(seconds=second)
        feed.put(replace(held, position=quantity, position_time=at))
        await publisher.publish(feed)
    changes = [(change.before, change.after) for change in lake.position_changes.records()]
    assert changes == [(2.0, 5.0), (5.0, 0.0), (0.0, 1.0)]
