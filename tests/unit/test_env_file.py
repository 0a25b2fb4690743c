"""A `.env` of which a line cannot be read is an error: a dropped line may be the mode's guard."""

import os

import pytest

from position_sync_dagster.errors import SettingsError
from position_sync_dagster.settings import load_settings, read_env_file


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("POSITION_SYNC_TRADING_MODE: PAPER", "'POSITION_SYNC_TRADING_MODE: PAPER'"),
        ("POSITION_SYNC_MAX_LINES", "'POSITION_SYNC_MAX_LINES'"),
        ("POSITION_SYNC_FLEX_TOKEN: abc", "(secret)"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_by_file_line_and_text(tmp_path, line, shown):
    file = tmp_path / ".env"
    file.write_text(f"# mine\nPOSITION_SYNC_MAX_LINES=50\n\n{line}\n")
    with pytest.raises(SettingsError) as found:
        load_settings(_env_file=str(file))
    assert found.value.what == f"Line 4 of {file} cannot be read: {shown}."


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(SettingsError, match="is not a regular file"):
        load_settings(_env_file=str(tmp_path / ".env"))


def test_comments_quotes_exports_and_empty_values_are_read(tmp_path):
    file = tmp_path / ".env"
    file.write_text("# a\nexport A=1\nB='x y' # b\nC=\n\n")
    assert read_env_file(file) == {"A": "1", "B": "x y", "C": ""}
