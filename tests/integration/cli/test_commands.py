"""The commands that read the tables, without a gateway."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.position_update import Source, ValueOrigin
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.money.reports import book
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.settings import load_settings
from tests.support import legs
from tests.support.command_line import json_of, run
from tests.support.holdings import make_holding, make_row
from tests.support.sessions import own

GATEWAY = "127.0.0.1:7497"
STREAMED = 911
QUEUED = 912
STALE = 913
UNHELD = 914
CLOSED = 915
SHARED = 916
A = "DUSIM1"
B = "DUSIM2"


def held(conid, account=A, position=1.0):
    return make_holding(conid, utc_now(), gateway_id=GATEWAY, account=account, position=position)


def row(conid, source, *, account=A, ago_s=1.0):
    return make_row(conid, utc_now() - timedelta(seconds=ago_s), account, source=source)


# A leg of which its strategy holds one, so that several strategies may have it.
leg = partial(legs.leg, quantity=1.0)


@pytest.fixture
def lake(lake):
    of_a = [held(STREAMED), held(QUEUED), held(STALE), held(CLOSED, position=0.0)]
    lake.broker_positions.replace(GATEWAY, [*of_a, held(SHARED, B)])
    queued_after = [row(QUEUED, Source.STREAM, ago_s=9), row(QUEUED, Source.QUEUE)]
    streamed_after = [row(STREAMED, Source.QUEUE, ago_s=9), row(STREAMED, Source.STREAM)]
    stale = row(STALE, Source.STREAM, ago_s=600)
    shared = row(SHARED, Source.STREAM, account=B)
    lake.updates.sync.append([*streamed_after, *queued_after, stale, shared])
    return lake


def test_a_stock_is_a_leg_without_right_strike_and_expiry(lake):
    leg = ["77", "--strategy", "hedge", "--symbol", "SPY", "--quantity", "100"]
    assert run("strategies", "add", *leg) == "SPY (conid 77) is active in hedge.\n"
    (line,) = [line for line in run("strategies", "list").splitlines() if "hedge" in line]
    assert "None" not in line
    (row,) = json_of("strategies", "list")
    assert row["right"] is None
    assert row["strike"] is None
    assert row["expiry"] is None


def test_a_leg_without_a_conid_is_added_shown_with_its_problem_and_removed(lake):
    terms = ["--symbol", "SPX", "--right", "P", "--strike", "6000", "--expiry", "20281215"]
    added = run("strategies", "add", "--strategy", "ic", *terms, "--trading-class", "SPXW")
    assert added == "SPX 2028-12-15 6000 PUT class SPXW is active in ic.\n"
    (row,) = json_of("strategies", "list")
    assert row["conid"] is None
    assert row["state"] == "ARMED"
    assert row["problem"] is None

    registry = lake.registry.sync
    registry.settle([(registry.get_unresolved()[0], "2 contracts fit: SPX (conid 1), SPXW")])
    shown = run("strategies", "list")
    assert "2 contracts fit: SPX (conid 1)" in shown
    assert "2 contracts fit" in run("status")
    (unresolved_leg,) = json_of("status")["unresolved_legs"]
    assert "2 contracts fit" in unresolved_leg
    removed = run("strategies", "remove", "--symbol", "SPX", "--trading-class", "SPXW")
    assert "is removed from ic" in removed
    assert registry.get_unresolved() == []


def test_a_file_of_exported_legs_makes_them_active_as_they_were(lake, tmp_path):
    registry = lake.registry.sync
    registry.add_many([leg(STREAMED), leg(SHARED, "t", account=A), leg(SHARED, "u", account=B)])
    run("strategies", "add", "--strategy", "ic", "--symbol", "SPX", "--right", "P", "--strike",
        "6000", "--expiry", "20281215", "--trading-class", "SPXW", "--quantity", "-2",
        "--priority", "3")  # fmt: skip

    def legs():
        found = [*registry.get_all_active(), *registry.get_unresolved()]
        return sorted((key.key, key.quantity, key.priority) for key in found)

    before = legs()
    file = tmp_path / "strategies.yaml"
    file.write_text(run("strategies", "export"))
    for strategy, conid in (("s", STREAMED), ("t", SHARED)):
        run("strategies", "remove", str(conid), "--strategy", strategy)
    assert legs() != before
    lake.strategies_file(file).apply(registry)
    assert legs() == before
    assert lake.strategies_file(file).apply(registry) == (0, 0)


def test_a_leg_in_any_account_is_removed_beside_the_same_leg_in_one(lake):
    lake.registry.sync.add_many([leg(STREAMED), leg(STREAMED, account=A)])
    with pytest.raises(PositionSyncError, match="'any' for a leg in any account"):
        run("strategies", "remove", str(STREAMED), "--strategy", "s")
    run("strategies", "remove", str(STREAMED), "--account", "any")
    assert [active_leg.account for active_leg in lake.registry.sync.get_all_active()] == [A]


def test_a_list_of_legs_shows_the_state_of_each(lake):
    lake.registry.sync.add_many(leg(c) for c in (STREAMED, QUEUED, STALE, UNHELD, CLOSED, SHARED))
    lake.registry.sync.add_many([leg(SHARED, "t", account=A), leg(SHARED, "u", account=B)])
    printed = json_of("strategies", "list")
    states = {(row["strategy_id"], row["conid"]): row["state"] for row in printed}
    armed = dict.fromkeys((("s", UNHELD), ("s", CLOSED), ("t", SHARED)), "ARMED")
    streamed = dict.fromkeys((("s", STREAMED), ("s", SHARED), ("u", SHARED)), "STREAMED")
    overflow = dict.fromkeys((("s", QUEUED), ("s", STALE)), "OVERFLOW")
    assert states == armed | streamed | overflow
    assert {entry["expiry"] for entry in printed} == {"2028-12-15"}
    shown = run("strategies", "list")
    [line] = [line for line in shown.splitlines() if f" {UNHELD} " in line]
    assert line.split()[1] == "ARMED"


def test_a_leg_of_one_account_has_the_state_of_its_holding_there(lake):
    lake.broker_positions.replace(GATEWAY, [held(SHARED, A), held(SHARED, B)])
    lake.updates.sync.append([row(SHARED, Source.QUEUE, account=A)])
    lake.registry.sync.add_many([leg(SHARED, "t", account=A), leg(SHARED, "u", account=B)])
    states = {row["strategy_id"]: row["state"] for row in json_of("strategies", "list")}
    assert states == {"t": "OVERFLOW", "u": "STREAMED"}


def test_a_leg_of_two_strategies_is_counted_once(lake):
    lake.registry.sync.add_many([leg(STREAMED, "s"), leg(STREAMED, "t"), leg(QUEUED), leg(UNHELD)])
    status = read_status(lake, load_settings(), utc_now())
    assert status.legs_held == 2
    assert status.active_legs == 3
    assert "2 of 3 active legs held" in run("status")


def test_lines_are_unknown_while_nobody_owns_the_login(lake):
    printed = json_of("status")
    assert printed["lines_in_use"] is None
    assert printed["line_limit"] is None
    (line,) = [line for line in run("status").splitlines() if line.startswith("lines")]
    assert line.split() == ["lines", "–"]
    own(lake, GATEWAY)
    printed = json_of("status")
    assert printed["lines_in_use"] == 0
    assert printed["line_limit"] == 0


@pytest.mark.parametrize(
    "command",
    [
        *("strategies list", "strategies remove 7", "strategies export"),
        *("queue", "queue list --status FAILED", "queue retry --all", "queue retry some-id"),
        "maintain",
    ],
)
def test_a_command_that_needs_tables_creates_none(refuse, command):
    code, printed = refuse(*command.split())
    assert code == 1
    assert "There are no tables at data/lake yet" in printed
    assert "position-sync dev` or" in printed  # an installed package has no Makefile
    assert not list(Path.cwd().iterdir())


def test_the_age_is_that_of_the_price_and_not_that_of_the_row_that_greeks_caused(lake):
    now = utc_now()
    ticked = replace(
        row(STREAMED, Source.STREAM, ago_s=0.1), right=Right.CALL, value_source=ValueOrigin.TICK,
        value_time=now - timedelta(seconds=50), delta=0.5, greeks_time=now,
    )  # fmt: skip
    delayed = replace(ticked, conid=QUEUED, value_time=None, market_data_type=3)
    lake.updates.sync.append([ticked, delayed])
    lake.registry.sync.add_many([leg(STREAMED, "iron")])
    entry_of = {entry["conid"]: entry for entry in json_of("positions")}
    assert 50 <= entry_of[STREAMED]["age_s"] < 110
    assert entry_of[STREAMED]["greeks_age_s"] < 50
    assert entry_of[STREAMED]["feed"] == "live"
    assert entry_of[STREAMED]["name"] in run("positions"), "as a person reads it"
    assert entry_of[STALE]["feed"] is None
    assert entry_of[QUEUED]["age_s"] is None
    assert entry_of[QUEUED]["feed"] == "delayed"

    (iron,) = json_of("exposure")["strategies"]
    assert 50 <= iron["oldest_age_s"] < 110
    assert iron["oldest_greeks_s"] < 50
    (line,) = [line for line in run("positions").splitlines() if f" {QUEUED} " in line]
    assert "delayed" in line


def test_positions_of_an_underlying_are_chosen_and_none_is_not_a_book_without_positions(lake):
    lake.registry.sync.add_active(77, "QQQ", strategy_id="waits")
    lake.updates.sync.append([replace(row(STREAMED, Source.STREAM, ago_s=0.2), symbol="SPX")])
    (entry,) = json_of("positions", "--underlying", "spx")
    assert entry["conid"] == STREAMED
    assert run("positions", "--underlying", "QQQ") == "No such position is held.\n"


def test_of_a_few_positions_alone_it_is_worked_out_whose_they_are(lake, monkeypatch):
    lake.broker_positions.replace(GATEWAY, [held(QUEUED)])  # no movement explains SHARED
    shared = [row(SHARED, Source.STREAM, account=account) for account in (A, B)]
    lake.updates.sync.append([*shared, row(QUEUED, Source.QUEUE)])
    lake.registry.sync.add_many([leg(SHARED, "iron"), leg(QUEUED, "calendar")])

    names = ("account", "conid", "strategies", "shares")
    every = [[entry[name] for name in names] for entry in json_of("positions")]
    of_shared = [(account, shares) for account, conid, _who, shares in every if conid == SHARED]
    assert of_shared == [(A, [0.5]), (B, [0.5])]

    def of_all(*_args):
        raise AssertionError("the whole book is read")

    monkeypatch.setattr(book, "read_closes", of_all)
    for limit in range(1, len(every) + 1):
        some = json_of("positions", "--limit", f"{limit}")
        assert [[entry[name] for name in names] for entry in some] == every[:limit]


def test_a_few_positions_are_the_first_of_all_and_the_output_says_how_many_there_are(lake):
    every = json_of("positions")
    some = json_of("positions", "--limit", "2")
    keys = [[(row["account"], row["conid"]) for row in listed] for listed in (every, some)]
    assert keys[1] == keys[0][:2]
    assert {conid for _account, conid in keys[0]} == {STREAMED, QUEUED, STALE, SHARED}
    assert all({"confirmed_at", "market_value", "source"} <= row.keys() for row in every)
    printed = run("positions", "--limit", "2")
    assert "2 of 4 positions are shown." in printed
    assert "are shown" not in run("positions", "--limit", "4")
    lake.registry.sync.add_many([leg(STREAMED, "iron"), leg(SHARED, "iron", account=B)])
    held = {
        (entry["account"], entry["conid"]) for entry in json_of("positions", "--strategy", "iron")
    }
    assert held == {(A, STREAMED), (B, SHARED)}


def test_a_row_from_the_future_is_not_counted_as_streamed(lake):
    before = read_status(lake, load_settings(), utc_now())
    lake.updates.sync.append([row(STALE, Source.STREAM, ago_s=-3600)])
    after = read_status(lake, load_settings(), utc_now())
    assert after.legs_streamed == before.legs_streamed


def test_a_strategy_that_is_unknown_or_waits_for_its_contracts_is_an_error(lake, refuse):
    lake.registry.sync.add_many([leg(STREAMED, "iron"), leg(QUEUED, "calendar")])
    run("strategies", "add", "--strategy", "ic", "--symbol", "SPX", "--expiry", "20281215")
    for command in ("positions", "exposure"):
        code, printed = refuse(command, "--strategy", "irn")
        assert code == 2
        assert "There is no active strategy 'irn'" in printed
        assert "The nearest are: iron, " in printed
        code, printed = refuse(command, "--strategy", "ic")
        assert code == 2
        assert "the strategy 'ic' has its contract yet." in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["positions", "--underlying", "SPYY"],
        ["positions", "--closed", "--underlying", "SPYY"],
        ["what-if", "--account", "U99"],
        ["strategies", "propose", "--account", "U99"],
    ],
)
def test_an_account_or_underlying_that_nobody_knows_is_an_error(lake, refuse, arguments):
    code, printed = refuse(*arguments)
    assert code == 2
    assert f"There is no {arguments[-2][2:]} '{arguments[-1]}'" in printed
    assert "The nearest are: " in printed


def test_the_exposure_of_a_strategy_and_its_total(lake):
    of_iron = [leg(STREAMED, "iron"), leg(UNHELD, "iron")]
    lake.registry.sync.add_many([*of_iron, leg(QUEUED, "calm")])

    lines = run("exposure").splitlines()
    names = [line.split()[0] for line in lines[1:] if line]
    rest = ["UNATTRIBUTED", "UNATTRIBUTED", "total", "total", "total"]
    assert names[:7] == ["calm", "iron", *rest]
    assert json_of("status")["totals"][2]["value"] == 600.0
    totals = json_of("exposure")["totals"]
    legs_held = [(total["account"], total["legs_held"]) for total in totals]
    assert legs_held == [(A, 3), (B, 1), (None, 4)]
    assert totals[2]["theta"] is None

    chosen = json_of("exposure", "--strategy", "iron")["strategies"]
    [row] = chosen
    assert (row["name"], row["legs"], row["legs_held"]) == ("iron", 2, 1)


def test_the_version_is_told_without_a_command():
    assert run("--version").split()[0] == "position-sync"


HUGE = (str(2**63), "9" * 5000)


@pytest.mark.parametrize("number", HUGE, ids=len)
@pytest.mark.parametrize(
    "command",
    [
        "history DU1:{}",
        "history DU1:1 --limit {}",
        "trace {}",
        "queue list --status PENDING --limit {}",
        "queue retry {}",
        "strategies add {} --symbol SPY --strategy a",
        "strategies add 3 --symbol SPY --strategy a --priority {}",
        "strategies remove {}",
        "positions --limit {}",
    ],
)
def test_a_number_that_is_too_large_is_a_short_error(lake, refuse, command, number) -> None:
    code, printed = refuse(*command.format(number).split())
    assert code == 2
    assert 0 < len(printed) < 1500
    assert "Traceback" not in printed
