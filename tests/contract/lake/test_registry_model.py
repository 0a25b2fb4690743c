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
from position_sync_dagster.lake.storage.maintenance import maintain
from position_sync_dagster.lake.strategy_registry import StrategyRegistry
from tests.support.extent import EVERYTHING

Key = tuple[str, str | None, int]
Value = tuple[float | None, float]
"""The values of a membership: quantity and strike."""

LEGS = st.tuples(
    st.tuples(st.sampled_from("ab"), st.sampled_from([None, "A", "B"]), st.integers(1, 3)),
    st.tuples(st.sampled_from([None, 1.0, -2.0]), st.sampled_from([450.0, 455.0])),
)
NUMBERS = st.integers(0, 1)


def allowed(memberships: dict[Key, Value]) -> bool:
    """Return whether no two strategies hold the whole of a leg in one account."""
    whole = [key for key, (quantity, _) in memberships.items() if quantity is None]
    return not any(
        one[2] == other[2]
        and one[0] != other[0]
        and (one[1] == other[1] or None in (one[1], other[1]))
        for one in whole
        for other in whole
    )


class RegistryMachine(RuleBasedStateMachine):
    """Applies each step to the registry and to a dictionary, and compares them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(prefix="registry-model-")
        self.now = datetime(2026, 1, 2, 15, tzinfo=UTC)
        self.memberships: dict[Key, Value] = {}
        self.added: dict[Key, datetime] = {}
        self.ended = 0
        self.registries = [self.opened(), self.opened()]

    def opened(self) -> StrategyRegistry:
        path = Path(self.folder.name) / "legs"
        registry = StrategyRegistry(path, clock=lambda: self.now, fsync=False)
        registry.sync.initialize()
        return registry

    def legs(self, chosen: list[tuple[Key, Value]]) -> list[ActiveContract]:
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
            for (strategy, account, conid), (quantity, strike) in chosen
        ]

    def record(self, after: dict[Key, Value]) -> tuple[int, int]:
        """Record the memberships that end and begin; return how many of each."""
        joined = [key for key, value in after.items() if self.memberships.get(key) != value]
        left = [key for key, value in self.memberships.items() if after.get(key) != value]
        self.ended += len(left)
        for key in joined:
            self.added[key] = self.now
        self.memberships = after
        return len(joined), len(left)

    def refused(self, chosen: list[tuple[Key, Value]], after: dict[Key, Value]) -> bool:
        twice = any(dict(chosen)[key] != value for key, value in chosen)
        return twice or not allowed(after)

    @rule(number=NUMBERS, chosen=st.lists(LEGS, min_size=1, max_size=3))
    def add(self, number: int, chosen: list[tuple[Key, Value]]) -> None:
        after, legs = self.memberships | dict(chosen), self.legs(chosen)
        if self.refused(chosen, after):
            with pytest.raises(InvalidLegError):
                self.registries[number].sync.add_many(legs)
            return
        self.registries[number].sync.add_many(legs)
        self.record(after)

    @rule(number=NUMBERS, chosen=st.lists(LEGS, max_size=4))
    def replace(self, number: int, chosen: list[tuple[Key, Value]]) -> None:
        legs = self.legs(chosen)
        if self.refused(chosen, dict(chosen)):
            with pytest.raises(InvalidLegError):
                self.registries[number].sync.replace_all(legs)
            return
        assert self.registries[number].sync.replace_all(legs) == self.record(dict(chosen))

    @rule(
        number=NUMBERS,
        conid=st.integers(1, 3),
        strategy=st.sampled_from([None, "a", "b"]),
        account=st.sampled_from([None, "A"]),
    )
    def remove(self, number: int, conid: int, strategy: str | None, account: str | None) -> None:
        found = [
            key
            for key in self.memberships
            if key[2] == conid and strategy in (None, key[0]) and account in (None, key[1])
        ]
        remove = self.registries[number].sync.remove_active
        if len(found) != 1:
            with pytest.raises(AmbiguousRemovalError if found else UnknownLegError):
                remove(conid, strategy, account)
            return
        removed = remove(conid, strategy, account)
        assert (removed.key, removed.removed_at) == (found[0], self.now)
        self.record({key: value for key, value in self.memberships.items() if key != found[0]})

    @rule(seconds=st.sampled_from([0.5, 60.0, -60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(number=NUMBERS)
    def restart(self, number: int) -> None:
        self.registries[number] = self.opened()

    @rule()
    def maintain_table(self) -> None:
        maintain(self.registries[0].table, clean_now=True)

    @invariant()
    def the_registry_and_the_dictionary_are_the_same(self) -> None:
        for registry in self.registries:
            active = registry.sync.get_all_active()
            assert {leg.key: (leg.quantity, leg.strike) for leg in active} == self.memberships
            assert all(leg.added_at == self.added[leg.key] for leg in active)
            for conid in (1, 2, 3):
                accounts = {key[1] for key in self.memberships if key[2] == conid}
                assert registry.is_active(conid) == bool(accounts)
                assert registry.is_active(conid, "A") == bool(accounts & {None, "A"})
        assert self.registries[0].table.rows().height == len(self.memberships) + self.ended

    def teardown(self) -> None:
        self.folder.cleanup()


class TestRegistry(RegistryMachine.TestCase):
    settings = settings(
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        max_examples=8 if EVERYTHING else 3,
        stateful_step_count=30,
        suppress_health_check=list(HealthCheck),
    )
