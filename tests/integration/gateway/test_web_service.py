"""The Flex Web Service, played by a real HTTP server on this machine."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, quote_plus, urlsplit

import pytest

from position_sync_dagster.errors import FlexServiceError, PositionSyncError, SettingsError
from position_sync_dagster.gateway import flex
from position_sync_dagster.gateway.flex import FlexService
from tests.support.flex_files import position, refused, statement

TOKEN = "-".join(["kept", "to", "itself"])
ACCEPTED = (
    b"<FlexStatementResponse><Status>Success</Status><ReferenceCode>4711</ReferenceCode>"
    b"<Url>http://elsewhere.invalid/GetStatement</Url></FlexStatementResponse>"
)


class Receiver:
    """Answers with one answer after the other, the last one for ever; an int is an HTTP status."""

    def __init__(self) -> None:
        self.answers: list[bytes | int] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                receiver.asked.append((parts.path, query | {"agent": self.headers["User-Agent"]}))
                answer = receiver.answers[0]
                if len(receiver.answers) > 1:
                    receiver.answers.pop(0)
                self.send_response(answer if isinstance(answer, int) else 200)
                if isinstance(answer, int) and 300 <= answer < 400:
                    self.send_header("Location", f"{receiver.url}/elsewhere?t={query.get('t')}")
                self.end_headers()
                if isinstance(answer, bytes):
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/flex"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def service(receiver: Receiver, waits: list[float]) -> FlexService:
    return FlexService(url=receiver.url, sleep=waits.append)


def test_a_statement_is_requested_awaited_and_fetched(service, receiver, waits, caplog) -> None:
    caplog.set_level("DEBUG")
    data = statement(position())
    busy = refused("1019", "Statement generation in progress.", "Warn")
    receiver.answers = [ACCEPTED, busy, busy, data]
    assert service.download(TOKEN, "123456") == data
    assert [path for path, _ in receiver.asked] == ["/flex/SendRequest"] + [
        "/flex/GetStatement"
    ] * 3
    assert receiver.asked[0][1] == {"t": TOKEN, "q": "123456", "v": "3", "agent": "Python/3"}
    assert receiver.asked[-1][1]["q"] == "4711"
    assert len(waits) == 2
    assert TOKEN not in caplog.text


def test_a_token_that_does_not_count_is_not_tried_again(service, receiver, waits) -> None:
    receiver.answers = [refused("1012", "Token has expired.")]
    with pytest.raises(FlexServiceError, match=r"query 123456: .* 1012") as caught:
        service.download(TOKEN, "123456")
    assert caught.value.remedy.startswith("Make a new token")
    assert waits == []
    assert TOKEN not in str(caught.value)


def test_too_many_requests_are_waited_for_and_then_named(receiver) -> None:
    receiver.answers = [refused("1018", "Too many requests.")]
    service = FlexService(url=receiver.url, patience_s=0.2, sleep=lambda _s: None)
    with pytest.raises(FlexServiceError, match="1018") as caught:
        service.download(TOKEN, "123456")
    assert caught.value.remedy.startswith("Wait ten minutes")
    assert len(receiver.asked) > 1


def test_a_server_that_fails_for_a_moment_is_asked_again(service, receiver, waits) -> None:
    data = statement(position())
    receiver.answers = [503, ACCEPTED, data]
    assert service.download(TOKEN, "123456") == data
    assert len(waits) == 1


def test_no_answer_is_named_without_the_token() -> None:
    service = FlexService(url="http://127.0.0.1:1/flex", patience_s=0.01, sleep=lambda _s: None)
    with pytest.raises(FlexServiceError, match=r"query 123456: .* gave no answer") as caught:
        service.download(TOKEN, "123456")
    assert TOKEN not in str(caught.value) + repr(caught.value.__cause__)
    assert caught.value.__cause__ is None


def test_the_token_is_not_sent_in_the_clear() -> None:
    with pytest.raises(SettingsError, match="in the clear"):
        FlexService(url="http://example.invalid/flex").download(TOKEN, "123456")


@pytest.mark.parametrize("token", [TOKEN, "kept/to itself+%"])
def test_a_token_that_the_service_repeats_is_in_no_error(service, receiver, token) -> None:
    for said in (token, quote_plus(token)):
        receiver.answers = [
            refused("1015", f"The token {said} is unknown to /SendRequest?t={said}")
        ]
        with pytest.raises(FlexServiceError, match=r"The token \*\*\* is unknown") as caught:
            service.download(token, "123456")
        assert said not in str(caught.value) + repr(caught.value)
    receiver.answers = [
        f"<FlexStatementResponse><Status>Success</Status><ErrorMessage>{token}"
        "</ErrorMessage></FlexStatementResponse>".encode()
    ]
    with pytest.raises(FlexServiceError) as caught:
        service.download(token, "123456")
    assert token not in str(caught.value)


def test_the_address_that_an_answer_names_is_followed_if_it_is_the_broker_s(
    service, receiver, monkeypatch
) -> None:
    other = f"{receiver.url}/other/GetStatement"
    monkeypatch.setattr(flex, "is_of_broker", lambda url: url == other)
    data = statement(position())
    named = ACCEPTED.replace(b"http://elsewhere.invalid/GetStatement", other.encode())
    receiver.answers = [named, data]
    assert service.download(TOKEN, "123456") == data
    assert [path for path, _ in receiver.asked] == ["/flex/SendRequest", "/flex/other/GetStatement"]


@pytest.mark.parametrize(
    ("url", "is_followed"),
    [
        ("https://gdcdyn.interactivebrokers.com/Universal/servlet/FlexStatementService", True),
        ("http://gdcdyn.interactivebrokers.com/flex", False),
        ("https://interactivebrokers.com.example/flex", False),
        ("https://gdcdyn.interactivebrokers.com:8443/flex", False),
        ("https://ann:pa55word@gdcdyn.interactivebrokers.com/flex", False),
        ("", False),
    ],
)
def test_a_token_goes_to_the_broker_s_hosts_over_https_only(url, is_followed) -> None:
    assert flex.is_of_broker(url) is is_followed


@pytest.mark.parametrize("code", [302, 307])
def test_a_redirect_is_not_followed(service, receiver, waits, code) -> None:
    receiver.answers = [code, ACCEPTED]
    with pytest.raises(FlexServiceError, match=f"a redirect, which is refused {code}") as caught:
        service.download(TOKEN, "123456")
    assert len(receiver.asked) == 1
    assert waits == []
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:pa55word@example.invalid/flex",
        "http://pa55word@127.0.0.1/flex",
        "http://127.0.0.1:pa55word/x",
        "ftp://example.invalid/pa55word",
        "https://[pa55word",
    ],
)
def test_no_part_of_an_address_that_cannot_be_used_is_shown(url) -> None:
    service = FlexService(url=url)
    with pytest.raises(PositionSyncError) as caught:
        service.download(TOKEN, "123456")
    assert "pa55word" not in str(caught.value) + repr(service)
