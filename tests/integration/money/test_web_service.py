"""The Flex Web Service, played by a real HTTP server on this machine."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, quote_plus, urlsplit

import pytest

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.money.past.flex_service import FlexService
from tests.support.flex_files import position, refused, statement
from tests.support.receiver import Answer, serving

TOKEN = "-".join(["kept", "to", "itself"])
ACCEPTED = (
    b"<FlexStatementResponse><Status>Success</Status><ReferenceCode>4711</ReferenceCode>"
    b"<Url>http://elsewhere.invalid/GetStatement</Url></FlexStatementResponse>"
)


class FlexServer:
    """Answers with one answer after the other, the last one for ever; an int is an HTTP status."""

    def __init__(self) -> None:
        self.answers: list[bytes | int] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.url = ""

    def take(self, request: BaseHTTPRequestHandler) -> Answer:
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.asked.append((parts.path, query | {"agent": request.headers["User-Agent"]}))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, bytes):
            return 200, {}, answer
        return answer, {"Location": f"{self.url}/elsewhere?t={query.get('t')}"}, b""


@pytest.fixture
def receiver() -> Iterator[FlexServer]:
    receiver = FlexServer()
    with serving(receiver.take) as port:
        receiver.url = f"http://127.0.0.1:{port}/flex"
        yield receiver


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def service(receiver: FlexServer, waits: list[float]) -> FlexService:
    return FlexService(url=receiver.url, sleep=waits.append)


def error_of(service: FlexService, token: str = TOKEN) -> PositionSyncError:
    """Return the error of a download, in which no part of the token is shown."""
    with pytest.raises(PositionSyncError) as caught:
        service.download(token, "123456")
    error = caught.value
    assert token not in str(error) + repr(error) + repr(error.__cause__)
    return error


def test_a_statement_is_requested_awaited_and_fetched(service, receiver, waits, caplog):
    caplog.set_level("DEBUG")
    data = statement(position())
    busy = refused("1019", "Statement generation in progress.", "Warn")
    receiver.answers = [503, ACCEPTED, busy, busy, data]
    assert service.download(TOKEN, "123456") == data
    asked = [path.removeprefix("/flex/") for path, _ in receiver.asked]
    assert asked == ["SendRequest"] * 2 + ["GetStatement"] * 3
    assert receiver.asked[0][1] == {"t": TOKEN, "q": "123456", "v": "3", "agent": "Python/3"}
    assert receiver.asked[-1][1]["q"] == "4711"
    assert len(waits) == 3
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("answer", "says", "remedy"),
    [
        (refused("1012", "Token has expired."), "answered 1012", "Make a new token"),
        (302, "a redirect, which is refused 302", "Try again later"),
        (307, "a redirect, which is refused 307", "Try again later"),
    ],
)
def test_what_does_not_pass_by_waiting_is_not_tried_again(
    service, receiver, waits, answer, says, remedy
):
    receiver.answers = [answer, ACCEPTED]
    error = error_of(service)
    assert error.what.startswith("query 123456: ")
    assert says in error.what
    assert error.remedy.startswith(remedy)
    assert len(receiver.asked) == 1
    assert waits == []


def test_too_many_requests_are_waited_for_and_then_named(receiver):
    receiver.answers = [refused("1018", "Too many requests.")]
    error = error_of(FlexService(url=receiver.url, patience_s=0.2, sleep=lambda _s: None))
    assert "1018" in error.what
    assert error.remedy.startswith("Wait ten minutes")
    assert len(receiver.asked) > 1


def test_no_answer_is_named():
    service = FlexService(url="http://127.0.0.1:1/flex", patience_s=0.01, sleep=lambda _s: None)
    error = error_of(service)
    assert "query 123456: the Flex service at 127.0.0.1 gave no answer" in error.what
    assert error.__cause__ is None


@pytest.mark.parametrize("token", [TOKEN, "kept/to itself+%"])
def test_a_token_that_the_service_repeats_is_in_no_error(service, receiver, token):
    for said in (token, quote_plus(token)):
        text = f"The token {said} is unknown to /SendRequest?t={said}"
        receiver.answers = [refused("1015", text)]
        error = error_of(service, token)
        assert "The token *** is unknown" in error.what
        assert said not in str(error) + repr(error)
    without_reference = f"<Status>Success</Status><ErrorMessage>{token}</ErrorMessage>"
    receiver.answers = [
        f"<FlexStatementResponse>{without_reference}</FlexStatementResponse>".encode()
    ]
    error_of(service, token)
