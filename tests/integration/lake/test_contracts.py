"""Contract details: stored once, when a contract is first seen."""

from dataclasses import replace

from position_sync_dagster.lake.contracts import ContractsTable
from position_sync_dagster.lake.schema.codec import contract_rows
from position_sync_dagster.lake.schema.tables import CONTRACTS
from position_sync_dagster.lake.storage.frames import append
from position_sync_dagster.lake.storage.table import Table
from tests.support.contracts import contract_details


def details(clock, conid):
    return contract_details(conid, seen_at=clock.now)


async def test_contracts_of_the_version_before_are_read_without_what_it_did_not_store(
    tmp_path, clock
):
    new = ("valid_exchanges", "expires_on")
    columns = {name: kind for name, kind in CONTRACTS.columns.items() if name not in new}
    before = Table(tmp_path / "contracts", replace(CONTRACTS, version=1, columns=columns))
    before.initialize()
    row = contract_rows([details(clock, 1)]).select(list(columns))
    before.transact(lambda handle: append(handle, row, {}))
    contracts = ContractsTable(tmp_path / "contracts")
    await contracts.initialize()
    known = replace(details(clock, 1), valid_exchanges=None, expires_on=None)
    assert await contracts.get() == {1: known}
    assert await contracts.add([details(clock, 1), details(clock, 2)]) == 1


async def test_a_contract_is_stored_when_it_is_first_seen(lake, clock):
    first = details(clock, 1)
    assert await lake.contracts.add([first, first, details(clock, 2)]) == 2
    clock.advance(60)
    assert await lake.contracts.add([details(clock, 1), details(clock, 3)]) == 1
    found = await lake.contracts.get([1, 3, 99])
    assert found == {1: first, 3: details(clock, 3)}
    assert await lake.contracts.get([]) == {}
