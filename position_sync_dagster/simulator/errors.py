"""What can go wrong in the simulator, each error with its cause and remedy."""

from __future__ import annotations

from pathlib import Path


class SimulatorError(Exception):
    """Be the root of every error that the simulator raises."""


class BookError(SimulatorError):
    """Say what is wrong in a book or scenario file, where, and what to change.

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
        place = f"{path}:{line}:{column}" if line else str(path)
        what = f"{field}: {cause}" if field else cause
        super().__init__(f"{place}: {what} ({remedy})")


class ActionError(SimulatorError):
    """Refuse a fault or trade that makes no sense; `field` names the argument at fault."""

    def __init__(self, field: str, cause: str) -> None:
        self.field = field
        self.cause = cause
        super().__init__(f"{field}: {cause}")


class OptionError(SimulatorError):
    """Say which option of the simulator makes no sense."""


class PortInUseError(SimulatorError):
    """Say that an address cannot be listened on."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host = host
        self.port = port
        super().__init__(
            f"cannot listen on {host}:{port}: {reason} "
            "(end the program that holds the port, or choose another one; 0 takes any free port)"
        )


class WireError(SimulatorError):
    """Say that the bytes of a client are not the gateway's protocol."""


class MalformedRequestError(WireError):
    """Say which field of a request could not be read.

    A gateway answers 320 and closes (as reported in ib_async issues/158 and ib_insync issues/152).
    """

    def __init__(self, req_id: int, field: str, value: str) -> None:
        self.req_id = req_id
        self.field = field
        self.value = value
        super().__init__(
            f"Error reading request. Unable to parse field: '{field}' for input string: '{value}'"
        )
