"""The parsing of IB's spellings."""

from datetime import date

import pytest

from position_sync_dagster.domain.instrument import parse_conid, parse_expiry, parse_right
from position_sync_dagster.errors import InvalidLegError


@pytest.mark.parametrize("text", ["20260220", "2026-02-20", 20260220, date(2026, 2, 20)])
def test_an_expiry_is_read(text):
    assert parse_expiry(text) == date(2026, 2, 20)


@pytest.mark.parametrize(("text", "right"), [("C", "CALL"), ("put", "PUT"), ("P", "PUT")])
def test_rights_end_as_call_or_put(text, right):
    assert parse_right(text) == right


def test_a_conid_is_read_from_text():
    assert parse_conid("756733") == 756733


def test_a_conid_of_more_than_32_bits_is_refused_as_the_gateway_would():
    assert parse_conid(2**31 - 1) == 2**31 - 1
    with pytest.raises(InvalidLegError, match="2147483648 is no contract id"):
        parse_conid(2**31)
