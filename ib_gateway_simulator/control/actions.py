"""Actions: the methods of Faults by name, with checked arguments.

The control port and the scenario files use them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ib_gateway_simulator.accounts.profit_and_loss import PnlAnswer, SingleAnswer
from ib_gateway_simulator.control.faults import Answers, Connectivity, Faults, LastTrade
from ib_gateway_simulator.control.market_data_faults import Lines, ModelUnit
from ib_gateway_simulator.errors import ActionError
from ib_gateway_simulator.gateway.scripts import Cut
from ib_gateway_simulator.market.sessions import checked
from ib_gateway_simulator.market_data.ticks import Kind
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.contract import DEFAULT_FARM


class Arguments(BaseModel):
    """The arguments of one action; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class NoArguments(Arguments):
    pass


class Fill(Arguments):
    account: str
    conid: int
    quantity: float
    price: Annotated[float, Field(ge=0)] | None = None
    parts: Annotated[int, Field(ge=1)] = 1


class Order(Arguments):
    account: str
    legs: Annotated[dict[int, float], Field(min_length=1)]


class HeldPosition(Arguments):
    account: str
    conid: int


class Expiry(HeldPosition):
    price: Annotated[float, Field(ge=0)] = 0.0


class Roll(HeldPosition):
    to: int


class Transfer(HeldPosition):
    quantity: float
    cost: Annotated[float, Field(ge=0)] = 0.0


class Split(Roll):
    quantity: float
    kind: str = "FS"


class ListOption(Arguments):
    conid: Annotated[int, Field(gt=0)]
    like: int
    strike: Annotated[float, Field(gt=0)]
    right: Literal["C", "P"]
    ends_in_s: float


class Refused(Arguments):
    refused: bool = True


class TimesOfExecutions(Arguments):
    zone: Annotated[str, Field(max_length=60)] | None = None
    clock: str = "UTC"


class TimesOfLastTrades(Arguments):
    written: LastTrade = "instrument"
    clock: str = "UTC"
    zone: Annotated[str, Field(max_length=60)] | None = None


class RefusedDetails(Arguments):
    code: int | None = None


class Disconnect(Arguments):
    client_id: int | None = None
    busy_s: Annotated[float, Field(ge=0)] = 0.0


class SendError(Arguments):
    code: int
    text: str | None = None
    req_id: int = -1
    client_id: int | None = None


class ConnectivityState(Arguments):
    state: Connectivity
    answers: Answers = "cached"
    login_code: int = Code.GATEWAY_OFFLINE


class FarmNotice(Arguments):
    farm: str = DEFAULT_FARM
    code: int = Code.MARKET_FARM_BROKEN


class LineLimit(Arguments):
    limit: Annotated[int, Field(ge=0)]


class Permission(Arguments):
    conid: int | None = None
    code: int | None = None


class LineAnswer(Arguments):
    conid: int
    code: int | None = None
    ticking: bool = False


class PinQuote(Arguments):
    conid: int
    bid: float | None = None
    ask: float | None = None
    last: float | None = None
    mark: float | None = None
    no_mark: bool = False
    release: bool = False
    last_age_s: Annotated[float, Field(ge=0)] | None = None


class DelayedSaid(Arguments):
    said: bool = True


class UnitOfModel(Arguments):
    conid: int
    unit: ModelUnit = "quoted"


class ModelComputed(Arguments):
    conid: int
    computed: bool = False


class DetailsAnswered(Arguments):
    conid: int
    answered: bool = False


class SilenceLine(Arguments):
    conid: int
    reset: bool = False


class Ticking(Arguments):
    conid: int
    only: Annotated[list[Kind], Field(min_length=1)] | None = None


class SetHours(Arguments):
    conid: int | None = None
    hours: Annotated[str, AfterValidator(checked)] = ""


class AfterRestore(Arguments):
    lines: Lines


class Freeze(Arguments):
    frozen: bool = True


class SilenceAccount(Arguments):
    account: str
    notice: bool = True


class AccountPnl(Arguments):
    account: str
    answer: PnlAnswer = "values"


class BrokerPrice(Arguments):
    conid: int
    factor: Annotated[float, Field(ge=0)] = 1.0


class AccountReady(Arguments):
    account: str
    ready: bool = False


class ExchangeRate(Arguments):
    currency: str
    rate: Annotated[float, Field(ge=0)]
    account: str | None = None


class PositionPnl(Arguments):
    account: str
    conid: int | None = None
    answer: SingleAnswer = "values"


class PositionPnlLimit(Arguments):
    limit: Annotated[int, Field(ge=0)] | None = None
    refused: bool = True


class PortfolioRowsSent(Arguments):
    account: str
    sent: bool = True


class EndOfDownload(Arguments):
    account: str
    delay_s: Annotated[float, Field(ge=0)] | None = 0.0
    blank: bool = False


class EndOfPositions(Arguments):
    delay_s: Annotated[float, Field(ge=0)] | None = 0.0
    late_rows: Annotated[int, Field(ge=0)] = 0


class EmptyLists(Arguments):
    account: str | None = None
    empty: bool = True


class OtherLogin(Arguments):
    accounts: Annotated[list[str], Field(min_length=1)]


def _text_unless_finite(value: object) -> object:
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


class OddHolding(Arguments):
    account: str
    conid: int
    position: Annotated[float | str | None, BeforeValidator(_text_unless_finite)]
    symbol: str | None = None
    price: float | None = None


def _from_hex(value: object) -> bytes:
    return bytes.fromhex(str(value))


