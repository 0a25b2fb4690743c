"""What Dagster shows of tables and checks: each result in words, and numbers that it plots."""

from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg

from position_sync_dagster.defs.assets.latest_positions import latest_positions
from position_sync_dagster.defs.assets.queue_and_ledger import queue_state
from position_sync_dagster.defs.assets.table_asset import totals
from position_sync_dagster.defs.composition import Composition
from position_sync_dagster.defs.tick import streamed_state
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.position_update import PositionUpdate, Source
from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.money.defs.extension import money_extension
from tests.support.money_rows import row


def numbers_of(metadata) -> dict[str, float]:
    return {
        name: value.value if isinstance(value, dg.FloatMetadataValue) else value
        for name, value in metadata.items()
    }


def test_each_result_of_a_check_has_words_also_where_nothing_is_there(lake, settings) -> None:
    checks = Composition(extension=money_extension(settings)).checks
    results = {check.check_key.to_user_string(): check.evaluate(lake, settings) for check in checks}
    assert len(results) > 15
    assert [name for name, result in results.items() if not result.description] == []


def test_the_newest_positions_plot_holdings_by_source_and_the_ages_of_prices(
    lake, settings
) -> None:
    now = datetime.now(UTC)

    def row_before(number: int, source: Source, minutes: int) -> PositionUpdate:
        at = now - timedelta(minutes=minutes)
        return row(number, source=source, timestamp=at, value_time=at)

    rows = [
        row_before(1, Source.STREAM, 0),
        row_before(2, Source.QUEUE, 50),
        row_before(3, Source.QUEUE, 90),
    ]
    lake.updates.sync.append(rows)
    plots = numbers_of(latest_positions.derive(lake, settings, None).metadata)
    assert (plots["held_streamed"], plots["held_queued"]) == (1, 2)
    assert plots["price_age_s_oldest"] >= 5400 > plots["price_age_s_median"] >= 3000


def test_accounts_plot_what_they_are_worth_by_currency_where_each_is_known(lake) -> None:
    summary = partial(AccountSummary, timestamp=datetime.now(UTC))
    summaries = [
        summary(account="A", currency="USD", net_liquidation=1000.0, daily_pnl=5.0),
        summary(account="B", currency="USD", net_liquidation=500.0),
        summary(account="C", currency="EUR", net_liquidation=70.0, daily_pnl=-2.0),
        summary(account="Z", net_liquidation=9.0),
    ]
    lake.account_values.append(summaries)
    plots = numbers_of(streamed_state(lake, lake.account_values.table).metadata)
    assert plots["net_liquidation USD"] == 1500.0
    assert (plots["net_liquidation EUR"], plots["daily_pnl EUR"]) == (70.0, -2.0)
    assert "daily_pnl USD" not in plots
    assert totals(lake.account_values.latest().clear(), "cash") == {}


async def test_the_queue_plots_how_long_its_oldest_request_waits(lake) -> None:
    assert "oldest_pending_s" not in queue_state(lake).metadata
    await lake.queue.insert_many([QueueRequest(conid=1, symbol="SPY")])
    assert numbers_of(queue_state(lake).metadata)["oldest_pending_s"] >= 0
