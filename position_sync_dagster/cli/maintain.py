"""The command `position-sync maintain`: fewer files, the same rows."""

from position_sync_dagster.cli.options import HomeFolder, Json, existing, settings_for
from position_sync_dagster.terminal.output import print_json, print_table

COLUMNS = {
    "table": "left",
    "compacted": "right",
    "deleted": "right",
    "files": "right",
    "version": "right",
    "skipped": "left",
}


def maintain(json: Json = False, home: HomeFolder = None) -> None:
    """Merge small files of each table, and delete what no version within the retention needs.

    Dagster does so every hour, while it runs. Writers and readers go on beside it. Told are the
    files that were merged and deleted, the files and the version after it, and why a part was
    left for the next time.
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
                result.skipped or "",
            )
            for result in results
        ),
    )
