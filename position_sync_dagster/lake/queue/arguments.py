"""What callers of the queue give: taken as it is, or refused by name.

Each function raises `InvalidRequestError`.
"""

from collections.abc import Iterable

from position_sync_dagster.domain.request import (
    ACTIVE_PRIORITY,
    MONITORING_PRIORITY,
    QueueRequest,
    QueueStatus,
    Reason,
)
from position_sync_dagster.errors import InvalidRequestError

PRIORITIES = (ACTIVE_PRIORITY, MONITORING_PRIORITY)


def check_request(request: QueueRequest) -> QueueRequest:
    """Refuse a request of which a field is none."""
    conid, symbol = request.conid, request.symbol
    if isinstance(conid, bool) or not isinstance(conid, int) or not 0 < conid < 2**63:
        raise InvalidRequestError(
            f"The conid {conid!r} of a request is no whole number above zero.",
            remedy="Give the contract id as TWS shows it.",
        )
    check_priority(request.priority, f" of the request for {conid}")
    check_text("account", request.account)
    if not isinstance(request.reason, Reason):
        raise InvalidRequestError(
            f"The reason {request.reason!r} of the request for {conid} is none.",
            remedy=f"Give a Reason: {', '.join(Reason)}.",
        )
    if not isinstance(symbol, str) or not symbol.strip():
        raise InvalidRequestError(
            f"The symbol {symbol!r} of the request for {conid} is empty.",
            remedy="Give the symbol of the position's underlying.",
        )
    return request


def check_priority(priority: object, whose: str = "") -> None:
    """Refuse what is neither 1 nor 2."""
    if isinstance(priority, (bool, float)) or priority not in PRIORITIES:
        raise InvalidRequestError(
            f"The priority {priority!r}{whose} is neither 1 nor 2.",
            remedy="Give 1 for an active leg without a line, 2 for all else.",
        )


def check_text(name: str, text: object) -> None:
    """Refuse what is neither a text nor None."""
    if text is not None and not isinstance(text, str):
        raise InvalidRequestError(
            f"The {name} {text!r} is no text.", remedy=f"Give the {name} as text, or None."
        )


def check_limit(limit: object) -> None:
    """Refuse what is no number of requests."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise InvalidRequestError(
            f"The limit {limit!r} is no number of requests.", remedy="Give 0 or more."
        )


def check_lease(lease_s: object) -> None:
    """Refuse a lease that is over before it begins, or never ends."""
    number = isinstance(lease_s, (int, float)) and not isinstance(lease_s, bool)
    if not number or not 0 < lease_s < 10**9:  # type: ignore[operator]
        raise InvalidRequestError(
            f"A lease of {lease_s!r} s is over before it begins, or never ends.",
            remedy="Give seconds above 0, such as 60.",
        )


def status_of(status: QueueStatus | str) -> QueueStatus:
    """Give the status that a text names."""
    try:
        return QueueStatus(status)
    except ValueError:
        raise InvalidRequestError(
            f"{status!r} is no status of a request.", remedy=f"Give {', '.join(QueueStatus)}."
        ) from None


def ids_of(request_ids: str | Iterable[str]) -> list[str]:
    """Give ids as a list, each once."""
    try:
        ids = [request_ids] if isinstance(request_ids, str) else list(request_ids)
    except TypeError:
        raise InvalidRequestError(
            f"{request_ids!r} are no ids of requests.",
            remedy="Give ids as `insert` or `claim_batch` gave them.",
        ) from None
    return list(dict.fromkeys(storable(str(one)) for one in ids))


def storable(text: str) -> str:
    """Spell out what has no UTF-8: a lone surrogate, from undecodable bytes in an error."""
    return str(text).encode("utf-8", "backslashreplace").decode()
