"""A YAML file that a person writes: read within bounds, checked by pydantic.

The error of a mistake names file, line, column, cause and remedy. A part of a file is a mapping
with known fields, as `Part` describes them; a node is a value of the text, which knows its line.
"""

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from yaml.error import Mark
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from position_sync_dagster.errors import PositionSyncError, shown

# The largest file, in bytes; a leg takes about a hundred.
LARGEST_FILE = 4 * 2**20

# The most values with all that aliases repeat; no file of legs has as many without. A few lines of
# aliases could repeat more values than there is memory for.
MOST_VALUES = 500_000

_NULL = "tag:yaml.org,2002:null"

# The path to a value in a file: names of fields and numbers of entries, from the root.
Place = tuple[int | str, ...]


class Part(BaseModel):
    """The fields of one entry. The description of a field says how to write it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, regex_engine="python-re", defer_build=True
    )


P = TypeVar("P", bound=Part)
Text = Annotated[str, Field(min_length=1)]


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device would never end.

    Raises:
        OSError: It is not a regular file, or it cannot be opened.
    """
    # O_NONBLOCK: opening a pipe would otherwise wait for a writer.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return open(fd, "rb")


def first_bytes(path: Path, most: int) -> bytes:
    """Return the first bytes of a regular file.

    Raises:
        OSError: It is not a regular file, or it cannot be read.
    """
    with open_regular(path) as file:
        return file.read(most)


