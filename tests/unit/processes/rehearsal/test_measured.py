"""Answers, delays and lines are measured as a rehearsal needs them."""

from position_sync_dagster.processes.rehearsal import measured
from position_sync_dagster.processes.rehearsal.measured import Measured


def test_a_request_without_its_answer_is_missing_after_its_time():
    now = [0.0]
    heard = Measured(monotonic=lambda: now[0])
    for request in ("7", "8"):
        heard(True, ("94", request, "X", "", "12"))
    heard(False, ("95", "7", "1", "1", "1", "1", "1"))
    now[0] = measured.ANSWER_S + 1
    heard(False, ("95", "7", "1", "1", "1", "1", "1"))
    heard.close()
    assert heard.requested["reqPnLSingle"] == 2
    assert heard.missing["reqPnLSingle"] == 1
    assert [*heard.delays["pnlSingle, then pnlSingle"]] == [measured.ANSWER_S + 1]


def test_lines_are_counted_until_they_are_cancelled_or_refused():
    heard = Measured()
    for request in ("1", "2", "3"):
        heard(True, ("1", "11", request, "12", "AAPL", "STK"))
        if request == "1":
            heard(True, ("2", "2", request))
        elif request == "2":
            heard(False, ("4", "2", request, "354", "", ""))
    assert heard.most_lines == 1


def test_rows_of_an_account_are_as_far_apart_as_they_come_in_one_download():
    now = [0.0]
    heard = Measured(monotonic=lambda: now[0])
    row = ("7", "8", "12", *("1" for _ in range(16)), "X")
    for _download in range(2):
        heard(True, ("6", "2", "1", "X"))
        for _refresh in range(3):
            now[0] += 180.0
            heard(False, row)
            heard(False, ("6", "2", "NetLiquidation", "1", "USD", "X"))
    for name in ("updatePortfolio", "updateAccountValue"):
        assert [*heard.delays[f"{name}, then {name}"]] == [180.0] * 4
