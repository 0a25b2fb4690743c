"""Portfolio rows: read as ib_async reads them, and set aside where they cannot be used."""

import pytest
from ib_async import IB

from position_sync_dagster.gateway.account_downloads import (
    OddRows,
    PortfolioRow,
    read_portfolio_rows,
)
from position_sync_dagster.gateway.codes import MessageType
from position_sync_dagster.gateway.translate import PortfolioValues, instrument_of, known

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
        read_portfolio_rows(ib, self.odd, on_row=self.rows.append)
        self.read = ib.client.decoder.handlers[MessageType.PORTFOLIO_VALUE]


@pytest.fixture
def feed():
    return Feed()


def changed(fields, place, value):
    return [value if i == place % len(fields) else text for i, text in enumerate(fields)]


def as_ib_async_reads(fields):
    ib, found = IB(), []
    ib.updatePortfolioEvent += found.append
    ib.client.decoder.handlers[MessageType.PORTFOLIO_VALUE](list(fields))
    [row] = found
    values = PortfolioValues(
        average_cost=known(row.averageCost),
        market_price=known(row.marketPrice),
        market_value=known(row.marketValue),
        unrealized_pnl=known(row.unrealizedPNL),
        realized_pnl=known(row.realizedPNL),
    )
    key = (row.account, row.contract.conId)
    return PortfolioRow(key, instrument_of(row.contract), row.position, values)


@pytest.mark.parametrize("row", [OPTION, STOCK, RECORDED])
async def test_a_row_is_read_as_ib_async_reads_it_the_first_time_and_later(feed, row):
    later = changed(changed(row, -6, "1.75"), -7, "3")
    of_the_other = changed(later, -1, "DU2")
    sent = [row, row, later, of_the_other]
    for fields in sent:
        feed.read(fields)
    assert feed.rows == [as_ib_async_reads(fields) for fields in sent]
    assert (feed.rows[2].position, feed.rows[2].values["market_price"]) == (3.0, 1.75)
    assert feed.rows[3].key[0] == "DU2"


@pytest.mark.parametrize("known_before", [True, False])
@pytest.mark.parametrize(
    ("place", "text", "why"),
    [
        (-7, "nan", "quantity 'nan'"),
        (-7, "", "quantity ''"),
        (-7, "1.7976931348623157E308", "quantity '1.7976931348623157E308'"),
        (-7, "x", "quantity 'x'"),
        (-6, "x", "cannot be read"),
        (-6, "", "cannot be read"),
        (2, "0", "conid '0'"),
        (8, "", "multiplier ''"),
        (3, " ", "no symbol"),
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


async def test_a_row_of_an_account_of_another_login_is_set_aside(feed):
    feed.read(OPTION)
    feed.read(changed(OPTION, -1, "DU9"))
    assert (len(feed.rows), feed.changed) == (1, [])
    assert "an account of another login" in feed.odd.problem()


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
