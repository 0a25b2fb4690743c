"""What the Flex service answers instead of a statement, and what to do about it."""

from collections.abc import Mapping

from position_sync_dagster.errors import FlexServiceError

IN_PROGRESS = "1019"
TOO_MANY_REQUESTS = "1018"

_LATER = {
    "1001", "1003", "1004", "1005", "1006", "1007", "1008", "1009", TOO_MANY_REQUESTS, IN_PROGRESS,
    "1021",
}  # fmt: skip
"""Codes after which the same request may succeed.

Source: IB, "Flex Web Service", error codes.
"""

_SETTINGS = "(POSITION_SYNC_FLEX_TOKEN, POSITION_SYNC_FLEX_QUERY_ID)"
_REMEDIES = {
    "1010": "Use an activity Flex query of the present kind: legacy queries are not served.",
    "1011": "Activate the Flex Web Service in the Client Portal (Settings, Reporting).",
    "1012": f"Make a new token in the Client Portal and set it {_SETTINGS}.",
    "1013": "Allow this machine's address for the token in the Client Portal, or remove the limit.",
    "1014": f"Correct the query id {_SETTINGS}; the Client Portal shows it beside the query.",
    "1015": f"Correct the token {_SETTINGS}; the Client Portal shows it.",
    "1016": "Use token and query of the same login.",
    "1017": "Request the statement again: the reference is not known any more.",
    TOO_MANY_REQUESTS: "Wait ten minutes: one request a second and ten a minute are allowed.",
    IN_PROGRESS: "Wait a few minutes and download it again; replace the file, if it is one.",
    "1020": f"Correct token and query id {_SETTINGS}.",
}


def may_succeed_later(code: str) -> bool:
    """Return whether the same request may succeed later."""
    return code in _LATER


def refusal(texts: Mapping[str, str], what: str) -> FlexServiceError:
    """Return the error of an answer that is no statement.

    Args:
        texts: The elements of the answer, by name.
        what: The file or the query, for the message.
    """
    code = texts.get("ErrorCode") or texts.get("code") or "no code"
    said = (texts.get("ErrorMessage") or "no statement and no error")[:200].rstrip(".")
    return FlexServiceError(
        f"{what}: the Flex service answered {code}: {said}.",
        remedy=_REMEDIES.get(code, "See the error codes of IB's Flex Web Service."),
    )
