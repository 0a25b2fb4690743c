"""Why holdings closed: through the real client from the day's executions, then from statements."""

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from ib_gateway_simulator import load_book
from position_sync_dagster.domain import causes
from position_sync_dagster.domain.closures import Cause, Stage, current_closures
from position_sync_dagster.gateway.flex import read_statements
from position_sync_dagster.sync import roll_legs
from position_sync_dagster.sync.drain.refresh import refresh
from position_sync_dagster.sync.explain_closes import BREAKS, CloseExplainer
from position_sync_dagster.sync.owner import close_watcher
from position_sync_dagster.sync.roll_legs import RollFollower
from tests.support.flex_files import element, statement, trade

A, B = "DUSIM0001", "DUSIM0002"
CALL, PUT, WORTHLESS, CENTS, STOCK = 921000001, 921000002, 921000003, 921000004, 920000001
INDEX_PUT, FUTURE, FUTURE_PUT, NEXT_CALL, NEW_CALL = (
    921000006, 920000002, 921000005, 921000007, 921000008,
)  # fmt: skip
EXPIRED = (datetime.now(UTC) - timedelta(days=1)).date()
NEW_YORK = ZoneInfo("America/New_York")
P, S = Stage.PROVISIONAL, Stage.STATED


def book():
    """Return the small book; two of its options expired yesterday, one of them in the money."""
    small = load_book("small")
    ended = {"expiry": f"{EXPIRED:%Y%m%d}"}
    contracts = dict(small.contracts)
    contracts[WORTHLESS] = replace(contracts[WORTHLESS], **ended)
    contracts[INDEX_PUT] = replace(contracts[INDEX_PUT], strike=7000.0, **ended)
    return replace(small, contracts=contracts, as_of=None)


@pytest.fixture
def watched(simulate, streaming, lake, eventually, tmp_path):
    """Stream a book whose values and contract details are in the tables; follow rolls."""
    file = tmp_path / "strategies.yaml"
    file.write_text("strategies: [{strategy_id: roller, follow_rolls: true, legs: []}]")

    @asynccontextmanager
    async def run(**more):
        async with (
            simulate(book(), **more) as sim,
            streaming(sim, closes=CloseExplainer(lake), rolls=RollFollower(lake, file)) as (
                streamer,
                _received,
            ),
        ):
            held = [row["conid"] for row in sim.positions() if row["quantity"]]

            def known():
                rows = lake.broker_positions.rows(streamer.settings.gateway_id)
                valued = rows.filter(rows["position"] != 0, rows["market_value"].is_not_null())
                return valued.height >= len(held) and len(lake.contracts.get()) >= len(set(held))

            await eventually(known)
            yield sim, streamer

    return run


def causes_of(lake, account, conid):
    return [
        (one.cause, one.stage, one.quantity)
        for one in current_closures(lake.closures.records())
        if (one.account, one.conid) == (account, conid)
    ]


ROLLED = "roll by a combo order"
CASES = {
    "partial fills": (
        lambda sim: [sim.fill(A, CALL, -1), sim.fill(A, CALL, -1)],
        {(A, CALL): [Cause.TRADED]},
    ),
    ROLLED: (
        lambda sim: sim.roll(A, CALL, NEXT_CALL),
        {(A, CALL): [Cause.TRADED, Cause.TRADED]},
    ),
    "closed by another client": (
        lambda sim: sim.close_position(A, CENTS),
        {(A, CENTS): [Cause.TRADED]},
    ),
    "assignment, shares arrive": (
        lambda sim: sim.assign(A, PUT),
        {(A, PUT): [Cause.ASSIGNED]},
    ),
    "assignment of the opposite account": (
        lambda sim: sim.assign(B, CALL),
        {(B, CALL): [Cause.ASSIGNED]},
    ),
    "exercise": (
        lambda sim: sim.exercise(A, NEXT_CALL),
        {(A, NEXT_CALL): [Cause.EXERCISED]},
    ),
    "worthless expiry": (
        lambda sim: sim.expire(A, WORTHLESS),
        {(A, WORTHLESS): [Cause.EXPIRED_WORTHLESS]},
    ),
    "cash-settled expiry (PM)": (
        lambda sim: sim.expire(B, INDEX_PUT, 500.0),
        {(B, INDEX_PUT): [Cause.CASH_SETTLED]},
    ),
    "split with a new conid": (
        lambda sim: sim.split(B, FUTURE_PUT, NEW_CALL, -40),
        {(B, FUTURE_PUT): [Cause.UNEXPLAINED]},
    ),
    "transfer out": (
        lambda sim: sim.transfer(B, FUTURE, -1),
        {(B, FUTURE): [Cause.UNEXPLAINED]},
    ),
}
"""What happens, and the provisional causes afterwards."""


