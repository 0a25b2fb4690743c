"""The lease tokens that a queue object remembers, so that marking needs the ids alone."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock

REMEMBERED = 10_000
"""Tokens that are remembered beside those of the newest claim."""


class LeaseTokens:
    """The newest lease token of each claimed request; safe to use from any thread."""

    def __init__(self) -> None:
        # A dict looks over all that was dropped from its start, each time again.
        self._tokens: OrderedDict[str, str] = OrderedDict()
        self._lock = Lock()

    def of(self, ids: Sequence[str], lease_token: str | None) -> Mapping[str, str]:
        """Return the caller's tokens by request: the given one for all, or the remembered ones."""
        return self._tokens if lease_token is None else dict.fromkeys(ids, lease_token)

    def remember(self, ids: Sequence[str], token: str) -> None:
        """Remember the token of a claim, and drop the oldest tokens that are too many."""
        with self._lock:
            for request_id in ids:
                self._tokens.pop(request_id, None)
                self._tokens[request_id] = token
            while len(self._tokens) > REMEMBERED + len(ids):
                self._tokens.popitem(last=False)

    def forget(self, ids: Iterable[str]) -> None:
        """Drop the tokens of requests that are no longer claimed."""
        with self._lock:
            for request_id in ids:
                self._tokens.pop(request_id, None)
