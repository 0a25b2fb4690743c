"""Which options explain the shares that came or went without an execution; pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.close_facts import (
    A_DAY,
    CLEAR,
    NEAR,
    Facts,
    Moneyness,
    Parts,
    covers,
    last_trade,
    moneyness,
    names_all,
    rounded,
    settles_in_cash,
)
from position_sync_dagster.domain.closures import Cause, PositionChange
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.statement import Execution

MOST_FREE = 12
"""Maximum number of options of which it is searched which were exercised or assigned."""


class Delivered:
    """What came or went of underlyings without an execution, and which options explain it."""

    def __init__(
        self,
        facts: Facts,
        parts: Mapping[str, Parts],
        left: Mapping[Key, Sequence[Execution]],
    ) -> None:
        self._facts = facts
        self._left = left
        self._causes: dict[str, tuple[Cause, int | None]] = {}
        self._stated: dict[str, int] = {}
        for under, found in self._together(parts.values()):
            self._search(under, found)
        self._note_stated(parts.values())

    def of(self, change: PositionChange) -> tuple[Cause, int | None] | None:
        """Return the cause of an option or of shares, with the counter-holding."""
        return self._causes.get(change.change_id)

    def stated_counter(self, change: PositionChange) -> int | None:
        """Return the underlying that moved with a stated exercise or assignment."""
        return self._stated.get(change.change_id)

    def _under_conid(self, change: PositionChange) -> int | None:
        details = self._facts.contracts.get(change.conid)
        return details.under_conid if details is not None else None

    def _together(self, parts: Iterable[Parts]) -> Iterator[tuple[int, list[Parts]]]:
        """Yield each underlying with what closed and came of it, none of which NEAR separates."""
        by_under: defaultdict[Key, list[Parts]] = defaultdict(list)
        for part in parts:
            change = part.change
            under = self._under_conid(change) if change.is_option else change.conid
            if part.rest and under is not None and (change.closed or not change.is_option):
                by_under[change.account, under].append(part)
        for (_account, under), found in by_under.items():
            if not any(one.change.is_option for one in found):
                continue
            group: list[Parts] = []
            for one in sorted(found, key=lambda one: one.change.seen_at):
                # What is seen after a gap may have happened right after its last confirmation.
                since = one.change.since
                if group and since is not None and since - group[-1].change.seen_at > NEAR:
                    yield under, group
                    group = []
                group.append(one)
            yield under, group

    def _search(self, under: int, group: Sequence[Parts]) -> None:
        """Find the options that explain by themselves what came of their underlying."""
        options = [one for one in group if one.change.is_option]
        shares = [one for one in group if not one.change.is_option]
        account, first = group[0].change.account, group[0].change.seen_at
        if (
            not options
            or not all(covers(self._facts, one.change) and not one.spare for one in group)
            or len(options) > MOST_FREE
            or settles_in_cash(self._facts.contracts.get(options[0].change.conid))
            # Shares may have come, and have been traded away, while nobody looked.
            or any(one.time > first - A_DAY for one in self._left.get((account, under), ()))
            # No exercise and no expiry turns a long position into a short one.
            or any(rounded(one.change.by + one.change.closed) for one in options)
        ):
            return
        came = [one.rest for one in shares]
        choices = [self._choices(one) for one in options]
        fitting = [
            chosen
            for chosen in product(*choices)
            if self._fits(
                [one.change for one, yes in zip(options, chosen, strict=True) if yes], came
            )
        ]
        guessed = any(len(one) > 1 for one in choices)
        sure = len(fitting) == 1 and (not guessed or self._is_complete(options, shares))
        if not sure and not (fitting and any(map(self._is_clear, options))):
            return
        chosen = [
            (one.change, yes)
            for one, yes in zip(options, fitting[0], strict=True)
            if sure or self._is_clear(one)
        ]
        causes = {_by_exercise(one) for one, yes in chosen if yes}
        for one, yes in chosen:
            if not yes:
                self._causes[one.change_id] = (Cause.EXPIRED_WORTHLESS, None)
                continue
            self._causes[one.change_id] = (_by_exercise(one), under)
            for other in shares:
                if sure and other.change.closed and len(causes) == 1:
                    self._causes[other.change.change_id] = (_by_exercise(one), one.conid)

    def _fits(self, ended: Sequence[PositionChange], came: Sequence[float]) -> bool:
        """Return whether the exercise of all these options, and of no other, explains what came."""
        units = [one.units or 0.0 for one in ended]
        if rounded(sum(units)) != rounded(sum(came)):
            return False
        if all(self._is_over(one) for one in ended):
            return _may_be(ended)
        # Before their end options also go by a transfer: then their shares are the only evidence.
        one_by_one = sorted(map(rounded, units)) == sorted(map(rounded, came))
        return bool(came) and (one_by_one or _may_be(ended))

    def _is_complete(self, options: Sequence[Parts], shares: Sequence[Parts]) -> bool:
        """Return whether all shares that belong to these options must have come by now.

        Shares and options of a longer gap may have come and gone at any time of it, and for
        reasons of their own.
        """
        at_once = [
            one.change.since is not None and one.change.seen_at - one.change.since <= NEAR
            for one in (*options, *shares)
        ]
        last = max(one.change.seen_at for one in options)
        _begin, asked_at = self._facts.asked.get(options[0].change.account, (last, last))
        return (
            asked_at >= last + NEAR
            and all(names_all(self._facts, one.change) for one in options)
            and (not shares or all(at_once))
        )

    def _choices(self, one: Parts) -> tuple[bool, ...]:
        """Return whether an option may, or must, have been exercised or assigned."""
        if not self._is_over(one.change):
            return (True,)  # before its end an option vanishes in no other way
        where = moneyness(one.change, self._facts)
        return {
            Moneyness.IN: (True,),
            Moneyness.OUT: (False,),
        }.get(where, (True, False))

    def _is_clear(self, one: Parts) -> bool:
        """Return whether its price at its end says by itself that it was exercised, or was not."""
        return self._is_over(one.change) and len(self._choices(one)) == 1

    def _is_over(self, change: PositionChange) -> bool:
        ended = last_trade(change, self._facts.contracts.get(change.conid))
        return ended is not None and change.seen_at >= ended

    def _note_stated(self, parts: Iterable[Parts]) -> None:
        listed = list(parts)
        for part in listed:
            under = self._under_conid(part.change)
            if under is None or not part.change.is_option:
                continue
            for other in listed:
                near = abs(other.change.seen_at - part.change.seen_at) <= NEAR
                if near and other.change.key == (part.change.account, under):
                    self._stated[part.change.change_id] = under


def _by_exercise(option: PositionChange) -> Cause:
    return Cause.EXERCISED if option.closed > 0 else Cause.ASSIGNED


def _may_be(options: Iterable[PositionChange]) -> bool:
    """Return whether one price of the underlying, at their end, lets all of these be exercised."""
    listed = list(options)
    calls = [one.strike or 0.0 for one in listed if one.right is Right.CALL]
    puts = [one.strike or 0.0 for one in listed if one.right is Right.PUT]
    return not calls or not puts or max(calls) <= min(puts) * (1 + CLEAR)
