"""Requests that a recording does not have, in words, with the nearest that it has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher

from ib_gateway_simulator.protocol.requests import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """A request for which the recording has no answer.

    Attributes:
        asked: The request, in words.
        nearest: The recorded request that is most like it; None: the recording has none.
    """

    asked: str
    nearest: str | None

    def __str__(self) -> str:
        nearest = self.nearest or "nothing: it has no requests"
        return f"The recording has no answer to {self.asked}; the nearest that it has is {nearest}."


def unanswered(request: Request, recorded: Iterable[Request]) -> Unanswered:
    """Return what was asked, and the nearest recorded request, of the same kind if possible."""
    asked = in_words(request)
    same_kind: list[str] = []
    of_other_kinds: list[str] = []
    for candidate in recorded:
        kind = of_other_kinds
        if candidate.name == request.name:
            kind = same_kind

        kind.append(in_words(candidate))

    candidates = same_kind or of_other_kinds
    nearest = max(candidates, key=lambda words: _likeness(asked, words), default=None)
    return Unanswered(asked=asked, nearest=nearest)


def _likeness(first: str, second: str) -> float:
    return SequenceMatcher(None, first, second).ratio()


def in_words(request: Request) -> str:
    """Return the name of a request and what it asks for.

    Example:
        >>> in_words(Request(name="reqAccountUpdates", subscribe=True, account="DU1"))
        'reqAccountUpdates(account=DU1)'
    """
    contract = request.contract
    asked_for = {
        "account": request.account,
        "conid": contract.conid or request.conid,
        "symbol": contract.symbol,
        "sec_type": contract.sec_type,
        "expiry": contract.expiry,
        "strike": contract.strike,
        "right": contract.right,
        "exchange": contract.exchange,
        "text": request.text,
    }
    given = ", ".join(f"{name}={value}" for name, value in asked_for.items() if value)
    return f"{request.name}({given})"
