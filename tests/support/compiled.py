"""Compile the tests as pytest does when it imports them; each of its processes would do it for all.

Run as `python -m tests.support.compiled`, before the processes of pytest begin.
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Private names of pytest, which has no other way to compile a test without running its module.
from _pytest.assertion.rewrite import PYC_TAIL, _rewrite_test, _write_pyc, get_cache_dir

ROOT = Path(__file__).parents[2]
UNTRACED: Any = SimpleNamespace(trace=lambda _message: None)


def compile_test(path: Path) -> None:
    """Write the compiled module into the cache from which pytest reads it."""
    source_hash, code = _rewrite_test(path, None)  # type: ignore[arg-type]  # it may be None inside
    cache = get_cache_dir(path)
    cache.mkdir(parents=True, exist_ok=True)
    _write_pyc(UNTRACED, code, source_hash, cache / (path.stem + PYC_TAIL))


def main() -> None:
    modules = [ROOT / "conftest.py", *ROOT.glob("ib_gateway_simulator/**/*.py")]
    for name in ("conftest.py", "test_*.py"):
        modules += ROOT.glob(f"tests/**/{name}")
    with ProcessPoolExecutor() as processes:
        list(processes.map(compile_test, modules, chunksize=8))


if __name__ == "__main__":
    main()
