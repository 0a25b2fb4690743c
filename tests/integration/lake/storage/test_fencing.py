"""The newest owner of a gateway: known without reading the log anew, and never missed."""

from dataclasses import replace

import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from position_sync_dagster.errors import LeaseLostError
from position_sync_dagster.lake.schema.codec import update_rows
from position_sync_dagster.lake.storage.fencing import owner_transaction
from position_sync_dagster.lake.storage.maintenance import maintain
from position_sync_dagster.lake.updates.table import PositionUpdatesTable


@pytest.fixture
def ledger(place):
    made = PositionUpdatesTable(f"{place}/position_updates")
    made.sync.initialize()
    return made


@pytest.fixture
def owned(make_update):
    """Return a function that makes a row of gateway `g` with a fencing token."""

    def make(conid: int, token: int = 1, gateway_id: str = "g"):
        return replace(make_update(conid), gateway_id=gateway_id, fencing_token=token)

    return make


@pytest.fixture
def asked(monkeypatch):
    """Return a list that grows each time that an owner is looked up in the log."""
    found: list[str] = []
    look_up = DeltaTable.transaction_version

    def counted(self, app_id):
        found.append(app_id)
        return look_up(self, app_id)

    monkeypatch.setattr(DeltaTable, "transaction_version", counted)
    return found


def test_rows_of_an_owner_are_written_without_looking_it_up_each_time(ledger, owned, asked):
    ledger.sync.fence("g", 1)
    for conid in range(1, 6):
        ledger.sync.append([owned(conid)])
    assert len(asked) <= 2


def test_rows_of_an_owner_take_as_many_requests_as_others(store, owned, make_update):
    ledger = PositionUpdatesTable(store.lake() + "/position_updates")
    ledger.sync.fence("g", 1)
    for conid in range(1, 4):
        ledger.sync.append([owned(conid)])
    store.proxy.change()
    ledger.sync.append([owned(4)])
    of_owner = len(store.proxy.change())
    ledger.sync.append([make_update(5)])
    assert of_owner == len(store.proxy.change())


def test_commits_of_others_are_looked_at_and_need_no_look_up(ledger, owned, asked):
    other = PositionUpdatesTable(ledger.table.path)
    for gateway_id, writer in (("g", ledger), ("h", other)):
        writer.sync.fence(gateway_id, 1)
        writer.sync.append([owned(1, gateway_id=gateway_id)])
    asked.clear()
    for conid in range(2, 6):
        ledger.sync.append([owned(conid)])
        other.sync.append([owned(conid, gateway_id="h")])
    maintain(other.table)
    ledger.sync.append([owned(7)])
    assert asked == []
    assert ledger.sync.count() == 11


def test_a_newer_owner_is_noticed_by_one_that_has_just_written(ledger, owned):
    ledger.sync.fence("g", 1)
    ledger.sync.append([owned(1)])
    PositionUpdatesTable(ledger.table.path).sync.fence("g", 2)
    for _ in range(2):
        with pytest.raises(LeaseLostError, match="token 2; this session has 1"):
            ledger.sync.append([owned(2)])
    ledger.sync.append([owned(3, token=2)])
    assert ledger.sync.latest().get_column("conid").to_list() == [1, 3]


def test_a_newer_owner_of_a_release_that_does_not_name_it_is_noticed(ledger, owned):
    ledger.sync.fence("g", 1)
    ledger.sync.append([owned(1)])
    as_before = CommitProperties(
        custom_metadata={"action": "fence", "transactions": "1"},
        app_transactions=[Transaction(owner_transaction("g"), 2)],
    )
    write_deltalake(ledger.table.path, update_rows([]), mode="append", commit_properties=as_before)
    with pytest.raises(LeaseLostError, match="token 2; this session has 1"):
        ledger.sync.append([owned(2)])


def test_a_newer_owner_is_noticed_among_many_commits(ledger, owned, make_update):
    ledger.sync.fence("g", 1)
    ledger.sync.append([owned(1)])
    other = PositionUpdatesTable(ledger.table.path)
    other.sync.fence("g", 2)
    for conid in range(30, 55):
        other.sync.append([make_update(conid)])
    with pytest.raises(LeaseLostError):
        ledger.sync.append([owned(2)])


def test_what_an_owner_recorded_itself_is_known(ledger, owned):
    for token in (1, 2, 5):
        ledger.sync.fence("g", token)
        ledger.sync.append([owned(token, token=token)])
    with pytest.raises(LeaseLostError, match="token 5"):
        ledger.sync.fence("g", 4)
