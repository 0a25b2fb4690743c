"""Objects in memory that are asked as an S3 store is: what the clients of the tables ask for.

moto answers each a hundred times slower.
What no client asked for so far is answered with an error: 501.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import md5
from itertools import islice
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

# The most keys that a listing has, unless it asks for fewer.
PAGE = 1000

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a store answers."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class _Object:
    content: bytes
    etag: str
    written: datetime


class Objects:
    """The buckets of a store, and what is in them."""

    def __init__(self) -> None:
        self._buckets: dict[str, dict[str, _Object]] = {}
        self._keys: dict[str, list[str]] = {}

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer a request.

        Args:
            path: With the query.
            headers: By their names in lower case.
        """
        parts = urlsplit(path)
        bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
        query = {n: v[0] for n, v in parse_qs(parts.query, keep_blank_values=True).items()}
        if method == "PUT" and not key and not query:
            self._buckets[bucket], self._keys[bucket] = {}, []
            return Answer(200)
        if bucket not in self._buckets:
            return error(404, "NoSuchBucket", "The specified bucket does not exist")
        if method == "GET" and not key and "list-type" in query:
            return self._list(bucket, query)

        if method == "POST" and query.keys() == {"delete"}:
            return self._delete_all(bucket, body)
        if key and not query and method in ("GET", "HEAD"):
            return self._read(bucket, key, headers.get("range"))
        if key and not query and method == "PUT" and "x-amz-copy-source" not in headers:
            return self._write(bucket, key, body, headers)
        if key and not query and method == "DELETE":
            self._delete(bucket, key)
            return Answer(204)
        return error(501, "NotImplemented", f"{method} {path} of the store of the tests")

    def _read(self, bucket: str, key: str, wanted: str | None) -> Answer:
        found = self._buckets[bucket].get(key)
        if found is None:
            return error(404, "NoSuchKey", "The specified key does not exist.")
        size = len(found.content)
        headers = {
            "accept-ranges": "bytes",
            "content-type": "application/octet-stream",
            "etag": found.etag,
            "last-modified": format_datetime(found.written, usegmt=True),
        }
        if wanted is None:
            return Answer(200, headers, found.content)

        first, _, last = wanted.removeprefix("bytes=").partition("-")
        begin = int(first) if first else max(0, size - int(last))
        end = min(int(last), size - 1) if first and last else size - 1
        if begin >= size:
            return error(416, "InvalidRange", "The requested range is not satisfiable")
        headers["content-range"] = f"bytes {begin}-{end}/{size}"
        return Answer(206, headers, found.content[begin : end + 1])

    def _write(self, bucket: str, key: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        objects = self._buckets[bucket]
        if key in objects and headers.get("if-none-match") == "*":
            return error(
                412,
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
            )
        if key not in objects:
            insort(self._keys[bucket], key)
        etag = f'"{md5(body, usedforsecurity=False).hexdigest()}"'
        objects[key] = _Object(body, etag, datetime.now(UTC))
        return Answer(200, {"etag": etag})

    def _delete(self, bucket: str, key: str) -> None:
        if self._buckets[bucket].pop(key, None) is not None:
            keys = self._keys[bucket]
            del keys[bisect_left(keys, key)]

    def _delete_all(self, bucket: str, body: bytes) -> Answer:
        names = [
            element.text or ""
            for element in ElementTree.fromstring(body).iter()  # noqa: S314 - of the program under test
            if element.tag.rpartition("}")[2] == "Key"
        ]
        for name in names:
            self._delete(bucket, name)
        deleted = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in names)
        return _document("DeleteResult", deleted)

    def _list(self, bucket: str, query: Mapping[str, str]) -> Answer:
        prefix = query.get("prefix", "")
        most = int(query.get("max-keys", PAGE))
        after = query.get("continuation-token") or query.get("start-after", "")
        entries = self._entries(bucket, prefix, query.get("delimiter", ""), after)
        page = list(islice(entries, most))
        more = next(entries, None) is not None
        told = "".join(text for _, text in page)
        told += f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
        if more:
            token = escape(page[-1][0])
            told += f"<NextContinuationToken>{token}</NextContinuationToken>"
        return _document("ListBucketResult", f"<Prefix>{escape(prefix)}</Prefix>{told}")

    def _entries(
        self, bucket: str, prefix: str, delimiter: str, after: str
    ) -> Iterator[tuple[str, str]]:
        """Yield objects and common prefixes in their order, each by its name, after a name."""
        keys = self._keys[bucket]
        last = ""
        for place in range(bisect_left(keys, max(prefix, after)), len(keys)):
            key = keys[place]
            if not key.startswith(prefix):
                return

            inner, found, _ = key.removeprefix(prefix).partition(delimiter or "\0")
            if found:
                common = f"{prefix}{inner}{found}"
                if common not in (last, after) and common > after:
                    last = common
                    text = f"<Prefix>{escape(common)}</Prefix>"
                    yield common, f"<CommonPrefixes>{text}</CommonPrefixes>"
            elif key > after:
                yield key, self._entry(bucket, key)

    def _entry(self, bucket: str, key: str) -> str:
        buckets = self._buckets[bucket][key]
        written = buckets.written.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return (
            f"<Contents><Key>{escape(key)}</Key><LastModified>{written}</LastModified>"
            f"<ETag>{escape(buckets.etag)}</ETag><Size>{len(buckets.content)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )


def error(status: int, code: str, message: str) -> Answer:
    """Return an answer that names an error; the message is XML."""
    text = f"<Code>{code}</Code><Message>{message}</Message><RequestId>0</RequestId>"
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error>{text}</Error>'
    return Answer(status, {"content-type": "application/xml"}, body.encode())


def _document(root: str, inner: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{root} xmlns="{NAMESPACE}">{inner}</{root}>'
    return Answer(200, {"content-type": "application/xml"}, text.encode())
