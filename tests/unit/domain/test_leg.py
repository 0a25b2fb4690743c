"""Legs of strategies, as a person or IB writes them."""

from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.domain.instrument import ContractDetails, Right
from position_sync_dagster.domain.leg import contract_mismatch, make_leg
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


def test_a_stock_or_a_future_has_no_right_and_no_strike():
    hedge = dict(conid=8, symbol="SPY", strategy_id="s", added_at=NOW)
    stock, future = make_leg(**hedge), make_leg(**hedge, expiry="20260320")
    assert (stock.right, stock.strike, stock.expiry) == (None, None, None)
    assert (future.right, future.strike, future.expiry) == (None, None, date(2026, 3, 20))


@pytest.mark.parametrize("missing", ["right", "strike", "expiry"])
def test_an_option_has_right_strike_and_expiry(missing):
    with pytest.raises(InvalidLegError, match="only a part") as caught:
        make_leg(**GOOD | {missing: None})
    assert "all three" in caught.value.remedy


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


@pytest.mark.parametrize(
    ("expiry", "expires_on", "agrees"),
    [
        ("20260219", None, True),
        ("20260220", None, True),
        ("20260227", None, False),
        ("20260220", date(2026, 2, 20), True),
        ("20260223", date(2026, 2, 20), False),
    ],
)
def test_a_leg_may_name_the_last_trade_or_the_expiry_of_its_contract(expiry, expires_on, agrees):
    leg = make_leg(
        conid=1,
        symbol="SPX",
        right="C",
        strike=5000,
        expiry=expiry,
        strategy_id="s",
        added_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    details = ContractDetails(
        conid=1,
        symbol="SPX",
        sec_type="OPT",
        currency="USD",
        local_symbol="SPX   260220C05000000",
        trading_class="SPX",
        exchange="SMART",
        under_conid=None,
        multiplier=100.0,
        price_magnifier=1,
        right=Right.CALL,
        strike=5000.0,
        last_trade_date=date(2026, 2, 19),
        last_trade_time=None,
        time_zone=None,
        trading_hours=None,
        expires_on=expires_on,
        seen_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    assert (contract_mismatch(leg, details) is None) is agrees
