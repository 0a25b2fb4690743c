"""Compile the tests as pytest does when it imports them, and read the characters of Unicode.

Each process of pytest would do it for all.

Run as `python -m tests.support.compiled`, before the processes of pytest begin.
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Private names of pytest, which has no other way to compile a test without running its module.
from _pytest.assertion.rewrite import PYC_TAIL, _rewrite_test, _write_pyc, get_cache_dir
from hypothesis.internal.charmap import charmap, intervals_from_codec

ROOT = Path(__file__).parents[2]
UNTRACED: Any = SimpleNamespace(trace=lambda _message: None)


def compile_test(path: Path) -> None:
    """Write the compiled module into the cache from which pytest reads it."""
    source_hash, code = _rewrite_test(path, None)  # type: ignore[arg-type]  # it may be None inside
    cache = get_cache_dir(path)
    cache.mkdir(parents=True, exist_ok=True)
    _write_pyc(UNTRACED, code, source_hash, cache / (path.stem + PYC_TAIL))


def keep_characters() -> None:
    """Let Hypothesis write the file from which it reads what each text may have: three seconds."""
    charmap()
    intervals_from_codec("utf-8")


def main() -> None:
    modules = [ROOT / "conftest.py", *ROOT.glob("ib_gateway_simulator/**/*.py")]
    for name in ("conftest.py", "test_*.py"):
        modules += ROOT.glob(f"tests/**/{name}")
    with ProcessPoolExecutor() as processes:
        characters = processes.submit(keep_characters)
        list(processes.map(compile_test, modules, chunksize=8))
        characters.result()


if __name__ == "__main__":
    main()
