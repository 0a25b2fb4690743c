"""Books: the shipped ones, how chains become contracts, and how errors name their place."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from ib_gateway_simulator import BookError, load_book
from ib_gateway_simulator.books.dates import dated
from ib_gateway_simulator.books.loader import BOOKS
from ib_gateway_simulator.control.scenario import load_scenario
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.contract import ContractQuery, SecType

GOOD = """\
as_of: 2028-06-01
accounts:
  - {name: DUSIM0001, cash: 1000}
underlyings:
  - {symbol: AAPL, conid: 1, price: 200, volatility: 0.3}
chains:
  - name: aapl
    underlying: AAPL
    first_conid: 100
    expiries: [20281215, 20290119]
    strikes: {start: 190, stop: 210, step: 10}
positions:
  - {account: DUSIM0001, chain: aapl, quantities: [1, -2]}
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_demo_book_has_200_option_legs_in_one_account():
    book = load_book("demo")
    assert [account.name for account in book.accounts] == ["DUSIM0001"]
    assert len(book.openings) == 200
    held = [book.contracts[opening.conid] for opening in book.openings]
    assert {contract.sec_type for contract in held} == {SecType.OPT}
    assert {contract.right for contract in held} == {"C", "P"}
    assert len({contract.symbol for contract in held}) == 5
    assert min(o.quantity for o in book.openings) < 0 < max(o.quantity for o in book.openings)
    assert all(opening.quantity for opening in book.openings)


def test_the_demo_book_expires_this_week_in_9_16_23_and_44_days_and_in_two_years():
    wednesday = date(2026, 3, 11)
    book = load_book("demo", wednesday)
    expiries = {book.contracts[opening.conid].expiry for opening in book.openings}
    days = [(date.fromisoformat(expiry) - wednesday).days for expiry in sorted(expiries)]
    assert days == [2, 9, 16, 23, 44, 1045]


def test_the_demo_strategies_hold_20_contracts_of_the_book_and_share_one():
    day = date(2026, 3, 11)
    book = load_book("demo", day)
    text = dated((BOOKS / "demo_strategies.yaml").read_text(), day)
    strategies = yaml.safe_load(text)["strategies"]
    held = {opening.conid: opening.quantity for opening in book.openings}
    listed = [leg for strategy in strategies for leg in strategy["legs"]]
    legs = [leg for leg in listed if leg["conid"] in held]
    conids = [leg["conid"] for leg in legs]
    assert len(set(conids)) == 20
    assert len(conids) == 21

    for leg in listed:
        contract = book.contracts[leg["conid"]]
        assert leg["symbol"] == contract.symbol
        assert {"CALL": "C", "PUT": "P"}[leg["right"]] == contract.right
        assert leg["strike"] == contract.strike
        assert leg["expiry"] == contract.expiry
        assert leg["account"] == "DUSIM0001"
    [shared] = {conid for conid in conids if conids.count(conid) == 2}
    shares = [leg["quantity"] for leg in legs if leg["conid"] == shared]
    assert sum(shares) == held[shared]


def test_a_chain_counts_conids_by_expiry_then_strike_then_right(tmp_path):
    book = load_book(write(tmp_path / "b.yaml", GOOD))
    chain = [book.contracts[conid] for conid in range(100, 112)]
    assert [(c.expiry[:4], c.strike, c.right) for c in chain[:5]] == [
        ("2028", 190, "C"),
        ("2028", 190, "P"),
        ("2028", 200, "C"),
        ("2028", 200, "P"),
        ("2028", 210, "C"),
    ]
    assert chain[6].expiry == "20290119"
    assert chain[0].local_symbol == "AAPL  281215C00190000"
    assert [o.quantity for o in book.openings] == [1, -2] * 6
    assert book.name == "b"


FUTURE = "symbol: F, conid: 9, price: 4, volatility: 0.2, sec_type: FUT, expiry: 20281215"
PAYS = f"underlyings:\n  - {{{FUTURE}, dividend_yield: 0.01}}\n"
CODES = "354, 10089, 10090, 10091, 10167, 10168, 10186, 10197, not 355"
END = "[1, -2]}\n"
ORDERS = END + "orders:\n  - {account: DUSIM0001, legs: {100: 1, 101: -1}}\n"
PERMISSIONS = END + "permissions:\n  - {conid: 100, code: 354}\n"

BAD = [
    ("underlyings:\n", PAYS, 5, 103, "underlyings[0].dividend_yield", "a future pays no dividends"),
    (END, PERMISSIONS.replace("354", "355"), 15, 24, "permissions[0].code", CODES),
    (END, ORDERS.replace("101", "1"), 15, 5, "orders[0]", "DUSIM0001 holds no conid 1"),
    ("DUSIM0001, cash", "U1234567, cash", 3, 12, "accounts[0].name", "starts with DUSIM"),
    ("price: 200", "price: -3", 5, 37, "underlyings[0].price", "greater than 0"),
    ("price: 200, ", "", 5, 5, "underlyings[0].price", "required and missing"),
    ("cash: 1000", "kash: 1000", 3, 29, "accounts[0].kash", "not known"),
    ("underlying: AAPL", "underlying: AAPPL", 8, 17, "chains[0].underlying", "no underlying AAPPL"),
    ("first_conid: 100", "first_conid: 1", 9, 18, "chains[0].first_conid", "conid 1 is used twice"),
    ("[20281215, 2", "[20281315, 2", 10, 16, "chains[0].expiries[0]", "YYYYMMDD"),
    ("chain: aapl", "chain: spy", 13, 33, "positions[0].chain", "no chain spy"),
    ("- {account: DUSIM0001", "- {account: DUSIM0002", 13, 15, "positions[0].account", "DUSIM0002"),
    ("chain: aapl, ", "conid: 99, ", 13, 33, "positions[0].conid", "conid 99"),
    ("quantities: [1, -2]", "quantities: [a]", 13, 52, "positions[0].quantities[0]", "number"),
    ("as_of: 2028-06-01", "as_of: soon", 1, 8, "as_of", "date"),
    ("stop: 210", "stop: 110", 11, 14, "chains[0].strikes", "goes upwards"),
    ("step: 10", "step: 0", 11, 44, "chains[0].strikes.step", "greater than 0"),
]


