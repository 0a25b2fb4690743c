"""The checks: how one is defined, its results, and the one driver, which the ticks use.

The driver evaluates checks in the tick of `drain_queue`, which stores news; the other checks are
evaluated with their table, since their results come with its rows (`Derived.checks`). A result that
could not compare anything is unknown: it does not pass, and warns. There are two kinds: there is
nothing to compare, such as without a gateway, or the check is unevaluated, since a table cannot be
read.

A result without a run counts as that of the newest materialization without a run. For that reason a
result is stored only when it changed, and each three hours; one that fails in other words, such as
with another number, after five minutes.
"""

import inspect
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from typing import Any, Generic

import dagster as dg
from polars import DataFrame

from position_sync_dagster.dagster_files import FailingCheck
from position_sync_dagster.defs.assets.table_asset import check_evaluation
from position_sync_dagster.defs.resources import AssetKeys, PositionSyncResource, dagster_failures
from position_sync_dagster.domain.clock import is_recent
from position_sync_dagster.errors import GatewayError, PositionSyncError
from position_sync_dagster.lake.lake import L, L_contra
from position_sync_dagster.settings import Settings

logger = logging.getLogger(__name__)

# Maximum number of rows that a failing check shows.
SHOWN = 20

# Metadata key of a result that could not compare anything; alerts ignore such a result.
UNKNOWN = "unknown"

# Metadata key of an unknown result whose check could not be evaluated. A message is sent as for a
# failure.
UNEVALUATED = "unevaluated"

# Metadata key of a result that passes and names rows all the same: it is news.
NAMED = "named"

# Metadata key of a failing check: what its reader should do.
WHAT_TO_DO = "what_to_do"

# Where each check is explained.
PAGE = "docs/operations.md#checks"

# What stands before the advice in the docstring of a check.
ADVICE = "What to do: "

