"""Contract details for tests, by the arguments that a test is about."""

from datetime import UTC, date, datetime
from typing import Any

from position_sync_dagster.domain.instrument import ContractDetails, Right


def contract_details(conid: int = 1, **more: Any) -> ContractDetails:
    """Return the details of an SPX call with strike 5000, expiring on 20 February 2026."""
    usual: dict[str, Any] = dict(
        symbol="SPX", sec_type="OPT", currency="USD",
        local_symbol="SPX   260220C05000000", trading_class="SPX", exchange="SMART",
        under_conid=416904, multiplier=100.0, price_magnifier=1, right=Right.CALL,
        strike=5000.0, last_trade_date=date(2026, 2, 19), last_trade_time="08:30:00",
        time_zone="US/Central", trading_hours="20260102:0830-20260102:1500",
        seen_at=datetime(2026, 1, 2, tzinfo=UTC), valid_exchanges="SMART,CBOE",
        expires_on=date(2026, 2, 20),
    )  # fmt: skip
    return ContractDetails(conid=conid, **usual | more)
