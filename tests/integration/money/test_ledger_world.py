"""The ledger of postings beside a world of its own, whose bookkeeper knows the truth."""

from collections.abc import Callable
from functools import cache, partial
from itertools import product, starmap

import pytest

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.money.campaigns.campaign_days import read_days_of
from position_sync_dagster.money.campaigns.open_campaigns import read_open_campaigns
from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.past.owned_parts import PostingBook
from position_sync_dagster.money.past.postings import Posting
from tests.support.ledger_world.bridges import Bridges, known, sums_of
from tests.support.ledger_world.comparison import (
    GRAPH,
    OF_WORLD,
    all_differences,
    differences,
    not_conserved,
    rows_of,
    rows_of_world,
    unknown_rows,
)
from tests.support.ledger_world.mutations import MUTATIONS
from tests.support.ledger_world.product import Played
from tests.support.ledger_world.stories import (
    STORIES,
    ends_late,
    ends_unseen,
    moved_and_moved_back,
    moved_to_the_other_account,
    told,
)
from tests.support.ledger_world.values import ACCOUNTS, DAYS, NOBODY

# Of the first tier: each difference is in this world. The second tier has more.
FIRST = 9
SEEDS = [FIRST, 0, *range(10, 58)]

BUT_DAYS = [kind for kind in OF_WORLD if kind != "day"]

WorldOf = Callable[[int], Played]


@pytest.fixture(scope="module")
def world_of(tmp_path_factory) -> WorldOf:
    """Return the lake of a seed, into which all statements were imported together, shuffled."""

    @cache
    def of_seed(seed: int) -> Played:
        played = Played(told(seed, STORIES), tmp_path_factory.mktemp(f"world{seed}")).begin()
        played.import_files(played.files_of(DAYS))
        return played.finish()

    return of_seed


@pytest.mark.parametrize("seed", SEEDS)
def test_postings_edges_lots_campaigns_and_days_are_those_of_the_world(seed, world_of):
    played = world_of(seed)
    assert all_differences(played) == []
    assert all(rows_of_world(played.world).values())


@pytest.mark.parametrize("seed", SEEDS)
def test_they_are_the_same_with_executions_first_in_increments_and_after_restarts(seed, tmp_path):
    """Some statements are made twice, and what was made first is wrong.

    Of a day without a statement the gateway's trades are known.
    """
    played = Played(told(seed, STORIES), tmp_path).begin()
    for first, last in ((0, 5), (5, 10)):
        played.report_executions(DAYS[first])
        if first:
            today = played.again(told(seed, STORIES, days=first + 1, is_open=True))
            today.report_positions()
            assert all_differences(today, BUT_DAYS) == []

        for day in DAYS[first + 1 : last]:
            played.report_executions(day)
        played.import_files(played.files_of(DAYS[first:last], are_first=True))
        played.import_files(played.files_of(DAYS[first:last]))
        until_now = played.again(told(seed, STORIES, days=last)).finish()
        assert all_differences(until_now) == []
        played = played.again()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_gone_is_unexplained_until_a_late_statement_says_how_it_ended(seed, tmp_path):
    """All but the days follows at once; a day without a statement has no profit yet."""
    without, stated = told(seed, [ends_unseen]), told(seed, [ends_late])
    [ending] = [gone.booking.day for gone in without.gone]
    until = DAYS.index(ending)
    played = Played(told(seed, [ends_unseen], days=until + 1), tmp_path).begin()
    played.import_files(played.files_of(DAYS[:until]))
    played.finish()
    assert all_differences(played, BUT_DAYS) == []

    later = played.again(stated)
    later.import_files(later.files_of(DAYS[until:]))
    later.fill_days()
    assert all_differences(later) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_not_known_is_what_the_world_does_not_know(seed, world_of):
    played = world_of(seed)
    expected, actual = unknown_rows(rows_of_world(played.world)), unknown_rows(rows_of(played))
    print(f"seed {seed}: {len(expected)} rows are not known")
    assert expected - actual == set()
    assert actual - expected == set()
    kinds = {kind for kind, _name in expected}
    assert {"posting", "edge of an owner", "edge of an account", "day"} <= kinds
    assert "campaign" in kinds or seed not in SEEDS[:2]  # in few worlds no campaign is unknown


@pytest.mark.parametrize("seed", SEEDS)
def test_of_each_posting_what_edges_took_and_what_is_left_make_its_quantity_and_cost(
    seed, world_of
):
    assert not_conserved(world_of(seed)) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_postings_that_are_read_for_one_contract_are_those_that_it_has_among_all(seed, world_of):
    played = world_of(seed)
    book = PostingBook(played.lake)
    postings_of = grouped(lambda posting: posting.key[1], played.postings)
    shared = [leg.conid for leg in book.legs]
    for conid in {*sorted(postings_of)[::7], *sorted(shared)[::7]}:
        alone = [posting for posting in book.postings({conid}) if posting.key[1] == conid]
        assert {*map(told_of, alone)} == {*map(told_of, postings_of[conid])}


