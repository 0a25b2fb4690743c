"""The options of the clients that talk to an object store: those of Delta and of Polars.

Address, region and credentials are not among them. Both clients take these from the environment,
as every AWS program does; so no setting and no object of this package ever holds a secret.
"""

from collections.abc import Mapping

CONNECT_S, ANSWER_S, RETRIES, RETRY_S = 5, 30, 4, 10
"""Seconds for a connection and for an answer; how often a request is repeated, and how long at
most. By default the client repeats for three minutes, in which a lease of 15 s is long lost."""

_DELTA = {
    "connect_timeout": f"{CONNECT_S}s",
    "timeout": f"{ANSWER_S}s",
    "max_retries": str(RETRIES),
    "retry_timeout": f"{RETRY_S}s",
}
_POLARS: dict[str, object] = {"max_retries": RETRIES}


def is_remote(path: str) -> bool:
    """Return whether a path names a place in an object store.

    >>> is_remote("s3://bucket/lake"), is_remote("data/lake"), is_remote("file:///data/lake")
    (True, False, False)
    """
    return "://" in path and not path.startswith("file://")


def delta_options(path: str, given: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return the options of Delta's client for a path; None for a local one without any.

    Args:
        given: What the caller wants otherwise; it takes precedence.
    """
    if not is_remote(path):
        return dict(given) if given else None
    return _DELTA | dict(given or {})


def polars_options(path: str, given: Mapping[str, str] | None) -> dict[str, object] | None:
    """Return the options of Polars' client for a path.

    Args:
        given: Options that a caller gave to Delta's client.
    """
    kept: dict[str, object] = {
        name: text for name, text in (given or {}).items() if name not in _DELTA
    }
    return _POLARS | kept if is_remote(path) else kept or None
