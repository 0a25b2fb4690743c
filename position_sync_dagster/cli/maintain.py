"""The command `position-sync maintain`: merge and delete files of the tables."""

from position_sync_dagster.cli.options import HomeFolder, Json, existing, settings_for
from position_sync_dagster.terminal.output import print_json, print_table

COLUMNS = {
    "table": "left",
    "compacted": "right",
    "deleted": "right",
    "files": "right",
    "version": "right",
    "doubled": "right",
    "skipped": "left",
}


def maintain(json: Json = False, home: HomeFolder = None) -> None:
    """Merge small files of each table, and delete files that no version in the retention needs.

    Dagster does this every hour while it runs. Other programs may read and write at the same
    time. The output shows the number of files merged and deleted, the files and the version
    afterwards, rows that are there more than once (`doctor --repair` removes them), and why a part
    was skipped until the next time.
    """
    from position_sync_dagster.lake import Lake

    results = existing(Lake.of(settings_for(home))).maintain()
    if json:
        print_json(results)
        return
    print_table(
        COLUMNS,
        (
            (
                result.table,
                f"{result.compacted:,}",
                f"{result.deleted:,}",
                f"{result.files:,}",
                str(result.version),
                f"{result.doubled.surplus:,}",
                result.skipped or "",
            )
            for result in results
        ),
    )
