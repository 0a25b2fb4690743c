"""Connecting with the real ib_async, to the simulator and to servers that are no gateway."""

import asyncio
import pickle
import struct
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ib_gateway_simulator import load_book
from ib_gateway_simulator.protocol.contract import Contract
from position_sync_dagster import errors
from position_sync_dagster.domain.instrument import parse_expiry
from position_sync_dagster.domain.position_update import TradingMode
from position_sync_dagster.gateway import login
from position_sync_dagster.gateway.connection import IBConnectionManager, connect
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.settings import Settings, load_settings
from tests.support.settings import make_settings
from tests.support.waiting import DEADLINE_S


@asynccontextmanager
async def server(answer, timeout_s=DEADLINE_S):
    """Run a server that is no gateway."""
    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield make_settings(gateway_port=port, gateway_timeout_s=timeout_s)


async def test_managers_of_one_gateway_share_one_connection(simulate, settings_for, eventually):
    async with simulate() as sim:
        first, second = (IBConnectionManager(settings_for(sim)) for _ in range(2))
        connection = await first.get_connection()
        assert await second.get_connection() is connection
        assert connection.accounts == ("DUSIM0001", "DUSIM0002")
        assert connection.trading_mode is TradingMode.SIMULATED
        assert sim.stats()["connections"]["now"] == 1
        await first.close()
        assert connection.is_connected
        await second.close()
        assert not connection.is_connected
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)


async def test_connecting_requests_positions_and_nothing_else(opened):
    sim, _connection = opened
    (requests,) = sim.stats()["requests"].values()
    assert set(requests) == {"startApi", "reqPositions"}


async def test_positions_that_nobody_answers_at_the_log_in_are_named(simulate, settings_for):
    async with simulate() as sim:
        sim.positions_end(delay_s=None)
        with pytest.raises(
            errors.GatewayTimeoutError, match="positions request timed out"
        ) as caught:
            await connect(settings_for(sim, gateway_timeout_s=0.5))
        assert "start it again" in caught.value.remedy
        assert "Trusted" not in str(caught.value)


async def test_a_login_with_more_accounts_than_a_gateway_lists_is_refused_by_name(
    simulate, settings_for, tmp_path
):
    book = tmp_path / "advisor.yaml"
    names = ", ".join(f"{{name: DUSIM{number:04}}}" for number in range(1, 52))
    spy = "{symbol: SPY, conid: 930000001, price: 620, volatility: 0.17}"
    book.write_text(
        f"{{name: advisor, as_of: 2028-06-01, accounts: [{names}], underlyings: [{spy}]}}"
    )
    async with simulate(book) as sim:
        with pytest.raises(errors.TooManyAccountsError, match=r"has 51 accounts; .* 50") as caught:
            await connect(settings_for(sim))
        assert "several logins" in caught.value.remedy


async def test_a_client_id_in_use_leads_to_the_next_of_the_pool_after_a_pause(
    simulate, settings_for
):
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)

    async with simulate() as sim:
        settings = settings_for(sim, gateway_client_ids=3)
        connections = [await connect(settings, sleep=pause) for _ in range(3)]
        assert [c.client_id for c in connections] == [17, 18, 19]
        assert len(pauses) == 3  # one before the second, two before the third
        assert min(pauses) == pytest.approx(0.625, abs=0.125)
        assert max(pauses) == pytest.approx(1.25, abs=0.25)

        pauses.clear()
        async with asyncio.timeout(login.TIMEOUT_S):
            with pytest.raises(errors.ClientIdInUseError, match="17 to 19"):
                await connect(settings, sleep=pause)
        assert len(pauses) == 2
        for connection in connections:
            await connection.close()


async def test_when_nothing_listens_the_error_names_address_and_remedy():
    async with server(lambda _r, w: w.close()) as settings:
        port = settings.gateway_port
    with pytest.raises(errors.GatewayRefusedError, match=f"127.0.0.1:{port}") as caught:
        await connect(settings)
    assert "POSITION_SYNC_GATEWAY_PORT" in caught.value.remedy
    assert isinstance(caught.value, ConnectionError)
    assert str(caught.value) == f"{caught.value.what} {caught.value.remedy}"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