def statements(lake):
    """Return the statements of the day, as the broker makes them of these cases."""
    day = f"{datetime.now(UTC):%Y%m%d}"
    stated = {"reportDate": day, "dateTime": "", "tradeDate": day, "transactionType": "ExchTrade"}
    executed = [
        trade(
            one.execution_id, accountId=one.account, conid=str(one.conid), notes="C",
            quantity=f"{one.change:g}", dateTime=f"{one.time.astimezone(NEW_YORK):%Y%m%d;%H%M%S}",
            tradePrice=f"{one.price}", ibOrderID=one.order_id, transactionType="ExchTrade",
        )
        for one in lake.executions.records()
    ]  # fmt: skip
    booked = [
        trade(
            "", tradeID=f"{number}", accountId=account, conid=str(conid), notes=codes,
            quantity=f"{quantity:g}", tradePrice=price, **stated | {"transactionType": "BookTrade"},
        )
        for number, (account, conid, codes, quantity, price) in enumerate(
            [
                (A, PUT, "A;C", 3, "0"),
                (A, STOCK, "A;O", 300, "220"),
                (B, CALL, "A;C", 1, "0"),
                (B, STOCK, "A;O", -100, "240"),
                (A, NEXT_CALL, "C;Ex", -3, "0"),
                (A, STOCK, "Ex;O", 300, "250"),
                (A, WORTHLESS, "C;Ep", 2, "0"),
                (B, INDEX_PUT, "C;Ep", -1, "500"),
            ]
        )
    ]  # fmt: skip
    more = [
        element(
            name,
            {"accountId": B, "currency": "USD", "dateTime": day, "conid": str(conid)} | values,
        )
        for name, conid, values in [
            ("CorporateAction", FUTURE_PUT, {"type": "FS", "quantity": "4", "actionID": "7"}),
            ("CorporateAction", NEW_CALL, {"type": "FS", "quantity": "-40", "actionID": "7"}),
            ("Transfer", FUTURE, {"type": "ACATS", "direction": "OUT", "quantity": "1"}),
        ]
    ]
    files = []
    for account in (A, B):
        mine = tuple(t for t in (*executed, *booked) if f'accountId="{account}"' in t)
        files.append(
            statement(
                trades=mine, more="".join(more) if account == B else "", account=account,
                first=day, generated=f"{day};235900",
            )
        )  # fmt: skip
    return files


@pytest.fixture
def quick(monkeypatch):
    """Shares may come 2 s after their option, and the gateway is asked again after 3 s."""
    monkeypatch.setattr(causes, "NEAR", timedelta(seconds=2))
    monkeypatch.setattr(roll_legs, "SETTLED", timedelta())
    monkeypatch.setattr(close_watcher, "LOOKS_S", (0.0, 1.0, 3.0))


def apart(lake) -> bool:
    """Return whether what closes now is not near what closed before."""
    last = max((one.seen_at for one in lake.position_changes.records()), default=None)
    return last is None or datetime.now(UTC) - last > causes.NEAR


