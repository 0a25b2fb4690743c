"""What is measured of a gateway: its delays, its answers, and how much it is asked at once."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence

from position_sync_dagster.gateway.codes import HUNG_UP
from position_sync_dagster.processes.heard.wire import MODEL, Heard, Series, order, vocabulary

# The newest delays are kept, so many of each kind.
MOST_DELAYS = 1000

# An answer that has not come after this time, in seconds, is missing.
ANSWER_S = 10.0


class Measured(Heard):
    """Counts what a gateway says, and measures it.

    Attributes:
        delays: The newest seconds from one message to the next of its request, account or farm.
        requested, missing: How many requests there were, and were not answered in full, by name.
        most_lines: The greatest number of market data lines at once.
        most_sent: The greatest number of messages that were sent within a second.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.delays = defaultdict[str, deque[float]](lambda: deque(maxlen=MOST_DELAYS))
        self.requested: Counter[str] = Counter()
        self.missing: Counter[str] = Counter()
        self.most_lines = self.most_sent = 0
        self._monotonic = monotonic
        self._now = monotonic()
        self._since: dict[Series, float] = {}
        self._open: dict[Series, tuple[str, float]] = {}
        self._sent: deque[float] = deque()
        self._lines: set[Series] = set()

    def __call__(self, was_sent: bool, fields: Sequence[str]) -> None:
        """Take a message."""
        self._now = self._monotonic()
        super().__call__(was_sent, fields)

    def close(self) -> None:
        """Count the requests that were not answered."""
        self._now = self._monotonic()
        for series in list(self._open):
            self._give_up(series)

    def _request(self, kind: str, fields: Sequence[str]) -> None:
        """Count the messages that were sent within a second."""
        self._sent.append(self._now)
        while self._sent[0] <= self._now - 1.0:
            self._sent.popleft()
        self.most_sent = max(self.most_sent, len(self._sent))
        super()._request(kind, fields)

    def _begin(self, series: Series, name: str) -> None:
        """Begin a series, and await its answer if one is known."""
        super()._begin(series, name)
        self._since[series] = self._now
        if name in vocabulary().answers:
            self.requested[name] += 1
            self._open[series] = (name, self._now)
        if name == "reqMktData":
            self._lines.add(series)
            self.most_lines = max(self.most_lines, len(self._lines))

    def _end(self, series: Series) -> None:
        """End a series, of which no answer is awaited any more."""
        super()._end(series)
        self._since.pop(series, None)
        self._give_up(series)
        self._lines.discard(series)

    def _give_up(self, series: Series) -> None:
        """Await the answer of a series no more; it counts as missing after its time."""
        name, at = self._open.pop(series, ("", 0.0))
        if name and self._now - at > ANSWER_S:
            self.missing[name] += 1

    def _follow(self, series: Series, step: str) -> str:
        """Measure how long after the message before this one came, and whether it is an answer."""
        before = super()._follow(series, step)
        if before:
            self.delays[order(before, step)].append(self._now - self._since[series])
        if series in self._last:
            self._since[series] = self._now

        if series in self._open and step == vocabulary().answers[self._open[series][0]]:
            del self._open[series]
        if step == "error" or step.isdecimal():
            self._open.pop(series, None)
            self._open.pop((*series, MODEL), None)
            self._lines.discard(series)
        if step in (HUNG_UP, "1101"):
            self._open.clear()
            self._lines.clear()
        return before
