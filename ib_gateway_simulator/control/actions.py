"""Actions: the methods of Faults by name, with checked arguments.

The control port and the scenario files use them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ib_gateway_simulator.control.faults import Faults
from ib_gateway_simulator.errors import ActionError


class Arguments(BaseModel):
    """The arguments of one action; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """The name of the method of Faults that does an action, and its arguments."""

    method: str
    arguments: type[Arguments]


def _action(method: Callable[..., Any]) -> Action:
    """Return a method as an action, which takes the arguments that the method has."""
    types = get_type_hints(method, include_extras=True)
    fields: dict[str, Any] = {
        name: (types[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(method).parameters.items()
        if name != "self"
    }
    arguments = create_model(method.__name__, __base__=Arguments, **fields)
    return Action(method=method.__name__, arguments=arguments)


# The methods whose names are longer than their actions'.
_LONGER_NAMES = {
    "close": "close_position",
    "error": "send_error",
    "line_limit": "set_line_limit",
    "permissions": "set_permission",
    "line_answer": "answer_line",
    "quote": "pin_quote",
    "hours": "set_hours",
    "login": "log_in_as",
    "raw": "send_raw",
    "move": "move_underlying",
    "volatility": "shift_volatility",
}
_NAMES = """
    fill order close assign exercise expire roll transfer split list_option
    refuse_executions execution_times last_trade_times refuse_details
    disconnect error connectivity farm line_limit pause resume permissions line_answer quote
    say_delayed model_unit model_computed freeze hours contract_details silence_line after_restore
    silence_account broker_price account_pnl account_ready exchange_rate position_pnl
    position_pnl_limit portfolio_rows download_end positions_end empty_lists login ticking holding
    tick_lines
    raw say answer restart change_port confirm_login reset_day step move volatility dividend
"""

# Every action, by the name of its `POST` path and of `do` in a scenario.
ACTIONS = {name: _action(getattr(Faults, _LONGER_NAMES.get(name, name))) for name in _NAMES.split()}


def check(name: str, given: dict[str, Any]) -> Arguments:
    """Return the checked arguments of an action.

    Raises:
        ActionError: There is no such action, or an argument is wrong; it names the argument.
    """
    action = ACTIONS.get(name)
    if action is None:
        raise ActionError("do", f"there is no action {name!r}; use one of {', '.join(ACTIONS)}")
    try:
        return action.arguments.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"]) or "body"
        raise ActionError(field, str(first["msg"])) from None


async def perform(simulator: Faults, name: str, arguments: Arguments) -> Any:
    """Do an action and return the result of its method.

    Raises:
        ActionError: The action makes no sense in the present state.
    """
    values = {key: getattr(arguments, key) for key in type(arguments).model_fields}
    result = getattr(simulator, ACTIONS[name].method)(**values)
    if inspect.isawaitable(result):
        return await result

    return result
