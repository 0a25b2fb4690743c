"""A leg as a person or a file gives it: its fields, how each is read, and what it means.

One model for the calls of the registry, the options of commands, the strategies file and the texts
of the columns of `active_strategies`.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from position_sync_dagster.domain.instrument import (
    Right,
    finite_number,
    parse_conid,
    parse_day,
    parse_expiry,
    parse_right,
    whole_number,
)
from position_sync_dagster.domain.leg import Leg, UnresolvedLeg, strategy_name
from position_sync_dagster.errors import InvalidLegError, shown
from position_sync_dagster.yaml_file import Part


def _read_by(reader: Callable[[Any], object]) -> BeforeValidator:
    """Return the validator that reads a value that is given; None stays None."""
    return BeforeValidator(lambda value: None if value is None else reader(value))


def read_priority(value: int | str) -> int:
    """Read a priority: a whole number above zero."""
    return whole_number(
        value,
        f"The priority {shown(value)} is no whole number above zero, or too large.",
        "Use 1 (first), 2 and so on.",
    )


def _read_symbol(value: object) -> object:
    """Refuse a symbol that is blank; that it is a text, the model checks."""
    if isinstance(value, str) and not value.strip():
        raise InvalidLegError("A leg has no symbol.", remedy="Set the symbol of its underlying.")
    return value


def _read_text(value: object) -> str | None:
    return str(value).strip() or None


def _read_code(value: object) -> str | None:
    return _read_text(str(value).upper())


_Text = Annotated[str | None, _read_by(_read_text)]
_Code = Annotated[str | None, _read_by(_read_code)]
_Strike = partial(finite_number, name="strike", example="450.0")
_Multiplier = partial(finite_number, name="multiplier", example="100", fits=lambda x: x > 0)
Since = Annotated[date | None, _read_by(partial(parse_day, name="since"))]
# Any quantity but 0.
_Quantity = partial(finite_number, name="quantity", example="-1, with its sign", fits=bool)


class ContractTerms(Part):
    """What is said of a contract: its id, or as many of the others as one contract fits."""

    symbol: str | None = Field(None, description="Symbol of the underlying.")
    conid: Annotated[int | None, _read_by(parse_conid)] = Field(
        None, description="IB's contract id. If it is left out, the other fields describe the "
        "contract, and its id is looked up."
    )  # fmt: skip
    right: Annotated[Right | None, _read_by(parse_right)] = Field(
        None, description="CALL or PUT; left out for a leg that is not an option."
    )
    strike: Annotated[float | None, _read_by(_Strike)] = Field(
        None, description="Strike of the option; left out for a leg that is not an option. Unit: "
        "as quoted."
    )  # fmt: skip
    expiry: Annotated[date | None, _read_by(parse_expiry)] = Field(
        None,
        description="Expiry of the option or the future; left out where there is none.",
        examples=["20260220", "2026-02-20"],
    )
    sec_type: _Code = Field(
        None, description="Security type, where right and expiry do not show it.",
        examples=["FOP", "IND", "CASH"],
    )  # fmt: skip
    trading_class: _Text = Field(
        None, description="Trading class, if several contracts fit.", examples=["SPX", "SPXW"]
    )
    multiplier: Annotated[float | None, _read_by(_Multiplier)] = Field(
        None, description="Multiplier, if several contracts fit. Unit: units of the underlying in "
        "a contract."
    )  # fmt: skip
    exchange: _Code = Field(None, description="Exchange, if several contracts fit.")
    currency: _Code = Field(None, description="Currency, if several contracts fit.")


class GivenLeg(ContractTerms):
    """A leg of a strategy: its contract, and the part of a holding that it is."""

    symbol: Annotated[str, BeforeValidator(_read_symbol)] = Field(
        description="Symbol of the underlying."
    )
    account: _Text = Field(None, description="IB account; left out for the leg in any account.")
    quantity: Annotated[float | None, _read_by(_Quantity)] = Field(
        None, description="Signed quantity that belongs to the strategy; left out for the whole "
        "holding. Unit: contracts."
    )  # fmt: skip
    priority: Annotated[int | None, _read_by(read_priority)] = Field(
        None, description="Who gets a market data line when they are short; 1 is served before 2."
    )
    since: Since = Field(
        None, description="The first day whose trades belong to the strategy, also before "
        "added_at; left out: from when the holding was opened that it had when the leg was added."
    )  # fmt: skip

    @model_validator(mode="after")
    def _require_whole_option(self) -> "GivenLeg":
        """Refuse right or strike without all of right, strike and expiry: many options would fit.

        A leg that has neither is no option here, whatever its `sec_type` says.
        """
        is_option = self.right is not None or self.strike is not None
        if is_option and None in (self.right, self.strike, self.expiry):
            raise InvalidLegError(
                f"The leg {self._name} has only a part of right, strike and expiry.",
                remedy="Set all three for an option; leave right and strike out for anything else.",
            )
        return self

    @property
    def _name(self) -> int | str:
        return self.conid or self.symbol[:60]

    def in_strategy(self, strategy_id: int | str, added_at: datetime) -> Leg:
        """Return the leg of a strategy, without a conid an `UnresolvedLeg`.

        Raises:
            InvalidLegError: The strategy has no name, or a reserved one (UNATTRIBUTED).
        """
        if not str(strategy_id).strip():
            message = f"The leg {self._name} has no strategy."
            raise InvalidLegError(message, remedy="Set its strategy_id.")

        name = strategy_name(str(strategy_id))
        fields = self.model_dump(exclude={"conid", "priority"})
        leg = UnresolvedLeg(
            conid=None,
            strategy_id=name,
            added_at=added_at,
            priority=self.priority or 1,
            **fields,
        )
        if self.conid is None:
            return leg
        return leg.resolved(self.conid, at=None)  # None: it was given, and not searched


# The text of each field, for columns and options.
TEXTS = {name: field.description or "" for name, field in GivenLeg.model_fields.items()}


G = TypeVar("G", bound=ContractTerms)


def read_given(kind: type[G], given: Mapping[str, Any]) -> G:
    """Return what a person gave, read as `GivenLeg`, or as `ContractTerms` of some contract.

    Raises:
        InvalidLegError: A field is not known or does not parse; the message names field and value.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise _refusal(error) from None


def make_leg(*, strategy_id: int | str, added_at: datetime, **given: Any) -> Leg:
    """Return a leg from the spellings that a person uses.

    Args:
        strategy_id: The strategy.
        added_at: When the leg joins it.
        given: Fields of `GivenLeg`.

    Raises:
        InvalidLegError: A field is not known or does not parse; the message names field and value.
    """
    return read_given(GivenLeg, given).in_strategy(strategy_id, added_at)


def _refusal(error: ValidationError) -> InvalidLegError:
    """Return the error of the first field that is wrong: ours where a reader raised one."""
    problem = error.errors(include_url=False)[0]
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InvalidLegError):
        return cause

    name = shown(".".join(map(str, problem["loc"])))
    fields = ", ".join(GivenLeg.model_fields)
    return InvalidLegError(
        f"The field {name} of a leg cannot be used: {problem['msg']}.", remedy=f"Use {fields}."
    )
