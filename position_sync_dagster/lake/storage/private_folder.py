"""The folder of a table: only its owner may enter it, whatever the umask of the process."""

import os
from contextlib import suppress
from pathlib import Path

from position_sync_dagster.lake.delta_log.durability import sync_paths

OWNER_ONLY = 0o700


def make_private_folder(path: str) -> None:
    """Create the folder of a table, and the lake's folder around it, for the owner alone.

    The files inside are out of reach of others then, whatever their own permissions. A folder that
    exists stays as it is: its owner may have opened it to a group. An error is left to the writer
    that needs the folder next, which names it. The names of new folders are synced: the commits
    in them are acknowledged later, and sync no folder around the lake.

    Args:
        path: A folder or a URI; a URI has none.
    """
    if "://" in path or os.path.isdir(path):
        return
    lake = Path(path).parent
    new = [folder for folder in (lake, *lake.parents) if not folder.exists()]
    with suppress(OSError):
        lake.parent.mkdir(parents=True, exist_ok=True)
        lake.mkdir(mode=OWNER_ONLY, exist_ok=True)
        Path(path).mkdir(mode=OWNER_ONLY, exist_ok=True)
        sync_paths(folder.parent for folder in new)
