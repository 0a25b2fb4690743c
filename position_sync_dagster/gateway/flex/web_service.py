"""Download a statement from the Flex Web Service: request it, wait for it, fetch it."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import quote_plus, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from position_sync_dagster.errors import FlexServiceError, SettingsError
from position_sync_dagster.gateway.flex.responses import may_succeed_later, refusal
from position_sync_dagster.gateway.flex.statement_reader import LARGEST_STATEMENT, answer_of
from position_sync_dagster.setting_types import address_flaw

logger = logging.getLogger(__name__)

FLEX_URL = "https://ndcdyn.interactivebrokers.com/AccountManagement/FlexWebService"
"""Source: IB, "Flex Web Service" (version 3)."""

USER_AGENT = "Python/3"
"""The service refuses requests without one."""

LEAST_TOKEN = 12
"""A token that is found in a statement has so many characters: a shorter text may be there anyway.
The broker's have some 25."""

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 30.0


class _LaterError(Exception):
    """Carries the error of an answer after which the same request may succeed."""

    def __init__(self, error: FlexServiceError) -> None:
        self.error = error


class _NoRedirects(HTTPRedirectHandler):
    """Makes a redirect an error: the request has the token in its address."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = build_opener(_NoRedirects)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexService:
    """The service that makes statements; neither its messages nor its logs contain the token.

    Args:
        url: Its address; https, or http on this machine.
        timeout_s: Longest wait for one answer.
        patience_s: Longest wait for a statement that is being made, and for a busy service.
        sleep: Waits between two requests.

    Example:
        data = FlexService().download(token, "123456")
    """

    url: str = field(default=FLEX_URL, repr=False)
    timeout_s: float = 30.0
    patience_s: float = 300.0
    sleep: Callable[[float], None] = time.sleep

    def download(self, token: str, query_id: str) -> bytes:
        """Return the XML of a statement that is complete.

        Raises:
            FlexServiceError: The service refused, or was not ready in time; it names the query,
                the code and the remedy.
            SettingsError: The address would send the token in the clear, or holds a password.
        """
        flaw = address_flaw(self.url)
        if flaw is not None:
            raise SettingsError(f"POSITION_SYNC_FLEX_URL {flaw}.", remedy="Use an https address.")
        asked = self._until_ready(lambda: self._ask("SendRequest", token, query_id, query_id))
        reference = answer_of(asked).get("ReferenceCode", "")
        if not reference:
            raise refusal(_without(token, answer_of(asked)), f"query {query_id}")
        logger.info("the Flex service makes the statement of query %s", query_id)
        data = self._until_ready(lambda: self._ask("GetStatement", token, reference, query_id))
        if len(token) >= LEAST_TOKEN and token.encode() in data:
            raise FlexServiceError(
                f"query {query_id}: the statement has the token in it, and is not stored.",
                remedy="Make a new token, and look into what POSITION_SYNC_FLEX_URL answers.",
            )
        return data

    def _ask(self, step: str, token: str, subject: str, query_id: str) -> bytes:
        address = f"{self.url.rstrip('/')}/{step}?" + urlencode({"t": token, "q": subject, "v": 3})
        request = Request(address, headers={"User-Agent": USER_AGENT})  # noqa: S310 - checked above
        try:
            with _OPENER.open(request, timeout=self.timeout_s) as answer:
                data: bytes = answer.read(LARGEST_STATEMENT)
        except HTTPError as error:
            error.close()
            why = "a redirect, which is refused" if 300 <= error.code < 400 else "HTTP"
            failure = self._unreachable(query_id, f"{why} {error.code}")
            if error.code < 500 and error.code != 429:
                raise failure from None
            raise _LaterError(failure) from None
        except (HTTPException, URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            why = _without(token, {"": str(reason)})[""]
            raise _LaterError(self._unreachable(query_id, why)) from None
        texts = _without(token, answer_of(data))
        if texts and texts.get("Status") != "Success":
            error_ = refusal(texts, f"query {query_id}")
            if may_succeed_later(texts.get("ErrorCode", "")):
                raise _LaterError(error_)
            raise error_
        return data

    def _until_ready(self, ask: Callable[[], bytes]) -> bytes:
        attempts = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, _LaterError)),
            stop=stop_after_delay(self.patience_s),
            wait=wait_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return attempts(ask)
        except _LaterError as late:
            raise late.error from None

    def _unreachable(self, query_id: str, why: str) -> FlexServiceError:
        host = urlsplit(self.url).hostname
        return FlexServiceError(
            f"query {query_id}: the Flex service at {host} gave no answer: {why}.",
            remedy="Try again later; check the network and POSITION_SYNC_FLEX_URL.",
        )


def _without(token: str, texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts of the service without the token, which it may repeat."""
    hidden = {name: text.replace(token, "***") for name, text in texts.items()}
    return {name: text.replace(quote_plus(token), "***") for name, text in hidden.items()}
