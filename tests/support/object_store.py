"""An S3 store on this machine, for programs that find it by their environment."""

import http.client
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from html import unescape
from urllib.parse import quote
from uuid import uuid4

from tests.support.store_proxy import TOKEN, StoreProxy

SECRET = "wJalrXUtnFEMI-of-the-tests"  # noqa: S105 - the store of the tests takes any
KEY_ID = "AKIAOFTHETESTS000000"
REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A running store.

    Attributes:
        proxy: What the programs under test talk to.
        bucket: A bucket for many lakes.
    """

    proxy: StoreProxy
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a program finds the store: those of any AWS program."""
        return {
            "AWS_ENDPOINT_URL": self.proxy.url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SESSION_TOKEN": TOKEN,
        }  # fmt: skip

    def lake(self) -> str:
        """Return the URI of a new lake in the one bucket that is proven to be safe once."""
        return f"s3://{self.bucket}/{uuid4()}/lake"


def stored_under(uri: str) -> dict[str, bytes]:
    """Return the objects below a URI of the store that the environment names, by their URIs."""
    bucket, prefix = _split(uri)
    found: dict[str, bytes] = {}
    after = ""
    while True:
        query = f"list-type=2&prefix={quote(prefix, safe='')}&start-after={quote(after, safe='')}"
        page = _ask(_port(), "GET", f"/{bucket}?{query}")[1].decode()
        names = [unescape(part.split("</Key>")[0]) for part in page.split("<Key>")[1:]]
        for name in names:
            found[f"s3://{bucket}/{name}"] = _ask(_port(), "GET", f"/{bucket}/{quote(name)}")[1]
        if "<IsTruncated>true" not in page:
            return found
        after = names[-1]


def delete_stored(uri: str) -> None:
    """Delete an object of the store that the environment names."""
    bucket, key = _split(uri)
    assert _ask(_port(), "DELETE", f"/{bucket}/{quote(key)}")[0] == 204


def put_stored(uri: str, content: bytes) -> None:
    """Write an object into the store that the environment names."""
    bucket, key = _split(uri)
    assert _ask(_port(), "PUT", f"/{bucket}/{quote(key)}", content)[0] == 200


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _port() -> int:
    return int(os.environ["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])


def _ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body or b"")
        answer = connection.getresponse()
        return answer.status, answer.read()


@contextmanager
def running_store() -> Iterator[ObjectStore]:
    """Run a store with a bucket."""
    with StoreProxy() as proxy:
        bucket = "lakes"
        assert _ask(proxy.port, "PUT", f"/{bucket}")[0] == 200
        yield ObjectStore(proxy, bucket)
