"""Which requests a server on loopback refuses."""

import pytest

from ib_gateway_simulator.loopback_guard import refusal


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost:3000", "LOCALHOST", "[::1]:3000"])
def test_a_request_to_a_loopback_name_is_taken(host):
    assert refusal(host, []) is None
    assert refusal(host, [f"http://{host}"]) is None


@pytest.mark.parametrize(
    "host",
    [None, "", ":3000", "pages.example", "pages.example:3000", "127.0.0.1.pages.example:3000",
     "localhost.pages.example", "192.168.1.5:3000", "127.0.0.1:3000@pages.example", "localhost:x"],
)  # fmt: skip
def test_any_other_host_is_refused_as_a_bad_request(host):
    refused = refusal(host, [])
    assert refused[0] == 400


@pytest.mark.parametrize(
    "origin",
    ["http://pages.example", "null", "", "http://127.0.0.1:8888", "http://localhost:3000",
     "http://127.0.0.1:3000.pages.example", "file://"],
)  # fmt: skip
def test_a_page_of_another_origin_is_forbidden(origin):
    refused = refusal("127.0.0.1:3000", [origin])
    assert refused[0] == 403
    refused = refusal("127.0.0.1:3000", ["http://127.0.0.1:3000", origin])
    assert refused[0] == 403