def greeting(version):
    text = b"%d\x0020260302 15:00:00 GMT\x00" % version
    return [struct.pack(">I", len(text)), text]


@pytest.mark.parametrize(
    ("pieces", "error", "text"),
    [
        ([], errors.GatewayRefusedError, "closed the connection"),
        (greeting(176), errors.GatewayRefusedError, "closed the connection"),
        (
            [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
            errors.NotAGatewayError,
            "127.0.0.1:.* is not an IB",
        ),
    ],
)
async def test_a_server_that_hangs_up_is_named_by_what_it_said(pieces, error, text):
    async def answer(reader, writer):
        await reader.read(100)
        for at, piece in enumerate(pieces):
            await asyncio.sleep(0.05 * at)  # the greeting comes in pieces
            writer.write(piece)
            await writer.drain()
        writer.close()

    async with server(answer) as settings:
        with pytest.raises(error, match=text):
            await connect(settings)


@pytest.mark.parametrize(
    "greeting",
    [b"", b"\x00\x00", b"\x00\x00\x00\x1a176\x00", b"\x00\x00\x00\x0b1garbage\x00\x00\x00"],
    ids=["nothing", "half a length", "half a greeting", "a greeting of garbage"],
)
async def test_a_server_that_stops_in_the_middle_of_the_greeting_is_a_timeout(greeting, caplog):
    over = asyncio.Event()

    async def answer(_reader, writer):
        writer.write(greeting)
        await over.wait()
        writer.close()

    async with server(answer, timeout_s=0.5) as settings:
        with pytest.raises(errors.GatewayTimeoutError, match=r"did not answer within 0\.5 s"):
            await connect(settings)
        over.set()
    assert "Traceback" not in caplog.text


async def test_paper_settings_refuse_an_account_of_another_mode(simulate, settings_for, eventually):
    async with simulate() as sim:
        with pytest.raises(errors.SettingsError, match=r"PAPER.*SIMULATED"):
            await connect(settings_for(sim, trading_mode="PAPER"))
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)


def test_client_id_zero_is_refused(monkeypatch):
    with pytest.raises(errors.SettingsError, match="client id 0"):
        IBConnectionManager(Settings(_env_file=None), client_id=0)
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_CLIENT_ID", "0")
    with pytest.raises(errors.SettingsError, match="POSITION_SYNC_GATEWAY_CLIENT_ID"):
        load_settings()


async def test_a_dropped_connection_is_followed_by_a_new_one(simulate, settings_for):
    async with simulate() as sim:
        manager = IBConnectionManager(settings_for(sim))
        first = await manager.get_connection()
        sim.disconnect()
        await asyncio.wait_for(first.lost.wait(), DEADLINE_S)
        second = await manager.get_connection()
        assert second is not first
        assert second.is_connected
        await manager.close()


async def test_after_a_restore_no_summary_of_all_accounts_is_requested(opened, eventually):
    sim, connection = opened
    codes = []
    connection.on_message.append(lambda code, _text: codes.append(code))
    sim.connectivity("lost")
    sim.connectivity("restored_data_kept")
    await eventually(lambda: 1102 in codes)
    await connection.ib.reqCurrentTimeAsync()
    assert "reqAccountSummary" not in sim.stats()["requests"]["17"]


async def test_a_profit_request_that_comes_after_the_gateway_dropped_all_runs_once(
    opened, eventually
):
    sim, connection = opened
    connection.pnl.keep([("DUSIM0001", 920000001)])

    def request():
        connection.summaries.subscribe()
        connection.pnl.step()

    request()
    # The gateway said so before it had the requests: it gets them, and those of after.
    connection.summaries.dropped()
    connection.pnl.dropped()
    request()
    accounts = connection.accounts
    sent = {"reqPnL": 2 * len(accounts), "reqPnLSingle": 2}

    def are_sent():
        connection.pnl.step()  # it waits until the others are sent
        return sent.items() <= sim.stats()["requests"]["17"].items()

    await eventually(are_sent)
    stats = sim.stats()
    assert stats["account_pnl_subscriptions"] == dict.fromkeys(accounts, 1)
    assert stats["pnl_subscriptions"] == len(accounts) + 1


