"""A lake that an older release was writing: the tables of money are those of this release."""

import tarfile

from deltalake import DeltaTable

from position_sync_dagster.lake.schema import VERSION_PROPERTY
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import Settings
from tests.support.hosts import ROOT


async def test_the_tables_of_money_of_an_older_lake_are_migrated(tmp_path):
    with tarfile.open(ROOT / "tests" / "support" / "older-lake.tar.gz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path / "lake")  # noqa: S202 - an archive of this repository
    lake = MoneyLake.of(Settings(lake=str(tmp_path / "lake")))
    await lake.initialize()
    for table in lake.tables:
        properties = DeltaTable(str(table.path)).metadata().configuration
        assert properties[VERSION_PROPERTY] == str(table.spec.version), table.path
    assert "multiplier" in lake.executions.table.rows().columns
