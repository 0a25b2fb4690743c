"""What stands for names and numbers: always the same, and never the secret itself."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ib_gateway_simulator.recording.pseudonyms import UNREADABLE, Pseudonyms, scaled


@pytest.fixture
def names():
    return Pseudonyms(Random(1))


def test_accounts_are_numbered_by_their_first_appearance(names):
    given = ["U1234567", "U7654321", "U1234567", "All", ""]
    numbered = ["DUSIM0001", "DUSIM0002", "DUSIM0001", "All", ""]
    assert [names.account(name) for name in given] == numbered


def test_models_and_groups_are_numbered_each_for_themselves(names):
    assert names.name("MODEL", "Income") == "MODEL1"
    assert names.name("GROUP", "Income") == "GROUP1"
    assert names.name("MODEL", "Growth") == "MODEL2"
    assert names.name("MODEL", "Income") == "MODEL1"
    assert names.name("MODEL", "") == ""


def test_an_account_in_a_text_is_replaced_even_if_it_was_never_seen(names):
    assert names.text("no data for U1234567 and du99999") == "no data for DUSIM0001 and DUSIM0002"
    assert names.known_in("U1234567/5") == "DUSIM0001/5"
    assert names.known_in("U7777777") == "U7777777"


def test_the_longer_one_of_two_accounts_is_replaced_as_a_whole(names):
    names.account("U123456")
    names.account("U1234567")
    assert names.known_in("U1234567 U123456") == "DUSIM0002 DUSIM0001"


@given(st.integers(1, 10**9), st.sampled_from([1, -1]))
def test_a_quantity_keeps_its_sign_and_nothing_of_its_size(size, sign):
    names = Pseudonyms(Random(3))
    written = names.quantity("A", "1", str(sign * size))
    assert float(written) * sign >= 2 * size
    assert written == names.quantity("A", "1", str(sign * size))


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=20, unique=True))
def test_different_quantities_of_a_holding_stay_different(sizes):
    names = Pseudonyms(Random(3))
    written = {names.quantity("A", "1", str(size)) for size in sizes}
    assert len(written) == len(sizes)


@pytest.mark.parametrize(
    ("text", "written"),
    [("0", "0"), ("", ""), ("inf", "inf"), ("1.7976931348623157E308", "1.7976931348623157E308"),
     ("many", UNREADABLE), ("0.0000000001", UNREADABLE)],
)  # fmt: skip
def test_a_quantity_that_says_nothing_stays_and_what_is_none_goes(names, text, written):
    assert names.quantity("A", "1", text) == written


def test_amounts_of_a_holding_grow_as_its_quantity_did(names):
    ratio = float(names.quantity("A", "1", "7")) / 7
    assert float(names.of_holding("A", "1", "7", "100.00")) == pytest.approx(100 * ratio, abs=0.01)
    assert names.of_holding("A", "1", "7", "a name") == UNREADABLE
    closed = float(names.of_holding("A", "1", "0", "100.00"))  # its factor, without a quantity
    assert closed >= 200


def test_holdings_and_accounts_have_factors_of_their_own(names):
    amounts = {names.of_account(account, "1000.00") for account in ("A", "B")}
    amounts |= {names.of_holding("A", conid, "x", "1000.00") for conid in ("1", "2")}
    assert len(amounts) == 4


def test_amounts_stay_where_quantities_are_kept():
    names = Pseudonyms(Random(1), keep_quantities=True)
    assert names.quantity("A", "1", "7") == "7"
    assert names.of_holding("A", "1", "7", "1.5") == "1.5"
    assert names.of_account("A", "1.5") == "1.5"
    assert names.account("U1234567") == "DUSIM0001"


def test_an_amount_without_a_value_stays():
    texts = ["", "0", "NaN", "1.7976931348623157E308"]
    assert [scaled(text, 3.0) for text in texts] == texts
