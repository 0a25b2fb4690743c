"""What the preflight finds at this machine, and that a check that hangs does not hang it."""

import threading
from collections import namedtuple
from functools import partial

import pytest
from pydantic import SecretStr

from position_sync_dagster.errors import LakeError
from position_sync_dagster.processes import preflight
from position_sync_dagster.processes.preflight import Finding, Level, bounded, good
from position_sync_dagster.settings import load_settings


@pytest.mark.parametrize(("free", "level"), [(2**31, Level.GOOD), (2**20, Level.BAD)])
def test_a_disk_without_room_is_found(monkeypatch, tmp_path, free, level):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage(free))
    [finding] = preflight.check_disk(str(tmp_path / "not" / "there" / "yet"))
    assert finding.level is level
    assert bool(finding.remedy) == (level is not Level.GOOD)


def test_a_lake_that_is_named_by_the_uri_of_a_folder_is_on_a_disk(tmp_path):
    uri = f"file://{tmp_path}/lake"
    [found] = preflight.check_disk(uri)
    assert f"free at {tmp_path}" in found.text


def test_unknown_settings_are_a_warning_each():
    names = {"POSITION_SYNC_MAX_LINE": "3", "POSITION_SYNC_LAKES": "x"}
    findings = preflight.check_settings(load_settings(), names, env_file=None)
    assert [finding.level for finding in findings] == [Level.WARNING] * 2
    [fine] = preflight.check_settings(load_settings(), {}, env_file=None)
    assert fine.level is Level.GOOD


def test_a_receiver_that_apprise_does_not_understand_is_bad():
    settings = load_settings(alert_urls=(SecretStr("json://127.0.0.1"), SecretStr("secret")))
    [check_alert] = preflight.check_alerts(settings)
    assert check_alert.level == Level.BAD
    assert check_alert.text == "apprise does not understand receiver 2"


def test_a_gateways_file_that_is_missing_is_named_and_no_gateway_is_asked(tmp_path):
    settings = load_settings(gateways_file="no-such-file.yaml", lake=str(tmp_path))
    findings = preflight.run_preflight(settings, {}, env_file=None, dagster_home=tmp_path)
    wrong = [finding for finding in findings if finding.level is Level.BAD]
    assert [one.check for one in wrong] == [preflight.LOGINS_CHECK, "gateway"]
    assert "no-such-file.yaml: there is no such file" in wrong[0].text


def test_a_home_of_dagster_that_others_may_read_is_a_warning_and_that_of_a_fresh_clone_is_none(
    tmp_path,
):
    (tmp_path / "dagster.yaml").touch()
    tmp_path.chmod(0o755)
    assert [finding.level for finding in preflight.check_home(tmp_path)] == [Level.GOOD]

    (tmp_path / "history").mkdir()
    for mode, level in ((0o700, Level.GOOD), (0o750, Level.WARNING)):
        tmp_path.chmod(mode)
        [finding] = preflight.check_home(tmp_path)
        assert finding.level == level
        assert finding.remedy.startswith("chmod 700") == (mode != 0o700)


def test_checks_run_side_by_side_and_their_findings_keep_their_order():
    at_once = threading.Barrier(3)

    def look(text: str) -> list[Finding]:
        at_once.wait(60)
        return [good("disk", text)]

    looks = {text: partial(look, text) for text in ("one", "two", "three")}
    found = bounded(looks, within_s=60)
    assert found == [good("disk", text) for text in looks]


def test_an_error_of_ours_in_a_check_is_a_finding_and_any_other_is_raised():
    def away() -> list[Finding]:
        raise LakeError("The table is gone.", remedy="Restore it.")

    [found] = bounded({"tables": away}, within_s=60)
    assert found == Finding("tables", Level.BAD, "The table is gone.", "Restore it.")
    with pytest.raises(ZeroDivisionError):
        bounded({"disk": lambda: [good("disk", str(1 // 0))]}, within_s=60)


def test_a_check_that_hangs_is_bad_and_the_others_are_shown():
    release = threading.Event()
    ended = threading.Event()
    looks = {
        "disk": lambda: [good("disk", str(release.wait()))],
        "tables": lambda: [good("tables", str(ended.set()))],  # type: ignore[func-returns-value]
    }
    try:
        silent, finding = bounded(looks, within_s=3)
        assert ended.is_set()
        assert silent.check == "disk"
        assert silent.level == Level.BAD
        assert silent.text == "no answer within 3 s"
        assert finding.check == "tables"
        assert finding.level == Level.GOOD
    finally:
        release.set()
