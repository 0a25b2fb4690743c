"""Open the table at a path: create, check, migrate or refuse it."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deltalake import CommitProperties, DeltaTable, Field
from deltalake.exceptions import TableNotFoundError
from deltalake.schema import PrimitiveType

from position_sync_dagster import errors
from position_sync_dagster.lake.schema import table_spec
from position_sync_dagster.lake.storage import commit_errors, object_store
from position_sync_dagster.lake.storage.durability import LOG, SET_ASIDE, refuse_torn
from position_sync_dagster.lake.storage.writer_lock import WRITER_LOCK, make_private_folder

logger = logging.getLogger(__name__)

# For what a table is opened: to work, for which it is created or migrated if it has to be; or to
# look at it, and leave it as it is.
Use = Literal["work", "look"]


@dataclass(frozen=True, slots=True)
class TableLocation:
    """The place of a table, and the schema that it must have.

    Attributes:
        path: An absolute path or a URI.
        use: For what it is opened.
    """

    path: str
    spec: table_spec.TableSpec
    options: Mapping[str, str] | None
    use: Use = "work"

    @property
    def remote(self) -> bool:
        """Return whether the table lies in an object store."""
        return object_store.is_remote(self.path)

    def exists(self) -> bool:
        """Return whether there is a log at the path.

        Raises:
            OSError: The folder may not be read.
        """
        if not self.remote:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.stat(f"{self.path}/{LOG}")
        return DeltaTable.is_deltatable(self.path, self._options())

    def open(self, *, create: bool = True) -> DeltaTable:
        """Open the newest version; create the table where there is none.

        Args:
            create: Whether to create a missing table; False if this process had it open before.

        Raises:
            ForeignTableError, NewerTableError, BrokenTableError, LakeNotWritableError.
            RetryCommit: The table was migrated or created meanwhile; open it again.
        """
        try:
            handle = DeltaTable(self.path, storage_options=self._options())
        except TableNotFoundError as missing:
            unexpected = self.unexpected_content()
            if unexpected and self.exists():
                raise commit_errors.RetryCommit from missing  # another process has created it
            if unexpected:
                raise unexpected from missing
            if self.use == "look" or not create:
                raise self._vanished() from missing
            return self._create()
        except commit_errors.STORAGE_ERRORS as unreadable:
            if not self.remote and os.path.isfile(self.path):
                raise self._foreign("it is a file") from unreadable
            if not self.remote:
                refuse_torn(Path(self.path))
            raise
        self.check(handle)
        return handle

    def _create(self) -> DeltaTable:
        make_private_folder(self.path)
        return DeltaTable.create(
            self.path,
            schema=self.spec.delta,
            partition_by=list(self.spec.partition_by),
            name=self.spec.name,
            configuration=self.spec.configuration,
            storage_options=self._options(),
            raise_if_key_not_exists=False,
            # With retries the loser of a race would create the table again, as version 1, and
            # overwrite the winner's properties.
            commit_properties=CommitProperties(max_commit_retries=0),
        )

    def _vanished(self) -> errors.BrokenTableError:
        return errors.BrokenTableError(
            f"The table {self.path} was deleted or moved away while this process had it open.",
            remedy="Put it back from a copy. To begin with an empty one, end the program and "
            "start it again.",
        )

    def _options(self) -> dict[str, str] | None:
        return object_store.delta_options(self.path, self.options)

    def unexpected_content(self) -> errors.BrokenTableError | errors.ForeignTableError | None:
        """Return the error for a folder without a log; None where a table may be created."""
        if self.remote or not os.path.exists(self.path):
            return None
        try:
            found = sorted(
                name
                for name in os.listdir(self.path)
                if name != WRITER_LOCK and not name.startswith(SET_ASIDE)
            )
        except OSError as error:
            commit_errors.fail(error, self.path)
        if found in ([], [LOG]):
            return None
        if LOG in found:
            return errors.BrokenTableError(
                f"The table {self.path} has data but no log.",
                remedy="Restore its _delta_log from a copy, or move the folder away to start with "
                "an empty table.",
            )
        return self._foreign(f"it holds {found[0]!r} and no Delta table")

    def check(self, handle: DeltaTable) -> None:
        """Refuse a table of another schema; migrate one of an older release.

        Raises:
            ForeignTableError, NewerTableError.
            RetryCommit: The table was migrated; open it again.
        """
        properties = handle.metadata().configuration
        name = properties.get(table_spec.NAME_PROPERTY)
        text = properties.get(table_spec.VERSION_PROPERTY, "")
        if name != self.spec.name or not text.isdigit():
            raise self._foreign(f"it holds {f'the table {name!r}' if name else 'a foreign table'}")
        if int(text) > self.spec.version:
            raise errors.NewerTableError(
                f"The table {self.path} has schema version {text}; this release knows "
                f"{self.spec.version}.",
                remedy="Install the release that wrote it, or a later one.",
            )
        found = {f.name: str(getattr(f.type, "type", f.type)) for f in handle.schema().fields}
        wanted = {column: kind.value for column, kind in self.spec.columns.items()}
        different = [column for column, kind in found.items() if wanted.get(column) != kind]
        if different or list(handle.metadata().partition_columns) != list(self.spec.partition_by):
            detail = ", ".join(different) or "partitions"
            raise self._foreign(f"its schema is another one ({detail})")
        missing = [column for column in wanted if column not in found]
        if int(text) < self.spec.version:
            if self.use != "look":
                self._migrate(handle, missing)
        elif missing:
            raise self._foreign(f"its schema lacks {', '.join(missing)}")

    def fits(self, handle: DeltaTable) -> bool:
        """Return whether the table has the version of the schema that this release writes."""
        stored = handle.metadata().configuration.get(table_spec.VERSION_PROPERTY)
        return stored == str(self.spec.version)

    def _migrate(self, handle: DeltaTable, missing: list[str]) -> None:
        logger.info("migrating %s to schema version %d", self.path, self.spec.version)
        # Columns first: if this process dies in between, the next one does the rest.
        if missing:
            kinds = [(column, self.spec.columns[column].value) for column in missing]
            handle.alter.add_columns([Field(c, PrimitiveType(kind)) for c, kind in kinds])
        handle.alter.set_table_properties(
            {
                table_spec.VERSION_PROPERTY: str(self.spec.version),
                table_spec.STATISTICS_PROPERTY: self.spec.configuration[
                    table_spec.STATISTICS_PROPERTY
                ],
            },
            raise_if_not_exists=False,
        )
        raise commit_errors.RetryCommit

    def _foreign(self, detail: str) -> errors.ForeignTableError:
        return errors.ForeignTableError(
            f"{self.path} is not the table {self.spec.name!r} of this package: {detail}.",
            remedy="Point POSITION_SYNC_LAKE at another folder, or move this one away.",
        )
