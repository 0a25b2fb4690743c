"""What closed: which legs of strategies are gone and why, and the realised profit of closes."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from operator import attrgetter
from typing import Any

import polars as pl

from position_sync_dagster.domain.closes import Closure, end_text
from position_sync_dagster.domain.holding import KEY, grouped
from position_sync_dagster.domain.leg import NEGLIGIBLE, UNATTRIBUTED, ActiveContract
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.lake import Lake, Past
from position_sync_dagster.risk.campaigns import Campaigns, campaigns_of

# By contract, in each account: when a holding ended, and how; None: it is not known.
Ends = Mapping[int, Mapping[str, tuple[datetime, str | None]]]

# A strategy, UNATTRIBUTED, or None for all closes; an account, or None for all; the currency.
Group = tuple[str | None, str | None, str]


_ELSEWHERE = pl.Schema({"account": pl.String, "conid": pl.Int64, "elsewhere": pl.Float64})


@dataclass(frozen=True, kw_only=True)
class Closes:
    """The closes of all holdings, as the tables have them.

    They are kept in columns: a book of thousands of legs has tens of thousands of them in a year.

    Attributes:
        rows: The causes that count, oldest first: rows of the table `closures`.
        since: When the first change of a quantity was recorded; None before it.
        ends: How holdings of strategies' legs ended whose last change left nothing.
        legs: The legs of strategies, also those that were removed: rows of `active_strategies`.
        before: The changes, with the quantity `before` and the average cost.
        movements: Those of the contracts of legs, and of what these left.
        magnifiers: By conid: 100 of what is quoted in cents, else 1; missing where not known.
        elsewhere: For contracts of which a leg claims a quantity in any account: by account, the
            quantity that the other accounts held at most, without a sign.
    """

    rows: pl.DataFrame = field(default_factory=schema.CLOSURES.polars.to_frame)
    since: datetime | None = None
    ends: Ends = field(default_factory=dict)
    legs: pl.DataFrame = field(default_factory=schema.ACTIVE_STRATEGIES.polars.to_frame)
    before: pl.DataFrame = field(default_factory=schema.POSITION_CHANGES.polars.to_frame)
    movements: pl.DataFrame = field(default_factory=schema.MOVEMENTS.polars.to_frame)
    magnifiers: Mapping[int, int] = field(default_factory=dict)
    elsewhere: pl.DataFrame = field(default_factory=_ELSEWHERE.to_frame)

    @cached_property
    def _first_legs(self) -> Mapping[str, datetime]:
        added_at = pl.col("added_at").min()
        first = self.legs.group_by("strategy_id").agg(added_at)
        return dict(first.iter_rows())

    @cached_property
    def _with_strategies(self) -> pl.DataFrame:
        """The rows, with the columns `strategies` and `is_divided`.

        The first has the names of those that had the leg, or null. The profit is divided if several
        strategies had it, or if all together claimed a part of the holding. A quantity in any
        account is claimed of all of them together.
        """
        rows = self.rows.with_row_index("at")
        before = pl.col("before")
        # A leg without a quantity claims all of the holding.
        everything = before.sign() * math.inf
        claim = pl.col("quantity").fill_null(everything)
        is_same_side = claim * before > 0
        may_claim = before.is_null() | is_same_side
        claims = self._legs_at_close(rows).filter(may_claim)

        held = before.first().abs() * (1 - NEGLIGIBLE)
        # Of contracts that are in no other account nothing is held elsewhere.
        elsewhere = pl.col("elsewhere").first().fill_null(0.0)
        names_account = pl.col("account_leg").is_not_null()
        claimed_in_account = claim.abs().filter(names_account).sum()
        claimed_anywhere = claim.abs().sum()
        is_part_of_account = claimed_in_account < held
        is_part_of_all = claimed_anywhere < held + elsewhere

        strategies = pl.col("strategy_id").unique().sort()
        by_close = claims.join(self.elsewhere, on=KEY, how="left").group_by("at")
        claimed = by_close.agg(strategies=strategies, is_part=is_part_of_account & is_part_of_all)

        is_shared = pl.col("strategies").list.len() > 1
        divided = claimed.with_columns(is_divided=is_shared | pl.col("is_part"))
        with_strategies = rows.join(divided, on="at", how="left", maintain_order="left")
        return with_strategies.drop("at")

    def _legs_at_close(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return, for each close, the legs that strategies had of its contract then."""
        closes = rows.select("at", "conid", "account", "closed_at", "change_id")
        quantities = self.before.select("change_id", "before")
        with_before = closes.join(quantities, on="change_id", how="left")

        of_leg = ("conid", "account", "strategy_id", "added_at", "removed_at", "quantity")
        legs = self.legs.select(of_leg)
        of_contract = with_before.join(legs, on="conid", suffix="_leg")

        account = pl.col("account_leg")
        in_account = account == pl.col("account")
        closed_at = pl.col("closed_at")
        was_added = pl.col("added_at") <= closed_at
        removed_at = pl.col("removed_at")
        was_there = closed_at <= removed_at
        return of_contract.filter(
            account.is_null() | in_account, was_added, removed_at.is_null() | was_there
        )

    @cached_property
    def _profits(self) -> Mapping[Group, Mapping[str, Any]]:
        """The realised profit of each group, with the numbers of its closes."""
        rows = self._with_strategies
        nothing = pl.lit(None, pl.String)
        total = rows.with_columns(name=nothing)

        # The parts of a profit that is divided are not known.
        is_divided = pl.col("is_divided").fill_null(value=False)
        profit_of_one = pl.when(~is_divided).then("realized_pnl")
        undivided = rows.with_columns(realized_pnl=profit_of_one)
        by_strategy = undivided.rename({"strategies": "name"}).explode("name")
        named = by_strategy.drop_nulls("name")
        has_no_strategy = pl.col("strategies").is_null()
        of_nobody = undivided.filter(has_no_strategy | pl.col("is_part"))
        unattributed = of_nobody.with_columns(name=pl.lit(UNATTRIBUTED))

        group = ("name", "account", "currency")
        by_account = pl.concat([total, unattributed, named], how="diagonal").select(
            *group, "realized_pnl"
        )
        everywhere = by_account.with_columns(account=nothing)
        profit = pl.col("realized_pnl")
        by_group = pl.concat([by_account, everywhere]).group_by(group)
        sums = by_group.agg(profit.sum(), closes=pl.len(), unknown=profit.null_count())

        profits: dict[Group, Mapping[str, Any]] = {}
        for name, account, currency, realized, closes, unknown in sums.iter_rows():
            profits[name, account, currency] = {
                "realized_pnl": None if unknown else realized,
                "closes": closes,
                "closes_without_profit": unknown,
            }
        return profits

    def realized(
        self, name: str | None, account: str | None, currency: str | None
    ) -> dict[str, Any] | None:
        """Return the realised profit of a group; None where no change has been recorded yet.

        Args:
            name: A strategy, UNATTRIBUTED, or None for all closes.
            account: None for all accounts.
            currency: None for legs that were never valued.

        Returns:
            `realized_pnl`, None if that of one of the closes is not known; the number of `closes`,
            and of `closes_without_profit`. Closes before `realized_since` are not in it: it is the
            time of the first change that was recorded, or of the first leg of the strategy.
        """
        if self.since is None or currency is None:
            return None
        nothing_closed = {"realized_pnl": 0, "closes": 0, "closes_without_profit": 0}
        first = self.since if name is None else self._first_legs.get(name, self.since)
        profits = self._profits.get((name, account, currency), nothing_closed)
        return {**profits, "realized_since": max(self.since, first)}

    def end_of(self, leg: ActiveContract) -> str | None:
        """Return how a leg that is not held was closed, such as "expired on 2026-11-20".

        Returns:
            None if it was not held since it was added, or if a cause is not known.
        """
        newest: tuple[datetime, str] | None = None
        for account, (seen_at, text) in self.ends.get(leg.conid, {}).items():
            is_of_leg = leg.account in (None, account) and seen_at >= leg.added_at
            if not is_of_leg:
                continue
            if text is None:
                return None

            end = (seen_at, text)
            newest = end if newest is None else max(newest, end)
        return None if newest is None else newest[1]

    def chosen(
        self, strategy: str | None, underlying: str | None, limit: int | None
    ) -> tuple[list[tuple[Closure, list[str]]], int]:
        """Return closes with the strategies that had them, the newest first, and their number.

        Args:
            strategy: The only strategy of interest; None: all.
            underlying: The only underlying of interest, in any case; None: all.
            limit: Maximum number of closes; None for all.
        """
        rows = self._with_strategies.reverse()
        if strategy is not None:
            has_strategy = pl.col("strategies").list.contains(pl.lit(strategy))
            rows = rows.filter(has_strategy)
        if underlying is not None:
            symbol = pl.col("symbol").str.to_uppercase()
            rows = rows.filter(symbol == underlying.upper())

        shown = rows[:limit]
        closures = schema.records_of(Closure, shown)
        with_names: list[tuple[Closure, list[str]]] = []
        for closure, names in zip(closures, shown["strategies"], strict=True):
            with_names.append((closure, [] if names is None else names.to_list()))
        return with_names, rows.height

    @cached_property
    def campaigns(self) -> Campaigns:
        """What strategies have realised since their first leg, and what was left to them."""
        magnifier = pl.col("conid").replace_strict(
            dict(self.magnifiers), default=None, return_dtype=pl.Int64
        )
        rows = self._with_strategies.with_columns(magnifier=magnifier)
        return campaigns_of(rows, self.before, self.movements, self.legs)


