"""Text and JSON that commands print, and hints that can be typed where the user stands."""

import json
import shlex
from datetime import UTC, date, datetime, timedelta
from operator import itemgetter

import pytest

from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.money.reports.columns import Column, age, duration
from position_sync_dagster.terminal.output import (
    as_json,
    noted_table,
    print_fitted,
    print_table,
    show_again,
)
from position_sync_dagster.terminal.text import as_typed, command_as_typed, program_as_typed

NOW = datetime(2026, 1, 2, 15, 0, tzinfo=UTC)


def test_a_value_is_never_read_as_markup(capsys):
    cells = ("[bold red]AAPL[/]", "[/nonsense]", "\x1b[2J")
    print_table([{"symbol": cell} for cell in cells], ["symbol"])
    out = capsys.readouterr().out
    assert "[bold red]AAPL[/]" in out
    assert "[/nonsense]" in out
    assert "\x1b" not in out


def test_a_row_of_many_cells_is_not_cut_in_a_pipe(capsys):
    print_table([dict.fromkeys("abcdefgh", "x" * 20)], "abcdefgh")
    assert capsys.readouterr().out.count("x") == 160


def test_json_cannot_steer_the_terminal_and_keeps_each_value():
    value = {"é\x7f": ["\x1b[2J\x9b31m\n", "\u202e", "\ud800", "\U000e0001"]}
    text = as_json(value)
    assert json.loads(text) == value
    assert "é" in text
    assert not [char for char in text if not char.isprintable() and char != "\n"]


def test_a_row_is_not_cut(capsys, monkeypatch):
    rows = [{"id": "x" * 50, "n": 7, "why": "y " * 30}, {"id": "z", "n": 123.0, "why": None}]
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(rows, ("id", "n", "why"))
    _, row, last = capsys.readouterr().out.splitlines()
    assert row == "x" * 50 + "    7  " + "y " * 29 + "y"
    assert last == "z" + " " * 51 + "123  –"

    # What a terminal has no room for is below its row; a first column is whole, however wide.
    monkeypatch.setenv("COLUMNS", "40")
    print_table(rows, ("id", "n", "why"))
    _, row, *below, last_row, last = capsys.readouterr().out.splitlines()
    assert row == "x" * 50
    assert " ".join(line.strip() for line in below) == "n: 7; why: " + "y " * 29 + "y"
    assert {len(line) <= 40 for line in below} == {True}
    assert last_row == "z"
    assert last.rstrip() == "    n: 123"


def test_columns_that_a_terminal_has_no_room_for_are_named_below_their_table():
    columns = [Column(name, name, itemgetter(name)) for name in ("leg", "theta", "vega")]
    row = dict.fromkeys(("leg", "theta", "vega"), "x" * 30)
    lines = [str(line) for line in noted_table(columns, [row], 70)]
    assert lines[0].split() == ["leg", "theta"]
    assert lines[2] == "Not at this width: vega. A wider terminal or a pipe has all."
    assert len([*noted_table(columns, [row], 100)]) == 2


def test_what_is_watched_is_printed_again_until_ctrl_c(capsys, monkeypatch):
    looks = iter(range(3))

    def wait(_seconds: float) -> None:
        if next(looks) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", wait)
    show_again(lambda: print("a look"))
    assert capsys.readouterr().out == "a look\na look\n"


@pytest.mark.parametrize(("columns", "width"), [("80", "80"), (None, "200")])
def test_a_pipe_is_as_wide_as_the_environment_says(columns, width, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    print_fitted(lambda width: [f"{width}"])
    assert capsys.readouterr().out.split() == [width]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((None, "–"), (-3, "0.0 s"), (9.94, "9.9 s"), (9.97, "10 s"), (119.4, "119 s")),
        *((119.6, "2 min"), (179, "2 min"), (3 * 3600 + 120, "3 h 2 min"), (49 * 3600, "2 d 1 h")),
    ],
)
def test_a_length_of_time_has_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text


def test_age_counts_from_the_moment():
    assert age(NOW - timedelta(seconds=42), NOW) == "42 s"
    assert age(None, NOW) == "–"


def test_a_frozen_value_becomes_an_object():
    leg = make_leg(
        conid=911, symbol="SPY", right="C", strike=620, expiry="20281215", strategy_id=7,
        added_at=NOW,
    )  # fmt: skip
    printed = json.loads(as_json([leg]))[0]
    assert printed["right"] == "CALL"
    assert printed["expiry"] == date(2028, 12, 15).isoformat()
    assert printed["added_at"] == "2026-01-02T15:00:00+00:00"
    assert printed["quantity"] is None


def test_a_program_is_typed_by_its_name_if_it_is_on_the_path_else_as_it_was_started(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("PATH", "/usr/bin")
    assert program_as_typed(".venv/bin/position-sync") == ".venv/bin/position-sync"
    assert program_as_typed("/usr/bin/python") == "position-sync"

    program = tmp_path / "position-sync"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program_as_typed(str(program)) == "position-sync"


def test_a_command_with_spaces_in_its_paths_is_one_that_a_shell_takes(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setattr("sys.argv", ["my tools/position-sync"])
    words = ("exposure", "--home", "/Größe mit Leer")
    assert shlex.split(command_as_typed(*words)) == ["my tools/position-sync", *words]
    text = "position-sync: run `position-sync doctor`; `position-sync` is the program."
    typed = "position-sync: run `'my tools/position-sync' doctor`; `position-sync` is the program."
    assert as_typed(text) == typed


def test_a_command_that_an_answer_names_works_on_the_home_of_the_question(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "status", "--home", "/my home"])
    text = "Try `position-sync queue list`, or `position-sync demo`."
    typed = "Try `position-sync queue list --home '/my home'`, or `position-sync demo`."
    assert as_typed(text) == typed
    monkeypatch.setattr("sys.argv", ["x", "status", "--home=.demo"])
    assert as_typed("`position-sync breaks`") == "`position-sync breaks --home=.demo`"


def test_json_has_money_in_cents_and_prices_with_their_digits():
    row = {
        "profit": -136.04000000004643,
        "price": 1.23456,
        "delta": -1.8e-05,
        "profits": [0.1 + 0.2],
    }
    assert json.loads(as_json([row])) == [row | {"profit": -136.04, "profits": [0.3]}]
