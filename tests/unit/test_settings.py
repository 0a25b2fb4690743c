"""Settings: what is refused, `.env` and its example, and names that are no setting."""

import contextlib
import os
import re
from pathlib import Path

import pytest

from position_sync_dagster import cli
from position_sync_dagster import settings as all_settings
from position_sync_dagster.errors import InvalidRequestError, SettingsError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.processes.child_process import MARKER
from position_sync_dagster.processes.unknown_settings import warnings_of
from position_sync_dagster.settings import PREFIX, Settings, load_settings
from tests.support.settings import make_settings


@pytest.mark.parametrize("text", ["OPT,FOP", " opt , Fop, "])
def test_security_types_are_written_with_commas(monkeypatch, tmp_path, text):
    monkeypatch.setenv("POSITION_SYNC_SEC_TYPES", text)
    assert load_settings().sec_types == ("OPT", "FOP")
    monkeypatch.delenv("POSITION_SYNC_SEC_TYPES")
    (tmp_path / ".env").write_text(f"POSITION_SYNC_SEC_TYPES={text}\n")
    assert load_settings().sec_types == ("OPT", "FOP")


def test_a_file_of_settings_that_is_no_text_is_a_settings_error(tmp_path):
    (tmp_path / ".env").write_bytes(b"POSITION_SYNC_LAKE=\xff\n")
    with pytest.raises(SettingsError, match=r"cannot be read: .*utf-8"):
        load_settings()


SHELL = "write the whole path"
NOTHING = "leave the setting out"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_lines": "5"}, "RESERVED_LINES=5"),
        ({"max_lines": "5", "reserved_lines": "9"}, "MAX_LINES=5"),
        ({"session_lease_s": "3"}, "SESSION_LEASE_S='3'.*greater than 4"),
        ({"daily_start": "yesterday"}, "DAILY_START='yesterday'"),
        ({"daily_start": "2026-02-30"}, "DAILY_START='2026-02-30'"),
        ({"alert_severities": "loud"}, "ALERT_SEVERITIES='LOUD'"),
        ({"ui_url": "http://127.0.0.1:99999"}, "UI_URL='http://127.0.0.1:99999'"),
        ({"ui_url": "http://[127.0.0.1"}, r"UI_URL='http://\[127"),
        *(({"sec_types": text}, "SEC_TYPES=") for text in ("", " , ", '["OPT"]', "OTP")),
        ({"lake": ""}, "LAKE=''"),
        *(({name: ""}, f"=''.*{NOTHING}") for name in ("gateways_file", "strategies_file")),
        ({"flex_folder": " "}, f"FLEX_FOLDER=' ' .*{NOTHING}"),
        *(({name: "~/here"}, SHELL) for name in ("lake", "strategies_file", "flex_folder")),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_its_variable(monkeypatch, values, said):
    for name, value in values.items():
        monkeypatch.setenv(f"POSITION_SYNC_{name.upper()}", value)
    with pytest.raises(SettingsError, match=f"POSITION_SYNC_.*{said}") as caught:
        load_settings()
    assert any(f"POSITION_SYNC_{name.upper()}" in caught.value.what for name in values)
    assert caught.value.remedy


def test_values_at_their_bounds_are_accepted():
    edge = make_settings(max_lines=1, reserved_lines=0, heartbeat_s=2, session_lease_s=3)
    assert edge.max_lines == 1
    assert load_settings(daily_start="20260105").daily_start == "2026-01-05"


FIELDS = Settings.model_fields.items()
NUMBERS = [name for name, field in FIELDS if field.annotation in (int, float)]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_its_bounds_is_refused_by_name(monkeypatch, name):
    for text in ("inf", "-inf", "nan", "1e308", "-1", "9" * 400, "one"):
        monkeypatch.setenv(f"POSITION_SYNC_{name.upper()}", text)
        said = f"{text} is accepted"
        try:
            load_settings()
        except SettingsError as error:
            said = str(error)
        assert said.startswith(f"POSITION_SYNC_{name.upper()}=")
        assert len(said) < 400


UNUSABLE_IN_LAKES = ("[", "]", "^", "|", "\\", "%41", "%2F", "\n", "\x7f")


@pytest.mark.parametrize(
    "uri",
    ["s3://", "s3:///lake", "s3:/bucket/lake", "S3://bucket/lake", "gs://bucket/lake", "://lake",
     "http://host/lake", "FILE:///lake", "file:/lake", "file://lake", "file://localhost/lake"],
)  # fmt: skip
def test_a_lake_is_in_a_folder_or_in_a_bucket_and_nowhere_else(uri):
    with pytest.raises(SettingsError, match="write a folder, or s3:// with a bucket"):
        load_settings(_env_file=None, lake=uri)
    for good in ("s3://bucket", "s3a://bucket/lake", "file:///lake", "./a:/lake", "a:b/lake"):
        assert load_settings(_env_file=None, lake=good).lake == good


