"""Exchanges, algo venues and farms that a book names, as the real ib_async sees them."""

import asyncio

import pytest
from ib_async import IB, Contract

from ib_gateway_simulator import BookError, SimulatedGateway, load_book
from tests.support.waiting import DEADLINE_S

FUTURE, CBOE_CALL, FIRST_OF_CHAIN = 920000002, 921000001, 922000001

BOOK = """
as_of: 2028-06-01
accounts: [{name: DUSIM0001}]
underlyings:
  - {symbol: AAPL, conid: 920000001, price: 230, volatility: 0.28}
  - {symbol: ES, conid: 920000002, price: 6500, volatility: 0.18, exchange: CME, sec_type: FUT,
     expiry: 20281215, multiplier: 50, algo_venues: [QBALGO], farm: usfuture.nj}
contracts:
  - {conid: 921000001, underlying: AAPL, sec_type: OPT, expiry: 20281215, strike: 240, right: C,
     exchanges: [CBOE], farm: usfarm.nj}
chains:
  - {name: ES, underlying: ES, first_conid: 922000001, sec_type: FOP, expiries: [20281215],
     strikes: [6400], multiplier: 50, exchange: CME, algo_venues: [QBALGO, JEFFALGO]}
"""


@pytest.fixture
def venues(tmp_path):
    path = tmp_path / "venues.yaml"
    path.write_text(BOOK)
    return load_book(path)


async def details_of(ib: IB, contract: Contract) -> list[tuple[str, str]]:
    found = await asyncio.wait_for(ib.reqContractDetailsAsync(contract), DEADLINE_S)
    return [(details.contract.exchange, details.validExchanges) for details in found]


async def test_algo_venues_are_among_several_contract_details(venues, connect_ib):
    async with SimulatedGateway(venues) as sim:
        ib = await connect_ib(sim)
        assert await details_of(ib, Contract(conId=FUTURE)) == [
            ("QBALGO", "CME,QBALGO"),
            ("CME", "CME,QBALGO"),
        ]
        chain = await details_of(ib, Contract(conId=FIRST_OF_CHAIN))
        assert [exchange for exchange, _ in chain] == ["QBALGO", "JEFFALGO", "CME"]
        at_venue = await details_of(ib, Contract(conId=FUTURE, exchange="QBALGO"))
        assert at_venue == [("QBALGO", "CME,QBALGO")]


@pytest.mark.parametrize(
    ("conid", "good", "bad"), [(FUTURE, "CME", "QBALGO"), (CBOE_CALL, "CBOE", "SMART")]
)
async def test_market_data_come_from_a_listed_exchange_only(
    venues, connect_ib, eventually, conid, good, bad
):
    async with SimulatedGateway(venues) as sim:
        ib = await connect_ib(sim, listen=(errors := []))
        ib.reqMktData(Contract(conId=conid, exchange=bad))
        await eventually(lambda: 200 in [code for code, _ in errors])
        ticker = ib.reqMktData(Contract(conId=conid, exchange=good))
        await eventually(lambda: ticker.bid > 0)
        assert sim.stats()["lines_by_conid"] == {str(conid): 1}


async def test_a_farm_with_a_dot_is_not_the_one_before_the_dot(venues, connect_ib, eventually):
    async with SimulatedGateway(venues, autostep=False) as sim:
        ib = await connect_ib(sim, listen=(notices := []))
        await asyncio.wait_for(ib.reqCurrentTimeAsync(), DEADLINE_S)
        farms = [text.split(":")[1] for code, text in notices if code == 2104]
        assert farms == ["usfarm", "usfarm.nj", "usfuture", "usfuture.nj"]
        ticker = ib.reqMktData(Contract(conId=CBOE_CALL, exchange="CBOE"))
        await eventually(lambda: ticker.modelGreeks)
        before = ticker.modelGreeks
        sim.farm("usfarm")
        sim.step()
        await eventually(lambda: ticker.modelGreeks != before)
        sim.farm("usfarm.nj")
        await eventually(lambda: notices[-1] == (2103, notices[-1][1]))
        before = ticker.modelGreeks
        sim.step(5)
        await asyncio.wait_for(ib.reqCurrentTimeAsync(), DEADLINE_S)
        assert ticker.modelGreeks == before


def test_an_exchange_that_is_not_among_the_exchanges_is_a_mistake(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(BOOK.replace("exchanges: [CBOE]", "exchange: ISE, exchanges: [CBOE]"))
    with pytest.raises(BookError, match="ISE is not one of exchanges"):
        load_book(path)
