"""The YAML file of strategies; errors name the line and column of the mistake."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.composer import Composer, ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.leg import ActiveContract, Leg, make_leg
from position_sync_dagster.errors import InvalidLegError, StrategiesFileError
from position_sync_dagster.lake.registry.legs import LegKey, name_of
from position_sync_dagster.lake.registry.whole_holders import WholeHolders

LARGEST_FILE = 4 * 2**20
"""Bytes; a leg takes about a hundred."""
MOST_LEGS = 500_000
"""Memberships; with aliases a small file can name many more than it has lines."""
DEEPEST = 16
"""Levels of nesting; a file as it should be has 6."""

_NULL = "tag:yaml.org,2002:null"
_STRATEGY = ("strategy_id", "priority", "legs")
_DESCRIBED = (
    "conid", "symbol", "right", "strike", "expiry", "sec_type", "trading_class", "multiplier",
    "exchange", "currency",
)  # fmt: skip
_LEG = (*_DESCRIBED, "account", "quantity", "priority")
_NEEDED = ("symbol",)


def load_strategies(
    path: str | Path, clock: Clock = utc_now, *, named_by: str = "POSITION_SYNC_STRATEGIES_FILE"
) -> list[Leg]:
    """Read the legs of a strategies file, in the order of the file.

    Example of a file::

        strategies:
          - strategy_id: ic-1
            priority: 1          # optional
            legs:
              - {conid: 700001, symbol: SPY, right: C, strike: 450, expiry: 20260220}
              - {conid: 700002, symbol: SPY, right: P, strike: 440, expiry: 2026-02-20,
                 account: DU1234567, quantity: -1}
              - {conid: 756733, symbol: SPY, quantity: 100}     # a stock as a hedge
              # without a conid: the owner of the gateway finds the one contract that fits
              - {symbol: SPX, right: P, strike: 5000, expiry: 20260220, trading_class: SPXW}

    Args:
        named_by: The setting that holds the path, named in the error when there is no such file.

    Raises:
        StrategiesFileError: The file is missing, is no regular file, is larger, nested more deeply
            or names more legs than anybody needs, or has a mistake. The message names file, line,
            column, cause and remedy.
    """
    return _Reader(Path(path), clock, named_by).read()


class _Reader:
    """Reads one file from its YAML nodes, which know their line and column."""

    def __init__(self, path: Path, clock: Clock, named_by: str) -> None:
        self.path = path
        self.named_by = named_by
        self.now = clock()
        self._read_legs: dict[int, tuple[Leg, int | None]] = {}  # by the identity of the node

    def read(self) -> list[Leg]:
        root = self._compose()
        if root is None:
            self._fail(
                None, "it is empty", "Begin it with `strategies:`; `strategies: []` for none"
            )
        top = self._mapping(root, ("strategies",), ("strategies",))
        legs: list[Leg] = []
        places: dict[LegKey, Node] = {}
        holders = WholeHolders()
        for node in self._items(top["strategies"], "strategies"):
            for leg, place in self._strategy(node):
                if leg.key in places:
                    first = places[leg.key].start_mark.line + 1
                    self._fail(
                        place,
                        f"the strategy {leg.strategy_id!r} has the leg {name_of(leg)} already, "
                        f"in line {first}",
                        "Keep one of them",
                    )
                if len(legs) == MOST_LEGS:
                    self._fail(
                        place, f"it names more than {MOST_LEGS:,} legs", "Name each leg only once"
                    )
                places[leg.key] = place
                self._refuse_second_whole(leg, place, holders)
                legs.append(leg)
        return legs

    def _compose(self) -> Node | None:
        text = self._read_text()
        try:
            return yaml.compose(text, Loader=_BoundedLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise self._error(
                (mark.line + 1, mark.column + 1) if mark else None,
                f"it is not YAML: {error.problem or error.context}",
                "Correct the text there; check indentation, quotes and brackets",
            ) from None
        except yaml.reader.ReaderError as error:
            before = text.encode()[: error.position].decode()
            at = (before.count("\n") + 1, len(before) - before.rfind("\n"))
            raise self._error(
                at, f"it is not YAML: {error.reason}", "Remove the character"
            ) from None

    def _read_text(self) -> str:
        try:
            # Not blocking: to open a pipe would wait for a writer.
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                self._fail(None, "it is not a regular file", "Name a text file")
            with open(fd, "rb") as file:
                content = file.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                self._fail(
                    None,
                    f"it has more than {LARGEST_FILE // 2**20} MB",
                    "Name a file that holds strategies and nothing else",
                )
            return content.decode("utf-8")
        except FileNotFoundError:
            self._fail(None, "there is no such file", f"Correct {self.named_by}")
        except (OSError, UnicodeDecodeError) as error:
            self._fail(None, f"it cannot be read: {error}", "Write a text file in UTF-8")

    def _strategy(self, node: Node) -> Iterator[tuple[Leg, Node]]:
        fields = self._mapping(node, _STRATEGY, ("strategy_id", "legs"))
        strategy_id = self._text(fields["strategy_id"], "strategy_id")
        if not strategy_id.strip():
            self._fail(fields["strategy_id"], "strategy_id has no value", "Write one")
        priority = self._priority(fields.get("priority"), 1)
        for node in self._items(fields["legs"], "legs"):
            if id(node) not in self._read_legs:  # an alias repeats the node that it stands for
                self._read_legs[id(node)] = self._leg(node, strategy_id)
            leg, own = self._read_legs[id(node)]
            yield replace(leg, strategy_id=strategy_id, priority=own or priority), node

    def _leg(self, node: Node, strategy_id: str) -> tuple[Leg, int | None]:
        """Return a leg, and its own priority if it has one."""
        fields = self._mapping(node, _LEG, _NEEDED)
        given = [name for name in _DESCRIBED if name in _NEEDED or not _absent(fields.get(name))]
        text = {name: self._text(fields[name], name) for name in given}
        try:
            make_leg(**text, strategy_id="x", added_at=self.now)  # type: ignore[arg-type]
        except InvalidLegError:
            self._name_mistake(text, fields)
        account, quantity = fields.get("account"), fields.get("quantity")
        own = self._priority(fields["priority"], 1) if "priority" in fields else None
        try:
            leg = make_leg(
                **text,  # type: ignore[arg-type]
                strategy_id=strategy_id,
                added_at=self.now,
                quantity=None if _absent(quantity) else self._number(quantity),
                account=None if _absent(account) else self._text(account, "account"),
            )
        except InvalidLegError as error:
            raise self._error(_at(node), error.what, error.remedy) from None
        return leg, own

    def _name_mistake(self, text: dict[str, str], fields: dict[str, Node]) -> None:
        """Raise an error at the place of a field that is wrong by itself, if there is one."""
        good = {"conid": "1", "symbol": "X", "right": "C", "strike": "1", "expiry": "20260101"}
        for name in text:
            try:
                make_leg(**good | {name: text[name]}, strategy_id="x", added_at=self.now)  # type: ignore[arg-type]
            except InvalidLegError as error:
                raise self._error(_at(fields[name]), error.what, error.remedy) from None

    def _refuse_second_whole(self, leg: Leg, place: Node, holders: WholeHolders) -> None:
        if not isinstance(leg, ActiveContract):
            return  # the contract of a description is not known here
        other = holders.add(leg)
        if other is not None:
            self._fail(
                place,
                f"the strategies {other.strategy_id!r} and {leg.strategy_id!r} both hold the "
                f"whole of leg {leg.conid}",
                "Set the quantity that each has of the leg",
            )

    def _mapping(
        self, node: Node, allowed: tuple[str, ...], needed: tuple[str, ...]
    ) -> dict[str, Node]:
        if not isinstance(node, MappingNode):
            self._fail(node, "fields are expected here", f"Write {needed[0]}: … and the others")
        fields: dict[str, Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, ScalarNode) else "?"
            if name not in allowed:
                self._fail(key, f"the field {name!r} is not known", f"Use {', '.join(allowed)}")
            if name in fields:
                self._fail(key, f"the field {name!r} is there twice", "Keep one of them")
            fields[name] = value
        for name in needed:
            if name not in fields:
                self._fail(node, f"the field {name!r} is missing", "Add it")
        return fields

    def _items(self, node: Node, name: str) -> list[Node]:
        if _absent(node):
            return []
        if not isinstance(node, SequenceNode):
            self._fail(node, f"{name} must be a list", "Begin each entry with a dash")
        return list(node.value)

    def _text(self, node: Node | None, name: str) -> str:
        if node is None or _absent(node) or not isinstance(node, ScalarNode) or not node.value:
            self._fail(node, f"{name} has no value", "Write one")
        return str(node.value)

    def _number(self, node: Node | None) -> float:
        text = self._text(node, "quantity")
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if number == 0 or number - number != 0:
            self._fail(
                node,
                f"the quantity {text!r} is not a number of contracts",
                "Write it with its sign, as -1; leave it out for the whole holding",
            )
        return number

    def _priority(self, node: Node | None, default: int) -> int:
        if node is None:
            return default
        text = self._text(node, "priority")
        if not text.isdecimal() or int(text) < 1:
            self._fail(
                node, f"the priority {text!r} is not a whole number above zero", "Write 1 or 2"
            )
        return int(text)

    def _fail(self, node: Node | None, cause: str, remedy: str) -> NoReturn:
        raise self._error(_at(node), cause, remedy) from None

    def _error(self, at: tuple[int, int] | None, cause: str, remedy: str) -> StrategiesFileError:
        place = f", line {at[0]}, column {at[1]}" if at else ""
        return StrategiesFileError(
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


def _at(node: Node | None) -> tuple[int, int] | None:
    return None if node is None else (node.start_mark.line + 1, node.start_mark.column + 1)


def _absent(node: Node | None) -> bool:
    return node is None or (isinstance(node, ScalarNode) and node.tag == _NULL)
