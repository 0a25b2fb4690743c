"""The errors of the package: one root; each names the thing, the cause and the remedy."""

from typing import ClassVar


class PositionSyncError(Exception):
    """The root of every error of this package.

    Args:
        what: One sentence: the thing and the cause.
        remedy: One sentence: what the reader can do now.

    Attributes:
        exit_code: The exit code of a command that ends with the error: 2 for a `UserError`, else 1.
        page: The document of the checkout that says more, if there is one.

    >>> str(PositionSyncError("The port 4002 is taken.", remedy="Use another one."))
    'The port 4002 is taken. Use another one.'
    """

    exit_code: ClassVar[int] = 1
    page: ClassVar[str] = ""

    def __init__(self, what: str, *, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what} {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.remedy))


def _rebuild(cls: type[PositionSyncError], what: str, remedy: str) -> PositionSyncError:
    """Return a pickled error again: some classes are made of other arguments than `what`."""
    error = cls.__new__(cls)
    PositionSyncError.__init__(error, what, remedy=remedy)
    return error


class UserError(PositionSyncError):
    """What the user can correct on the command line, in a file or in the environment."""

    exit_code = 2


def fault_of(error: PositionSyncError) -> str:
    """Return what the errors of one outage have in common; after a colon each may differ.

    >>> fault_of(PositionSyncError("A table cannot be read: 7.parquet.", remedy="Look at it."))
    'A table cannot be read'
    """
    return error.what.partition(": ")[0]


def shown(value: object) -> str:
    """Return a value as an error shows it, cut to 60 characters: input may be of any length.

    >>> shown("4002x")
    "'4002x'"
    >>> shown("9" * 5000)
    "'99999999999999999999999999999999999999999999999999999999999… (5,002 characters)"
    """
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    if len(text) <= _SHOWN_LENGTH:
        return text

    return f"{text[:_SHOWN_LENGTH]}… ({len(text):,} characters)"


# The number of characters of a value that an error shows.
_SHOWN_LENGTH = 60


class MissingExtraError(PositionSyncError):
    """A library of an extra of this package is not installed.

    >>> print(MissingExtraError("mcp", "mcp"))
    mcp is not installed. Run: pip install 'position-sync-dagster[mcp]'
    """

    page = "docs/do/install.md"

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"{library} is not installed.",
            remedy=f"Run: pip install 'position-sync-dagster[{extra}]'",
        )


# Input of the user: settings, legs, the files of strategies and gateways.


class SettingsError(UserError):
    """A setting is missing, malformed or out of range."""

    page = ".env.example"


class InvalidLegError(UserError, ValueError):
    """A leg's conid, right, strike, expiry or quantity cannot be read; pydantic adds the place."""

    page = "docs/strategies.md#the-file"


class StrategiesFileError(UserError):
    """A strategies file cannot be read; the message names line and column."""

    page = "docs/strategies.md#the-file"


class GatewaysFileError(SettingsError):
    """A gateways file cannot be read; the message names line and column."""

    page = "docs/do/two-logins.md"


# The gateway.


class ClockSetBackError(PositionSyncError):
    """The clock of the machine was set back, and values in memory have no age any more.

    The stream begins anew by itself. If it happens again, see to the machine's time service (NTP).
    """


class GatewayError(PositionSyncError):
    """The gateway cannot be used now; the caller may try again.

    Each failure to connect is a ConnectionError too, which programs for ib_async catch.
    """

    page = "docs/operations.md#the-stream-is-blind"


class GatewayRefusedError(GatewayError, ConnectionError):
    """Nothing listens at the gateway's address, or it closes the connection at once."""


class GatewayTimeoutError(GatewayError, ConnectionError):
    """The gateway accepted a connection or a request and did not answer in time."""


class NotAGatewayError(GatewayError, ConnectionError):
    """The program at the gateway's address does not speak the gateway's protocol."""


class ClientIdInUseError(GatewayError, ConnectionError):
    """Other connections use every client id of the pool (code 326)."""


class GatewayLostError(GatewayError, ConnectionError):
    """The connection ended before an answer came."""


class BrokerUnavailableError(GatewayError):
    """No current data of the broker is available; requests are released, not failed."""


class TooManyAccountsError(GatewayError, ConnectionError):
    """The login has more accounts than this program serves."""


# Sources of stated positions.


class UnreadableSourceError(PositionSyncError):
    """A source of stated positions cannot be read: a past day may lack rows.

    Mend the source that the message names, and fill the day again.
    """


# The lake: its folder and its tables.


class LakeError(PositionSyncError):
    """A table cannot be used."""


class LakeNotWritableError(LakeError):
    """The lake's folder cannot be written: permissions, or a full or read-only disk."""

    page = "docs/operations.md#a-full-disk"


class StoreError(LakeError):
    """The object store refuses or does not answer; the tables are whole, and it may be mended."""

    page = "docs/object-store.md"


class ForeignTableError(LakeError):
    """The path holds something other than the table that this package keeps there.

    Name another folder with POSITION_SYNC_LAKE, or move away what is there.
    """


class BrokenTableError(LakeError):
    """Files that the table's log names are missing, or the log itself is damaged."""

    page = "docs/do/restore.md#a-data-file-is-gone"


class NewerTableError(LakeError):
    """A newer release than the running code wrote the table."""

    page = "docs/do/upgrade.md"


class TradingModeError(LakeError):
    """Data of one trading mode (live, paper, simulated) does not go into a lake of another."""

    page = "docs/do/restore.md#move-to-another-folder-or-machine"


# Commits.


class CommitContentionError(LakeError):
    """Other writers committed first, again and again, until the time limit; nothing was changed.

    Try again; if it repeats, look for a program that writes all the time.
    """


class NewerRowError(LakeError):
    """The caller has not read a newer row of the ledger: its own row would be out of date.

    Read the newest rows again and decide anew.
    """


class StalledError(LakeError):
    """The process was suspended inside a commit, which may therefore not count.

    Read the table again before you go on.
    """


# Requests of the queue.


class InvalidRequestError(LakeError, UserError, ValueError):
    """A value given to a table call is out of range or cannot be stored.

    The message says which values are allowed.
    """


class UnknownRequestError(LakeError, UserError):
    """The queue has no request with this id.

    Take the id from `position-sync queue list`, or that of a break from `position-sync breaks`.
    """


class RequestStateError(LakeError, UserError):
    """The state of a request does not allow this step.

    Only a claimed request can be marked or released, and only a failed one be tried again.
    """


# The audit trail.


class UnknownIdError(LakeError, UserError):
    """No table has this id, or the holding has no row.

    Take the id from where it is listed: `positions --closed`, `history` or `results --list`.
    """


class TokenError(LakeError, UserError):
    """A reader cannot go on at the place in the ledger that its token names."""

    page = "docs/follow.md#what-is-promised"


# Leases: of requests and of the login.


class LeaseLostError(LakeError):
    """The caller's lease has expired or belongs to another process."""

    page = "docs/stream.md#session-who-owns-the-login"


class LoginOwnedError(LakeError):
    """Another process owns the login; only one may write for it at a time."""

    page = "docs/stream.md#session-who-owns-the-login"


# Legs of strategies.


class AmbiguousRemovalError(LakeError, UserError):
    """Several strategies hold the leg, and the call does not name the one to end.

    Name the strategy, and the account if needed.
    """


class UnknownLegError(LakeError, UserError):
    """No strategy holds the leg that is to be removed.

    Take conid, strategy and account from `position-sync strategies list`.
    """
