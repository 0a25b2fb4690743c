"""Where the homes and Dagster's files are: in a checkout, and for an installed package."""

from pathlib import Path

from position_sync_dagster import places
from position_sync_dagster.cli.dev import put_instance

ROOT = Path(__file__).parents[2]


def test_a_checkout_keeps_its_homes_beside_its_files(monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert places.checkout() == ROOT
    assert places.workspace_file() == ROOT / "workspace.yaml"
    assert places.instance_file() == ROOT / "dagster_home" / "dagster.yaml"
    assert places.dagster_home() == ROOT / "dagster_home"
    assert places.demo_home() == Path(".demo")


def test_an_installed_package_has_its_own_files_and_the_platforms_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    package = tmp_path / "site-packages" / "position_sync_dagster"
    monkeypatch.setattr(places, "PACKAGE", package)
    assert places.checkout() is None
    assert places.workspace_file() == package / "instance" / "workspace.yaml"
    assert places.instance_file() == package / "instance" / "dagster.yaml"
    for home in (places.dagster_home(), places.demo_home()):
        assert places.NAME in home.parts
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "own"))
    assert places.dagster_home() == tmp_path / "own"


def test_a_new_home_of_dagster_gets_our_instance_and_no_other_home_does(tmp_path, monkeypatch):
    ours, own = tmp_path / "ours", tmp_path / "own"
    for home in (ours, own):
        home.mkdir()
    monkeypatch.setattr(places, "own_dagster_home", lambda: ours)
    put_instance(own)
    put_instance(ours)
    assert not (own / "dagster.yaml").exists()
    assert (ours / "dagster.yaml").read_bytes() == places.instance_file().read_bytes()
    (ours / "dagster.yaml").write_text("changed: by a person")
    put_instance(ours)
    assert (ours / "dagster.yaml").read_text() == "changed: by a person"


def test_the_wheel_takes_the_files_along():
    text = (ROOT / "pyproject.toml").read_text()
    for found in (places.workspace_file(), places.instance_file()):
        source = found.relative_to(ROOT).as_posix()
        assert f'"{source}" = "position_sync_dagster/instance/{found.name}"' in text
