"""The description of a column, attached to the field of a dataclass that is stored as a row."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """What a stored field means, for people who read the table.

    Attach it with `Annotated`. The lake derives the column's type from the field's type, and
    whether the column may be null.

    Args:
        description: One or two sentences.
        unit: The unit, unless the description names it.

    >>> str(Column("Average cost of one unit.", unit="currency"))
    'Average cost of one unit. Unit: currency.'
    """

    description: str
    unit: str | None = None

    def __str__(self) -> str:
        return self.description if self.unit is None else f"{self.description} Unit: {self.unit}."
