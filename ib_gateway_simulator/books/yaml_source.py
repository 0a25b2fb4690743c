"""YAML files whose errors name line and column."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ib_gateway_simulator.books.dates import dated, today
from ib_gateway_simulator.errors import BookError

Location = tuple[int | str, ...]
T = TypeVar("T")

# The loader in C reads a book of 20,000 positions in a tenth of the time.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Source:
    """One parsed YAML file, and the line and column of each value in it."""

    def __init__(self, path: Path, root: Node | None, data: Any) -> None:
        self.path = path
        self.data = data
        self._root = root

    @classmethod
    def read(cls, path: Path, day: date | None = None) -> Source:
        """Read a file; the names of weeks in it are counted from a day, by default today.

        Raises:
            BookError: The file is missing, unreadable or malformed.
        """
        try:
            text = dated(path.read_text(encoding="utf-8"), day or today())
        except (OSError, UnicodeDecodeError) as error:
            raise BookError(
                path, 0, 0, f"cannot be read: {error}", "give the path of a readable YAML file"
            ) from error
        try:
            root = yaml.compose(text, Loader=LOADER)
            data = yaml.load(text, Loader=LOADER)  # noqa: S506 - safe in both kinds
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = column = 1
            if mark:
                line = mark.line + 1
                column = mark.column + 1

            cause = getattr(error, "problem", None) or str(error)
            raise BookError(
                path, line, column, f"malformed YAML: {cause}", "correct the YAML at this place"
            ) from error
        except ValueError as error:
            raise BookError(
                path, 1, 1, f"malformed YAML: {error}", "correct the value, or quote it"
            ) from error

        source = cls(path, root, data)
        if root is not None:
            source._check_duplicates(root)
        return source

    def _check_duplicates(self, node: Node) -> None:
        if isinstance(node, SequenceNode):
            for child in node.value:
                self._check_duplicates(child)
        if not isinstance(node, MappingNode):
            return

        names_seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, ScalarNode):
                if key.value in names_seen:
                    mark = key.start_mark
                    raise BookError(
                        self.path,
                        mark.line + 1,
                        mark.column + 1,
                        f"the key {key.value!r} is given twice",
                        "keep one of them",
                    )
                names_seen.add(key.value)
            self._check_duplicates(value)

    def place(self, location: Location) -> tuple[int, int]:
        """Return line and column of a value, or of its nearest parent that exists."""
        node = self._root
        if node is None:
            return 1, 1
        for step in location:
            child = _child(node, step)
            if child is None:
                break
            node = child
        return node.start_mark.line + 1, node.start_mark.column + 1

    def error(self, location: Location, cause: str, remedy: str) -> BookError:
        """Return the error for one value of this file."""
        line, column = self.place(location)
        return BookError(self.path, line, column, cause, remedy, dotted(location))

    def parse(self, kind: type[T] | Any) -> Any:
        """Return the whole file as a `kind`.

        Raises:
            BookError: A field is wrong; it names the first one.
        """
        try:
            return TypeAdapter(kind).validate_python(self.data)
        except ValidationError as error:
            first = error.errors()[0]
            location = self._without_union_steps(first["loc"], keep_last=first["type"] == "missing")
            cause, remedy = _explain(dict(first))
            raise self.error(location, cause, remedy) from None

    def _without_union_steps(self, location: tuple[int | str, ...], *, keep_last: bool) -> Location:
        """Return a location without the steps that pydantic adds for the members of a union.

        The file does not have these steps. It does not have a missing field either, but the name
        of that field must stay.
        """
        node = self._root
        known_steps: list[int | str] = []
        for position, step in enumerate(location):
            child = None
            if node is not None:
                child = _child(node, step)

            if child is None:
                if keep_last and position == len(location) - 1:
                    known_steps.append(step)
                continue
            node = child
            known_steps.append(step)
        return tuple(known_steps)


def _child(node: Node, step: int | str) -> Node | None:
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        item = node.value[step]
        if isinstance(item, Node):
            return item

        return None
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.value == str(step):
                if isinstance(value, Node):
                    return value

                return None
    return None


def dotted(location: Location) -> str:
    """Return a location as text, like `positions[3].conid`."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def _explain(error: dict[str, Any]) -> tuple[str, str]:
    kind = error["type"]
    message = str(error["msg"])
    given_value = error.get("input")
    if kind == "missing":
        return "this field is required and missing", "add it"
    if kind == "extra_forbidden":
        return "this field is not known", "remove it, or correct its name"
    cause = message.removeprefix("Value error, ")
    shown = f", not {given_value!r}"
    if isinstance(given_value, (dict, list, BaseModel)):
        shown = ""

    return f"{cause[0].lower()}{cause[1:]}{shown}", "correct the value"
