"""What happened that people are told of: orders, ends of options and campaigns, each once.

They are rows of the tables, looked at for some days: a statement says days later how an option
ended. The keys of what was told stay with the messages that wait, so that both are stored together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from operator import attrgetter

from position_sync_dagster.domain.clock import A_DAY, elapsed
from position_sync_dagster.domain.exchange_time import beginning_of
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.leg import UNATTRIBUTED, few
from position_sync_dagster.lake.schema import part_named
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.campaigns.results import read_campaigns
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.alerts import SECONDS, Message, Told
from position_sync_dagster.money.reports.book import versions_of
from position_sync_dagster.money.reports.changes import (
    ChangeKind,
    Day,
    DayChange,
    changes_of,
    days_in,
    read_day,
)
from position_sync_dagster.money.reports.columns import percent, readable
from position_sync_dagster.money.strategies.messages import Happened, Wanted
from position_sync_dagster.money.tables import CLOSED_CAMPAIGNS
from position_sync_dagster.money.trading_days import day_began
from position_sync_dagster.sync.exchange_days import (
    closing_times,
    day_of,
    exchange_of,
    time_zone_of,
)

# How far back happenings are looked for: the statement of a Friday may come on Tuesday.
WINDOW = timedelta(days=5)

# The most happenings that are looked at, the newest, and the most that one message names.
MOST_LOOKED_AT = 1_000
MOST_NAMED = 20

# The length of a key that is stored with a sensor: of a thousand, two are never the same.
KEY_LENGTH = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened.

    Attributes:
        key: Names it, the same each time it is read.
        strategies: Those that have or had its contracts; none: it is in none.
    """

    key: str
    at: datetime
    what: Happened
    strategies: tuple[str, ...]
    text: str


def follow_happenings(
    lake: MoneyLake,
    calendar: str,
    told: Told,
    wanted: Wanted,
    *,
    now: datetime,
    after: timedelta,
) -> tuple[Told, list[Message]]:
    """Return what is told after a look at the tables, and the messages about what is new; blocks.

    What happened before the first look is not told.

    Args:
        calendar: The exchange whose days are told.
        after: How long ago an order must have been filled last: it may be filled in parts.

    Raises:
        LakeError: A table cannot be used.
    """
    campaigns = lake.derived_table(CLOSED_CAMPAIGNS)
    versions = versions_of(lake.position_changes, lake.movements, lake.closures)
    versions += (campaigns.version() if campaigns.exists() else -1,)
    if versions == told.versions:
        return told, []

    happened = read_happenings(lake, calendar, now - WINDOW)
    if told.keys is None:
        every_key = tuple(map(attrgetter("key"), happened))
        return Told(keys=every_key, versions=versions), []

    before = set(told.keys)
    new = []
    keys = []
    for happening in happened:
        is_told = happening.key in before
        if elapsed(happening.at, now) < after:
            versions = ()  # it is looked at again
        elif not is_told:
            new.append(happening)
            is_told = True
        if is_told:
            keys.append(happening.key)
    return Told(keys=tuple(keys), versions=versions), messages_of(new, wanted)


def messages_of(happenings: Iterable[Happening], wanted: Wanted) -> list[Message]:
    """Return the messages about what is wanted, one for each strategy and what happened; pure."""
    messages = []
    of_message = grouped(attrgetter("strategies", "what"), happenings)
    for (strategies, what), happened in of_message.items():
        if not wanted.has(what, strategies):
            continue

        names = ", ".join(strategies) or "in no strategy"
        body = few(map(_line_of, happened), MOST_NAMED, "\n")
        messages.append(Message(title=f"{names}: {what}", body=body))
    return messages


def _line_of(happening: Happening) -> str:
    return f"{happening.at:{SECONDS}} UTC  {happening.text}"


def read_happenings(lake: MoneyLake, calendar: str, since: datetime) -> list[Happening]:
    """Return what happened since the beginning of a day, the newest, in order of time; blocks."""
    happenings = []
    for day in days_in(calendar, read_day(lake, calendar, day_began(calendar, since))):
        for change in changes_of(day):
            if change.happened is None:
                continue

            happenings.append(_of_change(change, change.happened, day))

    campaigns = read_campaigns(lake, day_of(calendar, since))
    days_closed = {campaign.closed for campaign in campaigns}
    trading_days = filter(exchange_of(calendar).is_trading_day, days_closed)
    closes = closing_times(calendar, trading_days)
    happenings += [_of_campaign(campaign, calendar, closes) for campaign in campaigns]
    return sorted(happenings, key=attrgetter("at", "key"))[-MOST_LOOKED_AT:]


def _of_change(change: DayChange, what: Happened, day: Day) -> Happening:
    """Return a line of *What changed*; what an order filled later is another happening."""
    size = sum(abs(leg.quantity) for leg in change.legs)
    names: set[str] = set()
    for conid in change.conids:
        names.update(day.strategies.get(conid, ()))

    # A fill is known to be of a roll, and an end to be another one, later than it is seen.
    kind = change.kind if change.kind is ChangeKind.TRADE else what
    return Happening(
        key=_key(kind, change.source, day.since, size),
        at=change.at,
        what=what,
        strategies=tuple(sorted(names)),
        text=change.text,
    )


def _of_campaign(
    campaign: ClosedCampaign, calendar: str, closes: Mapping[date, datetime]
) -> Happening:
    """Return the end of a campaign: nothing was left at the close of its last day.

    The table may be of the time of another calendar: its day may be none of this one.
    """
    day = campaign.closed
    profit = f"profit {readable(campaign.profit)} {campaign.currency}"
    reached = f"{percent(campaign.profit_reached)} of the greatest"
    text = f"{campaign.contracts}: {campaign.ended}"
    text += f", {profit}, {reached}"
    at = closes.get(day)
    if at is None:
        at = beginning_of(day + A_DAY, time_zone_of(calendar))
        text += f"; {day} is no trading day of {calendar}: materialize closed_campaigns"

    names = () if campaign.strategy_id == UNATTRIBUTED else (campaign.strategy_id,)
    return Happening(
        key=_key(campaign.campaign_id, campaign.currency),
        at=at,
        what=Happened.CLOSED,
        strategies=names,
        text=text,
    )


def _key(*parts: object) -> str:
    return part_named(":".join(map(str, parts)))[:KEY_LENGTH]
