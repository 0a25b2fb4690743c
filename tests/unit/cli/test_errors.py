"""Errors on the command line, and its help."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from position_sync_dagster import errors
from position_sync_dagster.cli import commands
from position_sync_dagster.cli.app import COMMANDS, MODULE_OF, command, print_error
from tests.support.command_line import ended, run

ROOT = Path(__file__).parents[3]
BY_THE_USER = (errors.SettingsError, errors.InvalidLegError, errors.InvalidRequestError)


@pytest.mark.parametrize("kind", [*BY_THE_USER, errors.GatewayError, errors.LakeError])
def test_the_exit_code_is_2_for_what_the_user_can_correct(kind, capsys):
    code = print_error(kind("The thing broke.", remedy="Mend it."))
    assert code == (2 if kind in BY_THE_USER else 1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("position-sync: The thing broke.\n  Mend it.\n")


def test_an_error_of_a_command_ends_with_its_page_if_there_is_one(capsys):
    print_error(errors.NewerTableError("The table is newer.", remedy="Upgrade."))
    page = ROOT / "docs/do/upgrade.md"
    assert page.is_file()
    assert capsys.readouterr().err.splitlines()[2:] == [f"  More: {page}"]
    print_error(errors.LakeError("The thing broke.", remedy="Mend it."))
    assert capsys.readouterr().err.splitlines()[2:] == []


def test_a_message_cannot_steer_the_terminal(capsys):
    print_error(errors.LakeError("Odd \x1b[2J name.", remedy="Rename it."))
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["add", "x1", "--right", "C", "--strike", "1", "--expiry", "20281215"], "'x1'"),
        (["add", "911", "--right", "Q", "--strike", "1", "--expiry", "20281215"], "'Q'"),
        (["add", "911", "--right", "C", "--strike", "one", "--expiry", "20281215"], "'one'"),
        (["add", "911", "--right", "C", "--strike", "1", "--expiry", "20281399"], "'20281399'"),
        (["remove", "0"], "'0'"),
    ],
)
def test_a_leg_that_does_not_parse_is_named(arguments, names, refuse, tmp_path):
    more = ["--strategy", "a"] + (["--symbol", "SPY"] if arguments[0] == "add" else [])
    code, printed = refuse("strategies", *arguments, *more)
    assert code == 2
    assert names in printed
    assert not list(tmp_path.iterdir()), "nothing is half-written"


def test_output_for_which_the_disk_has_no_room_is_one_message(capsys):
    with open("/dev/full", "w") as full:
        assert ended("--version", output=full) == 1
    assert capsys.readouterr().err == (
        "position-sync: The output cannot be written: No space left on device.\n"
        "  Free some space, or write elsewhere.\n"
    )


@pytest.mark.parametrize("file", [None, "/home/me/.demo/webserver.log"])
def test_a_program_without_room_on_the_disk_of_its_home_does_not_name_its_output(
    monkeypatch, capsys, tmp_path, file
):
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", file)

    monkeypatch.setattr("position_sync_dagster.cli.commands", lambda: fail)
    with (tmp_path / "out").open("w") as out:
        ended("demo", output=out)
    said = f"{file or 'A file'} cannot be written: No space left on device."
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("home", ["nowhere", "~no-such-user", "x" * 5000])
def test_a_folder_that_is_no_home_or_cannot_be_looked_for_is_named(refuse, home):
    code, printed = refuse("status", "--home", home)
    assert code == 2
    assert f"{home} " in printed


IMPORTED = """
import sys
for module in ("reports", "figures"):
    __import__(f"position_sync_dagster.cli.{module}")
    print(module, *({libraries} & sys.modules.keys()))
"""


def test_a_report_imports_what_it_uses_alone():
    libraries = {"dagster", "ib_async", "ib_gateway_simulator", "numpy", "sqlalchemy", "starlette"}
    program = [sys.executable, "-c", IMPORTED.replace("{libraries}", str(libraries))]
    printed = subprocess.run(program, capture_output=True, text=True)
    assert printed.stdout.splitlines() == ["reports", "figures"], printed.stderr


def test_each_command_has_help_and_is_listed_once_under_its_task_those_of_a_trader_first() -> None:
    listed = CliRunner().invoke(commands(), ["--help"], env={"COLUMNS": "200"}).output
    headings = [line.split("─ ")[1].split(" ─")[0] for line in listed.splitlines() if "╭─ " in line]
    assert headings == ["Options", *COMMANDS]
    names = re.findall(r"^│ ([a-z][a-z-]*) {2,}", listed, re.MULTILINE)
    assert names == [*MODULE_OF]
    assert names[0] == "figures"
    lines = {name: line for task in COMMANDS.values() for name, (_module, line) in task.items()}
    for name, line in lines.items():
        assert "Usage" in run(name, "--help")
        assert " ".join(command(name).help.partition("\n\n")[0].split()) == line


LEAN = """
import sys
sys.argv = ["position-sync", *{words}]
from position_sync_dagster import cli
try:
    cli.main()
except SystemExit:
    pass
print([name for name in {heavy} if name in sys.modules])
"""
HEAVY = ("dagster", "deltalake", "ib_async", "numpy", "polars", "starlette")


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["--help"], {}),
        (["--version"], {}),
        ([], {"_POSITION_SYNC_COMPLETE": "complete_bash", "COMP_WORDS": "position-sync s",
              "COMP_CWORD": "1"}),
    ],
    ids=["help", "version", "completion"],
)  # fmt: skip
def test_help_version_and_the_completion_of_names_import_no_command(words, variables):
    code = LEAN.format(words=words, heavy=HEAVY)
    program = [sys.executable, "-c", code]
    done = subprocess.run(
        program, capture_output=True, text=True, env=os.environ | variables, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout
    if variables:
        assert done.stdout.splitlines()[:-1] == ["status", "strategies", "simulate"]


def test_make_help_begins_with_five_targets_for_users() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    first, rest = listed.stdout.split("To work on it:")
    targets = re.findall(r"^  make ([a-z-]+) +[^ ]", first, re.MULTILINE)
    assert targets == ["demo", "dev", "install", "test", "bench"]
    every = set(re.findall(r"^([a-z-]+):[^\n]*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^  make ([a-z-]+) +[^ ]", rest, re.MULTILINE)) == every - {*targets}
