"""The checks of the queue's arguments.

Each function raises `InvalidRequestError`, which names the argument and its value.
"""

from collections.abc import Iterable

from position_sync_dagster.domain.request import (
    ACTIVE_PRIORITY,
    MONITORING_PRIORITY,
    QueueRequest,
    QueueStatus,
    Reason,
)
from position_sync_dagster.errors import InvalidRequestError, shown

PRIORITIES = (ACTIVE_PRIORITY, MONITORING_PRIORITY)


def check_request(request: QueueRequest) -> QueueRequest:
    """Check every field of a request, and return the request."""
    conid, symbol = request.conid, request.symbol
    if isinstance(conid, bool) or not isinstance(conid, int) or not 0 < conid < 2**63:
        raise InvalidRequestError(
            f"The conid {shown(conid)} of a request is not a whole number above zero.",
            remedy="Use the contract id that TWS shows.",
        )
    check_priority(request.priority, f" of the request for {conid}")
    check_text("account", request.account)
    if not isinstance(request.reason, Reason):
        raise InvalidRequestError(
            f"The reason {shown(request.reason)} of the request for {conid} is not a Reason.",
            remedy=f"Use a Reason: {', '.join(Reason)}.",
        )
    if not isinstance(symbol, str) or not symbol.strip():
        raise InvalidRequestError(
            f"The symbol {shown(symbol)} of the request for {conid} is empty.",
            remedy="Use the symbol of the position's underlying.",
        )
    return request


def check_priority(priority: object, whose: str = "") -> None:
    """Check that a priority is 1 or 2."""
    if isinstance(priority, (bool, float)) or priority not in PRIORITIES:
        raise InvalidRequestError(
            f"The priority {shown(priority)}{whose} is neither 1 nor 2.",
            remedy="Use 1 for an active leg without a line, 2 for everything else.",
        )


def check_text(name: str, text: object) -> None:
    """Check that an argument is a text or None."""
    if text is not None and not isinstance(text, str):
        raise InvalidRequestError(
            f"The {name} {shown(text)} is not a text.", remedy=f"Pass the {name} as a str, or None."
        )


def check_limit(limit: object) -> None:
    """Check that a limit is a number of requests."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**32:
        raise InvalidRequestError(
            f"The limit {shown(limit)} is not a number of requests.",
            remedy="Use a whole number, 0 or more.",
        )


def check_lease(lease_s: object) -> None:
    """Check that a lease has a length, and an end."""
    number = isinstance(lease_s, (int, float)) and not isinstance(lease_s, bool)
    if not number or not 0 < lease_s < 10**9:  # type: ignore[operator]
        raise InvalidRequestError(
            f"A lease cannot last {shown(lease_s)} s.",
            remedy="Use a number of seconds above 0, such as 60.",
        )


def status_of(status: QueueStatus | str) -> QueueStatus:
    """Return the status with this name."""
    try:
        return QueueStatus(status)
    except ValueError:
        raise InvalidRequestError(
            f"{shown(status)} is not a status of a request.",
            remedy=f"Use {', '.join(QueueStatus)}.",
        ) from None


def ids_of(request_ids: str | Iterable[str]) -> list[str]:
    """Return ids as a list, each once."""
    try:
        ids = [request_ids] if isinstance(request_ids, str) else list(request_ids)
    except TypeError:
        raise InvalidRequestError(
            f"{shown(request_ids)} are not ids of requests.",
            remedy="Use ids that `insert` or `claim_batch` returned.",
        ) from None
    return list(dict.fromkeys(storable(str(one)) for one in ids))


def storable(text: str) -> str:
    """Return the text with lone surrogates spelled out, since they have no UTF-8.

    They come from bytes that could not be decoded, for example in an error message.
    """
    return str(text).encode("utf-8", "backslashreplace").decode()
