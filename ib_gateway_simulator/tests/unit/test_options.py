"""Options: one definition for the simulator, its command line and `position-sync simulate`."""

import pytest
import typer
from typer.testing import CliRunner, Result

from ib_gateway_simulator import Options, SimulatedGateway, load_book, program
from ib_gateway_simulator.command_line import simulate
from ib_gateway_simulator.errors import OptionError
from ib_gateway_simulator.options import PROGRAM_OPTIONS
from position_sync_dagster.cli import commands


@pytest.fixture
def started(monkeypatch):
    """Record what the command line starts, and start nothing."""
    calls: list[tuple[str, Options, str | None]] = []

    def run(
        book: str, options: Options, *, scenario: str | None, end_with: int | None = None
    ) -> int:
        calls.append((book, options, scenario))
        return 0

    monkeypatch.setattr(program, "run", run)
    return calls


@pytest.fixture(params=["python -m", "position-sync"])
def invoke(request):
    """Run the command as a module of its own, and as a command of `position-sync`."""
    alone = typer.Typer()
    alone.command()(simulate)

    def run(arguments: str) -> Result:
        if request.param == "python -m":
            return CliRunner().invoke(alone, arguments.split())
        return CliRunner().invoke(commands(), ["simulate", *arguments.split()])

    return run


def test_without_arguments_the_program_has_its_defaults(started, invoke):
    assert invoke("").exit_code == 0
    assert started == [("demo", PROGRAM_OPTIONS, None)]
    assert PROGRAM_OPTIONS.port == 7497
    assert PROGRAM_OPTIONS.control_port == 0


def test_every_argument_reaches_its_option(started, invoke):
    invoke(
        "--book small --host ::1 --port 1 --next-ports 5 --control-port 2 --seed 3 --max-lines 4 "
        "--tick-interval 0.5 --refresh-interval 6 --tick-ring 7 "
        "--time-zone America/New_York --scenario s.yaml"
    )
    options = Options(
        host="::1", port=1, next_ports=5, control_port=2, seed=3, max_lines=4, tick_interval_s=0.5,
        refresh_interval_s=6.0, tick_ring=7, time_zone="America/New_York",
    )  # fmt: skip
    assert started == [("small", options, "s.yaml")]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--tick-interval 0", "--tick-interval"),
        ("--port x", "--port"),
        ("--nonsense", "--nonsense"),
        ("--time-zone Mars/Base", "time_zone"),
        ("--time-zone ../etc", "time_zone"),
    ],
)
def test_a_wrong_argument_ends_it_with_exit_code_2_and_the_reason(
    started, invoke, arguments, named
):
    ended = invoke(arguments)
    assert ended.exit_code == 2
    assert named in ended.output
    assert started == []


def test_a_simulator_takes_options_and_single_changes():
    sim = SimulatedGateway(load_book("small"), Options(max_lines=5, seed=1), max_lines=6)
    assert sim.stats()["line_limit"] == 6
    with pytest.raises(TypeError, match="max_line"):
        SimulatedGateway(load_book("small"), max_line=6)


@pytest.mark.parametrize(("option", "value"), [("host", " "), ("tick_ring", 2**31)])
def test_an_empty_address_and_a_count_without_bounds_are_refused(option, value):
    with pytest.raises(OptionError, match=f"{option} is .*: give "):
        Options(**{option: value})


@pytest.mark.parametrize(
    "book", ["x" * 100_000, "x\x1b[2J", "a\nsimulator: forged"], ids=["long", "escape", "lines"]
)
def test_a_book_that_does_not_exist_is_one_short_line(book, capsys):
    assert program.run(book, Options(port=0)) != 0
    printed = capsys.readouterr().err
    assert printed.startswith("simulator: ")
    assert printed.count("\n") == 1
    assert len(printed) < 600
    assert printed[:-1].isprintable()