@pytest.mark.parametrize(("old", "new", "line", "column", "field", "cause"), BAD)
def test_a_bad_field_is_named_with_line_and_column(tmp_path, old, new, line, column, field, cause):
    assert old in GOOD
    path = write(tmp_path / "bad.yaml", GOOD.replace(old, new))
    with pytest.raises(BookError) as caught:
        load_book(path)
    problem = caught.value
    assert problem.line == line
    assert problem.column == column
    assert problem.field == field
    assert cause in problem.cause
    assert problem.remedy
    assert str(problem).startswith(f"{path}:{line}:{column}: {field}: ")


def test_orders_and_permissions_are_read(tmp_path):
    [order] = load_book(write(tmp_path / "a.yaml", GOOD.replace(END, ORDERS))).orders
    assert order.account == "DUSIM0001"
    assert order.legs == {100: 1, 101: -1}
    assert order.sessions_ago == 0
    past = ORDERS.replace("account: DUSIM0001, legs", "account: DUSIM0001, sessions_ago: 3, legs")
    [order] = load_book(write(tmp_path / "past.yaml", GOOD.replace(END, past))).orders
    assert order.sessions_ago == 3
    book = load_book(write(tmp_path / "b.yaml", GOOD.replace(END, PERMISSIONS)))
    assert book.permissions == {100: Code.NOT_SUBSCRIBED}


NEGATIVE = "- {at_s: 1, do: pause}\n- {at_s: -1, do: pause}\n"
BAD_FILL = "- {at_s: 1, do: fill, account: DUSIM0001, conid: x, quantity: 1}\n"


@pytest.mark.parametrize(
    ("load", "text", "line", "column", "cause"),
    [
        (load_book, "accounts: [\n  {name: DUSIM0001\n", 3, 1, "malformed YAML"),
        (load_book, "as_of: 2028-06-01\n\tname: x\n", 2, 1, "malformed YAML"),
        (load_book, "as_of: 2028-06-01\nas_of: 2028-06-01\n", 2, 1, "twice"),
        (load_book, "as_of: 2028-13-45\n", 1, 1, "malformed YAML"),
        (load_book, "- a\n- b\n", 1, 1, ""),
        (load_book, "", 1, 1, ""),
        (load_scenario, "- {at_s: 1, do: dance}\n", 1, 17, "no action 'dance'"),
        (load_scenario, NEGATIVE, 2, 10, "greater than or equal to 0"),
        (load_scenario, BAD_FILL, 1, 50, "integer"),
        (load_scenario, "- {at_s: 1, do: line_limit, limits: 3}\n", 1, 3, "Field required"),
    ],
)
def test_a_malformed_file_is_named_with_line_and_column(tmp_path, load, text, line, column, cause):
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(BookError, match=r"bad\.yaml") as caught:
        load(path)
    assert caught.value.line == line
    assert caught.value.column == column
    assert cause in caught.value.cause


def test_a_missing_book_names_the_shipped_ones(tmp_path):
    with pytest.raises(BookError, match="use one of demo, small"):
        load_book("nosuch")
    with pytest.raises(BookError, match="cannot be read"):
        load_book(tmp_path / "nosuch.yaml")
    with pytest.raises(BookError):
        load_book("../demo")


def test_a_scenario_is_ordered_by_time(tmp_path):
    text = "- {at_s: 5, do: resume}\n- {at_s: 0.5, do: farm, farm: usfarm, code: 2104}\n"
    events = load_scenario(write(tmp_path / "s.yaml", text))
    assert [(event.at_s, event.do) for event in events] == [(0.5, "farm"), (5, "resume")]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"conid": 921000002}, {921000002}),
        ({"symbol": "AAPL", "sec_type": "OPT", "right": "PUT"}, {921000002, 921000003}),
        ({"symbol": "AAPL", "sec_type": "OPT", "expiry": "2029"}, {921000007}),
        ({"symbol": "AAPL", "strike": 240.0, "right": "C"}, {921000001}),
        ({"symbol": "AAPL", "sec_type": "STK", "right": "?"}, {920000001}),
        ({"local_symbol": "AAPL 281215C00240000"}, {921000001}),
        ({"symbol": "AAPL", "currency": "EUR"}, set()),
        ({"symbol": "AAPL", "multiplier": "10", "sec_type": "OPT"}, set()),
        ({"symbol": "SPX", "trading_class": "SPXW"}, {921000006}),
        ({}, set()),
    ],
)
def test_contracts_are_found_by_what_a_request_says(query, found):
    contracts = load_book("small").contracts.values()
    assert {c.conid for c in ContractQuery(**query).find(contracts)} == found  # type: ignore[arg-type]


def test_a_folder_with_the_name_of_a_book_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert load_book("demo") == load_book(BOOKS / "demo.yaml")
