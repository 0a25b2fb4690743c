"""Market data lines: we count them as the gateway does, and learn why it refuses one."""

import asyncio
from typing import Any

import pytest

from ib_gateway_simulator.gateway.reference_data import ReferenceDataService
from ib_gateway_simulator.protocol import contract_messages
from position_sync_dagster.domain.leg import UnresolvedLeg
from position_sync_dagster.gateway.ib_async_internals import request_id_of
from position_sync_dagster.gateway.translate import streamable

CALL, PUT, WORTHLESS, CENTS = range(921000001, 921000005)
STOCK = 920000001
FUTURE = 920000002
ALL = (CALL, PUT, WORTHLESS, CENTS, FUTURE, STOCK)


@pytest.fixture
async def line(opened):
    """A simulator, a connection and the details of some contracts."""
    sim, connection = opened
    return sim, connection, await connection.details([*ALL, 999])


@pytest.fixture
def refusals(line):
    """The refusals of the connection's lines."""
    lines_read: list[Any] = []
    line[1].lines.on_refusal.append(lines_read.append)
    return lines_read


async def test_only_a_gateway_that_has_ib_and_says_so_does_not_know_a_contract(connected):
    sim, connection = await connected(gateway_timeout_s=2.0)
    sim.contract_details(CALL)
    assert await connection.details([CALL, 998]) == {}
    assert connection.unknown == {998}
    sim.connectivity("lost")
    await connection.details([998])
    assert connection.unknown == set()
    sim.contract_details(CALL, answered=True)
    assert (await connection.details([CALL])).keys() == {CALL}


async def test_details_are_known_for_every_kind_of_contract_but_not_for_an_unknown_one(line):
    _sim, _connection, details = line
    assert set(details) == set(ALL)
    assert details[CENTS].price_magnifier == 100
    assert details[CENTS].multiplier == 5000.0
    assert details[STOCK].multiplier == 1.0
    assert details[STOCK].right is None
    assert details[FUTURE].exchange == "CME"


async def test_details_of_an_algo_venue_are_taken_only_where_there_are_no_others(
    connected, monkeypatch
):
    def at_each_venue(service, client, request):
        [contract] = request.contract.find(service._book.contracts.values())
        for venue in ("QBALGO", "CME") if contract.conid == FUTURE else ("QBALGO",):
            row = (request.req_id, contract, venue, "", "", service._last_trade(contract))
            client.send(contract_messages.contract_details(*row))
        client.send(contract_messages.contract_details_end(request.req_id))

    monkeypatch.setattr(ReferenceDataService, "details", at_each_venue)
    _sim, connection = await connected()
    details = await connection.details([FUTURE, CENTS])
    assert details[FUTURE].exchange == "CME"
    assert details[CENTS].exchange == "QBALGO"
    assert streamable(details[FUTURE]).exchange == "CME"

    future = details[FUTURE]
    leg = UnresolvedLeg(None, future.symbol, None, None, future.expiry, "s", sec_type="FUT")
    (named,) = await connection.candidates(leg)
    assert (named.conid, named.exchange) == (FUTURE, "CME"), "each contract once"


async def test_every_kind_of_contract_streams_on_one_line_each(line, eventually):
    sim, connection, details = line
    for conid in ALL:
        connection.lines.subscribe(details[conid])

    quoted = set(ALL) - {WORTHLESS}
    quote_of = connection.lines.quote
    await eventually(lambda: all(quote_of(conid).mark is not None for conid in quoted))
    assert connection.lines.in_use == sim.stats()["lines_in_use"] == len(ALL)
    await eventually(lambda: connection.lines.quote(WORTHLESS).ask == 0.05)
    assert connection.lines.quote(WORTHLESS).bid is None

    quote = connection.lines.quote(CALL)
    assert quote.bid <= quote.ask
    assert 0 < quote.delta < 1
    assert quote.mark_time is not None
    assert quote.market_data_type == 1


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_mark_of_zero_is_a_mark(line, eventually, is_first):
    sim, connection, details = line
    if is_first:
        sim.pin_quote(CALL, ask=0.05, mark=0.0)
        sim.step()
    connection.lines.subscribe(details[CALL])
    await eventually(lambda: connection.lines.quote(CALL).mark is not None)
    before = connection.lines.quote(CALL).mark_time
    sim.pin_quote(CALL, ask=0.05, mark=0.0)
    await eventually(lambda: connection.lines.quote(CALL).mark == 0.0)
    assert is_first or connection.lines.quote(CALL).mark_time > before


async def test_a_contract_that_has_a_line_gets_no_second_one(line, eventually):
    sim, connection, details = line
    connection.lines.subscribe(details[CALL])
    connection.lines.subscribe(details[CALL])
    await eventually(lambda: sim.stats()["lines_in_use"] == 1)
    connection.lines.cancel(CALL)
    connection.lines.cancel(CALL)
    assert connection.lines.in_use == 0
    await eventually(lambda: sim.stats()["lines_in_use"] == 0)
    assert sim.stats()["peak_lines"] == 1


async def test_a_request_that_reaches_the_gateway_after_its_data_was_lost_has_one_line(
    line, eventually
):
    sim, connection, details = line
    connection.lines.subscribe(details[PUT])
    await eventually(lambda: connection.lines.quote(PUT).mark is not None)
    connection.lines.subscribe(details[CALL])
    # Before the gateway reads the request:
    sim.connectivity("lost")
    sim.connectivity("restored_data_lost")
    await eventually(lambda: sim.stats()["requests"]["17"]["reqMktData"] == 4)
    await eventually(lambda: connection.lines.quote(CALL).mark is not None)
    assert sim.stats()["lines_by_conid"] == {str(CALL): 1, str(PUT): 1}


