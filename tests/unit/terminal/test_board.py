"""The live status: what is current at this moment, and what changed last."""

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.lake.schema import rows_of_positions
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.reports.changes import ChangeKind, DayChange
from position_sync_dagster.money.reports.exposure import Claims, split
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.reports.status import Status
from position_sync_dagster.terminal.board import board, describe
from tests.support.holdings import make_holding
from tests.support.legs import leg
from tests.support.money_rows import NOW, priced_rows, row

LIVE = Status(
    at=NOW, lake="lake", gateway_id="127.0.0.1:7497", session_state="LIVE", session_owner="STREAM",
    session_since=NOW - timedelta(minutes=2), session_detail=None, run_id=None, blind_since=None,
    lines_in_use=20, line_limit=100, active_legs=2, legs_held=2, positions=2,
    queue={"PENDING": 0, "PROCESSING": 0, "SUCCESS": 9, "FAILED": 0}, oldest_pending_age_s=None,
    updates_rows=1234, updates_version=7, legs_streamed=2, legs_queued=0, last_drained_at=None,
    trading_mode="SIMULATED", unresolved_legs=(), accounts=(),
)  # fmt: skip
BLIND = replace(
    LIVE, session_state="BLIND", session_since=NOW, blind_since=NOW, session_detail="No socket."
)


def holding(conid: int, position: float = -2.0) -> BrokerPosition:
    instrument = Instrument(
        conid=conid, symbol="SPY", sec_type="OPT", currency="USD", right=row(1).right,
        strike=575.0, expiry=row(1).expiry,
    )  # fmt: skip
    of = {"gateway_id": LIVE.gateway_id, "account": "DUSIM0001", "instrument": instrument}
    return make_holding(conid, NOW, position=position, **of)


def overview(
    status: Status = LIVE, *, legs: int = 2, holdings: Sequence[BrokerPosition] | None = None
) -> Figures:
    rows = [row(n, value_source=ValueOrigin.TICK, value_time=NOW) for n in (1, 2)]
    active = [leg(1 + n % 2, f"strategy-{n}") for n in range(legs)]
    since = status.session_since or NOW
    book = Book(
        now=NOW,
        priced=priced_rows(rows),
        reported=rows_of_positions(
            [holding(1), holding(2)] if holdings is None else holdings, None
        ),
        claims=Claims(active),
        split=split(Claims(active), priced_rows(rows)),
        live_since={status.gateway_id: since} if status.session_state == "LIVE" else {},
        streamed=frozenset({1, 2}),
    )
    return Figures(status=status, book=book)


def test_a_leg_that_expired_is_not_one_that_is_missing() -> None:
    status = replace(LIVE, active_legs=3, legs_closed="one expired on 2026-03-20")
    told = "(2 of 3 active legs held, one expired on 2026-03-20, 2 positions)"
    assert told in dict(describe(status))["legs"]


def screen(figures: Figures | None, width: int, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), record=True)
    changes = [
        DayChange(at=NOW, kind=ChangeKind.QUANTITY, text="quantity: SPY 575P 15Dec28  -2 → -3")
    ] * 6
    addresses = [("Dagster UI", "http://127.0.0.1:3000"), ("logs", ".demo/*.log")]
    if figures is not None:
        vars(figures)["changes"] = changes
    console.print(board(figures, [], addresses, console))
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 24), (140, 50), (60, 20)])
@pytest.mark.parametrize("legs", [2, 40])
def test_the_board_fits_into_the_terminal(width, height, legs):
    lines = screen(overview(legs=legs), width, height)
    assert max(map(len, lines)) <= width
    assert len(lines) <= height
    text = "\n".join(lines)
    assert "2 of 2 legs" in text
    assert "20 of 100 in use" in text
    assert "http://127.0.0.1:3000" in text
    assert "quantity: SPY 575P" in text
    assert "total" in text
    assert "Ctrl-C" in text


def test_the_board_has_what_no_strategy_has_and_a_long_list_says_how_many_more_there_are():
    assert "UNATTRIBUTED" in "\n".join(screen(overview(legs=1), 80))  # of two holdings
    assert any(line.endswith(" more") for line in screen(overview(legs=40), 80))
    away = [replace(LIVE, gateway_id=f"gateway-{n}") for n in range(9)]
    lines = screen(overview(replace(LIVE, logins=(*away, replace(BLIND, gateway_id="away")))), 80)
    assert "away: BLIND" in lines[1]
    assert lines[-1].startswith("… and ")


def test_before_the_tables_exist_the_addresses_are_there():
    assert any("http://127.0.0.1:3000" in line for line in screen(None, 80))


def test_the_board_says_how_many_legs_are_current_and_how_old_the_oldest_price_is():
    seen = overview()
    at = NOW - timedelta(seconds=130)
    assert seen.current_text == "2 of 2 legs, oldest 0.0 s"
    assert overview(BLIND).current_text == "0 of 2 legs: the gateway is not connected"
    old = priced_rows([row(n, value_source=ValueOrigin.TICK, value_time=at) for n in (1, 2)])
    aged = replace(seen, book=replace(seen.book, priced=old))
    assert aged.current_text == "2 of 2 legs, oldest 2 min"


def test_a_stream_that_a_person_paused_is_no_outage():
    detail = "paused by a person at 2026-03-09 15:00:00 UTC: launch the job to resume"
    ended = replace(LIVE, session_state="ENDED", blind_since=NOW, lines_in_use=None)
    after = overview(replace(ended, session_detail=detail))
    (line,) = [line for line in screen(after, 140) if line.startswith("gateway")]
    assert "127.0.0.1:7497: paused by a person" in line
    assert "ENDED" not in line


def test_the_board_shows_the_account_and_why_a_held_leg_has_no_line():
    account = AccountSummary(
        account="DU1", timestamp=NOW, net_liquidation=1000.0, currency="USD", daily_pnl=-5.0,
        values_received_at=NOW, pnl_received_at=NOW,
    )  # fmt: skip
    problem = "No market data: 1 leg now by the queue, since 15:10 UTC (IB 354); SPY"
    status = replace(LIVE, legs_held=21, accounts=(account,), session_detail=problem)
    text = "\n".join(screen(overview(status), 160, 50))
    assert "net liquidation 1,000.00 USD" in text
    whole = " ".join(" ".join(screen(overview(status), 60, 50)).split())
    assert "daily P&L -5.00 USD (0.0 s ago)" in whole
    row = dict(describe(status))
    assert row["gateway"].endswith(f" – {problem}")
    assert row["lines"] == "20 of 100 in use", "why is said once"
    without = dict(describe(replace(status, session_detail=None)))["lines"]
    assert "; 1 leg now by the queue: no market data line is free" in without


def test_a_detail_with_its_remedy_is_shown_whole():
    detail = "No socket. " * 12 + "Start TWS."
    lines = screen(overview(replace(BLIND, session_detail=detail)), 80)
    assert "Start TWS." in " ".join(lines)
    assert len(lines) <= 24


def test_after_an_outage_a_leg_is_current_once_it_was_confirmed_again():
    back = replace(LIVE, session_since=NOW - timedelta(seconds=3))  # the rows are 7 s old
    assert overview(back).current == 0
    assert overview(replace(back, session_since=NOW - timedelta(seconds=9))).current == 2
