"""The errors of the simulator, each with its cause and remedy."""

from __future__ import annotations

from pathlib import Path


class SimulatorError(Exception):
    """The root of every error that the simulator raises."""


class BookError(SimulatorError):
    """A mistake in a book or scenario file: where it is, and how to correct it.

    `line` and `column` count from 1 and are 0 when the place is unknown
    (a file that does not exist).
    """

    def __init__(
        self, path: Path | str, line: int, column: int, cause: str, remedy: str, field: str = ""
    ) -> None:
        self.path = str(path)
        self.line = line
        self.column = column
        self.field = field
        self.cause = cause
        self.remedy = remedy
        place = str(path)
        if line:
            place = f"{path}:{line}:{column}"

        what = cause
        if field:
            what = f"{field}: {cause}"

        super().__init__(f"{place}: {what} ({remedy})")


class RecordingError(SimulatorError):
    """A recording cannot be read or written: the file, the line (0: none), the cause."""

    def __init__(self, path: Path | str, line: int, cause: str) -> None:
        self.path = str(path)
        self.line = line
        place = f"{path}:{line}" if line else f"{path}"
        super().__init__(f"{place}: {cause}")


class ActionError(SimulatorError):
    """A trade or fault that cannot be done; `field` names the argument that is wrong."""

    def __init__(self, field: str, cause: str) -> None:
        self.field = field
        self.cause = cause
        super().__init__(f"{field}: {cause}")


class OptionError(SimulatorError):
    """An option of the simulator has an impossible value."""


class PortInUseError(SimulatorError):
    """The simulator cannot listen on an address."""

    def __init__(self, host: str, port: int, cause: Exception) -> None:
        self.host = host
        self.port = port
        reason = getattr(cause, "strerror", None) or str(cause)
        super().__init__(
            f"cannot listen on {host}:{port}: {reason} "
            "(end the program that holds the port, or choose another one; 0 takes any free port)"
        )


class WireError(SimulatorError):
    """The bytes of a client do not follow the gateway's protocol."""


class MalformedRequestError(WireError):
    """A field of a request cannot be read.

    A gateway answers 320 and closes (as reported in ib_async issues/158 and ib_insync issues/152).
    """

    def __init__(self, req_id: int, field: str, value: str) -> None:
        self.req_id = req_id
        self.field = field
        self.value = value
        super().__init__(f"the field {field!r} cannot be read from {value!r}")
