"""Errors on the command line."""

import errno
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from position_sync_dagster import cli
from position_sync_dagster.cli.app import COMMANDS, app, load, print_error, summary
from position_sync_dagster.errors import (
    GatewayError,
    InvalidLegError,
    InvalidRequestError,
    LakeError,
    SettingsError,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (SettingsError, 2),
        (InvalidLegError, 2),
        (InvalidRequestError, 2),
        (GatewayError, 1),
        (LakeError, 1),
    ],
)
def test_the_exit_code_is_2_for_what_the_user_can_correct(kind, code, capsys):
    assert print_error(kind("The thing broke.", remedy="Mend it.")) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "position-sync: The thing broke.\n  Mend it.\n"


def test_a_message_cannot_steer_the_terminal(capsys):
    print_error(LakeError("Odd \x1b[2J name.", remedy="Rename it."))
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


def test_a_malformed_setting_is_named(monkeypatch, refuse):
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", "many")
    code, printed = refuse("status")
    assert code == 2
    assert "POSITION_SYNC_GATEWAY_PORT='many'" in printed


def test_output_for_which_the_disk_has_no_room_is_one_message(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["position-sync", "--version"])
    with open("/dev/full", "w") as full, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", full)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 1
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

    monkeypatch.setattr("sys.argv", ["position-sync", "demo"])
    monkeypatch.setattr("position_sync_dagster.cli.app.app", fail)
    with (tmp_path / "out").open("w") as out, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", out)
        with pytest.raises(SystemExit):
            cli.main()
    said = f"{file or 'A file'} cannot be written: No space left on device."
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("home", ["nowhere", "~no-such-user", "x" * 5000])
def test_a_folder_that_is_no_home_or_cannot_be_looked_for_is_named(refuse, home):
    code, printed = refuse("status", "--home", home)
    assert code == 2
    assert f"{home} " in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_of_commands_shows_the_first_line_of_the_help_of_each(command):
    assert load(command).help.partition("\n\n")[0] == summary(command)
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert summary(command) in listed


def test_the_list_of_commands_imports_none_of_them():
    libraries = ("polars", "deltalake", "pydantic", "dagster", "ib_async", "ib_gateway_simulator")
    code = (
        "import sys; from typer.testing import CliRunner; from position_sync_dagster.cli.app "
        "import app; assert 'strategies' in CliRunner().invoke(app, ['--help']).output; "
        f"print([name for name in {libraries} if name in sys.modules])"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert listed.stdout.strip() == "[]", listed.stderr


def test_a_report_imports_what_it_uses_alone():
    libraries = ("dagster", "ib_async", "sqlalchemy", "ib_gateway_simulator")
    code = (
        "import sys, position_sync_dagster.cli.reports; "
        f"print([name for name in {libraries} if name in sys.modules])"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert listed.stdout.strip() == "[]", listed.stderr
