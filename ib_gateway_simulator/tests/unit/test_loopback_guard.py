"""The control port takes requests of programs, and of nothing that a page in a browser sends."""

import pytest
from starlette.datastructures import Headers

from ib_gateway_simulator.loopback_guard import refusal

HOST = {"Host": "127.0.0.1:8497"}


@pytest.mark.parametrize(
    "headers", [HOST, {"Host": "localhost:8497"}, HOST | {"Sec-Fetch-Site": "none"}]
)
def test_a_program_and_an_address_that_somebody_typed_are_served(headers):
    assert refusal(Headers(headers)) is None


@pytest.mark.parametrize("host", ["", "pages.example:8497", "127.0.0.1.pages.example:8497"])
def test_any_other_host_is_refused_as_a_bad_request(host):
    assert refusal(Headers({"Host": host}))[0] == 400


@pytest.mark.parametrize(
    "of_a_page",
    [{"Origin": "http://127.0.0.1:8497"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_a_page_in_a_browser_gets_nothing(of_a_page):
    assert refusal(Headers(HOST | of_a_page))[0] == 403
