"""Lakes whose tables are empty: created once in a process of the tests, and copied.

To create the tables costs thirty times as much as to copy them, and most tests need them.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import object_store
from tests.support.whole_lake import WholeLake


@cache
def _first_entries() -> dict[str, bytes]:
    """Return the first entry of each table's log, by its path in a lake."""
    with TemporaryDirectory(prefix="empty-lake-") as folder:
        WholeLake(folder, fsync=False).initialize_sync()
        logs = Path(folder).rglob("*.json")
        return {str(path.relative_to(folder)): path.read_bytes() for path in logs}


def put_tables(lake: Path | str) -> None:
    """Put the tables, as `Lake.initialize` creates them, into a folder or an object store."""
    for name, entry in _first_entries().items():
        if "://" in str(lake):
            object_store.put_stored(f"{lake}/{name}", entry)
        else:
            path = Path(lake, name)
            path.parent.mkdir(parents=True, mode=0o700)
            path.write_bytes(entry)