class YamlFile:
    """One file, read into texts, lists and fields; `None` stands where there is no value.

    Args:
        path: The file.
        holds: What the file is for, as in "strategies".
        error: The kind of each error; its message names file, line, column, cause and remedy.

    Attributes:
        data: What the file holds, with what aliases repeat.

    Raises:
        PositionSyncError: The file is missing, empty, not a regular file, not YAML or too large; a
            field is there twice; or aliases repeat too much.
    """

    def __init__(self, path: Path, *, holds: str, error: type[PositionSyncError]) -> None:
        self.path = path
        self._holds = holds
        self._error = error
        self._root = self._compose()
        self._values = 0  # how many were read
        self.data = self._value(self._root)

    def parse(self, kind: type[P], value: object, at: Place = ()) -> P:
        """Return a value of the file as a part.

        Args:
            kind: The class of the part.
            value: The value, as it is in `data`.
            at: Its place in the file.

        Raises:
            PositionSyncError: It has a mistake; the first one is named.
        """
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            # A mistyped field is reported as unknown and as missing: the first names the mistake.
            first = min(
                error.errors(include_url=False),
                key=lambda mistake: mistake["type"] != "extra_forbidden",
            )
            place = (*at, *first["loc"])
            if first["type"] == "extra_forbidden":
                place = (*place, FIELD_NAME)  # the name is the mistake, not the value

            cause, remedy = _explain(kind, first)
            self.fail(place, cause, remedy)

    def fail(self, at: Place, cause: str, remedy: str) -> NoReturn:
        """Raise the error of a mistake at a place."""
        raise self._error_at(self.node(at), cause, remedy) from None

    def line(self, at: Place) -> int:
        """Return the line of a place, from 1."""
        return int(self.node(at).start_mark.line) + 1

    def node(self, at: Place) -> Node:
        """Return the node at a place, or the innermost one around it where there is none.

        If the place ends with FIELD_NAME, it is the node of the field's name, not of its value.
        """
        node = key = self._root
        for step in at:
            if step == FIELD_NAME:
                return key  # the name of the field whose value the last step found
            if isinstance(node, SequenceNode) and isinstance(step, int):
                node = node.value[step]
            elif isinstance(node, MappingNode):
                pairs = [pair for pair in node.value if pair[0].value == step]
                key, node = pairs[0] if pairs else (node, node)
        return node

    def _value(self, node: Node, *around: Node) -> Any:
        """Return what a node holds; what an alias repeats is read, and counted, each time.

        Args:
            node: The node.
            around: The nodes that it is in; an alias of one of them would never end.

        Raises:
            PositionSyncError: That is too much; or a field is there twice.
        """
        self._values += 1
        if self._values > MOST_VALUES or node in around:
            # A repeated node has the place where it was written first, before any alias of it. The
            # node around that begins last in the text is therefore the one that holds the alias.
            alias = max(around, key=lambda outer: outer.start_mark.index)
            cause = f"aliases in it repeat what is around them, or over {MOST_VALUES:,} values"
            raise self._error_at(alias, cause, "Write what is meant")

        if isinstance(node, SequenceNode):
            return [self._value(part, node, *around) for part in node.value]
        if not isinstance(node, MappingNode):
            return None if node.tag == _NULL else node.value

        fields: dict[str, Any] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, ScalarNode) else "?"
            if name in fields:
                raise self._error_at(
                    key, f"the field {shown(name)} is there twice", "Keep one of them"
                )
            fields[name] = self._value(value, node, *around)
        return fields

    def _compose(self) -> Node:
        """Return the root of the file's nodes, which know their lines."""
        try:
            root = yaml.compose(self._read_text(), Loader=yaml.CSafeLoader)
        except yaml.YAMLError as error:
            raise self._error_of_syntax(error) from None

        if root is None:
            holds = self._holds
            raise self._error_of("it is empty", f"Begin it with `{holds}:`; `{holds}: []` for none")
        return root

    def _error_of_syntax(self, error: yaml.YAMLError) -> PositionSyncError:
        """Return the error of a file that is not YAML, with the place that the parser names."""
        cause = getattr(error, "problem", None) or getattr(error, "reason", "it is cut")
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        remedy = "Correct the text there; check indentation, quotes and brackets"
        return self._error_of(f"it is not YAML: {cause}", remedy, mark)

    def _read_text(self) -> str:
        """Read the file, if it is a text of at most LARGEST_FILE bytes."""
        try:
            content = first_bytes(self.path, LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                cause = f"it has more than {LARGEST_FILE // 2**20} MB"
                remedy = f"Name a file that holds {self._holds} and nothing else"
                raise self._error_of(cause, remedy)
            return content.decode("utf-8")
        except FileNotFoundError:
            remedy = f"Correct the path of the file of {self._holds}"
            raise self._error_of("there is no such file", remedy) from None
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            remedy = "Name a text file in UTF-8 that you may read"
            raise self._error_of(f"it cannot be read: {why}", remedy) from None

    def _error_at(self, node: Node, cause: str, remedy: str) -> PositionSyncError:
        return self._error_of(cause, remedy, node.start_mark)

    def _error_of(self, cause: str, remedy: str, at: Mark | None = None) -> PositionSyncError:
        """Return the error of a mistake, at a place of the text if it is known."""
        place = str(self.path)
        if at:
            place += f", line {at.line + 1}, column {at.column + 1}"
        cause = cause.rstrip(".")
        remedy = remedy.rstrip(".")
        return self._error(f"{place}: {cause}.", remedy=f"{remedy}.")


# A place that ends with this is the name of a field and not its value, as in pydantic.
FIELD_NAME = "[key]"


def _explain(kind: type[Part], error: Mapping[str, Any]) -> tuple[str, str]:
    """Return the cause and the remedy of an error of pydantic; a secret is not repeated.

    Args:
        kind: The class of the outermost part.
        error: The error, whose place begins there.
    """
    part, place = _innermost_part(kind, error)
    name = ".".join(step for step in place if isinstance(step, str))
    names = ", ".join(field.alias or name for name, field in part.model_fields.items())
    match error["type"]:
        case "missing":
            return f"the field {shown(name)} is missing", "Add it"
        case "extra_forbidden":
            return f"the field {shown(name)} is not known", f"Use {names}"
        case "model_type":
            return "fields are expected here", f"Write {names}"
        case "list_type" | "tuple_type":
            return f"{name} must be a list", "Begin each entry with a dash; write [] for none"
        case "value_error" if isinstance(cause := error["ctx"]["error"], PositionSyncError):
            return cause.what, cause.remedy  # an error of ours, which a validator raised

    value = error["input"]
    if value in (None, ""):
        return f"{name} has no value", "Write one"

    remedy = str(error["msg"])
    field = part.model_fields.get(name.split(".")[0])
    if field and field.description:
        remedy = field.description
    if field and SecretStr in get_args(field.annotation):
        return f"{name} cannot be used", remedy
    return f"{name} {shown(value)} cannot be used", remedy


def _innermost_part(
    kind: type[Part], error: Mapping[str, Any]
) -> tuple[type[Part], list[int | str]]:
    """Return the class of the innermost part that has a mistake, and where in it the mistake is."""
    steps = error["loc"]
    part = kind
    place = [step for step in steps if step != FIELD_NAME]
    for number, step in enumerate(steps):
        field = part.model_fields.get(step)
        if field is None:
            continue

        alternatives = (field.annotation, *get_args(field.annotation))
        parts = [hint for hint in alternatives if isinstance(hint, type) and issubclass(hint, Part)]
        # The place goes on in this part, or what is there is no mapping.
        is_inside = number + 1 < len(steps) or error["type"] == "model_type"
        if parts and is_inside:
            part = parts[0]
            place = list(steps[number + 1 :])
    return part, place


def saved_state(path: Path) -> tuple[int, int, int]:
    """Return inode, size and time of a file; they change when it is saved again or deleted."""
    try:
        status = os.stat(path)
    except OSError as error:
        return (error.errno or 0, 0, 0)
    return (status.st_ino, status.st_size, status.st_mtime_ns)
