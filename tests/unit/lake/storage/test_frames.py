"""The room for a commit is checked before it is written."""

import errno
import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from position_sync_dagster.lake.storage.table import check_room


@pytest.mark.parametrize("name", ["lake", "a lake", "ein Säckel"])
def test_a_commit_that_does_not_fit_on_the_disk_is_refused_before_it_is_written(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    disk = os.statvfs(folder)
    for place in (str(folder), folder.as_uri() + "/"):
        check_room(place)
        with pytest.raises(OSError, match="No space left on device") as full:
            check_room(place, disk.f_blocks * disk.f_frsize)
        assert full.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("files", "left", "is_full"), [(9, 3, True), (99, 50, False), (0, 0, False)]
)
def test_a_disk_without_room_for_files_is_full_unless_it_counts_none(
    tmp_path, monkeypatch, files, left, is_full
):
    room = os.statvfs(tmp_path)
    counts = SimpleNamespace(
        f_bavail=room.f_bavail, f_frsize=room.f_frsize, f_files=files, f_favail=left
    )
    monkeypatch.setattr(os, "statvfs", lambda _path: counts)
    with pytest.raises(OSError, match="No space left") if is_full else nullcontext():
        check_room(str(tmp_path))


def test_an_object_store_is_not_checked():
    check_room("s3://bucket/lake/position_queue", 2**62)
