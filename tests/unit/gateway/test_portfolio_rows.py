"""Portfolio rows: what is read of them, and which are set aside."""

import pytest
from ib_async import IB

from position_sync_dagster.gateway import ib_async_internals
from position_sync_dagster.gateway.account_downloads import OddRows
from position_sync_dagster.gateway.codes import MessageType
from position_sync_dagster.gateway.translate import PortfolioValues, portfolio_row_of

TERMS = [
    "921000001",
    "SPY",
    "OPT",
    "20281215",
    "550.5",
    "C",
    "100",
    "SMART",
    "USD",
    "SPY C",
    "2SPY",
]
OPTION = ["7", "8", *TERMS, "-2.0", "1.5", "-300.0", "151.25", "2.5", "0.0", "DU1"]
NAMES = ["5", "SPY", "STK", "", "", "", "", "", "USD", "SPY", "SPY"]
STOCK = ["7", "8", *NAMES, "10", "1.5", "15", "1.25", "nan", "1.7976931348623157E308", "DU1"]

SHARE = ["17382246", "000660", "STK", "", "0", "", "", "KRX", "KRW", "000660.KS", "000660"]
VALUES = ["4", "1941000.0", "7764000.0", "2228000.0", "-1148000.0", "0.0"]
# Source: ibkr-go, account_updates.txt, with another account.
RECORDED = ["7", "8", *SHARE, *VALUES, "DU1"]


class Feed:
    """Collects the rows of two accounts, and which accounts had one set aside or accepted again."""

    def __init__(self):
        self.rows, self.changed = [], []
        self.odd = OddRows(("DU1", "DU2"), on_change=self.changed.append)
        ib = IB()
        ib_async_internals.deliver_portfolio(
            ib, lambda *sent: self.rows.append(portfolio_row_of(*sent))
        )
        ib_async_internals.filter_rows(ib, self.odd.accepts, self.odd.set_aside, lambda: None)
        self.read = ib.client.decoder.handlers[MessageType.PORTFOLIO_VALUE]


@pytest.fixture
def feed():
    return Feed()


def changed(fields, place, value):
    return [value if i == place % len(fields) else text for i, text in enumerate(fields)]


async def test_a_row_has_what_is_held_and_the_values_that_the_broker_knows(feed):
    for fields in (OPTION, STOCK, RECORDED):
        feed.read(fields)
    option, stock, recorded = feed.rows
    assert (option.key, option.position) == (("DU1", 921000001), -2.0)
    assert option.values == PortfolioValues(
        market_price=1.5,
        market_value=-300.0,
        average_cost=151.25,
        unrealized_pnl=2.5,
        realized_pnl=0.0,
    )
    assert (option.instrument.strike, option.instrument.multiplier) == (550.5, 100.0)
    assert (stock.values["unrealized_pnl"], stock.values["realized_pnl"]) == (None, None)
    assert (recorded.position, recorded.instrument.exchange) == (4.0, "KRX")


@pytest.mark.parametrize("known_before", [True, False])
@pytest.mark.parametrize(
    ("place", "text", "why"),
    [
        (-7, "nan", "quantity 'nan'"),
        (-6, "x", "cannot be read"),
        (2, "0", "conid '0'"),
        (8, "", "multiplier ''"),
    ],
)
async def test_an_odd_row_is_set_aside_until_a_usable_one_comes(
    feed, known_before, place, text, why
):
    if known_before:
        feed.read(OPTION)
    rows = len(feed.rows)
    feed.read(changed(OPTION, place, text))
    assert (len(feed.rows), feed.changed) == (rows, ["DU1"])
    assert why in feed.odd.problem()
    feed.read(STOCK)
    assert (len(feed.rows), feed.changed) == (rows + 1, ["DU1"])
    feed.read(OPTION)
    same_conid = place != 2
    assert len(feed.rows) == rows + 2
    assert (bool(feed.odd.reasons), len(feed.changed)) == (not same_conid, 2 if same_conid else 1)


@pytest.mark.parametrize("row", [OPTION[:-1], [*OPTION, "DU1"], changed(OPTION, 6, "x")])
async def test_a_row_of_another_form_is_set_aside(feed, row):
    feed.read(OPTION)
    feed.read(row)
    assert len(feed.rows) == 1
    assert feed.odd.reasons


@pytest.mark.parametrize("fields", [["7"], ["7", "8", *TERMS]])
async def test_what_is_no_whole_row_is_left_to_ib_async(feed, fields):
    with pytest.raises(ValueError, match="unpack"):
        feed.read(fields)
    assert (feed.rows, bool(feed.odd.reasons)) == ([], False)
