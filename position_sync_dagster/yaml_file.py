"""A YAML file that a person writes: read within bounds; a mistake is named by line and column."""

import os
import stat
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.composer import Composer, ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from position_sync_dagster.errors import PositionSyncError, shown

LARGEST_FILE = 4 * 2**20
"""Bytes; a leg takes about a hundred."""
DEEPEST = 16
"""Levels of nesting; a file as it should be has 6."""

_NULL = "tag:yaml.org,2002:null"


class YamlFile:
    """One file, read from its YAML nodes, which know their line and column.

    Args:
        path: The file.
        named_by: The setting that holds the path, named in the error when there is no such file.
        holds: What the file is for, as in "strategies".
        error: The kind of each error; its message names file, line, column, cause and remedy.
    """

    def __init__(
        self, path: Path, *, named_by: str, holds: str, error: type[PositionSyncError]
    ) -> None:
        self.path = path
        self._named_by = named_by
        self._holds = holds
        self._error = error

    def compose(self) -> Node:
        """Return the root of the file.

        Raises:
            PositionSyncError: The file is missing, empty, no regular file, larger or nested more
                deeply than anybody needs, or not YAML.
        """
        text = self._read_text()
        try:
            root = yaml.compose(text, Loader=_BoundedLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise self.error(
                (mark.line + 1, mark.column + 1) if mark else None,
                f"it is not YAML: {error.problem or error.context}",
                "Correct the text there; check indentation, quotes and brackets",
            ) from None
        except yaml.reader.ReaderError as error:
            before = text.encode()[: error.position].decode()
            at = (before.count("\n") + 1, len(before) - before.rfind("\n"))
            raise self.error(
                at, f"it is not YAML: {error.reason}", "Remove the character"
            ) from None
        if root is None:
            holds = self._holds
            self.fail(None, "it is empty", f"Begin it with `{holds}:`; `{holds}: []` for none")
        return root

    def _read_text(self) -> str:
        try:
            # Not blocking: to open a pipe would wait for a writer.
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                self.fail(None, "it is not a regular file", "Name a text file")
            with open(fd, "rb") as file:
                content = file.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                self.fail(
                    None,
                    f"it has more than {LARGEST_FILE // 2**20} MB",
                    f"Name a file that holds {self._holds} and nothing else",
                )
            return content.decode("utf-8")
        except FileNotFoundError:
            self.fail(None, "there is no such file", f"Correct {self._named_by}")
        except (OSError, UnicodeDecodeError) as error:
            self.fail(None, f"it cannot be read: {error}", "Write a text file in UTF-8")

    def mapping(
        self, node: Node, allowed: tuple[str, ...], needed: tuple[str, ...]
    ) -> dict[str, Node]:
        """Return the fields of a node, each once and none that is unknown."""
        if not isinstance(node, MappingNode):
            self.fail(node, "fields are expected here", f"Write {needed[0]}: … and the others")
        fields: dict[str, Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, ScalarNode) else "?"
            if name not in allowed:
                self.fail(key, f"the field {shown(name)} is not known", f"Use {', '.join(allowed)}")
            if name in fields:
                self.fail(key, f"the field {shown(name)} is there twice", "Keep one of them")
            fields[name] = value
        for name in needed:
            if name not in fields:
                self.fail(node, f"the field {shown(name)} is missing", "Add it")
        return fields

    def entries(self, node: Node | None, name: str) -> list[tuple[Node, Node]]:
        """Return the names and values of free choice in a field; none where there is no value."""
        if node is None or absent(node):
            return []
        if not isinstance(node, MappingNode):
            self.fail(node, f"{name} must be names with values", "Write {name: value}")
        return list(node.value)

    def items(self, node: Node, name: str) -> list[Node]:
        """Return the entries of a list; none where there is no value."""
        if absent(node):
            return []
        if not isinstance(node, SequenceNode):
            self.fail(node, f"{name} must be a list", "Begin each entry with a dash")
        return list(node.value)

    def text(self, node: Node | None, name: str) -> str:
        """Return the text of a field."""
        if node is None or absent(node) or not isinstance(node, ScalarNode) or not node.value:
            self.fail(node, f"{name} has no value", "Write one")
        return str(node.value)

    def fail(self, node: Node | None, cause: str, remedy: str) -> NoReturn:
        """Raise the error of a mistake at a node."""
        raise self.error(place_of(node), cause, remedy) from None

    def error(self, at: tuple[int, int] | None, cause: str, remedy: str) -> PositionSyncError:
        """Return the error of a mistake at a line and a column."""
        place = f", line {at[0]}, column {at[1]}" if at else ""
        return self._error(
            f"{self.path}{place}: {cause.rstrip('.')}.", remedy=f"{remedy.rstrip('.')}."
        )


class _BoundedLoader(Composer, yaml.CSafeLoader):
    """Composes nodes down to `DEEPEST` levels; libyaml reads the text, in a quarter of the time."""

    depth = 0

    def __init__(self, text: str) -> None:
        Composer.__init__(self)
        yaml.CSafeLoader.__init__(self, text)

    def compose_node(self, parent: Node | None, index: object) -> Node | None:
        if self.depth == DEEPEST:
            mark: Any = self.peek_event().start_mark  # type: ignore[union-attr]
            raise ComposerError(None, None, f"nested more than {DEEPEST} levels deep", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)  # type: ignore[arg-type]
        finally:
            self.depth -= 1


def place_of(node: Node | None) -> tuple[int, int] | None:
    """Return the line and the column of a node, both from 1."""
    return None if node is None else (node.start_mark.line + 1, node.start_mark.column + 1)


def absent(node: Node | None) -> bool:
    """Return whether a field is missing, or has no value."""
    return node is None or (isinstance(node, ScalarNode) and node.tag == _NULL)
