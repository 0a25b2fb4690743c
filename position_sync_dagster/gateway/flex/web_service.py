"""Download a statement from the Flex Web Service: request it, wait for it, fetch it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from position_sync_dagster.errors import FlexServiceError, SettingsError
from position_sync_dagster.gateway.flex.responses import may_succeed_later, refusal
from position_sync_dagster.gateway.flex.statement_reader import answer_of

logger = logging.getLogger(__name__)

FLEX_URL = "https://ndcdyn.interactivebrokers.com/AccountManagement/FlexWebService"
"""Source: IB, "Flex Web Service" (version 3)."""

USER_AGENT = "Python/3"
"""The service refuses requests without one."""

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 30.0


class _LaterError(Exception):
    """Carries the error of an answer after which the same request may succeed."""

    def __init__(self, error: FlexServiceError) -> None:
        self.error = error


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

    url: str = FLEX_URL
    timeout_s: float = 30.0
    patience_s: float = 300.0
    sleep: Callable[[float], None] = time.sleep

    def download(self, token: str, query_id: str) -> bytes:
        """Return the XML of a statement that is complete.

        Raises:
            FlexServiceError: The service refused, or was not ready in time; it names the query,
                the code and the remedy.
            SettingsError: The address would send the token in the clear.
        """
        self._check_address()
        asked = self._until_ready(lambda: self._ask("SendRequest", token, query_id, query_id))
        reference = answer_of(asked).get("ReferenceCode", "")
        if not reference:
            raise refusal(answer_of(asked), f"query {query_id}")
        logger.info("the Flex service makes the statement of query %s", query_id)
        return self._until_ready(lambda: self._ask("GetStatement", token, reference, query_id))

    def _ask(self, step: str, token: str, subject: str, query_id: str) -> bytes:
        address = f"{self.url.rstrip('/')}/{step}?" + urlencode({"t": token, "q": subject, "v": 3})
        request = Request(address, headers={"User-Agent": USER_AGENT})  # noqa: S310 - checked above
        try:
            with urlopen(request, timeout=self.timeout_s) as answer:  # noqa: S310
                data: bytes = answer.read()
        except HTTPError as error:
            error.close()
            failure = self._unreachable(query_id, f"HTTP {error.code}")
            if error.code < 500 and error.code != 429:
                raise failure from None
            raise _LaterError(failure) from None
        except (URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise _LaterError(
                self._unreachable(query_id, str(reason).replace(token, "***"))
            ) from None
        texts = answer_of(data)
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

    def _check_address(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme == "https" or (
            parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
        ):
            return
        raise SettingsError(
            f"POSITION_SYNC_FLEX_URL={self.url!r} would send the token in the clear.",
            remedy="Use an https address.",
        )