async def test_a_profit_that_is_not_requested_yet_has_used_no_attempt(opened):
    _sim, connection = opened
    connection.pnl.keep([("DUSIM0001", 920000001)])
    connection.pnl.restored()  # with each attempt the next request is later
    assert [subscription.attempts for subscription in connection.pnl._all.values()] == [0]


async def test_each_answer_has_the_commissions_of_the_executions(opened):
    sim, connection = opened
    sim.fill("DUSIM0001", 921000001, -2.0, price=1.5)
    for _ in range(2):
        ((one,), _begin, _end) = await connection.executions()
        assert one.quantity == 2.0
        assert one.commission == 1.3
        assert one.commission_currency == "USD"


async def test_beside_an_execution_that_cannot_be_read_the_absence_of_others_proves_nothing(
    opened, monkeypatch, caplog
):
    sim, connection = opened
    sim.fill("DUSIM0001", 921000001, -2.0)
    noon = datetime.now(UTC).replace(hour=12)  # no day of a gateway is about to begin
    monkeypatch.setattr(f"{connect.__module__}.utc_now", lambda: noon)
    answer = await connection.executions()
    assert len(answer.executions) == 1
    assert answer.begin < answer.end

    with monkeypatch.context() as patched:
        patched.setattr(Contract, "multiplier_text", "?")
        answer = await connection.executions()
    assert answer.executions == []
    assert answer.begin == answer.end
    sim.execution_times("Time of Mars", "Asia/Shanghai")
    answer = await connection.executions()
    assert answer.executions == []
    assert answer.begin == answer.end
    assert "the time zone 'Time of Mars' is not known. Choose another time zone" in caplog.text


@pytest.mark.parametrize(
    ("zone", "clock"),
    [
        (None, "UTC"),
        ("IST", "Asia/Kolkata"),
        ("JST", "Asia/Tokyo"),
        ("China Standard Time", "Asia/Shanghai"),
        ("EST", "America/New_York"),
        ("Central European Standard Time", "Europe/Berlin"),
        ("US/Central (Chicago)", "America/Chicago"),
    ],
)
async def test_an_execution_is_read_in_the_zone_that_its_gateway_names(
    connected, set_zone, zone, clock
):
    set_zone("America/Chicago")  # of this machine: it says nothing of the gateway's
    sim, connection = await connected()
    sim.fill("DUSIM0001", 921000001, -2.0)
    (known,) = (await connection.executions()).executions
    sim.execution_times(zone, clock)
    (read,) = (await connection.executions()).executions
    assert read.time == known.time


@pytest.mark.parametrize(
    ("written", "clock", "zone"),
    [
        ("instrument", "UTC", None),
        ("utc", "UTC", None),
        ("login", "Asia/Shanghai", None),
        ("login", "Asia/Shanghai", "China Standard Time"),
        ("login", "Asia/Dubai", None),
        ("login", "Pacific/Honolulu", None),
    ],
)
async def test_a_last_trade_is_that_of_the_instrument_however_the_gateway_writes_it(
    opened, written, clock, zone
):
    sim, connection = opened
    conids = [921000001, 921000006]
    known = await connection.details(conids)
    sim.last_trade_times(written, clock, zone)
    read = await connection.details(conids)
    assert known.keys() == set(conids)
    for conid, details in read.items():
        assert details.trading_hours == known[conid].trading_hours
        assert replace(details, seen_at=known[conid].seen_at) == known[conid]


async def test_a_last_trade_in_an_unknown_zone_has_the_day_of_the_expiry_and_no_time(
    opened, caplog
):
    sim, connection = opened
    (known,) = (await connection.details([921000001])).values()
    sim.last_trade_times("login", "Asia/Shanghai", "Time of Mars")
    (read,) = (await connection.details([921000001])).values()
    assert read.last_trade_date == known.expires_on
    assert read.last_trade_time is None
    assert read.trading_hours == known.trading_hours
    assert "is in the time zone 'Time of Mars', which is not known" in caplog.text