@pytest.mark.usefixtures("quick")
async def test_each_cause_is_provisional_at_once_and_stated_by_the_statement(
    watched, lake, eventually
) -> None:
    lake.registry.sync.add_active(
        conid=CALL, symbol="AAPL", right="CALL", strike=240.0, expiry="20281215",
        strategy_id="roller", account=A,
    )  # fmt: skip
    async with watched() as (sim, _streamer):
        for name, (act, expected) in CASES.items():
            await eventually(lambda: apart(lake))
            act(sim)
            for (account, conid), wanted in expected.items():

                def judged(account=account, conid=conid, wanted=wanted):
                    found = causes_of(lake, account, conid)
                    return [cause for cause, _stage, _quantity in found] == wanted

                await eventually(judged)
            if name == ROLLED:
                await eventually(lambda: [leg.conid for leg in lake.registry.legs] == [NEXT_CALL])
        provisional = current_closures(lake.closures.records())
        assert {one.stage for one in provisional} == {P}

    (worthless,) = [one for one in provisional if one.conid == WORTHLESS]
    assert worthless.realized_pnl == pytest.approx(2 * 119.35)
    (exercised,) = [one for one in provisional if one.conid == NEXT_CALL]
    assert exercised.counter_conid == STOCK
    rolled = [one for one in provisional if (one.account, one.conid) == (A, CALL)]
    opened = [one.order_id for one in lake.executions.records() if one.conid == NEXT_CALL]
    assert rolled[-1].order_ids == opened[0]

    for data in statements(lake):
        for found in read_statements(data, "day.xml"):
            lake.executions.add(found.executions)
            lake.statement_events.add([*found.events, found.period()])
    CloseExplainer(lake).explain()
    stated = current_closures(lake.closures.records())
    assert {one.stage for one in stated} == {S}, [one for one in stated if one.stage is P]
    told = {(one.account, one.conid): one.cause for one in stated}
    assert told == {
        (A, CALL): Cause.TRADED,
        (A, CENTS): Cause.TRADED,
        (A, PUT): Cause.ASSIGNED,
        (B, CALL): Cause.ASSIGNED,
        (A, NEXT_CALL): Cause.EXERCISED,
        (A, WORTHLESS): Cause.EXPIRED_WORTHLESS,
        (B, INDEX_PUT): Cause.CASH_SETTLED,
        (B, FUTURE_PUT): Cause.SPLIT,
        (B, FUTURE): Cause.TRANSFERRED,
    }


async def test_a_refused_request_for_executions_never_makes_a_cause(
    watched, lake, eventually
) -> None:
    async with watched() as (sim, _streamer):
        sim.refuse_executions()
        sim.assign(A, PUT)
        sim.fill(B, FUTURE_PUT, 4)
        await eventually(lambda: causes_of(lake, A, PUT) and causes_of(lake, B, FUTURE_PUT))
        assert {cause for cause, *_ in causes_of(lake, A, PUT)} == {Cause.UNEXPLAINED}
        assert {cause for cause, *_ in causes_of(lake, B, FUTURE_PUT)} == {Cause.UNEXPLAINED}
        sim.refuse_executions(refused=False)
        later = CloseExplainer(lake, clock=lambda: datetime.now(UTC) + timedelta(minutes=3))
        later.explain()
        asked = {(one.account, one.conid) for one in lake.breaks.open_breaks(BREAKS)}
        assert asked == {(A, PUT), (B, FUTURE_PUT)}


async def test_what_closed_while_nobody_watched_is_found_by_the_next_refresh(
    watched, simulate, settings_for, lake, eventually
) -> None:
    async with simulate(book()) as sim:
        settings = settings_for(sim)
        await refresh(lake, settings)
        assert not lake.position_changes.records()
        sim.close_position(A, CENTS)
        sim.fill(A, STOCK, 10)
        await refresh(lake, settings)
        changes = {(one.conid, one.by) for one in lake.position_changes.records()}
        assert changes == {(CENTS, -2.0), (STOCK, 10.0)}
        assert causes_of(lake, A, CENTS) == [(Cause.TRADED, P, 2.0)]
        await refresh(lake, settings)
        assert len(lake.position_changes.records()) == 2
