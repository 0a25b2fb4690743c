"""What a gateway says, by its kinds: messages, fields, codes, ticks and their order, and no value.

`Heard` counts it, and `vocabulary` says what of it is known. No account, name, quantity or amount
is kept: of a field its form, of a text the words that IB publishes.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import NamedTuple

# Gets each message of a connection: whether the client sent it, and its fields. Two have names in
# place of an id: the version of the gateway at the log-in, and the end of the connection.
Listener = Callable[[bool, Sequence[str]], object]
GREETING, CLOSED = "serverVersion", "closed"


class Kind(StrEnum):
    """What is counted.

    A message by its name, by its number of fields, by the form of each field; a code with its
    text; a type of tick; a tag of an account value; what followed what.
    """

    MESSAGE = "message"
    LENGTH = "length"
    FORM = "form"
    CODE = "code"
    TEXT = "text"
    TICK = "tick"
    TAG = "tag"
    ORDER = "order"


class Said(NamedTuple):
    """Something that a gateway said, in words without account data."""

    kind: Kind
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What recordings, public threads and the simulator have said.

    Attributes:
        names: The names of messages, by their ids.
        requests: The names of requests, by their ids.
        places: Where a message has the id of its request.
        asked: Where a request has its id.
        varying: The messages of any number of fields.
        words: The words of published texts.
        said: What was said.
    """

    names: Mapping[str, str]
    requests: Mapping[str, str]
    places: Mapping[str, int]
    asked: Mapping[str, int]
    varying: frozenset[str]
    words: frozenset[str]
    said: frozenset[Said]

    def knows(self, said: Said) -> bool:
        """Return whether something is known.

        A number is known where any text is, and a text that goes on where a known one ends in ….
        """
        if said in self.said:
            return True
        if said.kind is Kind.FORM:
            return said._replace(name=said.name.replace(" is number", " is text")) in self.said
        begins = [name[:-1] for kind, name in self.said if kind == said.kind and name[-1] == "…"]
        return said.name.startswith(tuple(begins))

    def name_of(self, kind: str) -> str:
        """Return the name of a message; of an unknown one its id."""
        if _is_number(kind):
            return self.names.get(kind, f"message {kind}")

        return UNREADABLE

    def published(self, text: str) -> str:
        """Return a text with … for each number, and each word that IB has not published."""
        shown = _WORD.sub(lambda word: word[0] if word[0] in self.words else "…", text)
        return _HIDDEN.sub("…", shown).strip()[:MOST_OF_A_TEXT]


UNREADABLE = "unreadable"
MOST_OF_A_TEXT = 160
_WORD = re.compile(r"\w+")
_HIDDEN = re.compile(r"…(?:[^\w…]*…)+")
_TAG = re.compile(r"[A-Za-z]{2,40}(?:-[A-Z])?")


@cache
def vocabulary() -> Vocabulary:
    """Return what this release knows; `tests/support/known_wire.py` writes the file."""
    stored = json.loads((files(__package__) / "known_wire.json").read_text("utf-8"))
    said = {Said(Kind(kind), name) for kind, names in stored.pop("said").items() for name in names}
    stored |= {name: frozenset(stored[name]) for name in ("varying", "words")}
    return Vocabulary(said=frozenset(said), **stored)


# Reports of orders are not counted, as they are not recorded.
_OF_ORDERS = frozenset({"3", "5", "11", "59", "100", "101"})
_TICKS = frozenset({"1", "2", "21", "45", "46"})
_ERROR = "4"

# What a message is about: the kind, and its place among the fields.
_ABOUT = {
    "1": (Kind.TICK, 3), "2": (Kind.TICK, 3), "45": (Kind.TICK, 3), "46": (Kind.TICK, 3),
    "21": (Kind.TICK, 2), _ERROR: (Kind.CODE, 3),
    "6": (Kind.TAG, 2), "63": (Kind.TAG, 4), "73": (Kind.TAG, 5),
}  # fmt: skip

