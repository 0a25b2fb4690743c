"""Memberships: which legs joined and left, which belong together, and what two strategies share."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from position_sync_dagster import errors
from position_sync_dagster.domain.leg import (
    ActiveContract,
    Leg,
    Terms,
    UnresolvedLeg,
    strategy_name,
)

LegKey = tuple[str, str | None, int | Terms]
"""The key of a leg: with its conid, or with the terms that describe its contract."""


def is_unchanged(before: Leg | None, leg: Leg) -> bool:
    """Return whether a leg equals the active membership.

    The time at which it was added, the result of the search for its contract and its rolls are not
    compared.
    """
    if isinstance(before, ActiveContract) and isinstance(leg, ActiveContract):
        same = replace(leg, added_at=before.added_at, resolved_at=before.resolved_at)
        return replace(same, rolled_from=before.rolled_from) == before
    if isinstance(before, UnresolvedLeg) and isinstance(leg, UnresolvedLeg):
        return replace(leg, added_at=before.added_at, problem=before.problem) == before
    return False


def with_known_contracts(legs: Iterable[Leg], before: Iterable[Leg]) -> list[Leg]:
    """Return the legs, with the conids that were found before for the same descriptions.

    A conid is used only for the strategy and account for which it was found. Reading the same file
    again therefore changes nothing.
    """
    found = {
        (leg.strategy_id, leg.account, leg.terms): leg
        for leg in before
        if isinstance(leg, ActiveContract) and leg.resolved_at is not None
    }
    return [
        leg.resolved(known.conid, known.resolved_at)
        if isinstance(leg, UnresolvedLeg) and (known := found.get(leg.key)) is not None
        else leg
        for leg in legs
    ]


def with_rolls(
    legs: Iterable[Leg],
    active: Iterable[Leg],
    ended: Iterable[ActiveContract],
    following: Collection[str],
) -> list[Leg]:
    """Return the legs of a file; those that were rolled since are replaced by what they became.

    A file names the legs as they were when it was written. A leg that was rolled keeps the
    quantity and the priority of the file. The file's own leg returns if the strategy does not
    follow rolls any more, or if the file names the new contract as well.

    Args:
        legs: The legs of the file.
        active: The active legs.
        ended: Legs that were active before: they have the contracts of descriptions.
        following: The strategies that follow rolls.
    """
    became = {
        (leg.strategy_id, leg.account, conid): leg
        for leg in active
        if isinstance(leg, ActiveContract) and leg.strategy_id in following
        for conid in leg.replaced
    }
    listed = with_known_contracts(legs, (leg for leg in ended if leg.key in became))
    named = {leg.key for leg in listed}
    return [
        replace(new, quantity=leg.quantity, priority=leg.priority, added_at=leg.added_at)
        if isinstance(leg, ActiveContract)
        and (new := became.get(leg.key)) is not None
        and new.key not in named
        else leg
        for leg in listed
    ]


def settled(
    legs: Mapping[LegKey, Leg], leg: UnresolvedLeg, finding: int | str, at: datetime
) -> dict[LegKey, Leg]:
    """Return the legs after the search for the contract of one of them.

    If the strategy already has the contract, or another strategy holds the whole of it, the leg
    stays unresolved and records that as its problem.

    Args:
        legs: The active legs by key.
        leg: The leg whose contract was searched; ignored if it is no longer among them.
        finding: Its conid, or the problem in words.
        at: When it was found.
    """
    present = legs.get(leg.key)
    if not isinstance(present, UnresolvedLeg):
        return dict(legs)
    problem = str(finding)
    if isinstance(finding, int):
        found = present.resolved(finding, at)
        after = {key: one for key, one in legs.items() if key != leg.key} | {found.key: found}
        try:
            refuse_two_whole_holders(after.values())
        except errors.InvalidLegError as error:
            problem = str(error)
        else:
            if found.key not in legs:
                return after
            problem = f"The strategy has its contract already, as the leg {finding}."
    return dict(legs) | {leg.key: replace(present, problem=problem)}


def distinct_legs(legs: Iterable[Leg]) -> list[Leg]:
    """Return the legs without repeats.

    Raises:
        InvalidLegError: A strategy has one leg twice, with different values, or a reserved name.
    """
    distinct: dict[LegKey, Leg] = {}
    for leg in legs:
        strategy_name(leg.strategy_id)
        if leg.key in distinct and not is_unchanged(distinct[leg.key], leg):
            raise errors.InvalidLegError(
                f"The strategy {leg.strategy_id!r} names the leg {name_of(leg)} twice, with "
                "different values.",
                remedy="Keep one of them.",
            )
        distinct.setdefault(leg.key, leg)
    return list(distinct.values())


def name_of(leg: Leg) -> str:
    """Return the conid of a leg, or its description."""
    return str(leg.conid) if isinstance(leg, ActiveContract) else leg.described


def two_whole_holders(legs: Iterable[Leg]) -> tuple[ActiveContract, ActiveContract] | None:
    """Return two legs of different strategies that each hold the whole of a contract; None: none.

    A leg without an account is in every account. A leg with a quantity holds a part, and conflicts
    with no other; neither does one whose contract is not known.
    """
    of_conid: defaultdict[int, dict[str | None, ActiveContract]] = defaultdict(dict)
    for leg in legs:
        if isinstance(leg, UnresolvedLeg) or leg.quantity is not None:
            continue
        holders = of_conid[leg.conid]
        for account in holders if leg.account is None else (leg.account, None):
            other = holders.get(account)
            if other is not None and other.strategy_id != leg.strategy_id:
                return other, leg
        holders.setdefault(leg.account, leg)
    return None


def refuse_two_whole_holders(legs: Iterable[Leg]) -> None:
    """Check that no two strategies each hold the whole of a leg in one account.

    Raises:
        InvalidLegError: Two strategies do; the message names them.
    """
    if found := two_whole_holders(legs):
        other, leg = found
        raise errors.InvalidLegError(
            f"The strategies {other.strategy_id!r} and {leg.strategy_id!r} would both hold the "
            f"whole of leg {leg.conid} in {other.account or leg.account or 'any account'}.",
            remedy="Set the quantity (signed contracts) that each has of the leg.",
        )


def without_listed(of_rules: Iterable[Leg], listed: Iterable[Leg]) -> list[Leg]:
    """Return the legs of rules whose contracts no listed leg has in their account."""
    taken = {(leg.account, leg.conid) for leg in listed}
    return [
        leg for leg in of_rules if taken.isdisjoint({(leg.account, leg.conid), (None, leg.conid)})
    ]


ANY = "any"
"""The account, as a person names it, of a leg that is in any account."""


def find_membership(
    legs: Iterable[Leg],
    conid: int | None,
    strategy_id: int | str | None,
    account: str | None,
    described: Mapping[str, object] | None = None,
) -> Leg:
    """Return the one membership that matches; None matches every strategy, account or contract.

    Args:
        account: `ANY` for a leg that names no account.
        described: Fields of a leg and their values, such as symbol and strike.

    Raises:
        UnknownLegError: None matches.
        AmbiguousRemovalError: Several match; the message names them.
    """
    wanted = {name: value for name, value in (described or {}).items() if value is not None}
    found = [
        leg
        for leg in legs
        if (conid is None or (isinstance(leg, ActiveContract) and leg.conid == conid))
        and (strategy_id is None or leg.strategy_id == str(strategy_id))
        and (account is None or (leg.account or ANY) == account)
        and all(getattr(leg, name) == value for name, value in wanted.items())
    ]
    if not found:
        of = "" if strategy_id is None else f" of strategy {str(strategy_id)!r}"
        what = " ".join(f"{name} {value}" for name, value in wanted.items())
        if conid is not None:
            what = f"the conid {conid} {what}".rstrip()
        raise errors.UnknownLegError(
            f"No active leg{of} has {what}" + (f" in account {account!r}." if account else "."),
            remedy="List the active legs and take conid, strategy and account from there.",
        )
    if len(found) > 1:
        names = ", ".join(
            sorted(
                f"{leg.strategy_id!r} ({leg.account or 'any account'})"
                if conid is not None
                else f"{name_of(leg)} of {leg.strategy_id!r}"
                for leg in found
            )
        )
        raise errors.AmbiguousRemovalError(
            f"The leg {'as described' if conid is None else conid} has several holders: {names}.",
            remedy="Name its strategy, and its account if needed: "
            f"{ANY!r} for a leg in any account.",
        )
    return found[0]
