"""Options: one definition for the simulator, its command line and `position-sync simulate`."""

from __future__ import annotations

from typing import Any

import pytest

from position_sync_dagster.simulator import Options, Simulator, command_line, load_book
from position_sync_dagster.simulator.options import PROGRAM_OPTIONS


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Options, str | None]]:
    """Record what the command line starts, and start nothing."""
    calls: list[tuple[str, Options, str | None]] = []

    def run(book: str, options: Options, *, scenario: str | None) -> int:
        calls.append((book, options, scenario))
        return 0

    monkeypatch.setattr(command_line, "run", run)
    return calls


def test_without_arguments_the_program_has_its_defaults(started: list[Any]) -> None:
    assert command_line.main([]) == 0
    assert started == [("demo", PROGRAM_OPTIONS, None)]
    assert (PROGRAM_OPTIONS.port, PROGRAM_OPTIONS.control_port) == (7497, 0)


def test_every_argument_reaches_its_option(started: list[Any]) -> None:
    arguments = (
        "--book small --host ::1 --port 1 --control-port 2 --seed 3 --max-lines 4 "
        "--tick-interval 0.5 --refresh-interval 6 --tick-ring 7 --scenario s.yaml"
    )
    command_line.main(arguments.split())
    options = Options(
        host="::1",
        port=1,
        control_port=2,
        seed=3,
        max_lines=4,
        tick_interval_s=0.5,
        refresh_interval_s=6.0,
        tick_ring=7,
    )
    assert started == [("small", options, "s.yaml")]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--tick-interval", "0"], "tick_interval_s is 0.0"),
        (["--max-lines", "-1"], "max_lines is -1"),
        (["--port", "x"], "--port"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_argument_ends_it_with_exit_code_2_and_the_reason(
    started: list[Any], capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err
    assert started == []


def test_position_sync_simulate_passes_its_arguments_on(
    started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from position_sync_dagster.cli.app import app

    result = CliRunner().invoke(app, ["simulate", "--port", "0", "--book", "small"])
    assert result.exit_code == 0, result.output
    [(book, options, _)] = started
    assert (book, options.port) == ("small", 0)
    usage = CliRunner().invoke(app, ["simulate", "--help"])
    assert usage.exit_code == 0
    assert "usage: " in usage.output
    assert "--max-lines" in usage.output


def test_a_simulator_takes_options_and_single_changes() -> None:
    sim = Simulator(load_book("small"), Options(max_lines=5, seed=1), max_lines=6)
    assert sim.stats()["line_limit"] == 6
    with pytest.raises(TypeError, match="max_line"):
        Simulator(load_book("small"), max_line=6)
