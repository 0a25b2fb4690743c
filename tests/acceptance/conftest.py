"""Starts that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.demo_program import Demo


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Demo]]:
    """Start demos that end with the test."""
    demos: list[Demo] = []

    def begin(*arguments: str, home: Path | None = None, terminal: int | None = None) -> Demo:
        demos.append(Demo(home or tmp_path / "home", *arguments, terminal=terminal))
        return demos[-1]

    yield begin
    for demo in demos:
        demo.close()
