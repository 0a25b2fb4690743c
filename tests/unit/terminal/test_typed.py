"""The name of the program in hints, as it can be typed where the user stands."""

import shlex
from pathlib import Path

from position_sync_dagster.terminal.text import as_typed, command_as_typed, program_as_typed


def test_it_is_the_shortest_way_from_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/usr/bin")
    program = tmp_path / ".venv" / "bin" / "position-sync"
    assert program_as_typed(str(program), tmp_path) == ".venv/bin/position-sync"
    assert program_as_typed(str(program), Path("/")) == str(program).lstrip("/")
    assert program_as_typed(str(program), tmp_path / "elsewhere") == str(program)


def test_a_program_on_the_path_is_typed_by_its_name(monkeypatch, tmp_path):
    program = tmp_path / "position-sync"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program_as_typed(str(program), Path("/")) == "position-sync"


def test_a_command_with_spaces_in_its_paths_is_one_that_a_shell_takes(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(tmp_path / "my tools" / "position-sync")])
    words = ("exposure", "--home", "/Größe mit Leer")
    assert shlex.split(command_as_typed(*words)) == ["my tools/position-sync", *words]
    text = "position-sync: run `position-sync doctor`; `position-sync` is the program."
    typed = "position-sync: run `'my tools/position-sync' doctor`; `position-sync` is the program."
    assert as_typed(text) == typed
