"""The store of the tests answers as moto's S3 does."""

import warnings
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from tests.support.object_store import KEY_ID
from tests.support.objects import Answer, Objects

Ask = Callable[..., Answer]

_SCOPE = f"{KEY_ID}/20260101/us-east-1/s3/aws4_request"
SIGNED = {"authorization": f"AWS4-HMAC-SHA256 Credential={_SCOPE}, Signature=0"}
"""moto takes any signature, and finds its service in it."""


def ask_ours() -> Ask:
    objects = Objects()

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        return objects.answer(method, path, _named(headers), body)

    return ask


def ask_moto() -> Ask:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.moto_server.werkzeug_app import create_backend_app
        from moto.s3.models import s3_backends

    client = create_backend_app("s3").test_client()

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        sent = SIGNED | _named(headers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = client.open(path, method=method, data=body, headers=sent)
        told = {name.lower(): value for name, value in found.headers.items()}
        return Answer(found.status_code, told, found.data)

    for account in s3_backends.values():
        for backend in account.values():
            backend.reset()
    return ask


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture(params=[ask_ours, ask_moto])
def ask(request: pytest.FixtureRequest) -> Ask:
    found: Ask = request.param()
    assert found("PUT", "/lakes").status == 200
    return found


def texts(answer: Answer, name: str) -> list[str | None]:
    """Return the texts of the elements of a name in an answer's XML, in their order."""
    elements = ElementTree.fromstring(answer.body).iter()  # noqa: S314
    return [one.text for one in elements if one.tag.rpartition("}")[2] == name]


def test_what_was_written_is_read_whole_or_in_part(ask):
    written = ask("PUT", "/lakes/a/b%20%3D%25", b"0123456789")
    assert written.status == 200
    read = ask("GET", "/lakes/a/b%20%3D%25")
    assert (read.status, read.body) == (200, b"0123456789")
    assert read.headers["etag"] == written.headers["etag"]
    head = ask("HEAD", "/lakes/a/b%20%3D%25")
    assert head.status == 200
    assert {head.headers[n] == read.headers[n] for n in ("etag", "last-modified")} == {True}
    for wanted, told, content in (
        ("2-4", "2-4", b"234"),
        ("8-99", "8-9", b"89"),
        ("7-", "7-9", b"789"),
        ("-2", "8-9", b"89"),
    ):
        part = ask("GET", "/lakes/a/b%20%3D%25", range=f"bytes={wanted}")
        assert (part.status, part.body) == (206, content)
        assert part.headers["content-range"] == f"bytes {told}/10"
    beyond = ask("GET", "/lakes/a/b%20%3D%25", range="bytes=10-12")
    assert (beyond.status, texts(beyond, "Code")) == (416, ["InvalidRange"])


def test_what_is_not_there_is_named(ask):
    missing = ask("GET", "/lakes/none")
    assert (missing.status, texts(missing, "Code")) == (404, ["NoSuchKey"])
    assert ask("HEAD", "/lakes/none").status == 404
    bucket = ask("GET", "/none/none")
    assert (bucket.status, texts(bucket, "Code")) == (404, ["NoSuchBucket"])


def test_a_second_put_replaces_unless_it_asks_that_nothing_is_there(ask):
    assert ask("PUT", "/lakes/a", b"1", if_none_match="*").status == 200
    refused = ask("PUT", "/lakes/a", b"2", if_none_match="*")
    assert (refused.status, texts(refused, "Code")) == (412, ["PreconditionFailed"])
    assert ask("GET", "/lakes/a").body == b"1"
    assert ask("PUT", "/lakes/a", b"3").status == 200
    assert ask("GET", "/lakes/a").body == b"3"


def test_what_is_deleted_is_gone_and_may_be_deleted_again(ask):
    for name in "abc":
        ask("PUT", f"/lakes/{name}", b"1")
    assert [ask("DELETE", "/lakes/a").status for _ in range(2)] == [204, 204]
    named = "".join(f"<Object><Key>{name}</Key></Object>" for name in ("b", "none"))
    deleted = ask("POST", "/lakes?delete", f"<Delete>{named}</Delete>".encode())
    assert (deleted.status, texts(deleted, "Key")) == (200, ["b", "none"])
    assert texts(ask("GET", "/lakes?list-type=2"), "Key") == ["c"]


def test_a_listing_has_a_part_of_the_names_in_their_order(ask):
    for name in ("t/b", "t/a", "t/l/1", "t/l/2", "t/m/1", "u", "t/z%26", "s"):
        ask("PUT", f"/lakes/{name}", b"1")
    found = ask("GET", "/lakes?list-type=2&prefix=t%2F")
    assert texts(found, "Key") == ["t/a", "t/b", "t/l/1", "t/l/2", "t/m/1", "t/z&"]
    assert texts(found, "Size") == ["1"] * 6
    assert texts(found, "ETag") == [
        ask("HEAD", f"/lakes/{name}").headers["etag"]
        for name in ("t/a", "t/b", "t/l/1", "t/l/2", "t/m/1", "t/z%26")
    ]
    assert texts(found, "IsTruncated") == ["false"]
    after = ask("GET", "/lakes?list-type=2&prefix=t%2F&start-after=t%2Fl%2F1")
    assert texts(after, "Key") == ["t/l/2", "t/m/1", "t/z&"]
    folders = ask("GET", "/lakes?list-type=2&prefix=t%2F&delimiter=%2F")
    assert texts(folders, "Key") == ["t/a", "t/b", "t/z&"]
    assert texts(folders, "Prefix") == ["t/", "t/l/", "t/m/"]
    assert texts(ask("GET", "/lakes?list-type=2&prefix=none"), "Key") == []


@pytest.mark.parametrize("delimiter", ["", "%2F"])
def test_a_listing_goes_on_where_its_page_ends(ask, delimiter):
    for name in ("a", "b/1", "b/2", "c", "d"):
        ask("PUT", f"/lakes/{name}", b"1")
    path = f"/lakes?list-type=2&max-keys=2&delimiter={delimiter}"
    names: list[str | None] = []
    page = ask("GET", path)
    while texts(page, "IsTruncated") == ["true"]:
        names += texts(page, "Key")
        (token,) = texts(page, "NextContinuationToken")
        page = ask("GET", f"{path}&continuation-token={token}")
    names += texts(page, "Key")
    assert names == (["a", "c", "d"] if delimiter else ["a", "b/1", "b/2", "c", "d"])