async def test_a_future_that_is_named_by_its_month_alone_expires_on_a_day(connected):
    book = load_book("small")
    future = replace(book.contracts[920000002], is_named_by_month=True)
    book = replace(book, contracts={**book.contracts, future.conid: future})
    _sim, connection = await connected(book)
    await connection.feed.snapshot()
    assert connection.feed.book.get(("DUSIM0002", future.conid)).instrument.expiry is None
    (details,) = (await connection.details([future.conid])).values()
    assert details.last_trade_date is None
    assert details.expires_on == parse_expiry(future.expiry)


@pytest.mark.parametrize(("at", "text"), [(3, "0"), (14, ""), (16, ""), (19, "nan"), (19, "1e999")])
async def test_an_execution_without_a_usable_name_or_quantity_is_left_out_like_an_unreadable_one(
    opened, monkeypatch, at, text
):
    sim, connection = opened
    sim.fill("DUSIM0001", 921000001, -2.0)
    handlers = connection.ib.client.decoder.handlers
    usual = handlers[11]
    monkeypatch.setitem(handlers, 11, lambda fields: usual([*fields[:at], text, *fields[at + 1 :]]))
    answer = await connection.executions()
    assert answer.executions == []
    assert answer.begin == answer.end


@pytest.mark.parametrize("fault", ["unreadable", "an error"])
async def test_no_contract_is_chosen_from_a_part_of_the_answer(opened, monkeypatch, fault):
    _sim, connection = opened
    decoder = connection.ib.client.decoder
    faulty = set()
    usual = decoder.handlers[10]

    def read(fields):
        if fields[12] not in faulty:
            usual(fields)
        elif fault == "an error":
            decoder.interpret(["4", "2", fields[1], "322", "Error processing request.", ""])
        else:
            raise ValueError("unreadable")

    monkeypatch.setitem(decoder.handlers, 10, read)
    wanted = dict(symbol="AAPL", right="CALL", strike=240, expiry="20281215", strategy_id="s")
    leg = replace(make_leg(**wanted, added_at=datetime.now(UTC)), strike=None)
    contracts = await connection.candidates(leg)
    assert len(contracts) > 1
    faulty.add(str(contracts[1].conid))
    assert await connection.candidates(leg) is None


async def test_an_answer_of_after_midnight_says_nothing_of_the_day_before(opened, monkeypatch):
    _sim, connection = opened
    midnight = datetime(2026, 3, 20, 4, tzinfo=UTC)
    now = iter([midnight - timedelta(seconds=1), midnight + timedelta(seconds=1)])
    monkeypatch.setattr(f"{connect.__module__}.utc_now", lambda: next(now))
    answer = await connection.executions()
    assert answer.begin == midnight
    assert answer.end == midnight - timedelta(seconds=1)


async def test_an_answer_says_nothing_of_a_day_that_is_over_by_the_clock_of_the_gateway(
    opened, monkeypatch
):
    sim, connection = opened
    sim.fill("DUSIM0001", 921000001, -2.0)
    sim.reset_day()  # its midnight
    midnight = datetime(2026, 3, 20, 4, tzinfo=UTC)
    now = midnight - timedelta(seconds=30)
    monkeypatch.setattr(f"{connect.__module__}.utc_now", lambda: now)
    assert await connection.executions() == ([], midnight, now)


async def test_a_large_multiplier_is_requested_and_named_with_all_its_digits(opened, monkeypatch):
    _sim, connection = opened
    asked = []

    async def answer(pattern):
        asked.append(pattern.multiplier)
        return []

    monkeypatch.setattr(connection.ib, "reqContractDetailsAsync", answer)
    terms = dict(symbol="JPY", expiry="20261214", multiplier=12_500_000, strategy_id="yen")
    yen = make_leg(**terms, added_at=datetime.now(UTC))
    await connection.candidates(yen)
    assert asked == ["12500000"]
    assert yen.described == "JPY 2026-12-14 multiplier 12500000"
