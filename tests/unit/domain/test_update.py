"""The trading mode of an account."""

import pytest

from position_sync_dagster.domain.holding import TradingMode, trading_mode_of


@pytest.mark.parametrize(
    ("account", "mode"),
    [("DUSIM0001", "SIMULATED"), ("DU123", "PAPER"), ("DF99", "PAPER"), ("U123", "LIVE")],
)
def test_the_trading_mode_shows_in_the_account(account, mode):
    assert trading_mode_of(account) is TradingMode(mode)
