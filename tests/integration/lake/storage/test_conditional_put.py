"""A store that keeps two writers apart no more is found out by `doctor`."""

import pytest

from position_sync_dagster.errors import StoreRefusedError, StoreUnavailableError, UnsafeStoreError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage import object_store as store_probe
from position_sync_dagster.processes.preflight import check_store
from tests.support.object_store import stored_under
from tests.support.store_proxy import CUT_AFTER, Rule


@pytest.fixture
def lake(store):
    made = Lake(store.lake())
    made.initialize_sync()
    return made


def test_a_safe_store_is_called_so_and_the_probe_leaves_nothing_in_it(lake):
    before = stored_under(lake.path)
    [found] = check_store(lake)
    assert found.text == "it refuses the second of two writers (conditional put)"
    assert stored_under(lake.path) == before


def test_a_store_that_lost_its_conditional_put_is_named_with_those_that_have_it(store, lake):
    store.proxy.change(stripped=("if-none-match",))
    with pytest.raises(UnsafeStoreError, match=r"no conditional put.*MinIO"):
        check_store(lake)


def test_a_client_that_may_not_use_conditional_put_is_named(lake, monkeypatch):
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    with pytest.raises(UnsafeStoreError, match="AWS_CONDITIONAL_PUT"):
        lake.queue.table.probe_store()


def test_a_winner_whose_answer_is_lost_makes_no_store_unsafe(store, lake):
    store.proxy.fail(Rule(CUT_AFTER, "PUT", store_probe.PROBES, times=1))
    assert lake.queue.table.probe_store()


def test_writers_that_never_meet_prove_nothing(lake, monkeypatch):
    monkeypatch.setattr(store_probe, "_race", lambda *_: [None, OSError("it is there")])
    with pytest.raises(UnsafeStoreError, match="no writer lost"):
        lake.queue.table.probe_store()


@pytest.mark.parametrize(
    ("fault", "error"), [("denied", StoreRefusedError), ("slow down", StoreUnavailableError)]
)
def test_a_store_that_cannot_be_written_now_is_not_called_unsafe(store, lake, fault, error):
    store.proxy.fail(Rule(fault, "PUT"))
    with pytest.raises(error):
        lake.queue.table.probe_store()


def test_a_folder_needs_no_probe(tmp_path):
    assert check_store(Lake(tmp_path / "lake")) == []