def test_postings_that_are_read_again_after_each_import_are_those_that_a_new_process_reads(
    tmp_path,
):
    """What has not changed since is not made again."""
    played = Played(told(FIRST, STORIES), tmp_path).begin()
    for day in DAYS:
        played.report_executions(day)
        played.import_files(played.files_of([day]))
        assert_read_again_alike(played)
    for change in (played.report_positions, played.fill_days, played.see_changes):
        change()
        assert_read_again_alike(played)


def assert_read_again_alike(played: Played) -> None:
    again = PostingBook(played.lake).postings()
    anew = PostingBook(played.again().lake).postings()
    assert list(map(told_of, again)) == list(map(told_of, anew))


def told_of(posting: Posting) -> tuple[object, ...]:
    money = (posting.fraction, posting.unclear, posting.pays_for)
    return posting.posting_id, posting.quantity, posting.effect, posting.came_from, money


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_held_by_the_postings_is_what_open_positions_state(seed, world_of):
    played = world_of(seed)
    by_postings = {
        key: (sum(share.quantity for share in shares),)
        for key, shares in played.by_account.held.items()
        if shares
    }
    stated = {key: (position,) for key, position in played.stated_positions.items()}
    assert differences("position", stated, by_postings) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_lots_campaigns_days_and_cash_differ_by_what_the_world_says(seed, world_of):
    played = world_of(seed)
    sums = sums_of(played)
    for first, second, amounts in Bridges(played.world).all():
        difference = float(sum(amounts.values()))
        assert sums[second] - sums[first] == pytest.approx(difference, abs=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_strategy_that_holds_nothing_has_realised_is_the_sum_of_its_campaigns(
    seed, world_of
):
    played = world_of(seed)
    profits = grouped(lambda row: row.strategy_id, played.campaigns)
    flat = [owner for (owner, _), money in played.live.items() if not money.lots]
    realised = {owner: played.live[owner, "USD"].realised for owner in flat}
    of_campaigns = {
        owner: known_sum(campaign.profit for campaign in profits[owner]) for owner in flat
    }
    assert len(realised) > 3
    assert of_campaigns == pytest.approx(realised, abs=0.001)


@pytest.mark.parametrize("story", [moved_to_the_other_account, moved_and_moved_back])
@pytest.mark.parametrize("seed", [1, 3])
def test_an_open_campaign_stands_at_the_sum_of_its_days_also_where_an_account_is_empty(
    seed, story, tmp_path
):
    played = Played(told(seed, [story]), tmp_path).begin()
    played.import_files(played.files_of(DAYS))
    played.finish()
    assert played.days
    of_strategies = [posting for posting in played.postings if posting.owner != NOBODY]
    campaigns = read_open_campaigns(played.lake, of_strategies)
    for campaign in read_days_of(played.lake, played.settings.calendar, campaigns):
        days = [day for day in DAYS if day >= campaign.opened]
        profit_of_day = partial(played.world.profit_of_day, campaign.strategy_id)
        stood = sum(map(known, starmap(profit_of_day, product(campaign.accounts, days))))
        assert len(campaign.accounts) == len(ACCOUNTS)
        assert campaign.stands == pytest.approx(float(stood) / 100)
    assert campaigns


def test_each_of_these_differences_is_in_the_first_world():
    amounts = [each for _first, _second, each in Bridges(told(FIRST)).all()]
    named = {name for each in amounts for name in each}
    assert named == {name for each in amounts for name, amount in each.items() if amount}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_books_of_each_day_close_or_name_what_is_not_known(seed, world_of):
    played = world_of(seed)
    unknown_in_world = unknown_rows(rows_of_world(played.world))
    unknown = {name[1:] for kind, name in unknown_in_world if kind == "day"}
    rows = played.books
    assert rows.height == 2 * (len(DAYS) - 1)
    for row in rows.iter_rows(named=True):
        is_unknown = (row["account"], row["session_date"]) in unknown
        assert row["difference"] == (None if is_unknown else pytest.approx(0.0, abs=1e-6)), row


@pytest.mark.parametrize("error", MUTATIONS)
def test_the_world_notices(error, world_of, monkeypatch):
    played = world_of(FIRST)
    MUTATIONS[error].plant(monkeypatch)
    assert all_differences(played.again(), GRAPH) != []
