"""Which quotes count: a quiet one does, one from before an outage does not."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.pricing import StreamPricer

START = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
SETTINGS = Settings(_env_file=None, max_mark_age_s=120)
QUIET, BUSY = 1, 2
KEY = ("A", QUIET)
ROUTES = {KEY: LegState.STREAMED, ("A", BUSY): LegState.STREAMED}


class PricerWithTwoLines:
    """A pricer of two lines; `flush` returns the source of the quiet holding's row, or None."""

    def __init__(self):
        self.pricer = StreamPricer(SimpleNamespace(magnifier=lambda _conid: 1), settings=SETTINGS)
        self.ticks = {}

    def flush(self, after_s, *ticked, back=timedelta()):
        now = START + timedelta(seconds=after_s)
        for conid in ticked:
            self.ticks[conid] = now
        connection = SimpleNamespace(
            feed=SimpleNamespace(downloaded={"A"}, get=self._holding),
            lines=SimpleNamespace(quote=self._quote),
        )
        self.pricer.mark_due([KEY])
        updates = self.pricer.flush(
            connection, {conid: now.timestamp() for conid in ticked}, ROUTES,
            now=now - back, provenance=Provenance(),
        )  # fmt: skip
        rows = [pending.update for pending in updates if pending.update.conid == QUIET]
        return rows[0].value_source if rows else None

    def _quote(self, conid):
        return Quote(conid=conid, bid=1.0, ask=1.2, received_at=self.ticks.get(conid))

    def _holding(self, key):
        return BrokerPosition(
            gateway_id="g", account=key[0], position=1.0, received_at=START, position_time=START,
            snapshot_id="s", market_price=1.1, market_value=110.0, value_source="PORTFOLIO",
            instrument=Instrument(
                conid=key[1], symbol="SPY", sec_type="OPT", currency="USD", multiplier=100.0
            ),
        )  # fmt: skip


@pytest.fixture
def two_lines():
    two_lines = PricerWithTwoLines()
    assert two_lines.flush(0, QUIET, BUSY) == "TICK"
    return two_lines


def test_the_unchanged_quote_of_a_quiet_option_counts_while_other_lines_tick(two_lines):
    for after_s in range(60, 1200, 60):
        assert two_lines.flush(after_s, BUSY) == "TICK"


def test_no_quote_counts_when_no_line_has_ticked_for_long(two_lines):
    assert two_lines.flush(119) == "TICK"
    assert two_lines.flush(121) == "PORTFOLIO"
    assert two_lines.flush(122, QUIET) == "TICK"


def test_what_came_before_a_farm_broke_counts_again_with_its_next_tick(two_lines):
    two_lines.pricer.invalidate_quotes(START + timedelta(seconds=1))
    assert two_lines.flush(2, BUSY) == "PORTFOLIO"
    assert two_lines.flush(3, BUSY) == "PORTFOLIO"
    assert two_lines.flush(4, QUIET) == "TICK"


def test_a_clock_that_is_set_back_makes_quotes_wait_for_their_next_tick(two_lines):
    hour = timedelta(hours=1)
    two_lines.pricer.invalidate_quotes(START + timedelta(seconds=1))
    assert two_lines.flush(2, BUSY, back=hour) == "PORTFOLIO"
    two_lines.ticks[QUIET] = START + timedelta(seconds=3) - hour
    assert two_lines.flush(4, BUSY, back=hour) == "TICK"


def test_the_first_tick_of_a_new_line_is_awaited_for_a_moment_whatever_the_clock_does(two_lines):
    two_lines.pricer.await_tick([KEY], since=START + timedelta(hours=1))
    assert two_lines.flush(1) is None
    assert two_lines.flush(7) == "TICK"
