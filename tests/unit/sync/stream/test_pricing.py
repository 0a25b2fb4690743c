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


class Desk:
    """A pricer beside two lines; `flush` gives the source of the quiet holding's row, if any."""

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
            now=now - back, by=Provenance(),
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
def desk():
    desk = Desk()
    assert desk.flush(0, QUIET, BUSY) == "TICK"
    return desk


def test_the_unchanged_quote_of_a_quiet_option_counts_while_other_lines_tick(desk):
    for after_s in range(60, 1200, 60):
        assert desk.flush(after_s, BUSY) == "TICK"


def test_no_quote_counts_when_no_line_has_ticked_for_long(desk):
    assert desk.flush(119) == "TICK"
    assert desk.flush(121) == "PORTFOLIO"
    assert desk.flush(122, QUIET) == "TICK"


def test_what_came_before_a_farm_broke_counts_again_with_its_next_tick(desk):
    desk.pricer.invalidate_quotes(START + timedelta(seconds=1))
    assert desk.flush(2, BUSY) == "PORTFOLIO"
    assert desk.flush(3, BUSY) == "PORTFOLIO"
    assert desk.flush(4, QUIET) == "TICK"


def test_a_clock_that_is_set_back_makes_quotes_wait_for_their_next_tick(desk):
    hour = timedelta(hours=1)
    desk.pricer.invalidate_quotes(START + timedelta(seconds=1))
    assert desk.flush(2, BUSY, back=hour) == "PORTFOLIO"
    desk.ticks[QUIET] = START + timedelta(seconds=3) - hour
    assert desk.flush(4, BUSY, back=hour) == "TICK"


def test_a_silent_line_is_waited_for_a_moment_whatever_the_clock_does(desk):
    desk.pricer.await_tick([KEY], since=START + timedelta(hours=1))
    assert desk.flush(1) is None
    assert desk.flush(7) == "TICK"
