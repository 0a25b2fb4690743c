"""The legs that the rules of the strategies file choose, kept equal to what a login holds."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.leg import Leg
from position_sync_dagster.domain.rules import Rule, exchange_date, legs_of_rules
from position_sync_dagster.errors import InvalidLegError, StrategiesFileError
from position_sync_dagster.lake.strategies_file import follow_file, load_rules
from position_sync_dagster.lake.strategy_registry import StrategyRegistry
from position_sync_dagster.yaml_file import saved_state

logger = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class RuleFollower:
    """Evaluates the rules for the owner of a login: it alone knows at once what is held.

    A file that was saved is applied as a whole. While it has a mistake, the legs stay as they were.
    """

    registry: StrategyRegistry
    file: Path
    _: KW_ONLY
    clock: Clock = utc_now

    def __post_init__(self) -> None:
        self._rules: list[Rule] = []
        self._saved: object = None
        self._followed: object = None
        self._sides: dict[Key, bool] = {}

    def is_due(self, positions: Mapping[Key, float | None], *, first: bool) -> bool:
        """Return whether the file, the day, the registry or the side of a holding changed.

        Args:
            positions: The quantities that changed since the last call.
            first: Whether these are all quantities.
        """
        before = {} if first else self._sides
        sides = {key: quantity > 0 for key, quantity in positions.items() if quantity}
        if first or any(before.get(key) is not sides.get(key) for key in positions):
            self._followed = None
        self._sides = {key: one for key, one in before.items() if key not in positions} | sides
        return self._followed != self._inputs()

    def follow(self, holdings: Iterable[BrokerPosition], accounts: Collection[str]) -> None:
        """Apply the file if it was saved, and its rules to what these accounts hold; blocks.

        Args:
            holdings: All holdings of the login.
            accounts: The accounts of the login; what rules chose in others stays.

        Raises:
            LakeError: The table cannot be used.
        """
        inputs = self._inputs()
        if self._saved != inputs[0]:
            try:
                # Also what is listed: an older state of the rules may have been written since.
                follow_file(self.registry.sync, self.file)
                self._rules = load_rules(self.file)
            except (StrategiesFileError, InvalidLegError) as error:
                logger.warning("the legs stay as they were read last: %s", error)
            self._saved = inputs[0]
        if names := {rule.name for rule in self._rules}:
            active: tuple[Leg, ...] = (*self.registry.legs, *self.registry.unresolved)
            listed: list[Leg] = [leg for leg in active if leg.strategy_id not in names]
            legs = legs_of_rules(self._rules, holdings, listed, self.clock())
            try:
                if self.registry.sync.follow_rules(names, accounts, legs):
                    logger.info("the rules have %d legs", len(legs))
            except InvalidLegError as error:  # it must not end the stream, which calls this
                logger.warning("the legs of the rules stay as they were: %s", error)
        self._followed = inputs

    def _inputs(self) -> tuple[object, ...]:
        saved, today = saved_state(self.file), exchange_date(self.clock())
        return (saved, today, self.registry.version)
