"""The entries of a local table's log as they lie on the disk: read, and judged whole or torn."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LOG = "_delta_log"
LAST_CHECKPOINT = "_last_checkpoint"
ASIDE = "_torn"
"""What the folders begin with to which a repair moves torn commits."""

TRANSACTIONS = "transactions"
"""The note in a commit that says how many application transactions it sets."""

_ENTRY = re.compile(r"(\d{20})\.json\Z")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet\Z")

_ADDED = ("num_added_files", "numFilesAdded")
_REMOVED = ("num_removed_files", "numFilesRemoved")
_SETS_SCHEMA = frozenset({"CREATE TABLE", "SET TBLPROPERTIES", "ADD COLUMN"})


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file as the log names it.

    Attributes:
        path: Relative to the table, as it lies on the disk.
        rows: As the log counts them; None when it does not say.
    """

    path: str
    size: int
    rows: int | None = None

    @classmethod
    def named(cls, path: str, size: int, stats: str | None) -> "DataFile":
        """Read what an add action says of a file."""
        return cls(unquote(path), int(size), json.loads(stats).get("numRecords") if stats else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One version of the log.

    Attributes:
        flaw: What is wrong with it, as a predicate ("is empty"); None for a whole one.
        action: What the commit did, in this package's words; "" when unknown.
    """

    version: int
    added: tuple[DataFile, ...] = ()
    removed: frozenset[str] = frozenset()
    flaw: str | None = None
    action: str = ""


def entry_name(version: int) -> str:
    """Name the file of a version."""
    return f"{version:020}.json"


def checkpoint_name(version: int) -> str:
    """Name the file of a version's checkpoint."""
    return f"{version:020}.checkpoint.parquet"


def entry_versions(log: Path) -> list[int]:
    """List the versions that have an entry, ascending."""
    return _numbers(log, _ENTRY)


def checkpoint_versions(log: Path) -> list[int]:
    """List the versions that have a checkpoint, ascending."""
    return _numbers(log, _CHECKPOINT)


def read_entry(log: Path, version: int) -> Entry:
    """Read the entry of a version; a torn one is given with its flaw and what is legible of it."""
    try:
        text = (log / entry_name(version)).read_bytes()
    except FileNotFoundError:
        return Entry(version=version, flaw="is missing")
    return judge_entry(version, text)


def judge_entry(version: int, text: bytes) -> Entry:
    """Read an entry and tell whether all of it is there; pure.

    Delta readers take an empty entry, or one cut at the end of a line, for a whole one. The first
    line says how many files the commit added and removed, so that a missing line is noticed.
    """
    if not text.strip(b"\0 \r\n"):
        return Entry(version=version, flaw="is empty")
    actions: list[tuple[str, dict[str, Any]]] = []
    flaw = None
    for line in text.splitlines():
        try:
            actions += json.loads(line).items()
        except (ValueError, AttributeError):
            flaw = "is cut"
            break
    added = tuple(
        DataFile.named(body["path"], body["size"], body.get("stats"))
        for kind, body in actions
        if kind == "add"
    )
    removed = frozenset(unquote(body["path"]) for kind, body in actions if kind == "remove")
    info = next((body for kind, body in actions if kind == "commitInfo"), {})
    kinds = [kind for kind, _ in actions]
    return Entry(
        version=version,
        added=added,
        removed=removed,
        flaw=flaw or _missing_action(info, kinds),
        action=str(info.get("action") or info.get("operation") or ""),
    )


def _missing_action(info: dict[str, Any], kinds: list[str]) -> str | None:
    metrics = info.get("operationMetrics") or {}
    told = {
        "add": next((metrics[key] for key in _ADDED if key in metrics), None),
        "remove": next((metrics[key] for key in _REMOVED if key in metrics), None),
        "txn": info.get(TRANSACTIONS),
        "metaData": 1 if info.get("operation") in _SETS_SCHEMA else None,
        "protocol": 1 if info.get("operation") == "CREATE TABLE" else None,
    }
    short = [k for k, count in told.items() if count is not None and kinds.count(k) < int(count)]
    return "is cut" if short or not info else None


def _numbers(log: Path, pattern: re.Pattern[str]) -> list[int]:
    found = (pattern.match(name) for name in os.listdir(log))
    return sorted(int(match[1]) for match in found if match)
