"""Statements as the broker writes them, for tests."""

from datetime import date

from position_sync_dagster.money.past.closes import EventKind, Statement, StatementEvent

ACCOUNT = "DUSIM0001"


OPTION = dict(
    accountId=ACCOUNT, currency="USD", assetCategory="OPT",
    symbol="SPY   281215C00575000", underlyingSymbol="SPY",
)  # fmt: skip


def position(conid: int = 1, day: str = "20260305", **attributes: str) -> str:
    fields = dict(
        conid=str(conid), multiplier="100", strike="575", expiry="20281215",
        putCall="C", reportDate=day, position="1", markPrice="1.5",
        positionValue="150", costBasisMoney="100", fifoPnlUnrealized="50",
        levelOfDetail="SUMMARY",
    )  # fmt: skip
    return element("OpenPosition", OPTION | fields | attributes)


def trade(execution_id: str = "0000e1.01", **attributes: str) -> str:
    fields = dict(
        conid="1", ibExecID=execution_id, tradeID="77", dateTime="20260305;153000",
        buySell="SELL", quantity="-2", tradePrice="1.25", ibCommission="-1.3",
        ibCommissionCurrency="USD", fifoPnlRealized="12.5", levelOfDetail="EXECUTION",
    )  # fmt: skip
    return element("Trade", OPTION | fields | attributes)


def element(name: str, attributes: dict[str, str]) -> str:
    return f"<{name} " + " ".join(f'{key}="{text}"' for key, text in attributes.items()) + " />"


def statement(
    *positions: str,
    trades: tuple[str, ...] = (),
    more: str = "",
    account: str = ACCOUNT,
    first: str = "20260305",
    last: str | None = None,
    generated: str = "20260306;010000",
) -> bytes:
    """Return a file with one statement of an account."""
    return (
        '<FlexQueryResponse queryName="q" type="AF"><FlexStatements count="1">'
        f'<FlexStatement accountId="{account}" fromDate="{first}" toDate="{last or first}" '
        f'period="LastBusinessDay" whenGenerated="{generated}">'
        f"<OpenPositions>{''.join(positions)}</OpenPositions>"
        f"<Trades>{''.join(trades)}</Trades>{more}"
        "</FlexStatement></FlexStatements></FlexQueryResponse>"
    ).encode()


def period(statement: Statement) -> StatementEvent | None:
    """Return the days whose trades a statement names."""
    return next((event for event in statement.events if event.kind is EventKind.PERIOD), None)


def sections(statement: Statement) -> list[StatementEvent]:
    """Return what says which sections a statement has, of each account."""
    return [event for event in statement.events if event.kind is EventKind.SECTIONS]


def refused(code: str, message: str, status: str = "Fail") -> bytes:
    """Return what the service answers instead of a statement."""
    return (
        f'<FlexStatementResponse timestamp="05 March, 2026 10:00 AM EST"><Status>{status}</Status>'
        f"<ErrorCode>{code}</ErrorCode><ErrorMessage>{message}</ErrorMessage>"
        "</FlexStatementResponse>"
    ).encode()


def of_day(day: date) -> bytes:
    """Return a statement of one day with one holding."""
    text = f"{day:%Y%m%d}"
    return statement(position(day=text), first=text, generated=f"{text};210000")