NO_CLOSES = Closes()


def read_closes(lake: Lake, past: Past | None = None) -> Closes:
    """Read the closes as they are known now, or as they were at a moment; blocks.

    Args:
        lake: The tables.
        past: The moment.

    Raises:
        LakeError: A table cannot be used.
    """
    names = ["change_id", *KEY, "before", "after", "seen_at", "average_cost", "multiplier"]
    changes = lake.position_changes.rows(None, None, names).sort("seen_at")
    are_known = None
    if past is not None:
        at = schema.moment(past.at)
        changes = changes.filter(pl.col("seen_at") <= at)
        known_at = pl.coalesce("judged_at", "closed_at")
        if past.as_known_now:
            known_at = pl.col("closed_at")
        are_known = known_at <= at

    legs = lake.registry.sync.history()
    if changes.is_empty():
        return Closes(legs=legs)

    rows = lake.closures.current_rows(are_known)
    conids = {*legs["conid"].unique(), *rows["counter_conid"].drop_nulls()}
    magnifiers: dict[int, int] = {}
    for conid, details in lake.contracts.get(conids).items():
        magnifiers[conid] = details.price_magnifier

    since: Any = changes["seen_at"].min()
    return Closes(
        rows=rows,
        movements=_movements_until(lake, conids, past),
        magnifiers=magnifiers,
        since=since,
        ends=_ends(changes, rows, legs),
        legs=legs,
        before=changes,
        elsewhere=_elsewhere(lake, changes, legs),
    )


