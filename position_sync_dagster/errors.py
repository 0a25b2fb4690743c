"""The errors of the package: one root, each naming the thing, the cause and the remedy."""


class PositionSyncError(Exception):
    """Say what happened to which thing, and what to do about it.

    Args:
        what: One sentence: the thing and the cause.
        remedy: One sentence: what the reader can do now.
    """

    def __init__(self, what: str, *, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what} {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.remedy))


def _rebuild(cls: type[PositionSyncError], what: str, remedy: str) -> PositionSyncError:
    return cls(what, remedy=remedy)


class SettingsError(PositionSyncError):
    """A setting is missing, malformed or out of range."""


class InvalidLegError(PositionSyncError):
    """A leg's conid, right, strike, expiry or quantity does not parse."""


class StrategiesFileError(PositionSyncError):
    """A strategies file cannot be read; the message carries line and column."""


class GatewayError(PositionSyncError):
    """The gateway cannot be used; the base of what a caller may retry."""


class GatewayRefusedError(GatewayError):
    """Nothing listens at the gateway's address."""


class GatewayTimeoutError(GatewayError):
    """The gateway accepted the connection or a request and did not answer in time."""


class NotAGatewayError(GatewayError):
    """Something listens at the address, and it does not speak the gateway's protocol."""


class ClientIdInUseError(GatewayError):
    """Each client id that may be used is taken by another connection (code 326)."""


class GatewayLostError(GatewayError):
    """The connection ended while an answer was awaited."""


class BrokerUnavailableError(GatewayError):
    """Nothing current is known of the broker; requests are released, not failed."""


class TooManyAccountsError(GatewayError):
    """The login has more than 50 accounts, for which the gateway serves no positions."""


class LakeError(PositionSyncError):
    """A table cannot be used."""


class LakeNotWritableError(LakeError):
    """The lake's folder cannot be written: permissions, a full or read-only disk."""


class ForeignTableError(LakeError):
    """The path holds something that is not the table that this package keeps there."""


class BrokenTableError(LakeError):
    """Files that the table's log names are gone, or the log itself is damaged."""


class NewerTableError(LakeError):
    """The table was written by a newer release than the running code."""


class TradingModeError(LakeError):
    """A lake of one trading mode (live, paper, simulated) met data of another."""


class CommitContentionError(LakeError):
    """Other writers kept winning for longer than the bound; nothing was changed."""


class StalledError(LakeError):
    """The process stood still inside a commit, which may not count."""


class InvalidRequestError(LakeError, ValueError):
    """A value given to a table call is out of range or cannot be stored."""


class UnknownRequestError(LakeError):
    """A request id is not in the queue."""


class RequestStateError(LakeError):
    """A request is not in a state from which the step is allowed."""


class LeaseLostError(LakeError):
    """The lease under which the caller worked has expired or belongs to another."""


class LoginOwnedError(LakeError):
    """Another process owns the login; only one may write for it at a time."""


class AmbiguousRemovalError(LakeError):
    """Several strategies hold the leg, and the call does not say which to end."""


class UnknownLegError(LakeError):
    """No strategy holds the leg that is to be removed."""
