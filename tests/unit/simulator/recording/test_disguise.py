"""What is written of each message: known layouts with pseudonyms, of others nothing."""

from random import Random

import pytest

from ib_gateway_simulator.protocol.message_ids import NAMES
from ib_gateway_simulator.recording.disguise import ENDS_OF_ORDER_LISTS, REPORTS_OF_ORDERS, Disguise
from ib_gateway_simulator.recording.pseudonyms import Pseudonyms

ACCOUNT = "U1234567"


@pytest.fixture
def disguise():
    return Disguise(Pseudonyms(Random(1)))


@pytest.mark.parametrize(
    "fields",
    [("203", ACCOUNT), ("62", "1", "7", "Group", "Tags", "more"), ("6", "2", "1"), ("7", "3")],
)
def test_nothing_is_written_of_a_request_whose_layout_is_not_known(disguise, fields):
    assert disguise.request(fields) is None


@pytest.mark.parametrize(
    "fields", [("16", "1", ACCOUNT), ("250", "x"), ("6", "2", "Owners", "x", "", ACCOUNT, "more")]
)
def test_nothing_is_written_of_a_message_whose_layout_is_not_known(disguise, fields):
    assert disguise.message(fields) is None


def test_requests_of_an_account_name_its_pseudonym(disguise):
    assert disguise.request(("6", "2", "1", ACCOUNT)) == ("6", "2", "1", "DUSIM0001")
    assert disguise.request(("92", "33", ACCOUNT, "Income")) == ("92", "33", "DUSIM0001", "MODEL1")
    assert disguise.request(("71", "2", "5", "secret")) == ("71", "2", "5", "")
    assert disguise.request(("62", "1", "7", "All", "Tags"))[3] == "All"
    assert disguise.request(("62", "1", "7", "Growth", "Tags"))[3] == "GROUP1"


def test_texts_of_an_account_are_left_out_and_its_amounts_scaled(disguise):
    def value(tag, text):
        return disguise.message(("6", "2", tag, text, "USD", ACCOUNT))[3]

    assert value("Owners", "Marion Holder") == ""
    assert float(value("NetLiquidation", "1000.00")) >= 2000
    assert value("Currency", "USD") == "USD"
    assert value("ExchangeRate", "1.08") == "1.08"
    assert value("AccountCode", ACCOUNT) == "DUSIM0001"


def test_profits_belong_to_the_holding_that_was_asked_for(disguise):
    disguise.request(("94", "5", ACCOUNT, "", "77"))
    row = disguise.message(("95", "5", "3", "10.00", "20.00", "30.00", "40.00"))
    ratio = float(row[2]) / 3
    assert float(row[6]) == pytest.approx(40 * ratio, abs=0.01)


def test_an_error_keeps_its_words_and_digits_only_where_its_text_is_published(disguise):
    published = (
        "Unable to connect as the client id is already in use. Retry with a unique client id."
    )
    assert disguise.message(("4", "2", "-1", "326", published, "{json}"))[4] == published
    text = f"{ACCOUNT} (No 7654321) lost line 7"
    known = disguise.message(("4", "2", "-1", "321", text, "{json}"))
    assert known == ("4", "2", "-1", "321", "DUSIM0001 (No 0000000) lost line 0", "")
    other = disguise.message(("4", "2", "-1", "201", "needs 2,500 USD", ""))
    assert other[4] == "needs 0,000 USD"


def test_an_account_is_replaced_also_where_the_layout_has_none(disguise):
    disguise.message(("15", "1", f"{ACCOUNT},U7654321"))
    assert disguise.message(("46", "6", "5", "62", f"about {ACCOUNT}"))[4] == "about DUSIM0001"


def test_lists_of_orders_have_their_ends():
    ends = {NAMES[kind] for kind in ENDS_OF_ORDER_LISTS}
    assert ends == {"openOrderEnd", "execDetailsEnd", "completedOrdersEnd"}
    assert not REPORTS_OF_ORDERS & ENDS_OF_ORDER_LISTS
