"""Legs of strategies, as a person or IB writes them."""

from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.domain.leg import make_leg
from position_sync_dagster.errors import InvalidLegError

NOW = datetime(2026, 3, 4, tzinfo=UTC)
GOOD = dict(
    conid=7, symbol="SPY", right="c", strike="450", expiry="20260220", strategy_id=12, added_at=NOW
)


def test_a_leg_reads_ibs_spellings():
    leg = make_leg(**GOOD)
    assert (leg.right, leg.strike, leg.expiry) == ("CALL", 450.0, date(2026, 2, 20))
    assert leg.strategy_id == "12"


@pytest.mark.parametrize("expiry", ["20260220", "2026-02-20", 20260220, date(2026, 2, 20)])
def test_an_expiry_is_read_in_each_spelling(expiry):
    assert make_leg(**GOOD | {"expiry": expiry}).expiry == date(2026, 2, 20)


@pytest.mark.parametrize("missing", ["right", "strike", "expiry"])
def test_an_option_has_right_strike_and_expiry(missing):
    with pytest.raises(InvalidLegError, match="only a part") as caught:
        make_leg(**GOOD | {missing: None})
    assert "all three" in caught.value.remedy


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("conid", 0, "conid 0"),
        ("conid", 2**31, "2147483648 is no contract id"),
        ("conid", "12x", "'12x'"),
        ("conid", 1.5, "1.5"),
        ("conid", True, "True"),
        ("right", "K", "'K'"),
        ("strike", "abc", "'abc'"),
        ("strike", "nan", "'nan'"),
        ("expiry", "20260230", "20260230"),
        ("expiry", "", "''"),
        ("symbol", " ", "no symbol"),
        ("strategy_id", "", "no strategy"),
        ("strategy_id", "UNATTRIBUTED", "what no strategy has"),
        ("strategy_id", " Unattributed ", "what no strategy has"),
        ("priority", 0, "priority 0"),
        ("quantity", 0, "quantity 0 "),
        ("quantity", "-0.0", "quantity '-0.0'"),
    ],
)
def test_bad_input_is_named_with_a_remedy(field, value, named):
    with pytest.raises(InvalidLegError) as caught:
        make_leg(**GOOD | {field: value})
    assert named in caught.value.what
    assert caught.value.remedy
