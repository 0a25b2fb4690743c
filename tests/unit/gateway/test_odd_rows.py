"""Which rows of holdings are set aside, and why."""

import pytest

from position_sync_dagster.gateway.account_downloads import OddRows, key_as_sent, oddness
from position_sync_dagster.gateway.ib_async_internals import RowFields

ACCOUNTS = ("DU1",)


@pytest.mark.parametrize(
    ("account", "conid", "symbol", "position", "why"),
    [
        ("DU1", "7", "SPY", "-2.5", None),
        ("DU1", "2147483647", "SPY", "0", None),
        ("", "7", "SPY", "1", "no account"),
        ("DU9", "7", "SPY", "1", "an account of another login"),
        ("DU1", "0", "SPY", "1", "conid '0'"),
        ("DU1", "-7", "SPY", "1", "conid '-7'"),
        ("DU1", "", "SPY", "1", "conid ''"),
        ("DU1", "7", "  ", "1", "no symbol"),
        ("DU1", "7", "SPY", "", "quantity ''"),
        ("DU1", "7", "SPY", "nan", "quantity 'nan'"),
        ("DU1", "7", "SPY", "1.7976931348623157E308", "quantity '1.7976931348623157E308'"),
    ],
)
def test_a_row_is_odd_for_a_reason(account, conid, symbol, position, why):
    row = RowFields(account, conid, symbol, "OPT", "100", position)
    assert oddness(row, ACCOUNTS) == why


@pytest.mark.parametrize("multiplier", ["", "0", "-100", "x"])
def test_an_option_whose_multiplier_is_unknown_is_set_aside(multiplier):
    row = RowFields("DU1", "7", "SPY", "OPT", multiplier, "2")
    assert oddness(row, ACCOUNTS) == f"multiplier {multiplier!r} (OPT)"


def test_rows_that_are_set_aside_are_counted_and_the_first_are_named():
    changed = []
    rows = OddRows(ACCOUNTS, on_change=changed.append)
    assert rows.problem() is None
    for conid in range(1, 6):
        rows.set_aside("DU1", str(conid), "no symbol")
    assert rows.problem().startswith("5 holdings are set aside: conid 1 of DU1 (no symbol), ")
    assert rows.problem().endswith(" and 2 more")
    rows.reasons.clear()
    rows.set_aside("DU1", "5", "no symbol")
    assert rows.problem() == "1 holding is set aside: conid 5 of DU1 (no symbol)"
    usable = RowFields("DU1", "5", "SPY", "OPT", "100", "1")
    changed.clear()
    assert rows.accepts(usable)
    assert rows.accepts(usable)
    assert (rows.reasons, changed) == ({}, ["DU1"])
    assert not rows.accepts(usable._replace(account="DU9"))
    assert (list(rows.reasons), changed) == ([("DU9", 5)], ["DU1"])


def test_a_conid_that_is_no_number_is_set_aside_as_0():
    assert key_as_sent("DU1", "seven") == ("DU1", 0)
    assert key_as_sent("DU1", "nan") == ("DU1", 0)
    assert key_as_sent("DU1", "-7") == ("DU1", -7)
