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


# What each action does, by its name.
_METHODS: dict[str, Callable[..., Any]] = {
    "fill": Faults.fill,
    "order": Faults.order,
    "close": Faults.close_position,
    "assign": Faults.assign,
    "exercise": Faults.exercise,
    "expire": Faults.expire,
    "roll": Faults.roll,
    "transfer": Faults.transfer,
    "split": Faults.split,
    "list_option": Faults.list_option,
    "refuse_executions": Faults.refuse_executions,
    "execution_times": Faults.execution_times,
    "last_trade_times": Faults.last_trade_times,
    "refuse_details": Faults.refuse_details,
    "disconnect": Faults.disconnect,
    "error": Faults.send_error,
    "connectivity": Faults.connectivity,
    "farm": Faults.farm,
    "line_limit": Faults.set_line_limit,
    "pause": Faults.pause,
    "resume": Faults.resume,
    "permissions": Faults.set_permission,
    "line_answer": Faults.answer_line,
    "quote": Faults.pin_quote,
    "say_delayed": Faults.say_delayed,
    "model_unit": Faults.model_unit,
    "model_computed": Faults.model_computed,
    "freeze": Faults.freeze,
    "hours": Faults.set_hours,
    "contract_details": Faults.contract_details,
    "silence_line": Faults.silence_line,
    "after_restore": Faults.after_restore,
    "silence_account": Faults.silence_account,
    "broker_price": Faults.broker_price,
    "account_pnl": Faults.account_pnl,
    "account_ready": Faults.account_ready,
    "exchange_rate": Faults.exchange_rate,
    "position_pnl": Faults.position_pnl,
    "position_pnl_limit": Faults.position_pnl_limit,
    "portfolio_rows": Faults.portfolio_rows,
    "download_end": Faults.download_end,
    "positions_end": Faults.positions_end,
    "empty_lists": Faults.empty_lists,
    "login": Faults.log_in_as,
    "ticking": Faults.ticking,
    "holding": Faults.holding,
    "raw": Faults.send_raw,
    "say": Faults.say,
    "answer": Faults.answer,
    "restart": Faults.restart,
    "change_port": Faults.change_port,
    "confirm_login": Faults.confirm_login,
    "reset_day": Faults.reset_day,
    "step": Faults.step,
    "move": Faults.move_underlying,
    "volatility": Faults.shift_volatility,
    "dividend": Faults.dividend,
}

# Every action, by the name of its `POST` path and of `do` in a scenario.
ACTIONS = {name: _action(method) for name, method in _METHODS.items()}


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
    return await result if inspect.isawaitable(result) else result
