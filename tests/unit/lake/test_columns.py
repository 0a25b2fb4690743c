"""The columns of a table follow the fields of the dataclass that is stored in it."""

import subprocess
import sys
from dataclasses import dataclass
from datetime import date, datetime

import pytest

from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.lake import schema


@dataclass
class Row:
    """A row.

    Attributes:
        status: Its state.
        price: Its price,
            of one. Unit: USD.
    """

    status: QueueStatus | None
    price: float
    day: date
    at: datetime | None = None


def test_a_column_has_the_type_and_the_description_of_its_field():
    assert schema.columns_of(Row) == {
        "status": schema.StoredColumn(kind=str, description="Its state.", choices=QueueStatus),
        "price": schema.StoredColumn(
            kind=float, description="Its price, of one. Unit: USD.", nullable=False
        ),
        "day": schema.StoredColumn(kind=date, nullable=False),
        "at": schema.StoredColumn(kind=datetime),
    }


def test_a_field_that_no_column_can_hold_is_refused_by_name():
    @dataclass
    class Odd:
        parts: bytes

    with pytest.raises(TypeError, match="parts"):
        schema.columns_of(Odd)


TEXTS = """
from position_sync_dagster.lake import schema
print(*sorted(f'{spec.name}.{name}: {column.description}'
    for spec in schema.TABLES for name, column in spec.described.items()), sep='\\n')
"""


def test_columns_have_their_texts_without_docstrings(capsys):
    exec(TEXTS)  # noqa: S102
    with_docstrings = capsys.readouterr().out
    assert len(with_docstrings) > 10_000
    program = [sys.executable, "-OO", "-c", TEXTS]
    without = subprocess.run(program, capture_output=True, check=True, text=True).stdout
    assert without == with_docstrings
