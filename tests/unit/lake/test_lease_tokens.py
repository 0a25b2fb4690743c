"""The lease tokens that a queue object remembers."""

from position_sync_dagster.lake.position_queue import REMEMBERED, LeaseTokens


def test_after_a_claim_of_a_million_the_next_one_drops_them_in_one_pass() -> None:
    """What is dropped one by one from the start of a dict takes a quarter of an hour here."""
    tokens = LeaseTokens()
    many = [str(number) for number in range(1_000_000)]
    tokens.remember(many, "first")
    tokens.remember(["next"], "second")
    kept = tokens.of([], None)
    assert len(kept) == REMEMBERED + 1
    assert kept["next"] == "second"
    assert kept[many[-1]] == "first"
    assert many[-REMEMBERED - 1] not in kept