# Messages without the id of a request, and requests, that follow each other.
_SERIES = {"6": "account", "7": "account", "8": "account", "54": "account"}
_SERIES |= {"61": "positions", "62": "positions", "15": "log-in", "9": "log-in"}
_BEGINS = {"6": "account", "61": "positions", "71": "log-in"}

# More shapes than these have no gateway that works.
MOST_SHAPES = 20_000


class Heard:
    """Counts what a gateway says, as a listener of its connections.

    Attributes:
        server_version: The version that was negotiated last; None before a log-in.
    """

    def __init__(self) -> None:
        self.server_version: int | None = None
        self._vocabulary = vocabulary()
        self._shapes: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
        self._apart: Counter[Said] = Counter()
        self._last: dict[str, str] = {}

    def __call__(self, from_client: bool, fields: Sequence[str]) -> None:
        """Take a message."""
        kind = fields[0] if fields else ""
        if kind == GREETING:
            self.server_version = int(fields[1])
        elif from_client:
            self._requested(kind, fields)
        elif kind not in _OF_ORDERS and kind != CLOSED and len(self._shapes) < MOST_SHAPES:
            shape = (kind, self._about(kind, fields), tuple(map(_form, fields[1:])))
            self._shapes[shape] += 1
            self._follow(kind, fields)

    def take(self) -> Counter[Said]:
        """Return what was said since the last time, with how often."""
        said = self._apart
        for (kind, about, forms), count in self._shapes.items():
            for each in self._said_by(kind, about, forms):
                said[each] += count

        self._shapes = Counter()
        self._apart = Counter()
        return said

    def _said_by(self, kind: str, about: str, forms: Sequence[str]) -> Iterator[Said]:
        name = self._vocabulary.name_of(kind)
        yield Said(Kind.MESSAGE, name)
        if about:
            yield Said(_ABOUT[kind][0], f"{about} ({name})")
        if kind in self._vocabulary.varying:
            return

        yield Said(Kind.LENGTH, f"{name} has {len(forms) + 1} fields")
        for place, form in enumerate(forms, start=1):
            yield Said(Kind.FORM, f"{name}: field {place} is {form}")

    def _about(self, kind: str, fields: Sequence[str]) -> str:
        about, place = _ABOUT.get(kind, (Kind.TICK, len(fields)))
        if place >= len(fields):
            return ""
        told = fields[place]
        if about is Kind.TAG:
            return told if _TAG.fullmatch(told) else UNREADABLE
        if not _is_number(told):
            return UNREADABLE
        if about is Kind.CODE:
            text = self._vocabulary.published(" ".join(fields[4:5]))
            self._apart[Said(Kind.TEXT, f"{told}: {text}")] += 1
        return told

    def _requested(self, kind: str, fields: Sequence[str]) -> None:
        name = self._vocabulary.requests.get(kind, "")
        place = self._vocabulary.asked.get(kind)
        series = _BEGINS.get(kind)
        if place is not None and place < len(fields):
            series = fields[place]
        if series is None:
            return

        if name.startswith("cancel"):
            self._last.pop(series, None)
        else:
            self._last[series] = name

    def _follow(self, kind: str, fields: Sequence[str]) -> None:
        """Count what a message followed: among those of its request, or of its list."""
        place = self._vocabulary.places.get(kind, len(fields))
        series = _SERIES.get(kind, "")
        if place < len(fields):
            series = fields[place]
        if series not in self._last:
            return

        step = "ticks" if kind in _TICKS else self._vocabulary.name_of(kind)
        self._apart[Said(Kind.ORDER, f"{self._last[series]}, then {step}")] += 1
        self._last[series] = step


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 6


def _form(text: str) -> str:
    """Return what a field looks like: empty, a number, unset (the largest double), or text."""
    if not text:
        return "empty"
    if text[0] not in "-0123456789NI":
        return "text"
    try:
        value = float(text)
    except ValueError:
        return "text"
    return "number" if abs(value) < UNSET else "unset"


# The gateway writes the largest double for "no value"; NaN compares as unset too.
UNSET = 1e300