def _movements_until(lake: Lake, conids: Collection[int], past: Past | None) -> pl.DataFrame:
    """Return the movements of contracts, or those until a moment."""
    movements = lake.movements.rows(None, schema.one_of("conid", conids))
    if past is None:
        return movements
    is_timed = pl.col("at").is_not_null()
    has_been = pl.col("at") <= schema.moment(past.at)
    day_is_over = pl.col("day") < past.at.date()
    is_over = pl.when(is_timed).then(has_been).otherwise(day_is_over)
    return movements.filter(is_over)


def _ends(changes: pl.DataFrame, rows: pl.DataFrame, legs: pl.DataFrame) -> Ends:
    """Return how the holdings of legs ended whose last change left nothing."""
    last = changes.group_by(KEY, maintain_order=True).last()
    without_rest = last.filter(after=0)
    closed = without_rest.join(legs, on="conid", how="semi")
    of_closed = rows.join(closed, on="change_id", how="semi")
    closures = schema.records_of(Closure, of_closed)
    closures_of = grouped(attrgetter("change_id"), closures)

    ends: defaultdict[int, dict[str, tuple[datetime, str | None]]] = defaultdict(dict)
    columns = (*KEY, "change_id", "seen_at")
    for account, conid, change_id, seen_at in closed.select(columns).iter_rows():
        text = end_text(closures_of[change_id])
        ends[conid][account] = (seen_at, text)
    return ends


def _elsewhere(lake: Lake, changes: pl.DataFrame, legs: pl.DataFrame) -> pl.DataFrame:
    """Return what other accounts held at most of contracts that a leg claims in any account."""
    names_no_account = pl.col("account").is_null()
    claims_quantity = pl.col("quantity").is_not_null()
    anywhere = legs.filter(names_no_account, claims_quantity)

    quantities = pl.col("before", "after").abs()
    largest = pl.max_horizontal(quantities)
    held = changes.select(*KEY, most=largest)
    if not anywhere.is_empty():
        published = lake.broker_positions.table.rows(columns=[*KEY, "position"])
        positions = published.select(*KEY, most="position")
        held = pl.concat([held, positions])

    claimed = held.join(anywhere, on="conid", how="semi")
    most = pl.col("most")
    most_held = claimed.group_by(KEY).agg(most.abs().max())
    in_all_accounts = most.sum().over("conid")
    return most_held.select(*KEY, elsewhere=in_all_accounts - most)
