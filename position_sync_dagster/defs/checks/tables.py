"""The checks of registry, broker's data, queue and ledger, and of the differences between them.

A check with the parameter `login` judges one login at a time, by its settings (`each_login`). All
are `driven`: the ticks evaluate each about once a minute, not with the rows of its table. Where
only a gateway could tell, and no stream sees one, the result is unknown, which is a warning.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl
from polars import DataFrame, concat, max_horizontal

from position_sync_dagster.defs.assets.table_asset import Derived, known, state_of
from position_sync_dagster.defs.checks.evaluation import (
    NAMED,
    SHOWN,
    failed,
    judged,
    passed,
    rows_result,
    table_check,
    table_of_rows,
    unknown_result,
)
from position_sync_dagster.domain import streamed_holding
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import (
    CONFIRM,
    GatewaySession,
    SessionState,
    unusable_holdings_of,
    weekly_login,
)
from position_sync_dagster.domain.holding import KEY, Completeness
from position_sync_dagster.domain.leg import NOT_LOOKED_UP
from position_sync_dagster.domain.position_update import Source
from position_sync_dagster.domain.reconciliation import (
    CONFIRM_AFTER,
    LEAST_DIFFERENCE,
    Break,
    BreakState,
    DiscrepancyType,
    ReconciliationResult,
)
from position_sync_dagster.errors import InvalidLegError, StrategiesFileError
from position_sync_dagster.lake.lake import Lake, all_broker_rows, broker_rows
from position_sync_dagster.lake.schema import (
    ACTIVE_STRATEGIES,
    POSITION_UPDATES,
    RECONCILIATION_BREAKS,
    frame_of,
)
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import confirmations, failed_requests, reconciliation

LEDGER = POSITION_UPDATES.name


def held_at_the_broker(lake: Lake, login: Settings) -> DataFrame:
    """Return the broker's newest row of each open holding of a login."""
    return broker_rows(lake, login).filter(pl.col.position != 0)


def newest_values(lake: Lake, login: Settings) -> DataFrame:
    """Return the newest row of the ledger of each open holding of a login."""
    return lake.updates.sync.latest().filter(
        pl.col.gateway_id == login.gateway_id, pl.col.position != 0
    )


# The time after which values, requests and legs without a contract are old, in words.
OLD = f"more than {confirmations.STALE_AFTER.total_seconds() / 60:.0f} min"

# How long a gateway may be away before that is an error: a connection that breaks is made again
# within seconds.
ERROR_AFTER = timedelta(minutes=1)