Key = dg.AssetCheckKey
Evaluate = Callable[[L, Settings], dg.AssetCheckResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCheck(Generic[L_contra]):
    """A check of a table, which a run and a tick evaluate alike.

    Attributes:
        judge: Judges the table, of all logins or of one.
        each_login: Whether it gets the settings of one login, and the results are merged.
        driven: Whether the driver evaluates it, in its turn of each minute; the others are
            evaluated with their tables.
    """

    check_key: Key
    description: str
    judge: Evaluate[L_contra]
    each_login: bool
    driven: bool

    def evaluate(self, lake: L_contra, settings: Settings) -> dg.AssetCheckResult:
        """Return the result; it is unknown where the check cannot be evaluated.

        A failure that does not say what to do gets the advice in the docstring of the check; one
        that is unknown needs none.
        """
        try:
            if self.each_login:
                result = merged(
                    {login.gateway_id: self.judge(lake, login) for login in settings.logins}
                )
            else:
                result = self.judge(lake, settings)
        except GatewayError as error:
            return unknown_result(f"no gateway: {error}")
        except PositionSyncError as error:
            return unevaluated(str(error))
        except Exception as error:  # a mistake of ours stops no other check
            logger.exception("the check %s cannot be evaluated", self.check_key.name)
            return unevaluated(f"the check itself failed: {type(error).__name__}: {error}")

        advice = " ".join(self.description.partition(ADVICE)[2].split())
        says_more = {UNKNOWN, WHAT_TO_DO} & result.metadata.keys()
        if result.passed or not advice or says_more:
            return result
        return result._replace(
            metadata={**result.metadata, WHAT_TO_DO: dg.MetadataValue.text(advice)}
        )

    def definition(self, kind: type[L_contra]) -> dg.AssetChecksDefinition:
        """Return the check of Dagster, whose runs open a lake of this class."""

        @dg.asset_check(
            name=self.check_key.name,
            asset=self.check_key.asset_key,
            description=f"{self.description}\n\nMore: {PAGE}",
            config_schema={},
        )
        @dagster_failures()
        def check(position_sync: PositionSyncResource) -> dg.AssetCheckResult:
            return self.evaluate(position_sync.lake_of(kind), position_sync.settings)

        return check


# Seconds between two evaluations of a check by the driver, and of one that did not pass.
ALL_EVERY_S = 60.0
FAILED_EVERY_S = 10.0

# The check that is evaluated in each tick, and returned between them only when it has changed.
WATCH = Key(dg.AssetKey("position_updates"), "a_stream_watches")


def table_check(
    asset: str,
    name: str | None = None,
    *,
    description: str | None = None,
    each_login: bool = False,
    driven: bool = False,
) -> Callable[[Evaluate[L]], TableCheck[L]]:
    """Return the decorator of a function that evaluates a table: it makes a non-blocking check.

    Args:
        asset: The asset that the check is of.
        name: The name of the check; None is that of the function.
        description: The description that Dagster shows; None is the docstring of the function. Its
            last paragraph says what to do where a failing result does not.
        each_login: Whether the function gets the settings of one login: the results of all logins
            are then merged.
        driven: Whether the driver evaluates it, in its turn of each minute; the others are
            evaluated with their tables.
    """

    def make(judge: Evaluate[L]) -> TableCheck[L]:
        return TableCheck(
            check_key=Key(dg.AssetKey(asset), name or judge.__name__),
            description=description or inspect.getdoc(judge) or "",
            judge=judge,
            each_login=each_login,
            driven=driven,
        )

    return make


def judged(
    description: str,
    *,
    holds: bool,
    error: bool = False,
    what_to_do: str | None = None,
    **metadata: "dg.RawMetadataValue",
) -> dg.AssetCheckResult:
    """Return the result of a check; pure.

    Args:
        description: What was found.
        holds: Whether the check passes.
        error: Whether the severity of a failure is ERROR; else it is WARN.
        what_to_do: What the reader of a failure should do; None is what the docstring of the check
            says.
        metadata: The metadata of the result.
    """
    severity = dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN
    if what_to_do is not None:
        metadata[WHAT_TO_DO] = what_to_do
    return dg.AssetCheckResult(
        passed=holds, severity=severity, description=description, metadata=metadata
    )


passed = partial(judged, holds=True)
failed = partial(judged, holds=False)


def unknown_result(why: str, **metadata: "dg.RawMetadataValue") -> dg.AssetCheckResult:
    """Return the warning of a check that could not compare anything."""
    # `snapshot_complete` is a key of `agrees_with_the_broker`; every unknown result has it, too.
    return failed(f"Unknown: {why}", **metadata, snapshot_complete=False, unknown=True)


def unevaluated(why: str) -> dg.AssetCheckResult:
    """Return the warning of a check that could not be evaluated: a person has to mend something."""
    return unknown_result(why, **{UNEVALUATED: True})


def merged(results: Mapping[str, dg.AssetCheckResult]) -> dg.AssetCheckResult:
    """Return the results of several logins as one; pure.

    It fails if one of them fails, and names those logins. An unknown result makes it unknown,
    unless another login fails. What alerts look for in the metadata is that of the worst result.

    Args:
        results: The results by login; a single one is returned unchanged.
    """
    if len(results) == 1:
        return next(iter(results.values()))

    in_order = sorted(results.items(), key=_seriousness)
    _login, first = in_order[0]
    shown = [(name, result) for name, result in in_order if first.passed or not result.passed]
    metadata = {
        f"{name}/{key}": value for name, result in shown for key, value in result.metadata.items()
    }
    metadata |= {key: first.metadata[key] for key in (WHAT_TO_DO, UNKNOWN) if key in first.metadata}
    texts = [f"{name}: {result.description}" for name, result in shown]
    return first._replace(description=" ".join(texts), metadata=metadata)


def _seriousness(named: tuple[str, dg.AssetCheckResult]) -> tuple[bool, bool, bool]:
    """Return the sort key of a result: errors first, then warnings, unknown and passed ones."""
    _login, result = named
    is_warning = result.severity is dg.AssetCheckSeverity.WARN
    return bool(result.passed), UNKNOWN in result.metadata, is_warning


def rows_result(
    found_rows: DataFrame | Sequence[Mapping[str, object]],
    *,
    none: str,
    found: str,
    error: bool = False,
    **numbers: Any,
) -> dg.AssetCheckResult:
    """Return the result of a check that fails when it found rows; pure.

    Args:
        found_rows: The problems, worst first; the first ones are shown.
        none: The description if there are none.
        found: The description otherwise; the number of rows precedes it.
        error: Whether the severity of a failure is ERROR.
        numbers: Metadata in both cases.
    """
    rows = DataFrame(found_rows)
    if rows.is_empty():
        return passed(none, **numbers)
    return failed(
        f"{rows.height} {found}.",
        error=error,
        **numbers,
        found=rows.height,
        rows=table_of_rows(rows),
    )


def table_of_rows(rows: DataFrame) -> dg.TableMetadataValue:
    """Return the first rows of a frame as a table of an event, which the UI shows; pure."""
    records = [
        dg.TableRecord({name: _shown(cell) for name, cell in row.items()})
        for row in rows.head(SHOWN).iter_rows(named=True)
    ]
    # Dagster takes the columns from the first row; without one it needs to know that there is none.
    return dg.MetadataValue.table(records, None if records else dg.TableSchema([]))


def _shown(value: object) -> str | int:
    """Return a value as a cell for people: with ten digits, empty where it is unknown."""
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return f"{value:.10g}"
    return "" if value is None else str(value)


def evaluation_of(record: Any) -> dg.AssetCheckEvaluation | None:
    """Return the result in Dagster's newest record of a check.

    Returns:
        None if there is no record, or a run has planned the check and not evaluated it yet.
    """
    stored = getattr(record, "evaluation", None)
    return stored if isinstance(stored, dg.AssetCheckEvaluation) else None


# A result that stays the same is stored again after this time. It takes 3.5 kB in SQLite.
STORED_EVERY = timedelta(hours=3)

# A result that still fails, and differs in its description alone, is stored after this time: the
# number of a broken limit moves with each tick.
REWORDED_EVERY = timedelta(minutes=5)

# A failure counts no more this long after its evaluation, in seconds: that of a limit which was
# removed is not evaluated again. Each check that a tick evaluates is due within an hour.
COUNTS_S = 7_200.0

# No check begins after this time, in seconds; the next tick goes on with the others.
TIME_LIMIT_S = 10.0

# The checks that say whether the values can be used: `doctor` ends with 1 while one of them fails.
VALUE_CHECKS = frozenset(
    {
        "tables_can_be_read",
        "agrees_with_the_broker",
        "legs_have_values",
        "values_match_the_broker",
        "account_values_follow",
    }
)


class CheckDriver(Generic[L]):
    """Decides which checks are due, and evaluates them; one object for each lake and process.

    Args:
        checks: All checks of the project.
    """

    def __init__(self, checks: Iterable[TableCheck[L]]) -> None:
        self._checks = {check.check_key: check for check in checks}
        # The place of each in the minute, in seconds: together they would take longer than a tick
        # should.
        pause_s = ALL_EVERY_S / max(1, len(self.driven()))
        self._turns = {key: number * pause_s for number, key in enumerate(self.driven())}
        # When the newest result of each check came, and the result; also of checks that are
        # evaluated with their tables.
        self._newest: dict[Key, tuple[float, dg.AssetCheckResult]] = {}

    def failing(self, results: Mapping[Key, dg.AssetCheckResult]) -> list[FailingCheck]:
        """Keep new results; return the checks whose newest result failed, at most COUNTS_S ago.

        Args:
            results: Those of one tick: of checks that it evaluated, and of those with their tables.
        """
        now = time.monotonic()
        self._newest |= {key: (now, result) for key, result in results.items()}
        return [
            _failing_check(key, result)
            for key, (at, result) in self._newest.items()
            if not result.passed and now - at <= COUNTS_S
        ]

    def driven(self) -> list[Key]:
        """Return the checks that the driver evaluates."""
        return [key for key, check in self._checks.items() if check.driven]

    def evaluated_with(self, asset: str) -> set[Key]:
        """Return the checks that are evaluated together with a table, and not by the driver."""
        return {
            key
            for key in self._checks.keys() - self.driven()
            if key.asset_key == dg.AssetKey(asset)
        }

    def results(self, lake: L, settings: Settings) -> Iterator[tuple[Key, dg.AssetCheckResult]]:
        """Evaluate the checks that are due, those first that were not evaluated for longest.

        What is left after TIME_LIMIT_S is due in the next tick. WATCH is evaluated in each one.
        """
        began = time.monotonic()
        for key in sorted(self.driven(), key=self._newest_at):
            now = time.monotonic()
            if now - began > TIME_LIMIT_S:
                return

            is_due = now >= self._next_turn(key)
            if not is_due and key != WATCH:
                continue

            result = self._checks[key].evaluate(lake, settings)
            if is_due or result.passed != self._newest[key][1].passed:
                self._newest[key] = (time.monotonic(), result)
                yield key, result

    def _newest_at(self, key: Key) -> float:
        return self._newest[key][0] if key in self._newest else -inf

    def _next_turn(self, key: Key) -> float:
        """Return when a check is due: after its last result, at its own place in each minute.

        So the checks of one tick are few. One that was never evaluated is due at once.
        """
        if key not in self._newest:
            return -inf
        at, result = self._newest[key]
        every_s = ALL_EVERY_S if result.passed else FAILED_EVERY_S
        return at + every_s - (at - self._turns[key]) % every_s


def _failing_check(key: Key, result: dg.AssetCheckResult) -> FailingCheck:
    """Return a result that did not pass, as the ticks leave it for programs without Dagster."""
    is_unevaluated = UNEVALUATED in result.metadata
    return FailingCheck(
        name=f"{key.asset_key.to_user_string()}: {key.name}",
        # Where a check cannot be evaluated, a table cannot be read.
        is_of_values=is_unevaluated or key.name in VALUE_CHECKS,
        text=result.description or "",
        is_unknown=UNKNOWN in result.metadata and not is_unevaluated,
    )


def news(
    instance: dg.DagsterInstance,
    results: Mapping[Key, dg.AssetCheckResult],
    keys: AssetKeys,
    now: datetime,
) -> list[dg.AssetCheckEvaluation]:
    """Return the results that Dagster does not have yet, as events."""
    if not results:
        return []

    event_keys = {key: keys.of_check(key) for key in results}
    stored = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        list(event_keys.values())
    )
    return [
        check_evaluation(event_keys[key], result)
        for key, result in results.items()
        if is_news(stored.get(event_keys[key]), result, now)
    ]


def is_news(record: Any, result: dg.AssetCheckResult, now: datetime) -> bool:
    """Return whether a result differs from the stored one, or that one is old; pure.

    Args:
        record: Dagster's newest record of the check; None if there is none.
        result: The new result.
        now: The current time.
    """
    before = evaluation_of(record)
    if before is None:
        return True

    at = datetime.fromtimestamp(record.create_timestamp, UTC)
    is_changed = _outcome(before) != _outcome(result)
    if is_changed or not is_recent(at, STORED_EVERY, now):
        return True
    is_reworded = not result.passed and before.description != result.description
    return is_reworded and now - at >= REWORDED_EVERY


def _outcome(evaluated: dg.AssetCheckResult | dg.AssetCheckEvaluation) -> object:
    """Return what of a result is news at once when it changes: not its words, nor its numbers.

    One that passes is news where it begins or ceases to name rows (NAMED).
    """
    if evaluated.passed:
        return NAMED in evaluated.metadata
    return evaluated.severity, UNKNOWN in evaluated.metadata, UNEVALUATED in evaluated.metadata
