"""The YAML file of strategies; errors name the line and column of the mistake."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from yaml.nodes import Node

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.leg import ActiveContract, Leg, make_leg
from position_sync_dagster.errors import InvalidLegError, StrategiesFileError, shown
from position_sync_dagster.lake.registry.legs import LegKey, WholeHolders, name_of
from position_sync_dagster.yaml_file import YamlFile, absent, place_of

MOST_LEGS = 500_000
"""Memberships; with aliases a small file can name many more than it has lines."""
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


class _Reader(YamlFile):
    """Reads the legs of one file."""

    def __init__(self, path: Path, clock: Clock, named_by: str) -> None:
        super().__init__(path, named_by=named_by, holds="strategies", error=StrategiesFileError)
        self.now = clock()
        self._read_legs: dict[int, tuple[Leg, int | None]] = {}  # by the identity of the node

    def read(self) -> list[Leg]:
        top = self.mapping(self.compose(), ("strategies",), ("strategies",))
        legs: list[Leg] = []
        places: dict[LegKey, Node] = {}
        holders = WholeHolders()
        for node in self.items(top["strategies"], "strategies"):
            for leg, place in self._strategy(node):
                if leg.key in places:
                    first = places[leg.key].start_mark.line + 1
                    self.fail(
                        place,
                        f"the strategy {leg.strategy_id!r} has the leg {name_of(leg)} already, "
                        f"in line {first}",
                        "Keep one of them",
                    )
                if len(legs) == MOST_LEGS:
                    self.fail(
                        place, f"it names more than {MOST_LEGS:,} legs", "Name each leg only once"
                    )
                places[leg.key] = place
                self._refuse_second_whole(leg, place, holders)
                legs.append(leg)
        return legs

    def _strategy(self, node: Node) -> Iterator[tuple[Leg, Node]]:
        fields = self.mapping(node, _STRATEGY, ("strategy_id", "legs"))
        strategy_id = self.text(fields["strategy_id"], "strategy_id")
        if not strategy_id.strip():
            self.fail(fields["strategy_id"], "strategy_id has no value", "Write one")
        priority = self._priority(fields.get("priority"), 1)
        for node in self.items(fields["legs"], "legs"):
            if id(node) not in self._read_legs:  # an alias repeats the node that it stands for
                self._read_legs[id(node)] = self._leg(node, strategy_id)
            leg, own = self._read_legs[id(node)]
            wanted = (strategy_id, own or priority)
            if (leg.strategy_id, leg.priority) != wanted:
                leg = replace(leg, strategy_id=wanted[0], priority=wanted[1])
            yield leg, node

    def _leg(self, node: Node, strategy_id: str) -> tuple[Leg, int | None]:
        """Return a leg, and its own priority if it has one."""
        fields = self.mapping(node, _LEG, _NEEDED)
        given = [name for name in _DESCRIBED if name in _NEEDED or not absent(fields.get(name))]
        text = {name: self.text(fields[name], name) for name in given}
        account, quantity = fields.get("account"), fields.get("quantity")
        own = self._priority(fields["priority"], 1) if "priority" in fields else None
        try:
            leg = make_leg(
                **text,  # type: ignore[arg-type]
                strategy_id=strategy_id,
                added_at=self.now,
                quantity=None if absent(quantity) else self._number(quantity),
                account=None if absent(account) else self.text(account, "account"),
            )
        except InvalidLegError as error:
            self._name_mistake(text, fields)
            raise self.error(place_of(node), error.what, error.remedy) from None
        return leg, own

    def _name_mistake(self, text: dict[str, str], fields: dict[str, Node]) -> None:
        """Raise an error at the place of a field that is wrong by itself, if there is one."""
        with suppress(InvalidLegError):
            make_leg(**text, strategy_id="x", added_at=self.now)  # type: ignore[arg-type]
            return  # the mistake is in what the strategy says of the leg
        good = {"conid": "1", "symbol": "X", "right": "C", "strike": "1", "expiry": "20260101"}
        for name in text:
            try:
                make_leg(**good | {name: text[name]}, strategy_id="x", added_at=self.now)  # type: ignore[arg-type]
            except InvalidLegError as error:
                raise self.error(place_of(fields[name]), error.what, error.remedy) from None

    def _refuse_second_whole(self, leg: Leg, place: Node, holders: WholeHolders) -> None:
        if not isinstance(leg, ActiveContract):
            return  # the contract of a description is not known here
        other = holders.add(leg)
        if other is not None:
            self.fail(
                place,
                f"the strategies {other.strategy_id!r} and {leg.strategy_id!r} both hold the "
                f"whole of leg {leg.conid}",
                "Set the quantity that each has of the leg",
            )

    def _number(self, node: Node | None) -> float:
        text = self.text(node, "quantity")
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if number == 0 or number - number != 0:
            self.fail(
                node,
                f"the quantity {shown(text)} is not a number of contracts",
                "Write it with its sign, as -1; leave it out for the whole holding",
            )
        return number

    def _priority(self, node: Node | None, default: int) -> int:
        if node is None:
            return default
        text = self.text(node, "priority")
        if not text.isdecimal() or len(text) > 9 or int(text) < 1:
            self.fail(
                node, f"the priority {shown(text)} is not a whole number above zero", "Write 1 or 2"
            )
        return int(text)
