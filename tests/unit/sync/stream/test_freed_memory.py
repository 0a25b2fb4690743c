"""Freed memory goes back to the system, and Python looks seldom for cycles."""

import gc
import platform

import psutil

from position_sync_dagster.sync.stream.memory_and_threads import (
    YOUNG_THRESHOLD,
    rare_garbage_collection,
    return_freed_memory,
)

BLOCK, BLOCKS, KEPT_EACH = 4_000, 20_000, 500


def test_what_lies_free_among_what_is_used_is_returned():
    process = psutil.Process()
    blocks = [bytes(BLOCK) for _ in range(BLOCKS)]
    kept = blocks[::KEPT_EACH]
    del blocks
    before = process.memory_info().rss
    return_freed_memory()
    returned = before - process.memory_info().rss
    assert len(kept) == BLOCKS / KEPT_EACH
    if platform.libc_ver()[0] == "glibc":
        assert returned > BLOCK * BLOCKS / 2


def looks_while_objects_come(number: int) -> int:
    before = [generation["collections"] for generation in gc.get_stats()]
    kept = [[] for _ in range(number)]
    assert len(kept) == number
    return sum(g["collections"] for g in gc.get_stats()) - sum(before)


def test_python_looks_seldom_for_cycles_and_afterwards_as_before():
    usual, objects = gc.get_threshold(), 200_000
    looks = looks_while_objects_come(objects)  # how many differs from one Python to another
    with rare_garbage_collection():
        seldom = looks_while_objects_come(objects)
        with rare_garbage_collection():  # a second stream, which may end first or last
            pass
    assert gc.get_threshold() == usual
    assert seldom <= objects / YOUNG_THRESHOLD + 1 < looks / 2
    assert looks_while_objects_come(objects) > looks / 2
