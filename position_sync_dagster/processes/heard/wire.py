"""What a gateway says, by its kinds: messages, fields, codes, ticks and their order, and no value.

`Heard` counts it, and `vocabulary` has what recordings, public threads and the simulator have said.
No account, name, quantity or amount is kept: of a field its form, of a text the words that IB
publishes.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from position_sync_dagster.domain.instrument import LISTED_OPTIONS
from position_sync_dagster.gateway.codes import (
    ENDS_LINE,
    FARM_BROKEN,
    FARM_OK,
    GREETING,
    HUNG_UP,
    OFFLINE,
    RESTORED,
    farm_of,
)


class SaidKind(StrEnum):
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


# What messages belong together: those of a request, of an account's feed, of a row, of a farm.
Series = tuple[str, ...]

# What is counted of a message until it is put into words: its kind, its subject, its forms.
Shape = tuple[str, str, tuple[str, ...]]


class Said(NamedTuple):
    """Something that a gateway said, in words without account data."""

    kind: SaidKind
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What is known of the wire, and what is assumed of it.

    Attributes:
        names, requests: The names of messages and requests, by their ids.
        places, asked: Where a message, and a request, has the id of the request.
        about: What a message is about, and where: a tick, a code, a tag.
        varying: The messages of any number of fields.
        answers: What answers a request in full, by its name.
        assumed: How many seconds pass from one message to another: least and most.
        words: The words of published texts.
        said: What was said.
    """

    names: Mapping[str, str]
    requests: Mapping[str, str]
    places: Mapping[str, int]
    asked: Mapping[str, int]
    about: Mapping[str, tuple[SaidKind, int]]
    varying: frozenset[str]
    answers: Mapping[str, str]
    assumed: Mapping[str, tuple[float, float]]
    words: frozenset[str]
    said: frozenset[Said]

    def knows(self, said: Said) -> bool:
        """Return whether something is known.

        A number is known where any text is, and a text that goes on where a known one ends in ….
        """
        as_text = said._replace(name=said.name.replace(" is number", " is text"))
        if said in self.said or as_text in self.said:
            return True
        return said.name.startswith(tuple(self._beginnings(said.kind)))

    def _beginnings(self, kind: SaidKind) -> Iterator[str]:
        """Yield how the known texts of a kind begin that end in …."""
        for known_kind, name in self.said:
            if known_kind == kind and name[-1] == "…":
                yield name[:-1]

    def published(self, text: str) -> str:
        """Return a text with … for each number, and each word that IB has not published."""
        shown = _WORD.sub(lambda word: word[0] if word[0] in self.words else "…", text)
        return _HIDDEN.sub("…", shown).strip()[:MOST_OF_A_TEXT]


UNREADABLE = "unreadable"
MOST_OF_A_TEXT = 160
_WORD = re.compile(r"\w+")
_HIDDEN = re.compile(r"…(?:[^\w…]*…)+")
_TAG = re.compile(r"[A-Za-z]{2,40}(?:-[A-Z])?")
_NUMBER = re.compile(r"[0-9]{1,6}")


@cache
def vocabulary() -> Vocabulary:
    """Return what this release knows; `tests/support/known_wire.py` writes the file."""
    stored = json.loads((files(__package__) / "known_wire.json").read_text("utf-8"))
    said = set[Said]()
    for kind, names in stored["said"].items():
        said.update(Said(SaidKind(kind), name) for name in names)
    stored["said"] = said
    stored |= {name: frozenset(stored[name]) for name in ("varying", "words", "said")}
    return Vocabulary(**stored)


# Reports of orders are not counted, as they are not recorded.
_OF_ORDERS = frozenset({"3", "5", "11", "59", "100", "101"})

# The messages of a line, and the rows of an account's feed, which come again.
_TICKS = frozenset({"1", "2", "21", "45", "46"})
_ROWS = ("6", "7")
_ROW = "row"
_ERROR = "4"