@pytest.mark.parametrize("text", UNUSABLE_IN_LAKES, ids=ascii)
@pytest.mark.parametrize("before", ["/data/", "", "s3://bucket/", "file:///data/"])
def test_a_lake_where_no_table_works_is_refused_by_name(before, text):
    with pytest.raises(InvalidRequestError) as refused:
        MoneyLake(f"{before}a{text}b/lake").registry.table.version()
    assert f"it contains {text!r}" in refused.value.what


def test_a_relative_lake_is_refused_for_the_folder_that_it_is_in(monkeypatch, tmp_path):
    (tmp_path / "a[1]").mkdir()
    monkeypatch.chdir(tmp_path / "a[1]")
    with pytest.raises(InvalidRequestError, match=r"it contains '\['"):
        MoneyLake.of(load_settings(lake="lake"))


def test_settings_are_keys_of_caches_and_rates_are_read_by_currency(monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_INTEREST_RATES", "usd=0.05, EUR=-0.01")
    settings = load_settings(_env_file=None)
    assert hash(settings) == hash(load_settings(_env_file=None))
    assert settings.interest_rates == (("USD", 0.05), ("EUR", -0.01))


@pytest.mark.parametrize(
    "line", ["POSITION_SYNC_TRADING_MODE: PAPER", "POSITION_SYNC_MAX_LINES", "A_SECRET: abc"]
)
def test_a_line_that_cannot_be_read_is_named_by_file_and_line(tmp_path, line):
    file = tmp_path / ".env"
    file.write_text(f"# mine\nPOSITION_SYNC_MAX_LINES=50\n\n{line}\n")
    with pytest.raises(SettingsError) as raises:
        load_settings(_env_file=str(file))
    assert raises.value.what == f"Line 4 of {file} cannot be read."


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(SettingsError, match="is not a regular file"):
        load_settings(_env_file=str(tmp_path / ".env"))


def test_comments_quotes_exports_and_empty_values_are_read(tmp_path):
    file = tmp_path / ".env"
    file.write_text("# a\nexport A=1\nB='x y' # b\nC=\n\n")
    assert all_settings.read_env_file(file) == {"A": "1", "B": "x y", "C": ""}


def test_a_mistyped_name_is_found_with_the_nearest_setting():
    names = ["POSITION_SYNC_REFRESH_INTERVAL", "POSITION_SYNC_QQQ", "PATH"]
    without, near = warnings_of(names, env_file=None)
    assert without.startswith("POSITION_SYNC_QQQ is not a setting and has no effect; /")
    assert without.endswith(".env.example lists each one.")
    assert near.endswith("is POSITION_SYNC_REFRESH_INTERVAL_S meant?")


def test_no_setting_is_unknown_and_neither_is_the_mark_of_our_own_processes():
    own = {PREFIX + name.upper() for name in Settings.model_fields}
    assert warnings_of({*own, MARKER}, env_file=None) == []


def test_a_name_in_both_the_environment_and_the_file_is_warned_of_once(tmp_path):
    file = tmp_path / "settings"
    file.write_text("POSITION_SYNC_MAX_LINE=3\nPOSITION_SYNC_LAKES=x\n")
    lines = warnings_of(["POSITION_SYNC_MAX_LINE"], env_file=str(file))
    assert len(lines) == 2
    assert "POSITION_SYNC_LAKES" in lines[0]
    assert "POSITION_SYNC_LAKE meant" in lines[0]
    assert "POSITION_SYNC_MAX_LINES meant" in lines[1]


def test_a_command_warns_of_it_on_the_command_line(monkeypatch, capsys):
    monkeypatch.setenv("POSITION_SYNC_MAX_LINE", "3")
    monkeypatch.setattr("sys.argv", ["position-sync", "breaks"])
    with contextlib.suppress(SystemExit):
        cli.main()
    printed = capsys.readouterr().err
    assert printed.count("POSITION_SYNC_MAX_LINE ") == 1
    assert "POSITION_SYNC_MAX_LINES meant" in printed


EXAMPLE = Path(__file__).parents[2] / ".env.example"


def in_example() -> dict[str, str]:
    lines = re.findall(rf"^#?{PREFIX}(\w+)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert len(lines) == len(dict(lines)), "a setting is shown twice"
    return dict(lines)


def test_each_setting_is_documented_and_nothing_else():
    assert set(in_example()) == {name.upper() for name in Settings.model_fields}


def test_nothing_is_set_by_copying_the_example():
    assert not re.findall(r"^[^#\n]", EXAMPLE.read_text(), flags=re.MULTILINE)


def test_there_are_at_most_36_settings():
    assert len(in_example()) <= 36


def test_the_values_shown_are_the_defaults_and_those_without_are_unset(tmp_path):
    unset = {name.upper() for name, field in FIELDS if field.default in (None, ())}
    assert {name for name, value in in_example().items() if not value} == unset
    text = re.sub(rf"^#({PREFIX}\w+=.)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    (tmp_path / "all.env").write_text(text)
    assert Settings(_env_file=tmp_path / "all.env") == Settings(_env_file=None)
