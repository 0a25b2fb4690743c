"""What a figure of the program should be, and what it is."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A figure of the program that is not the broker's.

    Attributes:
        invariant: What should always hold.
        session: The session of the figure.
        seen: When it was looked at.
    """

    invariant: str
    session: date
    seen: str
    what: str
    true: object
    told: object

    def __str__(self) -> str:
        """Return it as one line."""
        where = f"{self.session} {self.seen}: {self.invariant}: {self.what}"
        return f"{where}: {self.true} at the broker, the program has {self.told}"