@table_check(LEDGER, each_login=True, driven=True)
def a_stream_watches(lake: Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether a stream sees the gateway, and since when none does.

    What to do: Check whether TWS or IB Gateway runs and is logged in; `position-sync status`
    says what the stream tried.
    """
    session = lake.sessions.current(login.gateway_id)
    now = utc_now()
    if session is None:
        return unknown_result("No stream has run yet.")
    metadata: dict[str, Any] = known(state=session.state.value, note=session.detail or None)
    # A session is alive while its lease lasts, and live if it sees the gateway besides.
    if session.is_live(now):
        return passed("A stream sees the gateway.", **metadata)

    since = session.seen_until(now)
    metadata["blind_for_s"] = (now - since).total_seconds()
    who = "The stream has not" if session.is_alive(now) else "No stream has"
    text = f"{who} seen the gateway since {since:%Y-%m-%d %H:%M:%S} UTC."
    # A stream that starts has not failed yet, however long none was there before it.
    is_error = session.state is not SessionState.STARTING and now - since >= ERROR_AFTER
    return failed(text, error=is_error, **metadata)


def live_session(lake: Lake, login: Settings) -> GatewaySession | None:
    """Return the session that sees the gateway of a login now; None if none does."""
    session = lake.sessions.current(login.gateway_id)
    return session if session is not None and session.is_live(utc_now()) else None


def sees_gateway(lake: Lake, settings: Settings) -> bool:
    """Return whether a stream of any login sees its gateway now."""
    return any(live_session(lake, login) is not None for login in settings.logins)


@table_check(ACTIVE_STRATEGIES.name, driven=True)
def file_is_applied(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the strategies file, if there is one, can be read; the table follows it.

    What to do: Correct a field that is mistyped, in the line that is named.
    """
    path = settings.strategies_file
    if path is None:
        return passed("No file is named: the table rules.")
    try:
        file = lake.strategies_file(path)
        legs = file.legs(utc_now())
    except (StrategiesFileError, InvalidLegError) as error:
        return failed(f"The registry stays as it was. {error}", what_to_do=error.remedy, error=True)

    unread = file.unread()
    description = " ".join([f"{len(legs)} legs.", *map(str, unread)])
    # A field that resembles a known one is mistyped; any other one may be of another program.
    return judged(description, holds=not any(field.nearest for field in unread))


@table_check(ACTIVE_STRATEGIES.name, driven=True)
def legs_are_resolved(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether exactly one contract was found for each leg without a conid.

    What to do: Name the conid of one candidate (`position-sync strategies add`), or in the file
    a field by which they differ (trading_class, multiplier, exchange).
    """
    lake.registry.sync.refresh()
    unresolved = lake.registry.unresolved
    now = utc_now()
    rows = [
        {
            "strategy_id": leg.strategy_id,
            "account": leg.account or "",
            "leg": leg.described,
            "problem": leg.problem or NOT_LOOKED_UP,
        }
        for leg in unresolved
        if leg.problem or now - leg.added_at > confirmations.STALE_AFTER
    ]

    # A problem is what the gateway answered: without any, no stream may have asked it yet.
    is_looked_up = any(leg.problem for leg in unresolved)
    if rows and not is_looked_up and not sees_gateway(lake, settings):
        return unknown_result(f"no gateway, which knows the contracts of {len(rows)} legs.")
    resolved = len(lake.registry.legs)
    return rows_result(
        rows,
        none=f"{resolved} legs with their contract, {len(unresolved)} that wait for the gateway.",
        found="legs have no contract, and are not streamed",
        legs=resolved + len(unresolved),
    )


@table_check("gateway_sessions", each_login=True, driven=True)
def login_is_made(lake: Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether the week of a live login does not end soon.

    IB asks for the second factor once a week. Soon is within POSITION_SYNC_LOGIN_NOTICE_H hours.
    """
    week = weekly_login(utc_now(), lake.sessions.mode(), login.login_notice_h)
    if week is None:
        return passed("Nothing is due: no live login with a second factor is used.")

    text = f"{week.text[0].upper()}{week.text[1:]}."
    # `asks`: the end is near enough that a person has to confirm the login soon.
    return judged(
        text,
        holds=not week.asks,
        what_to_do=CONFIRM if week.asks else None,
        week_ends_at=week.ends_at.isoformat(),
    )


@table_check("broker_positions", each_login=True, driven=True)
def holdings_are_usable(lake: Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether the holdings that the gateway sent can be used, and are known.

    A row cannot be used if its quantity is no number, or its conid or account is impossible. The
    holdings of an account are unknown if the login does not manage the account, or if a list of
    positions emptied it.

    What to do: Their newest usable values stay, with their age. Compare these holdings with
    TWS; restart the gateway if TWS differs. For an account that is not managed, log in as its
    user; remove an account that no longer exists with a gateways file.
    """
    session = live_session(lake, login)
    if session is None:
        return unknown_result("no gateway: no owner of the login sees it now.")
    # The stream notes them in its session; the table of the check has only what could be used.
    problems = unusable_holdings_of(session).texts
    shown = "; ".join(problems)
    return rows_result(
        DataFrame({"problem": problems}),
        none="The gateway sent no holding that cannot be used, and no account is unknown.",
        found=f"shown: {shown}",
    )


@table_check(LEDGER, driven=True)
def tables_can_be_read(lake: Lake, _settings: Settings) -> dg.AssetCheckResult:
    """Whether the log of each table can be read; its data files are not looked at.

    What to do: The checks of a table that cannot be read are unknown, and its values are not
    current. Put back what was moved or deleted; `position-sync doctor` examines each table, and
    with --files each data file.
    """
    errors = [error for table in lake.all_tables if (error := table.damage()) is not None]
    named = " ".join(error.what for error in errors)
    return rows_result(
        DataFrame({"problem": list(map(str, errors))}),
        none="The log of each table can be read.",
        found=f"tables cannot be read: {named}",
        error=True,
    )


# The check fails when this share of the line limit is in use.
SCARCE = 0.9


@table_check("gateway_sessions", each_login=True, driven=True)
def lines_suffice(lake: Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether less than nine tenths of the market data lines are in use, and which legs have none.

    What to do: Remove legs from strategies, or buy lines (quote boosters) and raise
    POSITION_SYNC_MAX_LINES. Legs without a line are valued by the queue; underlyings have a
    quarter of the lines at most, and before legs, for the greeks of all options.
    """
    session = live_session(lake, login)
    if session is None or session.line_limit <= 0:  # 0: not known yet
        return unknown_result("no gateway: no stream uses lines now.")

    lake.registry.sync.refresh()
    active = {leg.conid for leg in lake.registry.legs}
    # Without a line, the newest value of a leg is not of the stream.
    drained = newest_values(lake, login).filter(
        pl.col.conid.is_in(active), pl.col.source != Source.STREAM
    )
    without = drained.select("account", "conid", "symbol", "position")

    underlyings = session.underlying_lines or 0
    limit = session.line_limit
    used = session.lines_in_use
    text = (
        f"{used} of {limit} lines are in use, {underlyings} of them for underlyings; "
        f"{without.height} active holdings have none."
    )
    return judged(
        text,
        holds=used < SCARCE * limit,
        lines_in_use=used,
        underlying_lines=underlyings,
        line_limit=limit,
        active_legs=len(active),
        rows=table_of_rows(without),
    )


@table_check("account_values", each_login=True, driven=True)
def account_values_follow(lake: Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether each account with holdings has values that are as new as these.

    They may be ten minutes older than the newest change of its holdings. A row is written when an
    amount of the account changed: while no holding changes, as at night, an old row is correct.

    What to do: Net liquidation, cash and margin of these accounts are not current. See whether
    TWS shows them; restart the stream if it does.
    """
    held = held_at_the_broker(lake, login)
    now = utc_now()
    if held.is_empty():
        return unknown_result("the broker has not reported a holding yet.")

    changes = held.group_by("account").agg(holdings_changed_at=pl.col.received_at.max())
    values = lake.account_values.latest().select("account", "timestamp")
    accounts = changes.join(values, on="account", how="left")

    session = lake.sessions.current(login.gateway_id)
    # An account without a row counts as valued when the session began.
    began = now if session is None else session.started_at
    lag = pl.col.holdings_changed_at - pl.col.timestamp.fill_null(began)
    late = accounts.filter(lag > confirmations.STALE_AFTER)

    is_seen = session is not None and session.is_live(now)
    if late.height and not is_seen:
        return unknown_result(f"no gateway, which sends the values of {late.height} accounts.")

    waiting = accounts["timestamp"].null_count()
    if late.is_empty() and waiting:
        return unknown_result(f"{waiting} accounts have no row yet.")

    return rows_result(
        late.sort("timestamp"),  # those without a row first
        none=f"{accounts.height} accounts, all as new as their holdings.",
        found=f"of {accounts.height} accounts have values that are {OLD} older than those of "
        "their holdings",
        accounts=accounts.height,
    )


@table_check("position_queue", driven=True)
def requests_are_answered(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether requests are FAILED and their holding has had no value since, or wait for long.

    Long is more than ten minutes. A request for a holding that never was is named, and is no
    failure: the broker's complete list does not have it.

    What to do: Read error_message; `position-sync queue retry --all` tries FAILED requests
    again. Old ones wait for the broker: see the check a_stream_watches.
    """
    now = utc_now()
    requests = failed_requests.read_failed(lake, settings, now)
    unanswered = requests.filter(~pl.col.never_held)
    never_held = requests.filter("never_held")
    live = lake.queue.sync.store.snapshot().live  # PENDING or PROCESSING
    old = live.filter(pl.col.created_at < now - confirmations.STALE_AFTER)
    if unanswered.is_empty() and old.height and not sees_gateway(lake, settings):
        return unknown_result(f"no gateway, for which {live.height} requests wait.")

    columns = failed_requests.REQUEST_COLUMNS
    for_good = unanswered.sort("updated_at").select(*columns, since="updated_at")
    waiting = old.sort("created_at").select(*columns, since="created_at")

    holds = f"No request of a holding failed for good; {live.height} wait, none for long."
    named: dict[str, Any] = {}
    if never_held.height:
        holds += f" {never_held.height} failed, since no account has their holding."
        named = {NAMED: table_of_rows(never_held.select(columns))}
    return rows_result(
        concat([for_good, waiting]),
        none=holds,
        found=f"requests are FAILED or have waited for {OLD}",
        failed_for_good=unanswered.height,
        old=old.height,
        waiting=live.height,
        **named,
    )


# Discrepancy types that concern the holding itself; they make the check an ERROR.
ERROR_TYPES = (DiscrepancyType.MISSING, DiscrepancyType.SURPLUS, DiscrepancyType.QUANTITY)


@table_check(LEDGER, driven=True)
def agrees_with_the_broker(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the newest rows agree with the broker's last complete snapshot and the registry.

    A difference that the next drain resolves is no failure: it fails the check after 15 s. A
    snapshot that is missing does not pass either. While the download of an account does not end, as
    it never does for some linked accounts, the holdings that came are compared; of others nothing
    is known.

    What to do: Compare the rows of the check with TWS. MISSING, SURPLUS and QUANTITY are wrong
    positions here until the next refresh; correct LEG_QUANTITY and LEG_MISMATCH in the
    strategies.
    """
    result = asyncio.run(reconciliation.ReconciliationService(lake, settings).run())
    confirmed = result.confirmed  # whose break has been open for CONFIRM_AFTER
    if not result.complete and not confirmed:
        return _download_unfinished(lake, settings, result)

    metadata: dict[str, Any] = {"checked": result.checked, "accepted": result.accepted}
    for kind in reconciliation.LOOKED_FOR:
        metadata[kind.lower()] = result.count(kind)

    summary = f"{result.checked} holdings compared, {len(confirmed)} discrepancies"
    young = len(result.unconfirmed)
    if young:
        summary += f", and {young} first seen less than {CONFIRM_AFTER.seconds} s ago"
        metadata["unconfirmed"] = young
    if not result.complete:
        summary += "; the snapshot does not cover every account, so what is absent proves nothing"

    shown = [
        asdict(discrepancy) | {"type": discrepancy.type.value}
        for discrepancy in result.discrepancies[:SHOWN]
    ]
    is_error = any(discrepancy.type in ERROR_TYPES for discrepancy in confirmed)
    return judged(
        summary,
        holds=result.complete and not confirmed,
        error=is_error,
        snapshot_complete=result.complete,
        **metadata,
        discrepancies=table_of_rows(DataFrame(shown)),
    )


# What to do about accounts whose download does not end.
ABSENT_UNKNOWN = (
    "Compare the list of holdings of these accounts with TWS: one that is in TWS alone is not seen "
    "here. If it lasts, log in as the user of the account: for linked accounts the gateway may "
    "never end it."
)


def _download_unfinished(
    lake: Lake, settings: Settings, result: ReconciliationResult
) -> dg.AssetCheckResult:
    """Return that the holdings that came agree, and of which accounts others are unknown."""
    unfinished = all_broker_rows(lake, settings).filter(
        pl.col.completeness != Completeness.COMPLETE
    )
    accounts = ", ".join(sorted(set(unfinished["account"]))) or "an account"
    text = (
        f"the download of {accounts} has not ended, so the snapshot does not cover every account. "
        f"The {result.checked} holdings that came agree; one that is absent proves nothing."
    )
    return unknown_result(
        text,
        what_to_do=ABSENT_UNKNOWN,
        checked=result.checked,
        accepted=result.accepted,
        not_ended=accounts,
    )


@table_check(LEDGER, each_login=True, driven=True)
def legs_have_values(lake: Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether the newest row of each open holding has a value.

    What to do: Their value is unknown, not zero, and in no total. Read note; check whether TWS
    shows a price, and whether the login has market data permission for the contract.
    """
    newest = newest_values(lake, login)
    if newest.is_empty():
        return unknown_result("the ledger has no open holding of this gateway yet.")

    without = newest.filter(pl.col.market_value.is_null()).sort("timestamp")
    columns = ("account", "conid", "symbol", "position", "source", "timestamp", "note")
    return rows_result(
        without.select(columns),
        none=f"{newest.height} holdings, all with a value.",
        found=f"of {newest.height} holdings have no value",
        holdings=newest.height,
    )


# The columns that name a holding with its quantity: values of one quantity are compared.
QUANTITY = (*KEY, "position")

# Maximum time between two compared values: further apart, the market may have moved.
SAME_TIME = timedelta(seconds=5)


@table_check(LEDGER, each_login=True, driven=True)
def values_match_the_broker(lake: Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether streamed values are close to the broker's own of the same time.

    Drained values are the broker's own. The greatest relative difference is
    3 %. Differences below five cents of the price are ignored, since one tick
    of a cheap option is a large part of its price.

    What to do: Compare the price in TWS. A wide quote explains it, and so does a multiplier or
    a price magnifier.
    """
    band = streamed_holding.VALUE_BAND
    streamed = newest_values(lake, login).filter(pl.col.source == Source.STREAM)
    ours = streamed.select(*QUANTITY, "market_value", "timestamp", "price_kind")
    joined = ours.join(held_at_the_broker(lake, login), on=QUANTITY, suffix="_broker")
    pairs = joined.drop_nulls(["market_value", "market_value_broker"])
    if pairs.is_empty():
        return unknown_result("no holding has both our own value and one of the broker.")

    # Without a multiplier the allowed difference is the narrowest one.
    units = pl.col.position.abs() * pl.col.multiplier.fill_null(1.0)
    of_value = band * pl.col.market_value_broker.abs()
    allowed = max_horizontal(of_value, LEAST_DIFFERENCE * units)

    difference = (pl.col.market_value - pl.col.market_value_broker).abs()
    time_apart = (pl.col.timestamp - pl.col.received_at).abs()
    wrong = pairs.filter(difference > allowed, time_apart <= SAME_TIME)
    if wrong.height:  # looked at again with our row nearest in time
        wrong = _of_one_moment(lake, wrong).filter(difference > allowed)
    shown = wrong.sort(difference, descending=True).select(
        *KEY,
        "symbol",
        "price_kind",
        "market_value",
        broker_value="market_value_broker",
        at="timestamp",
    )

    excess = f"by more than {band:.0%}"
    return rows_result(
        shown,
        none=f"{pairs.height} values compared, none differs {excess}.",
        found=f"of {pairs.height} values differ {excess} from the broker's of the same time",
        compared=pairs.height,
    )


def _of_one_moment(lake: Lake, pairs: DataFrame) -> DataFrame:
    """Return pairs with our row that is nearest in time to the broker's value.

    The newest row may be seconds later, and a cheap option moves by some percent in them.
    """
    times: Any = pairs["received_at"]
    span = (times.min() - SAME_TIME, times.max() + SAME_TIME)
    columns = [*QUANTITY, "market_value"]
    rows = lake.updates.sync.between(*span, pairs["conid"].to_list(), columns)
    of_broker = pairs.drop("market_value", "timestamp").sort("received_at")
    return of_broker.join_asof(
        rows,
        left_on="received_at",
        right_on="timestamp",
        by=QUANTITY,
        strategy="nearest",
        coalesce=False,
        check_sortedness=False,  # of groups it cannot, and warns
    )


# How long a difference may stay before somebody has to decide about it; most end with the next
# refresh of the account.
UNDECIDED_AFTER = timedelta(hours=1)


@table_check(RECONCILIATION_BREAKS.name, driven=True)
def breaks_are_decided(lake: Lake, _settings: Settings) -> dg.AssetCheckResult:
    """Whether each difference ends, or a person accepts it, within an hour.

    The differences are those between broker and tables.

    What to do: Compare the holding with TWS. If the difference is right as it is, accept it:
    `position-sync breaks accept ID --reason TEXT`; otherwise correct the strategies, or run
    `position-sync doctor`.
    """
    breaks = lake.breaks.open_breaks()
    now = utc_now()
    undecided = [opened for opened in breaks if opened.state is not BreakState.ACCEPTED]
    old = [opened for opened in undecided if now - opened.opened_at > UNDECIDED_AFTER]
    accepted = len(breaks) - len(undecided)
    counts = f"{len(breaks)} differences are open, {accepted} of them accepted"
    return rows_result(
        _rows_of_breaks(old),
        none=f"{counts}; none of the others is older than an hour.",
        found="differences have been open for more than an hour, and nobody accepted them",
        open=len(breaks),
        accepted=accepted,
    )


def breaks_state(lake: Lake) -> Derived:
    """Return how many breaks are open in each state, and which."""
    breaks = lake.breaks.open_breaks()
    counts = Counter(opened.state for opened in breaks)
    metadata = state_of(lake.breaks.table)
    for state in (BreakState.OPENED, BreakState.CONFIRMED, BreakState.ACCEPTED):
        metadata[f"open/{state.lower()}"] = counts[state]
    if breaks:
        metadata["open_breaks"] = table_of_rows(_rows_of_breaks(breaks))
    return Derived(metadata=metadata)


def _rows_of_breaks(breaks: Sequence[Break]) -> DataFrame:
    """Return breaks as the rows of a page."""
    rows = frame_of(RECONCILIATION_BREAKS, breaks)
    opened_at = pl.col.opened_at.dt.strftime("%Y-%m-%d %H:%M")
    named = rows.rename({"expected": "broker", "actual": "tables"})
    return named.with_columns(opened_at).select(_BREAK_COLUMNS)


_BREAK_COLUMNS = (
    "break_id", "state", "type", "account", "conid", "symbol", "broker", "tables", "opened_at",
    "detail", "accepted_by", "note",
)  # fmt: skip


TABLE_CHECKS = (
    a_stream_watches,
    file_is_applied,
    legs_are_resolved,
    login_is_made,
    holdings_are_usable,
    tables_can_be_read,
    lines_suffice,
    account_values_follow,
    requests_are_answered,
    agrees_with_the_broker,
    legs_have_values,
    values_match_the_broker,
    breaks_are_decided,
)
