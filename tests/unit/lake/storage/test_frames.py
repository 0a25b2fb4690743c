"""The room for a commit is checked before it is written."""

import errno
import os

import pytest

from position_sync_dagster.lake.storage.commits import check_room


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


def test_an_object_store_is_not_checked():
    check_room("s3://bucket/lake/position_queue", 2**62)