# Messages that name no request: the series to which they belong, and the sent ones that begin it.
_ACCOUNT = ("account",)
_SERIES = dict.fromkeys(("6", "7", "8", "54"), _ACCOUNT) | {
    "61": ("positions",),
    "62": ("positions",),
    "15": ("log-in",),
    "9": ("log-in",),
}
_BEGUN = {"6": _ACCOUNT, "61": ("positions",), "71": ("log-in",)}
_LISTS = frozenset(_BEGUN.values())

# The ticks of the option model, live and delayed: a series of their own beside those of the line.
MODEL = "model"
_MODEL_TICKS = ("13", "83")
_STATES = OFFLINE | RESTORED

# More shapes than these has no gateway that works.
MOST_SHAPES = 20_000


class Heard:
    """Counts what a gateway says, as a listener of its connections.

    Attributes:
        server_version: The version that was negotiated last; None before a log-in.
    """

    def __init__(self) -> None:
        self.server_version: int | None = None
        self._vocabulary = vocabulary()
        self._shapes: Counter[Shape] = Counter()
        self._apart: Counter[Said] = Counter()
        self._orders: Counter[tuple[str, str]] = Counter()
        self._last: dict[Series, str] = {}

    def __call__(self, was_sent: bool, fields: Sequence[str]) -> None:
        """Take a message."""
        kind = fields[0] if fields else ""
        if kind == GREETING and _NUMBER.fullmatch("".join(fields[1:])):
            self.server_version = int(fields[1])
        if was_sent:
            self._request(kind, fields)
        elif kind not in _OF_ORDERS and len(self._shapes) < MOST_SHAPES:
            about = self._about(kind, fields)
            shape = (kind, about, _forms(fields[1:]))
            self._shapes[shape] += 1
            self._count_order(kind, fields, about)

    def take(self) -> Counter[Said]:
        """Return what was said since the last time, with how often."""
        said = self._apart
        for (before, step), count in self._orders.items():
            said[Said(SaidKind.ORDER, order(before, step))] += count
        for (kind, about, forms), count in self._shapes.items():
            for words in self._said_by(kind, about, forms):
                said[words] += count

        self._shapes = Counter()
        self._apart = Counter()
        self._orders = Counter()
        return said

    def _said_by(self, kind: str, about: str, forms: Sequence[str]) -> Iterator[Said]:
        """Yield what a message of this shape says: its name, its subject, its fields."""
        if kind in (GREETING, HUNG_UP):
            return
        name = self._name_of(kind)
        yield Said(SaidKind.MESSAGE, name)
        if about:
            counted, _place = self._vocabulary.about[kind]
            yield Said(SaidKind(counted), f"{about} ({name})")
        if kind not in self._vocabulary.varying:
            yield Said(SaidKind.LENGTH, f"{name} has {len(forms) + 1} fields")
            for place, form in enumerate(forms, start=1):
                yield Said(SaidKind.FORM, f"{name}: field {place} is {form}")

    def _name_of(self, kind: str) -> str:
        if kind in self._vocabulary.names:
            return self._vocabulary.names[kind]
        return f"message {kind}" if _NUMBER.fullmatch(kind) else UNREADABLE

    def _about(self, kind: str, fields: Sequence[str]) -> str:
        """Return the tick, code or tag that a message is about; the text of a code is counted."""
        if kind not in self._vocabulary.about:
            return ""
        counted, place = self._vocabulary.about[kind]
        subject = fields[place] if place < len(fields) else ""
        form = _TAG if counted == SaidKind.TAG else _NUMBER
        if subject and not form.fullmatch(subject):
            return UNREADABLE
        if counted == SaidKind.CODE:
            text = self._vocabulary.published(_text_of(fields))
            said = Said(SaidKind.TEXT, f"{subject}: {text}")
            self._apart[said] += 1
        return subject

    # -- what follows what --------------------------------------------------------------------

    def _request(self, kind: str, fields: Sequence[str]) -> None:
        """Take a request that the client sent: it ends what went on under its id before."""
        name = self._vocabulary.requests.get(kind, "")
        place = self._vocabulary.asked.get(kind, len(fields))
        series: Series = _BEGUN.get(kind, ())
        if place < len(fields):
            series = (fields[place],)

        self._end(series)
        self._end((*series, MODEL))
        # `reqAccountUpdates` (6) with 0 is the end of a subscription.
        if series and not name.startswith("cancel") and (kind, *fields[2:3]) != ("6", "0"):
            self._begin(series, name)
        if series == _ACCOUNT:  # the gateway sends all rows to a new download
            for followed in list(self._last):
                if followed[0] == _ROW:
                    del self._last[followed]
        # Its fifth field is the security type: its model should tick too.
        if name == "reqMktData" and fields[5] in LISTED_OPTIONS:
            self._begin((*series, MODEL), "reqMktData of an option")

    def _begin(self, series: Series, name: str) -> None:
        """Begin a series with a request."""
        self._last[series] = name

    def _end(self, series: Series) -> None:
        """End a series."""
        self._last.pop(series, None)

    def _count_order(self, kind: str, fields: Sequence[str], about: str) -> None:
        """Count what a message follows in what it belongs to."""
        name = self._name_of(kind)
        place = self._vocabulary.places.get(kind, len(fields))
        request = fields[place] if place < len(fields) else ""
        if request and kind != _ERROR:
            self._follow((request,), "ticks" if kind in _TICKS else name)
            if kind == "21" and about in _MODEL_TICKS:
                self._follow((request, MODEL), "model tick")
        elif kind in (GREETING, HUNG_UP):
            self._follow(("connection",), kind)
        elif kind == _ERROR and request in ("", "-1"):
            code = int(about) if about.isdecimal() else 0
            if code in _STATES:
                self._follow(("IB",), about)
            elif code in FARM_BROKEN | FARM_OK:
                self._follow(("farm", farm_of(_text_of(fields))), about)
        elif kind == _ERROR:
            ends = about.isdecimal() and int(about) in ENDS_LINE
            self._follow((request,), about if ends else name)
        elif kind in _SERIES:
            self._follow(_SERIES[kind], name)
            if kind in _ROWS:
                row = [_ROW, kind, *fields[2:3]]
                if kind != "7":
                    row += fields[4:5]
                self._follow((*row, *fields[-1:]), name)

    def _follow(self, series: Series, step: str) -> str:
        """Count what came before a message in its series; return it, or "" if it counts not."""
        before = self._last.get(series, "")
        if before == step:
            if step == "ticks" or series in _LISTS:
                return ""
        elif before or not series[0].isdecimal():  # for a request that is over nothing begins
            self._last[series] = step
        if not before:
            return ""
        self._orders[before, step] += 1
        return before


