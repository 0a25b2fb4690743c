"""Parts of movements that are remembered: they are made again when something changed."""

from dataclasses import asdict
from unittest.mock import patch

from position_sync_dagster.lake.schema import frame_of
from position_sync_dagster.money.past import owned_parts
from position_sync_dagster.money.past.attribution import OwnedPart, attributed
from position_sync_dagster.money.past.movements import Movement
from position_sync_dagster.money.past.owned_parts import RememberedParts
from position_sync_dagster.money.tables import MOVEMENTS
from tests.unit.money.campaigns.test_closed_campaigns import BOUGHT, PUT, SOLD, leg


def test_parts_are_made_again_only_when_something_changed():
    memory = RememberedParts()

    def parts_of(*movements: Movement, quantity: float | None = None) -> list[OwnedPart]:
        rows = frame_of(MOVEMENTS, map(asdict, movements))
        return memory.parts_of(rows, [leg(PUT, quantity=quantity)], {}, {})

    assert len(parts_of(SOLD)) == 1
    assert len(parts_of(SOLD, BOUGHT)) == 2
    with patch.object(owned_parts, "attributed", side_effect=AssertionError("made again")):
        assert len(parts_of(SOLD, BOUGHT)) == 2

    with patch.object(owned_parts, "attributed", wraps=attributed) as made:
        parts_of(SOLD, BOUGHT, quantity=-1.0)
    made.assert_called_once()
