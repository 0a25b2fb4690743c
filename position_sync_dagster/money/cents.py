"""Sums of money as they leave us: rounded once, to cents; prices, costs and greeks keep digits."""

from collections.abc import Iterable, Mapping
from typing import Any

# The names of sums of money in rows and in JSON. Names that a greek has too are not among them.
MONEY = frozenset(
    (
        "net_liquidation", "net_liquidation_before", "available_funds", "excess_liquidity",
        "initial_margin", "maintenance_margin", "unrealised", "realised_today", "total",
        "market_value", "notional", "unrealized", "unrealized_pnl", "realized_pnl", "today",
        "daily_pnl", "value", "profit", "profits", "open", "closed", "realised",
        "fees", "fee", "cash", "commission", "premium_received", "premium_paid", "capital_at_risk",
        "credit", "average_win", "average_loss", "expectancy",
        "drawdown", "brought", "slippage", "spread", "cost", "fees_without_quote",
        "greatest_profit", "greatest_loss", "against_mark", "now", "chosen", "at_expiry",
        "expected_value", "worst", "best", "repricing", "median_worst_of_wins", "worst_of_wins",
        "stands", "path", "paths",
    )
)  # fmt: skip


def cents(amount: float) -> float:
    """Return an amount in whole cents; a loss of nothing is 0.

    >>> cents(-136.04000000004643), cents(-1.8e-05)
    (-136.04, 0.0)
    """
    return round(amount, 2) + 0.0


def in_cents(value: Any) -> Any:
    """Return an amount, or each of a list, in whole cents; what is no amount stays as it is."""
    if isinstance(value, float):
        return cents(value)
    if isinstance(value, list):
        return [in_cents(part) for part in value]
    return value


def split_in_cents(
    row: Mapping[str, Any], total: str, parts: Iterable[str], remainder: str
) -> dict[str, Any]:
    """Return a row whose parts add up to its total in cents: the remainder has what rounding left.

    Where something is not known, each amount is rounded by itself.

    >>> split_in_cents({"all": 1.0, "a": 0.336, "b": 0.336, "rest": 0.328}, "all", "ab", "rest")
    {'all': 1.0, 'a': 0.34, 'b': 0.34, 'rest': 0.32}
    """
    rounded = {name: in_cents(row[name]) for name in (total, *parts, remainder)}
    if None not in rounded.values():
        explained = sum(rounded[name] for name in parts)
        rounded[remainder] = cents(rounded[total] - explained)
    return {**row, **rounded}
