"""What a program of logins is given, and what it gives back."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one program does.

    Attributes:
        logins: The numbers of its logins.
        legs, streamed: Of each login.
        seconds: How long it works.
    """

    lake: str
    logins: tuple[int, ...]
    legs: int
    streamed: int
    flush_s: float
    heartbeat_s: float
    lease_s: float
    seconds: float


@dataclass(slots=True)
class Measured:
    """What one login measured.

    Attributes:
        appends, renewals, publications: How long each took, in seconds.
        gaps: Seconds between two commits of the ledger: the age that a value may have.
        tries: How often an append was decided, the first time included.
        lost: 1 if the lease ended although its owner tried to renew it.
        errors: Other errors of the tables, by their names.
    """

    appends: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    renewals: list[float] = field(default_factory=list)
    publications: list[float] = field(default_factory=list)
    tries: int = 0
    lost: int = 0
    errors: list[str] = field(default_factory=list)


def name_of(login: int) -> str:
    return f"login{login:04}"


def account_of(login: int) -> str:
    return f"DUSIM{login:04}"
