"""When something that failed is tried again, and pauses between commits; pure."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """A delay that doubles with each failure in a row, up to a bound.

    Attributes:
        first_s: Delay after the first failure, in seconds.
        longest_s: Upper bound of the delay before the jitter, in seconds.
        jitter: Bounds of the random factor; (1, 1) means none.

    >>> backoff = Backoff(first_s=10.0, longest_s=120.0)
    >>> [backoff.delay_s(failures) for failures in (0, 1, 2, 9)]
    [0.0, 10.0, 20.0, 120.0]
    """

    first_s: float
    longest_s: float
    jitter: tuple[float, float] = (1.0, 1.0)

    def delay_s(self, failures: int, random: Random | None = None) -> float:
        """Return the delay after this many failures in a row, in seconds.

        Args:
            failures: 0 or less means no delay.
            random: Draws the jitter; None leaves it out.
        """
        if failures <= 0:
            return 0.0
        # The power is bounded: 2 to the 1024th is no float.
        delay_s = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 64))
        if random is None:
            return delay_s

        return delay_s * random.uniform(*self.jitter)


# Pause after a commit, as a multiple of its duration, and its maximum: a writer commits for at
# most a thirteenth of the time. In an object store each commit costs requests, and each reader one
# more for each new file. A changed position does not wait.
SHORT_REST = 12.0
SHORT_REST_S = 4.0

# Factor and maximum of the pause where commits take longer: a writer commits for at most a quarter
# of the time, and the other writers get their turn.
LONG_REST = 3.0
LONG_REST_S = 10.0


def rest_s(took_s: float) -> float:
    """Return the pause of a writer after a commit of this duration, in seconds.

    A commit costs requests, and each reader one more: the pause is `SHORT_REST` times as long, up
    to some seconds. After a slow commit it is `LONG_REST` times as long, up to `LONG_REST_S`: the
    other writers get their turn. On a local disk a commit takes milliseconds, and the pause is not
    noticed.

    >>> rest_s(0.02), rest_s(0.5), rest_s(0.9), rest_s(2.0), rest_s(60.0)
    (0.24, 4.0, 4.0, 6.0, 10.0)
    """
    short_s = min(SHORT_REST * took_s, SHORT_REST_S)
    return max(short_s, min(LONG_REST * took_s, LONG_REST_S))
