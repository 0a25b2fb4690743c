"""A store that keeps two writers apart no more is found out before anybody owns a login."""

import pytest
from typer.testing import CliRunner

from position_sync_dagster.cli.app import app
from position_sync_dagster.cli.dev import require_safe_store
from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.errors import StoreRefusedError, StoreUnavailableError, UnsafeStoreError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage import opening
from position_sync_dagster.processes.preflight import check_lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.ownership import Ownership
from tests.support.object_store import stored_under
from tests.support.ports import free_port
from tests.support.store_proxy import CUT_AFTER, Rule
from tests.support.waiting import eventually


@pytest.fixture
def lake(store, monkeypatch):
    """Return a lake in the store, of whose store the process has no proof."""
    made = Lake(store.lake())
    made.initialize_sync()
    monkeypatch.setattr(opening, "_proven", set())
    return made


@pytest.fixture
def settings(lake):
    return Settings(_env_file=None, lake=lake.path)


def probes(lake: Lake) -> list[str]:
    return [name for name in stored_under(lake.path) if opening.PROBES in name]


def owning(lake, settings) -> Ownership:
    return Ownership(lake.sessions, settings, owner=Owner.STREAM)


async def test_nobody_owns_a_login_of_a_lake_whose_store_lost_its_conditional_put(
    store, lake, settings
):
    store.proxy.change(stripped=("if-none-match",))
    before = stored_under(lake.path)
    with pytest.raises(UnsafeStoreError, match=r"conditional put .*If-None-Match") as caught:
        await owning(lake, settings).__aenter__()
    assert lake.path in caught.value.what
    await eventually(lambda: not probes(lake))
    assert stored_under(lake.path) == before
    store.proxy.reset()
    async with owning(lake, settings) as own:
        own.check()


async def test_the_proof_before_a_lease_leaves_nothing_and_takes_few_requests_once(
    store, lake, settings
):
    store.proxy.change()
    lake.sessions.table.prove_store()
    await eventually(lambda: not probes(lake))
    asked = [one for one in store.proxy.change() if opening.PROBES in one.path]
    assert 0 < len(asked) <= 30 * opening.ROUNDS
    lake.sessions.table.prove_store()
    assert store.proxy.change() == []


def test_a_winner_whose_answer_is_lost_makes_no_store_unsafe(store, lake):
    store.proxy.fail(Rule(CUT_AFTER, "PUT", opening.PROBES, times=1))
    lake.sessions.table.prove_store()


async def test_a_store_is_safe_though_its_writers_seldom_meet(lake, monkeypatch):
    """A process with one thread for requests, and a store that answers at once."""
    race, rounds = opening._race, []

    def seldom(*args):
        rounds.append(1)
        monkeypatch.setattr(opening, "RACERS", 2 if len(rounds) > 20 else 1)
        return race(*args)

    monkeypatch.setattr(opening, "_race", seldom)
    lake.sessions.table.prove_store()
    assert len(rounds) > 20
    await eventually(lambda: not probes(lake))


def test_writers_that_never_meet_prove_nothing(lake, monkeypatch):
    monkeypatch.setattr(opening, "RACERS", 1)
    monkeypatch.setattr(opening, "ROUNDS", 3)
    with pytest.raises(UnsafeStoreError, match="no writer lost"):
        lake.sessions.table.prove_store()


@pytest.mark.parametrize(
    ("fault", "error"), [("denied", StoreRefusedError), ("slow down", StoreUnavailableError)]
)
def test_a_store_that_cannot_be_written_now_is_not_called_unsafe(store, lake, fault, error):
    store.proxy.fail(Rule(fault, "PUT"))
    with pytest.raises(error):
        lake.sessions.table.prove_store()


def test_the_doctor_finds_it_out(store, lake):
    assert [one.text for one in check_lake(lake) if one.check == "store"] == [
        "it refuses the second of two writers (conditional put)"
    ]
    opening._proven.clear()
    store.proxy.change(stripped=("if-none-match",))
    [found] = [one for one in check_lake(lake) if one.check == "store"]
    assert "no conditional put" in found.text
    assert "MinIO" in found.remedy


def test_dev_ends_with_its_name_before_anything_starts(store, lake, monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_LAKE", lake.path)
    store.proxy.change(stripped=("if-none-match",))
    result = CliRunner().invoke(app, ["dev", "--ui-port", str(free_port())])
    assert result.exit_code == 1
    assert isinstance(result.exception, UnsafeStoreError) or "conditional put" in result.output


def test_dev_waits_for_a_store_that_does_not_answer(store, lake, settings):
    store.proxy.fail(Rule("slow down"))
    require_safe_store(settings)


def test_a_folder_needs_no_proof(tmp_path):
    require_safe_store(Settings(_env_file=None, lake=str(tmp_path / "lake")))
    assert [one.check for one in check_lake(Lake(tmp_path / "lake"))] == ["tables"]
