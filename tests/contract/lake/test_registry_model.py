"""The registry against a plain model of it: any order of steps, by two objects, with restarts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from position_sync_dagster.domain.leg import ActiveContract, make_leg
from position_sync_dagster.errors import (
    AmbiguousRemovalError,
    InvalidLegError,
    UnknownLegError,
)
from position_sync_dagster.lake.registry.table import StrategyRegistry
from position_sync_dagster.lake.storage.maintenance import maintain

Key = tuple[str, str | None, int]
Value = tuple[float | None, float]
"""What a stay of a leg holds: quantity and strike."""

LEGS = st.tuples(
    st.tuples(st.sampled_from("ab"), st.sampled_from([None, "A", "B"]), st.integers(1, 3)),
    st.tuples(st.sampled_from([None, 1.0, -2.0]), st.sampled_from([450.0, 455.0])),
)
HANDS = st.integers(0, 1)


def allowed(stays: dict[Key, Value]) -> bool:
    """Tell whether no two strategies hold the whole of a leg in one account."""
    whole = [key for key, (quantity, _) in stays.items() if quantity is None]
    return not any(
        one[2] == other[2]
        and one[0] != other[0]
        and (one[1] == other[1] or None in (one[1], other[1]))
        for one in whole
        for other in whole
    )


class RegistryMachine(RuleBasedStateMachine):
    """Do each step to the registry and to a dictionary, and compare them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(prefix="registry-model-")
        self.now = datetime(2026, 1, 2, 15, tzinfo=UTC)
        self.stays: dict[Key, Value] = {}
        self.added: dict[Key, datetime] = {}
        self.over = 0
        self.hands = [self.opened(), self.opened()]

    def opened(self) -> StrategyRegistry:
        path = Path(self.folder.name) / "legs"
        registry = StrategyRegistry(path, clock=lambda: self.now, fsync=False)
        registry.sync.initialize()
        return registry

    def legs(self, asked: list[tuple[Key, Value]]) -> list[ActiveContract]:
        return [
            make_leg(
                strategy_id=strategy,
                account=account,
                conid=conid,
                quantity=quantity,
                strike=strike,
                symbol="SPY",
                right="C",
                expiry="20260220",
                added_at=self.now,
            )
            for (strategy, account, conid), (quantity, strike) in asked
        ]

    def becomes(self, after: dict[Key, Value]) -> tuple[int, int]:
        """Note the stays that end and begin; give how many came and went."""
        came = [key for key, value in after.items() if self.stays.get(key) != value]
        went = [key for key, value in self.stays.items() if after.get(key) != value]
        self.over += len(went)
        for key in came:
            self.added[key] = self.now
        self.stays = after
        return len(came), len(went)

    def refused(self, asked: list[tuple[Key, Value]], after: dict[Key, Value]) -> bool:
        twice = any(dict(asked)[key] != value for key, value in asked)
        return twice or not allowed(after)

    @rule(number=HANDS, asked=st.lists(LEGS, min_size=1, max_size=3))
    def add(self, number: int, asked: list[tuple[Key, Value]]) -> None:
        after, legs = self.stays | dict(asked), self.legs(asked)
        if self.refused(asked, after):
            with pytest.raises(InvalidLegError):
                self.hands[number].sync.add_many(legs)
            return
        self.hands[number].sync.add_many(legs)
        self.becomes(after)

    @rule(number=HANDS, asked=st.lists(LEGS, max_size=4))
    def replace(self, number: int, asked: list[tuple[Key, Value]]) -> None:
        legs = self.legs(asked)
        if self.refused(asked, dict(asked)):
            with pytest.raises(InvalidLegError):
                self.hands[number].sync.replace_all(legs)
            return
        assert self.hands[number].sync.replace_all(legs) == self.becomes(dict(asked))

    @rule(
        number=HANDS,
        conid=st.integers(1, 3),
        strategy=st.sampled_from([None, "a", "b"]),
        account=st.sampled_from([None, "A"]),
    )
    def remove(self, number: int, conid: int, strategy: str | None, account: str | None) -> None:
        found = [
            key
            for key in self.stays
            if key[2] == conid and strategy in (None, key[0]) and account in (None, key[1])
        ]
        remove = self.hands[number].sync.remove_active
        if len(found) != 1:
            with pytest.raises(AmbiguousRemovalError if found else UnknownLegError):
                remove(conid, strategy, account)
            return
        removed = remove(conid, strategy, account)
        assert (removed.key, removed.removed_at) == (found[0], self.now)
        self.becomes({key: value for key, value in self.stays.items() if key != found[0]})

    @rule(seconds=st.sampled_from([0.5, 60.0, -60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(number=HANDS)
    def restart(self, number: int) -> None:
        self.hands[number] = self.opened()

    @rule()
    def keep_house(self) -> None:
        maintain(self.hands[0].table, clean_now=True)

    @invariant()
    def the_registry_and_the_dictionary_are_the_same(self) -> None:
        for registry in self.hands:
            active = registry.sync.get_all_active()
            assert {leg.key: (leg.quantity, leg.strike) for leg in active} == self.stays
            assert all(leg.added_at == self.added[leg.key] for leg in active)
            for conid in (1, 2, 3):
                accounts = {key[1] for key in self.stays if key[2] == conid}
                assert registry.is_active(conid) == bool(accounts)
                assert registry.is_active(conid, "A") == bool(accounts & {None, "A"})
        assert self.hands[0].table.rows().height == len(self.stays) + self.over

    def teardown(self) -> None:
        self.folder.cleanup()


class TestRegistry(RegistryMachine.TestCase):
    settings = settings(
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        max_examples=8,
        stateful_step_count=30,
        suppress_health_check=list(HealthCheck),
    )
