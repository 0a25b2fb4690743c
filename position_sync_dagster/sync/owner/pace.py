"""How long a writer rests after a commit: where commits are slow, they are fewer and larger."""

REST = 3.0
"""A writer commits for at most a quarter of the time, so that the others get their turn."""

LONGEST_REST_S = 10.0

VALUES_REST = 9.0
"""The same for values that a later commit replaces: a tenth of the time."""


def rest_s(took_s: float, rest: float = REST) -> float:
    """Return how long a writer rests after a commit that took so long, in seconds.

    On a local disk a commit takes milliseconds, and nobody sees the rest.

    >>> rest_s(0.02), rest_s(0.5), rest_s(60.0)
    (0.06, 1.5, 10.0)
    """
    return min(rest * took_s, LONGEST_REST_S)
