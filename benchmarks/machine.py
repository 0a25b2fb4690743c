"""What the numbers were measured on."""

import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.timing import elapsed_ms, median

_PACKAGES = ("deltalake", "polars", "duckdb", "persist-queue", "pyarrow")


def describe_machine(folder: Path) -> dict[str, str]:
    """Give processor, memory, the disk under a folder, and versions."""
    memory = psutil.virtual_memory().total / 2**30
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    return {
        "processor": f"{os.cpu_count()} × {_processor()}, {memory:.0f} GiB; load {load} at start",
        "system": f"{platform.system()} {platform.release()}, {_file_system(folder)}, "
        f"fsync of a new 4 kB file {_fsync_ms(folder):.2f} ms",
        "versions": f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        + ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
    }


def load_afterwards() -> str:
    """Say how busy the machine is when something was measured."""
    return f"{os.cpu_count()} cores; load {os.getloadavg()[0]:.1f} afterwards."


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(folder: Path) -> str:
    target = str(folder.resolve())
    holding = [p for p in psutil.disk_partitions(all=True) if target.startswith(p.mountpoint)]
    return max(holding, key=lambda p: len(p.mountpoint)).fstype if holding else "unknown disk"


def _fsync_ms(folder: Path) -> float:
    def once() -> None:
        with (folder / "probe").open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        (folder / "probe").unlink()

    return median([elapsed_ms(once) for _ in range(20)])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
