from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.domain.instrument import parse_conid, parse_expiry, parse_right
from position_sync_dagster.domain.leg import make_leg
from position_sync_dagster.domain.update import TradingMode, trading_mode_of
from position_sync_dagster.errors import InvalidLegError

NOW = datetime(2026, 3, 4, tzinfo=UTC)
GOOD = dict(
    conid=7,
    symbol="SPY",
    right="c",
    strike="450",
    expiry="20260220",
    strategy_id=12,
    added_at=NOW,
)


def test_a_leg_reads_ibs_spellings():
    leg = make_leg(**GOOD)
    assert (leg.right, leg.strike, leg.expiry, leg.strategy_id) == (
        "CALL",
        450.0,
        date(2026, 2, 20),
        "12",
    )


@pytest.mark.parametrize("text", ["20260220", "2026-02-20", 20260220, date(2026, 2, 20)])
def test_an_expiry_is_read(text):
    assert parse_expiry(text) == date(2026, 2, 20)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("conid", 0, "conid 0"),
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
        ("priority", 0, "below 1"),
    ],
)
def test_bad_input_is_named_with_a_remedy(field, value, named):
    with pytest.raises(InvalidLegError) as caught:
        make_leg(**GOOD | {field: value})
    assert named in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize(("text", "right"), [("C", "CALL"), ("put", "PUT"), ("P", "PUT")])
def test_rights_end_as_call_or_put(text, right):
    assert parse_right(text) == right


def test_a_conid_is_read_from_text():
    assert parse_conid("756733") == 756733


@pytest.mark.parametrize(
    ("account", "mode"),
    [("DUSIM0001", "SIMULATED"), ("DU123", "PAPER"), ("DF99", "PAPER"), ("U123", "LIVE")],
)
def test_the_trading_mode_shows_in_the_account(account, mode):
    assert trading_mode_of(account) is TradingMode(mode)
