"""A recording, read from its file."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from ib_gateway_simulator.errors import RecordingError
from ib_gateway_simulator.recordings.entry import Entry, Header, entry_of, header_of

log = logging.getLogger(__name__)

# No line of a recording is nearly as long: a file of another kind is refused early.
MAX_LINE_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A whole recording: its header and its entries in the order of their recording."""

    header: Header
    entries: tuple[Entry, ...]


def load_recording(path: str | Path) -> Recording:
    """Read a recording; a last line that was cut off by a crash is left out.

    Raises:
        RecordingError: The file cannot be read, or a line is wrong; it names the line.
    """
    header: Header | None = None
    entries: list[Entry] = []
    at = 0
    try:
        with Path(path).open("rb") as file:
            while raw := file.readline(MAX_LINE_BYTES):
                at += 1
                if not raw.endswith(b"\n"):
                    if len(raw) == MAX_LINE_BYTES or header is None:
                        raise ValueError("the line is too long or cut off")
                    log.warning("%s: the last line is cut off; it is left out", path)
                    break

                record = json.loads(raw)
                if header is None:
                    header = header_of(record)
                else:
                    entries.append(entry_of(record))
    except OSError as error:
        raise RecordingError(path, 0, f"cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise RecordingError(path, at, str(error)) from None

    if header is None:
        raise RecordingError(path, 0, "the file is empty")
    return Recording(header=header, entries=tuple(entries))
