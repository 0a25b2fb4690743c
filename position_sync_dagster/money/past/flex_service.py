"""The Flex Web Service of the broker: a statement is requested, waited for, and downloaded."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import quote_plus, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener
from xml.etree import ElementTree as Xml

from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.errors import UnreadableSourceError


class FlexServiceError(UnreadableSourceError):
    """The Flex service gave no statement; the message names the query or the file."""

    page = "docs/do/statements.md"


# The largest statement, in bytes; a day of 20,000 holdings takes some 15 MB.
LARGEST_STATEMENT = 512 * 2**20

# Delays before a statement that is not ready is asked for again.
NOT_READY = Backoff(first_s=2.0, longest_s=30.0)


def answer_of(data: bytes) -> dict[str, str]:
    """Return the texts of an answer of the service by name; empty for anything else."""
    if b"<FlexStatementResponse" in data[:4096]:
        with suppress(Xml.ParseError, LookupError, ValueError):
            root = Xml.fromstring(data)  # noqa: S314 - expat bounds the growth of entities
            return {element.tag: (element.text or "").strip() for element in root}
    return {}


# Codes after which the same request may succeed.
#
# Source: IB, "Flex Web Service", error codes.
_LATER = {
    "1001", "1003", "1004", "1005", "1006", "1007", "1008", "1009", "1018", "1019", "1021",
}  # fmt: skip

_SETTINGS = (
    "(POSITION_SYNC_FLEX_TOKEN, POSITION_SYNC_FLEX_QUERY_ID; of a login with its own: flex_token, "
    "flex_query_id of the gateways file)"
)
_REMEDIES = {
    "1010": "Use an activity Flex query of the present kind: legacy queries are not served.",
    "1011": "Activate the Flex Web Service in the Client Portal (Settings, Reporting).",
    "1012": f"Make a new token in the Client Portal and set it {_SETTINGS}.",
    "1013": "Allow this machine's address for the token in the Client Portal, or remove the limit.",
    "1014": f"Correct the query id {_SETTINGS}; the Client Portal shows it beside the query.",
    "1015": f"Correct the token {_SETTINGS}; the Client Portal shows it.",
    "1016": "Use token and query of the same login.",
    "1017": "Request the statement again: the reference is not known any more.",
    "1018": "Wait ten minutes: one request a second and ten a minute are allowed.",
    "1019": "Wait a few minutes and download it again; replace the file, if it is one.",
    "1020": f"Correct token and query id {_SETTINGS}.",
}


class LaterError(FlexServiceError):
    """An answer after which the same request may succeed."""


def refusal(texts: Mapping[str, str], source: str) -> FlexServiceError:
    """Return the error of an answer that is no statement.

    Args:
        texts: The elements of the answer, by name.
        source: The file or the query, for the message.
    """
    code = texts.get("ErrorCode") or texts.get("code") or "no code"
    message = (texts.get("ErrorMessage") or "no statement and no error")[:200].rstrip(".")
    remedy = _REMEDIES.get(code, "See the error codes of IB's Flex Web Service.")
    kind = LaterError if code in _LATER else FlexServiceError
    return kind(f"{source}: the Flex service answered {code}: {message}.", remedy=remedy)


# Source: IB, "Flex Web Service" (version 3).
FLEX_URL = "https://ndcdyn.interactivebrokers.com/AccountManagement/FlexWebService"


class _NoRedirects(HTTPRedirectHandler):
    """Makes a redirect an error: the request has the token in its address."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = build_opener(_NoRedirects)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexService:
    """The service that makes statements; neither its messages nor its logs contain the token.

    Args:
        url: Its address.
        timeout_s: Longest wait for one answer.
        patience_s: Longest wait for a statement that is being made, and for a busy service.
        sleep: Waits between two requests.

    Example:
        data = FlexService().download(token, "123456")
    """

    url: str = FLEX_URL
    timeout_s: float = 30.0
    patience_s: float = 300.0
    sleep: Callable[[float], None] = time.sleep

    def download(self, token: str, query_id: str, source: str | None = None) -> bytes:
        """Return the XML of a statement that is complete.

        Args:
            token: The token.
            query_id: The query.
            source: What errors name; None: the query.

        Raises:
            FlexServiceError: The service refused, or was not ready in time; it names the query,
                the code and the remedy.
        """
        source = source or f"query {query_id}"
        data = self._until_ready(f"{self.url}/SendRequest", token, query_id, source)
        answer = answer_of(data)
        reference = answer.get("ReferenceCode", "")
        if not reference:
            raise refusal(_without(token, answer), source)

        return self._until_ready(f"{self.url}/GetStatement", token, reference, source)

    def _ask(self, url: str, token: str, subject: str, source: str) -> bytes:
        address = f"{url}?{urlencode({'t': token, 'q': subject, 'v': 3})}"
        # The service refuses requests without a User-Agent.
        request = Request(address, headers={"User-Agent": "Python/3"})  # noqa: S310 - checked
        try:
            with _OPENER.open(request, timeout=self.timeout_s) as answer:
                data: bytes = answer.read(LARGEST_STATEMENT)

        except HTTPError as error:
            error.close()
            code = error.code
            kind = LaterError if code >= 500 or code == 429 else FlexServiceError
            answered = "a redirect, which is refused" if 300 <= code < 400 else "HTTP"
            raise self._no_answer(kind, source, f"{answered} {code}") from None

        except (HTTPException, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            texts = _without(token, {"reason": str(reason)})
            raise self._no_answer(LaterError, source, texts["reason"]) from None

        texts = _without(token, answer_of(data))
        if texts and texts.get("Status") != "Success":
            raise refusal(texts, source)
        return data

    def _no_answer(
        self, kind: type[FlexServiceError], source: str, reason: str
    ) -> FlexServiceError:
        host = urlsplit(self.url).hostname
        return kind(
            f"{source}: the Flex service at {host} gave no answer: {reason}.",
            remedy="Try again later; check the network.",
        )

    def _until_ready(self, *request: str) -> bytes:
        began = time.monotonic()
        failures = 0
        while True:
            try:
                return self._ask(*request)
            except LaterError:
                if time.monotonic() - began >= self.patience_s:
                    raise

            failures += 1
            self.sleep(NOT_READY.delay_s(failures))


def _without(token: str, texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts of the service without the token, which it may repeat."""
    in_url = quote_plus(token)
    return {name: text.replace(token, "***").replace(in_url, "***") for name, text in texts.items()}