def order(before: str, step: str) -> str:
    """Return what followed what, in words."""
    return f"{before}, then {step}"


def _text_of(error: Sequence[str]) -> str:
    """Return the text of an error message; empty: it has none."""
    return "".join(error[4:5])


def _forms(texts: Sequence[str]) -> tuple[str, ...]:
    """Return what each field looks like; at once if all are numbers or words."""
    try:
        return tuple(
            [
                ("number" if -LEAST_UNSET < float(text) < LEAST_UNSET else "unset")
                if text[0] in _NUMBERS_BEGIN
                else "text"
                for text in texts
            ]
        )
    except (IndexError, ValueError):  # an empty field, a clock, a word that begins as a number
        return tuple(map(_form, texts))


# How numbers begin that the gateway writes; those that are not finite too.
_NUMBERS_BEGIN = frozenset("-0123456789NI")


def _form(text: str) -> str:
    """Return what a field looks like: empty, a number, unset (the largest double), a clock, text.

    NaN counts as unset.
    """
    if not text:
        return "empty"
    if text[0] not in _NUMBERS_BEGIN:
        return "text"
    if len(text) == len("23:59") and text[2] == ":":
        return "clock"
    try:
        value = float(text)
    except ValueError:
        return "text"
    return "number" if abs(value) < LEAST_UNSET else "unset"


# The gateway writes the largest double for "no value": from here a number is none.
LEAST_UNSET = 1e300
