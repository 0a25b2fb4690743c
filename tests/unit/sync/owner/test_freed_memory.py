"""Freed memory goes back to the system."""

import platform

import psutil

from position_sync_dagster.sync.owner.freed_memory import return_freed_memory

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
