"""The webserver: the guard stands before every route of it."""

from dagster_webserver import cli
from dagster_webserver.webserver import DagsterWebserver

from position_sync_dagster import webserver
from position_sync_dagster.processes.child_process import MARKER
from position_sync_dagster.web.loopback_guard import LoopbackGuard
from position_sync_dagster.webserver import GuardedWebserver


def test_the_guard_is_the_first_to_see_a_request():
    first, *_others = object.__new__(GuardedWebserver).build_middleware()
    assert first.cls is LoopbackGuard


def test_without_money_there_are_no_pages_of_ours(monkeypatch):
    monkeypatch.setattr(DagsterWebserver, "build_routes", lambda _self: ["of Dagster"])
    monkeypatch.setenv("POSITION_SYNC_MONEY", "false")
    assert object.__new__(GuardedWebserver).build_routes() == ["of Dagster"]
    monkeypatch.setenv("POSITION_SYNC_MONEY", "true")
    assert len(object.__new__(GuardedWebserver).build_routes()) > 5


def test_an_unknown_setting_is_said_once_at_the_start(monkeypatch, capsys):
    monkeypatch.setattr(cli, "main", lambda: None)
    monkeypatch.setattr(webserver.app, "DagsterWebserver", None)
    monkeypatch.setenv("POSITION_SYNC_MIN_HOLD_S", "3")
    webserver.main()
    assert capsys.readouterr().err.count("POSITION_SYNC_MIN_HOLD_S is not a setting") == 1
    monkeypatch.setenv(MARKER, "dev")  # which has said it
    webserver.main()
    assert capsys.readouterr().err == ""
