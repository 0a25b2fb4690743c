"""An S3 store on this machine: moto as a process, whose requests pass a proxy of the tests."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from uuid import uuid4

from tests.support.ports import free_port
from tests.support.store_proxy import StoreProxy

SECRET = "wJalrXUtnFEMI-of-the-tests"  # noqa: S105 - the store of the tests takes any
KEY_ID = "AKIAOFTHETESTS000000"
TOKEN = "session-token-of-the-tests"  # noqa: S105 - the same
REGION = "us-east-1"

_SIGNED = {
    "Authorization": f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/{REGION}/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
}
"""The store takes any signature, and finds its service in it."""

START_S = 60.0
"""Only a hang reaches it."""


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A running store.

    Attributes:
        port: Where it listens itself.
        proxy: What the programs under test talk to.
    """

    port: int
    proxy: StoreProxy

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a program finds the store: those of any AWS program."""
        return {
            "AWS_ENDPOINT_URL": self.proxy.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def new_bucket(self) -> str:
        """Create a bucket and return its name."""
        name = f"lake-{uuid4().hex[:12]}"
        assert self.ask("PUT", f"/{name}").status == 200
        return name

    def keys(self, bucket: str) -> set[str]:
        """Return the names of all objects of a bucket."""
        found: set[str] = set()
        after = ""
        while True:
            answer = self.ask("GET", f"/{bucket}?list-type=2&start-after={after}").read().decode()
            names = [part.split("</Key>")[0] for part in answer.split("<Key>")[1:]]
            found.update(names)
            if "<IsTruncated>true" not in answer:
                return found
            after = names[-1]

    def read(self, bucket: str, key: str) -> bytes:
        """Return the content of an object."""
        return self.ask("GET", f"/{bucket}/{key}").read()

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object."""
        assert self.ask("DELETE", f"/{bucket}/{key}").status == 204

    def ask(self, method: str, path: str) -> http.client.HTTPResponse:
        """Send a request past the proxy."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, headers=_SIGNED)
        return connection.getresponse()


@contextmanager
def running_store() -> Iterator[ObjectStore]:
    """Run a store and its proxy."""
    with ExitStack() as stack:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=_plain_environment(),
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        _wait_for(port, process)
        proxy = stack.enter_context(StoreProxy(port))
        yield ObjectStore(port, proxy)


def _plain_environment() -> dict[str, str]:
    names = [name for name in os.environ if not name.startswith(("AWS_", "MOTO_"))]
    return {name: os.environ[name] for name in names}


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the store ended"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/moto-api/data.json")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the store did not start")


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, and put back what was there."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