async def test_the_line_too_many_is_refused_while_the_others_go_on(line, refusals, eventually):
    sim, connection, details = line
    sim.set_line_limit(2)
    seen = set()
    for conid in (CALL, PUT, STOCK):
        connection.lines.subscribe(details[conid])
    await eventually(lambda: refusals)
    assert [(r.conid, r.code) for r in refusals] == [(STOCK, 101)]
    assert connection.lines.in_use == 2
    ticked = connection.lines.ticked.watch()

    def saw_both() -> bool:
        seen.update(ticked.take())
        return {CALL, PUT} <= seen

    await eventually(saw_both)


@pytest.mark.parametrize("code", [354, 10089, 10168, 10197])
async def test_a_contract_without_permission_frees_its_line(line, refusals, eventually, code):
    sim, connection, details = line
    sim.set_permission(CALL, code)
    connection.lines.subscribe(details[CALL])
    await eventually(lambda: refusals)
    assert refusals[0].code == code
    assert refusals[0].market_data_type == 1
    assert connection.lines.in_use == 0
    assert sim.stats()["lines_in_use"] == 0


@pytest.mark.parametrize(("code", "asked", "given"), [(10090, 1, 1), (10091, 1, 1), (10167, 3, 3)])
async def test_an_advisory_code_frees_no_line_and_ticks_follow_it(
    line, refusals, eventually, code, asked, given
):
    sim, connection, details = line
    sim.set_permission(CALL, code)
    heard = []
    connection.ib.errorEvent += lambda _request, code, *_more: heard.append(code)
    connection.lines.subscribe(details[CALL], delayed=asked == 3)
    await eventually(lambda: code in heard)
    await eventually(lambda: connection.lines.quote(CALL).bid is not None)
    assert connection.lines.quote(CALL).market_data_type == given
    assert refusals == []
    assert connection.lines.in_use == 1
    assert sim.stats()["lines_in_use"] == 1


async def test_a_code_that_nobody_knows_frees_no_line(line, refusals, eventually):
    sim, connection, details = line
    sim.answer_line(CALL, 10999, ticking=True)
    connection.lines.subscribe(details[CALL])
    await eventually(lambda: connection.lines.quote(CALL).mark is not None)
    sim.send_error(10998, "later", req_id=_request_of(connection, details[CALL]))
    await asyncio.sleep(0.3)  # what must not happen cannot be waited for
    assert refusals == []
    assert connection.lines.in_use == 1
    assert sim.stats()["lines_in_use"] == 1


async def test_a_line_turns_from_delayed_to_live_data_without_a_second_one_or_old_prices(
    line, eventually
):
    sim, connection, details = line
    sim.set_permission(CALL, 354)
    connection.lines.subscribe(details[CALL], delayed=True)
    await eventually(lambda: connection.lines.quote(CALL).bid is not None)
    assert connection.lines.quote(CALL).market_data_type == 3
    sim.set_permission(CALL, None)
    connection.lines.switch(CALL)
    assert connection.lines.quote(CALL).bid is None
    assert connection.lines.quote(CALL).mark is None
    assert connection.lines.quote(CALL).received_at is None
    await eventually(lambda: connection.lines.quote(CALL).mark is not None)
    assert connection.lines.quote(CALL).market_data_type == 1
    assert connection.lines.in_use == 1
    assert sim.stats()["lines_in_use"] == 1
    assert sim.stats()["peak_lines"] == 1
    connection.lines.switch(PUT)
    assert connection.lines.in_use == 1


async def test_a_line_that_the_gateway_does_not_know_does_not_count(line, refusals, eventually):
    sim, connection, details = line
    for conid in (CALL, PUT):
        connection.lines.subscribe(details[conid])
    await eventually(lambda: sim.stats()["lines_in_use"] == 2)
    request_id = _request_of(connection, details[CALL])
    sim.send_error(300, "Can't find EId with tickerId", req_id=request_id)
    await eventually(lambda: refusals)
    assert [(r.conid, r.code) for r in refusals] == [(CALL, 300)]
    assert connection.lines.in_use == 1
    assert connection.lines.quote(CALL) is None


async def test_a_second_cancel_is_answered_by_300_and_changes_no_count(line, eventually):
    sim, connection, details = line
    heard = []
    connection.ib.errorEvent += lambda _request, code, *_more: heard.append(code)
    for conid in (CALL, PUT):
        connection.lines.subscribe(details[conid])
    await eventually(lambda: sim.stats()["lines_in_use"] == 2)
    request_id = _request_of(connection, details[CALL])
    connection.lines.cancel(CALL)
    connection.ib.client.cancelMktData(request_id)
    await eventually(lambda: 300 in heard)
    assert connection.lines.in_use == 1
    assert sim.stats()["lines_in_use"] == 1
    connection.lines.subscribe(details[CALL])
    await eventually(lambda: connection.lines.quote(CALL).mark is not None)
    assert connection.lines.in_use == 2
    assert sim.stats()["lines_in_use"] == 2


def _request_of(connection, details):
    return request_id_of(connection.ib, connection.ib.ticker(streamable(details)))