class RawBytes(Arguments):
    data: Annotated[bytes, BeforeValidator(_from_hex)] = Field(alias="hex")
    client_id: int | None = None


Messages = list[list[str] | Cut | Annotated[bytes, BeforeValidator(_from_hex)]]


class Say(Arguments):
    messages: Messages
    client_id: int | None = None


class AnswerByScript(Arguments):
    request: str
    answers: list[Messages] | None = None
    account: str | None = None


class Restart(Arguments):
    down_s: Annotated[float, Field(ge=0)] = 1.0
    needs_login: bool = False


class NewPort(Arguments):
    port: Annotated[int, Field(ge=0, le=65535)] = 0


class Step(Arguments):
    count: Annotated[int, Field(ge=1, le=100_000)] = 1


class Move(Arguments):
    symbol: str
    percent: float


class VolatilityShift(Arguments):
    points: float
    symbol: str | None = None


class NewDividend(Arguments):
    symbol: str
    amount: float
    days: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """The arguments of an action, and the method of Faults that does it."""

    arguments: type[Arguments]
    method: str


# Every action, by the name of its `POST` path and of `do` in a scenario.
ACTIONS: dict[str, Action] = {
    "fill": Action(arguments=Fill, method="fill"),
    "order": Action(arguments=Order, method="order"),
    "close": Action(arguments=HeldPosition, method="close_position"),
    "assign": Action(arguments=HeldPosition, method="assign"),
    "exercise": Action(arguments=HeldPosition, method="exercise"),
    "expire": Action(arguments=Expiry, method="expire"),
    "roll": Action(arguments=Roll, method="roll"),
    "transfer": Action(arguments=Transfer, method="transfer"),
    "split": Action(arguments=Split, method="split"),
    "list_option": Action(arguments=ListOption, method="list_option"),
    "refuse_executions": Action(arguments=Refused, method="refuse_executions"),
    "execution_times": Action(arguments=TimesOfExecutions, method="execution_times"),
    "last_trade_times": Action(arguments=TimesOfLastTrades, method="last_trade_times"),
    "refuse_details": Action(arguments=RefusedDetails, method="refuse_details"),
    "disconnect": Action(arguments=Disconnect, method="disconnect"),
    "error": Action(arguments=SendError, method="send_error"),
    "connectivity": Action(arguments=ConnectivityState, method="connectivity"),
    "farm": Action(arguments=FarmNotice, method="farm"),
    "line_limit": Action(arguments=LineLimit, method="set_line_limit"),
    "pause": Action(arguments=NoArguments, method="pause"),
    "resume": Action(arguments=NoArguments, method="resume"),
    "permissions": Action(arguments=Permission, method="set_permission"),
    "line_answer": Action(arguments=LineAnswer, method="answer_line"),
    "quote": Action(arguments=PinQuote, method="pin_quote"),
    "say_delayed": Action(arguments=DelayedSaid, method="say_delayed"),
    "model_unit": Action(arguments=UnitOfModel, method="model_unit"),
    "model_computed": Action(arguments=ModelComputed, method="model_computed"),
    "freeze": Action(arguments=Freeze, method="freeze"),
    "hours": Action(arguments=SetHours, method="set_hours"),
    "contract_details": Action(arguments=DetailsAnswered, method="contract_details"),
    "silence_line": Action(arguments=SilenceLine, method="silence_line"),
    "after_restore": Action(arguments=AfterRestore, method="after_restore"),
    "silence_account": Action(arguments=SilenceAccount, method="silence_account"),
    "broker_price": Action(arguments=BrokerPrice, method="broker_price"),
    "account_pnl": Action(arguments=AccountPnl, method="account_pnl"),
    "account_ready": Action(arguments=AccountReady, method="account_ready"),
    "exchange_rate": Action(arguments=ExchangeRate, method="exchange_rate"),
    "position_pnl": Action(arguments=PositionPnl, method="position_pnl"),
    "position_pnl_limit": Action(arguments=PositionPnlLimit, method="position_pnl_limit"),
    "portfolio_rows": Action(arguments=PortfolioRowsSent, method="portfolio_rows"),
    "download_end": Action(arguments=EndOfDownload, method="download_end"),
    "positions_end": Action(arguments=EndOfPositions, method="positions_end"),
    "empty_lists": Action(arguments=EmptyLists, method="empty_lists"),
    "login": Action(arguments=OtherLogin, method="log_in_as"),
    "ticking": Action(arguments=Ticking, method="ticking"),
    "holding": Action(arguments=OddHolding, method="holding"),
    "raw": Action(arguments=RawBytes, method="send_raw"),
    "say": Action(arguments=Say, method="say"),
    "answer": Action(arguments=AnswerByScript, method="answer"),
    "restart": Action(arguments=Restart, method="restart"),
    "change_port": Action(arguments=NewPort, method="change_port"),
    "confirm_login": Action(arguments=NoArguments, method="confirm_login"),
    "reset_day": Action(arguments=NoArguments, method="reset_day"),
    "step": Action(arguments=Step, method="step"),
    "move": Action(arguments=Move, method="move_underlying"),
    "volatility": Action(arguments=VolatilityShift, method="shift_volatility"),
    "dividend": Action(arguments=NewDividend, method="dividend"),
}


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
    method: Callable[..., Any | Awaitable[Any]] = getattr(simulator, ACTIONS[name].method)
    result = method(**{key: getattr(arguments, key) for key in type(arguments).model_fields})
    return await result if inspect.isawaitable(result) else result
