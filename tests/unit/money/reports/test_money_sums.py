"""The record of sums: its names in the JSON of figures, in commands, and in the tables."""

from position_sync_dagster.money.reports.money_sums import (
    AMOUNTS,
    StrategySum,
    column_of,
    json_name,
)
from position_sync_dagster.money.tables import STRATEGY_EXPOSURE
from tests.support.legs import leg
from tests.support.money_rows import book_of, row

# The names in the JSON of figures, which programs rely on.
IN_JSON = {
    "strategy", "account", "currency", "legs", "legs_held", "legs_closed", "closed",
    "market_value", "unrealized", "today", "dollar_delta", "beta_delta", "gamma_1pct", "theta",
    "vega", "delayed", "options", "options_with_greeks", "options_modelled", "nearest_expiry",
    "unvalued", "short_in_money", "short_unknown", "age_s", "greeks_age_s", "lines", "note",
    "realised", "realised_since", "closes", "closes_without_profit", "since_first_leg",
    "cost_per_share", "profit_reached", "profit_reached_unknown", "open_campaign", "unknown",
    "not_kept",
    "known", "of",
}  # fmt: skip
# The names in `exposure --json` and `status --json` that are others.
IN_COMMANDS = {
    "strategy": "name", "market_value": "value", "unrealized": "unrealized_pnl",
    "today": "daily_pnl", "realised": "realized_pnl", "realised_since": "realized_since",
    "age_s": "oldest_age_s", "greeks_age_s": "oldest_greeks_s", "note": "differences",
}  # fmt: skip


def strategy() -> StrategySum:
    rows = [row(1), row(2, unrealized_pnl=None, daily_pnl=None, delta=-0.01)]
    (found,) = book_of(rows, [leg(1, "a"), leg(2, "a")]).strategies
    return found


def test_the_json_of_figures_has_the_names_of_version_1():
    shown = strategy().model_dump(by_alias=True)
    assert shown.keys() == IN_JSON
    assert shown["unknown"] == shown["known"] == {"unrealized": 1, "today": 1}
    assert shown["of"] == {"unrealized": 2, "today": 2}
    assert shown["strategy"] == "a"
    assert shown["today"] == (-1234.0)


def test_commands_have_the_names_that_they_had():
    shown = strategy().model_dump()
    assert shown.keys() == {IN_COMMANDS.get(name, name) for name in IN_JSON}
    assert shown["unknown"] == {"unrealized_pnl": 1, "daily_pnl": 1}
    assert json_name("daily_pnl") == "today"


def test_each_sum_has_a_column_in_the_table_of_exposure():
    columns = set(STRATEGY_EXPOSURE.columns)
    assert {column_of(name) for name in AMOUNTS} - columns <= {"beta_delta"}
