"""The public names, their signatures, fields and members are a promise to other people's code."""

import re
from difflib import unified_diff
from pathlib import Path

import position_sync_dagster
from tests.support.public_api import public_api

PROMISED = Path(__file__).with_name("public_api.txt")


async def test_the_public_names_and_their_signatures_are_as_promised():
    # In an event loop, since eventkit (under ib_async) wants one when it is first imported.
    promised = PROMISED.read_text(encoding="utf-8").splitlines()
    found = public_api().splitlines()
    changes = "\n".join(unified_diff(promised, found, "promised", "found", lineterm=""))
    assert not changes, (
        f"The public API changed:\n{changes}\nIf that is meant, write it into the changelog and "
        f"run: python -m tests.support.public_api > {PROMISED}"
    )


def test_type_checkers_read_the_same_names():
    text = Path(position_sync_dagster.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    assert sorted(re.findall(r" as (\w+),?$", text, re.MULTILINE)) == position_sync_dagster.__all__
