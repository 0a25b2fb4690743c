"""In an object store a commit takes a bounded number of requests, however many came before it."""

from dataclasses import replace

from position_sync_dagster.lake.lake import Lake

COMMITS = 30


def test_a_commit_takes_as_few_requests_after_many_commits(store, make_update, clock):
    updates = Lake(store.lake()).updates.sync
    updates.initialize()
    updates.fence("g", 1)
    taken = []
    for number in range(COMMITS):
        row = replace(make_update(number + 1), gateway_id="g", fencing_token=1)
        store.proxy.change()
        updates.append([row])
        taken.append(len(store.proxy.change()))
        clock.advance(1)
    ordered = sorted(taken)
    assert ordered[COMMITS // 2] <= 12, taken
    assert ordered[-1] <= 70, taken  # with a checkpoint, and the table opened anew
