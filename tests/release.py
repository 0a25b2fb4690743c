"""What a release is, as somebody without a checkout gets it: `make release-check`.

It builds sdist and wheel of both distributions, the simulator's first, and looks into them. It
installs the simulator alone, the package alone, and the package with the extra `demo`, which has
the simulator, into empty environments in empty folders, for the oldest and the newest Python of
this machine. There it runs `doctor` and the example of docs/library.md against `position-sync
simulate`; with the first Python also the demo by `uvx`, and a Dagster project made by
`create-dagster` that has the component. It needs the standard library and uv.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = ROOT / ".tools/bin/uv"
VERSION = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]

# Those that errors name.
DOCUMENTS = (
    *("component", "follow", "object-store", "operations", "strategies", "stream", "what-if"),
    *("do/install", "do/restore", "do/statements", "do/two-logins", "do/upgrade"),
)
NEEDED = (
    "position_sync_dagster/__init__.pyi",
    "position_sync_dagster/py.typed",
    "position_sync_dagster/instance/.env.example",
    "position_sync_dagster/instance/dagster.yaml",
    *(f"position_sync_dagster/instance/docs/{name}.md" for name in DOCUMENTS),
    "position_sync_dagster/instance/workspace.yaml",
    "position_sync_dagster/web/pages/frame.html",
    "position_sync_dagster/web/static/app/money_page.js",
    f"position_sync_dagster-{VERSION}.dist-info/licenses/LICENSE",
    f"position_sync_dagster-{VERSION}.dist-info/entry_points.txt",
)
# What an index shows of the wheel, beside its description.
SHOWN = ("Author", "Classifier", "Keywords", "License-Expression", "Project-URL", "Requires-Python")
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
# What a checkout may hold, and no release: each has the text, which no file of a release may have.
SECRETS = (
    *(".env", "deploy/host.env", ".tools/bin/uv", "data/lake/rows.parquet", "dist/notes.py"),
    *("ib_gateway_simulator/.env", "ib_gateway_simulator/books/host.env"),
    "ib_gateway_simulator/tests/test_of_a_checkout.py",
    *("ib_gateway_simulator/.tools/key.py", "position_sync_dagster/lake/rows.parquet"),
)
SECRET = b"a secret that the check of the release planted"
COMPONENT = "position_sync_dagster.PositionSyncComponent"


class ReleaseError(Exception):
    """Something of the release is wrong; the text says what."""


def run(*command: str | Path, cwd: Path, env: Mapping[str, str], within_s: float = 300.0) -> str:
    """Run a command and return its output; raise an error with it if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=env, timeout=within_s, text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise ReleaseError(
            f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def outside(folder: Path) -> dict[str, str]:
    """Return the environment of a person who has no checkout, and no settings."""
    own = ("POSITION_SYNC_", "DAGSTER_", "VIRTUAL_ENV", "PYTHON")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(own)}
    return kept | {"XDG_DATA_HOME": str(folder / "data"), "UV_PYTHON_DOWNLOADS": "never"}


def checkout(folder: Path) -> Path:
    """Copy the sources below a folder that .gitignore names, and plant secrets; return where."""
    sources = folder / ".venv/data/x"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
                 cwd=ROOT, env=os.environ)  # fmt: skip
    present = [name for name in listed.split("\0") if (ROOT / name).is_file()]
    for name in (*present, *SECRETS):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)

    for name in present:
        shutil.copy(ROOT / name, sources / name)
    for name in SECRETS:
        (sources / name).write_bytes(SECRET)
    return sources


def built(folder: Path, sources: Path = ROOT) -> None:
    """Build sdist and wheel of a project into a folder."""
    run(UV, "build", "--quiet", "--python", ROOT / ".tools/bin/python", "--out-dir", folder,
        sources, cwd=ROOT, env=os.environ)  # fmt: skip


def built_by_each(folder: Path, sources: Path) -> None:
    """Build a project with uv, and in a folder beside it with `python -m build`.

    Raises:
        ReleaseError: One of them ships a planted secret.
    """
    built(folder, sources)
    beside = folder.with_name(f"{folder.name}-by-build")
    run(UV, "tool", "run", "--quiet", "--python", ROOT / ".tools/bin/python", "--from", "build",
        "python", "-m", "build", "--outdir", beside, sources, cwd=ROOT, env=os.environ)  # fmt: skip

    archives = [*folder.glob("*-*"), *beside.glob("*-*")]
    leaks = [
        f"{archive.parent.name}/{archive.name} ships {name}"
        for archive in archives
        for name, content in files_of(archive).items()
        if SECRET in content
    ]
    if leaks or len(archives) != 4:
        raise ReleaseError("\n".join(leaks) or f"not all was built: {archives}")


def files_of(archive: Path) -> dict[str, bytes]:
    """Return the files of a wheel or an sdist by name, without the folder of the sdist."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(archive) as sdist:
        members = {member.name: sdist.extractfile(member) for member in sdist if member.isfile()}
        return {name.partition("/")[2]: file.read() for name, file in members.items()}


def installed_files(wheel: Path) -> set[str]:
    """Return what a wheel puts into an environment, its commands too."""
    files = files_of(wheel)
    (points,) = (text.decode() for name, text in files.items() if name.endswith("entry_points.txt"))
    commands = re.search(r"\[console_scripts\]\n([^\[]*)", points)[1].splitlines()
    return {*files, *(f"bin/{line.partition(' ')[0]}" for line in commands if line)}


def installed(python: str, folder: Path, *packages: str | Path) -> Path:
    """Install packages into an empty environment for a Python; return its bin."""
    env = outside(folder)
    named = python
    if "/" in python:
        named = Path(python).absolute()  # uv runs in another folder

    run(UV, "venv", "--quiet", "--python", named, folder / "env", cwd=folder, env=env)
    run(UV, "pip", "install", "--quiet", "--python", folder / "env/bin/python", *packages,
        cwd=folder, env=env, within_s=900)  # fmt: skip
    return folder / "env/bin"


def build_simulator(folder: Path, sources: Path) -> Path:
    """Build sdist and wheel of the simulator; return the wheel."""
    built_by_each(folder, sources / "ib_gateway_simulator")
    (wheel,) = folder.glob("*.whl")
    return wheel


def build(folder: Path, sources: Path, simulator_wheel: Path) -> Path:
    """Build sdist and wheel, and raise an error about their contents; return the wheel."""
    built_by_each(folder, sources)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    names = files_of(wheel)
    info = f"position_sync_dagster-{VERSION}.dist-info"
    metadata = names[f"{info}/METADATA"].decode()
    wrong = [f"the wheel lacks {name}" for name in NEEDED if name not in names]
    wrong += [f"its metadata lack {name}" for name in SHOWN if f"\n{name}: " not in metadata]
    wrong += [
        f"the wheel has {name}"
        for name in sorted(names)
        if name.split("/")[0] not in ("position_sync_dagster", info) or "__pycache__" in name
    ]
    wrong += [
        f"both wheels have {name}"
        for name in installed_files(wheel) & installed_files(simulator_wheel)
    ]
    if "LICENSE" not in files_of(sdist):
        wrong.append("the sdist lacks LICENSE")

    if wrong:
        raise ReleaseError("\n".join(wrong))
    for made in (sdist, wheel):
        print(f"  {made.name}: {made.stat().st_size / 1000:,.0f} kB")
    return wheel


def check_simulator(wheel: Path, python: str, folder: Path) -> None:
    """Install the simulator alone, and see that it serves a port, and that its plugin works."""
    folder.mkdir()
    env = outside(folder)
    bin_folder = installed(python, folder, wheel)
    listed = run(UV, "pip", "list", "--python", bin_folder / "python", cwd=folder, env=env)
    heavy = re.findall(r"^(dagster|deltalake|polars|ib-async)\b", listed, re.M)
    if heavy:
        raise ReleaseError(f"the simulator installs {heavy}:\n{listed}")
    with simulator(bin_folder / "ib-gateway-simulator", folder):
        print(f"  {wheel.name} alone: {len(listed.splitlines()) - 2} packages, it serves a port")

    clients = ("pytest", "pytest-asyncio", "ib_async", "ib_insync")
    run(UV, "pip", "install", "--quiet", "--python", bin_folder / "python", *clients,
        cwd=folder, env=env)  # fmt: skip
    suites = folder / "suites"
    shutil.copytree(ROOT / "examples/gateway_simulator", suites)
    (suites / "test_ibapi.py").unlink()  # IB distributes its client itself
    printed = run(bin_folder / "pytest", "-q", "-o", "asyncio_mode=auto", cwd=suites, env=env)
    print(f"  its pytest plugin: {printed.splitlines()[-1]}")


def with_locked_versions(folder: Path) -> tuple[str | Path, ...]:
    """Return the words for the locked versions, and for the simulator that was built."""
    locked = folder / "locked.txt"
    if not locked.exists():
        run(UV, "export", "--quiet", "--frozen", "--no-hashes", "--no-emit-workspace",
            "--all-extras", "--output-file", locked, cwd=ROOT, env=os.environ)  # fmt: skip
    return "--constraints", locked, "--find-links", folder / "simulator-dist"


def with_demo(wheel: Path) -> str:
    """Return what is asked for: the wheel with the extra `demo`."""
    return f"position-sync-dagster[demo] @ {wheel.as_uri()}"


def install(wheel: Path, python: str, folder: Path) -> Path:
    """Install the wheel and what a demo needs into an empty environment; return its bin."""
    return installed(python, folder, *with_locked_versions(folder.parent), with_demo(wheel))


def check_alone(wheel: Path, python: str, folder: Path) -> None:
    """Install the wheel without extras: its commands work, and what needs an extra names it."""
    folder.mkdir()
    bin_folder = installed(python, folder, *with_locked_versions(folder.parent), wheel)
    env = outside(folder)
    listed = run(UV, "pip", "list", "--python", bin_folder / "python", cwd=folder, env=env)
    strange = re.findall(r"^(ib-gateway-simulator|dagster-webserver)\b", listed, re.M)
    if strange:
        raise ReleaseError(f"without extras, it installs {strange}:\n{listed}")

    run(bin_folder / "position-sync", "positions", "--help", cwd=folder, env=env)
    for command, extra in (("demo", "demo"), ("dev", "webserver")):
        done = subprocess.run([bin_folder / "position-sync", command], cwd=folder, env=env,
                              text=True, capture_output=True, check=False)  # fmt: skip
        if f"position-sync-dagster[{extra}]" not in done.stderr:
            raise ReleaseError(f"{command} names no extra {extra}:\n{done.stderr}")
    print(f"  {len(listed.splitlines()) - 2} packages, {megabytes(folder):,.0f} MB")


def megabytes(folder: Path) -> float:
    """Return the size of what is installed in the environment of a folder."""
    files = (path for path in folder.glob("env/lib/**/*") if path.is_file())
    return sum(path.stat().st_size for path in files) / 1e6


def check_sdist(sdist: Path, programs: Path, folder: Path) -> None:
    """Install the sdist in the place of the wheel, and see that it is the same program."""
    env = outside(folder)
    run(UV, "pip", "install", "--quiet", "--reinstall", "--no-deps", "--python",
        programs / "python", sdist, cwd=folder, env=env)  # fmt: skip
    printed = run(programs / "position-sync", "--version", cwd=folder, env=env).strip()
    if printed != f"position-sync {VERSION}":
        raise ReleaseError(f"installed from the sdist, position-sync --version says {printed!r}")
    print("  the sdist builds and installs too")


def oldest_and_newest() -> list[str]:
    """Return the oldest and the newest Python of this machine that the bounds allow."""
    installed_pythons = [path for path in map(shutil.which, PYTHONS) if path is not None]
    working = list(filter(works, installed_pythons))
    return list(dict.fromkeys([*working[:1], *working[-1:]])) or [sys.executable]


def works(python: str) -> bool:
    """Return whether a Python starts: pyenv has launchers for versions that are not in use."""
    done = subprocess.run([python, "-c", ""], capture_output=True, check=False)
    return done.returncode == 0


def check_commands(programs: Path, folder: Path) -> None:
    """Run the commands that need no gateway, and see that nothing comes from a checkout."""
    env = outside(folder)
    empty = folder / "empty"
    empty.mkdir()
    printed = run(programs / "position-sync", "--version", cwd=empty, env=env).strip()
    if printed != f"position-sync {VERSION}":
        raise ReleaseError(f"position-sync --version says {printed!r}")
    code = "import position_sync_dagster as one, sys; print(sys.version.split()[0], one.__file__)"
    version, file = run(programs / "python", "-c", code, cwd=empty, env=env).split()
    if not file.startswith(str(folder)):
        raise ReleaseError(f"position_sync_dagster is imported from {file}")
    print(f"  Python {version}, {printed}, {megabytes(folder):,.0f} MB installed")


@contextmanager
def simulator(program: Path, folder: Path, *words: str) -> Iterator[dict[str, str]]:
    """Run the simulator; yield the environment of programs that use it."""
    env = outside(folder)
    process = subprocess.Popen(
        [program, *words, "--port", "0"],
        cwd=folder, env=env, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        ready = json.loads(process.stdout.readline())
        yield env | {"POSITION_SYNC_GATEWAY_PORT": str(ready["port"])}
    finally:
        process.terminate()
        process.wait(30)


def check_gateway(programs: Path, folder: Path) -> None:
    """Run `doctor` and the example of docs/library.md against the simulator."""
    (example,) = re.findall(
        r"```python\n(import asyncio.*?)```", (ROOT / "docs/library.md").read_text(), re.S
    )
    with simulator(programs / "position-sync", folder, "simulate") as env:
        answer = run(programs / "position-sync", "doctor", cwd=folder / "empty", env=env)
        if "server version" not in answer:
            raise ReleaseError(f"doctor did not reach the simulator:\n{answer}")

        print("  doctor: reached the simulator, nothing to correct")
        used = folder / "library"
        used.mkdir()
        (used / "example.py").write_text(example.replace("asyncio.sleep(60)", "asyncio.sleep(20)"))
        printed = run(programs / "python", "example.py", cwd=used, env=env)
        valued = re.search(r"total_success=(\d+)", printed)
        if valued is None or int(valued[1]) < 100:
            raise ReleaseError(f"the example of docs/library.md valued too little: {printed}")
        print(f"  docs/library.md: {valued[1]} positions valued in 20 s")


def check_demo(python: Path, folder: Path, wheel: Path, seconds: float) -> None:
    """Run the demo from the wheel alone, as `uvx` does; it fails unless its figures are met."""
    printed = run(
        UV, "tool", "run", "--quiet", "--python", python, *with_locked_versions(folder.parent),
        "--from", with_demo(wheel), "position-sync", "demo", "--for",
        f"{seconds:g}", cwd=folder / "empty", env=outside(folder), within_s=seconds + 600,
    )  # fmt: skip
    print("\n".join(f"  {line}" for line in printed.splitlines()[-12:]))
    if list((folder / "empty").iterdir()):
        raise ReleaseError("the demo wrote into the folder in which it was started")


def check_component(programs: Path, folder: Path, wheel: Path) -> None:
    """Make a Dagster project, add the component, and derive a table of the lake of the library."""
    lake = folder / "library/data/lake"
    home = folder / "dagster_home"
    home.mkdir()
    project = dagster_project(programs, folder, wheel)
    env = outside(folder) | {
        "DAGSTER_HOME": str(home),
        "VIRTUAL_ENV": str(folder / "env"),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }

    listed = run("dg", "list", "components", cwd=project, env=env)
    if "PositionSyncComponent" not in listed:
        raise ReleaseError(f"dg list components does not show the component:\n{listed}")
    run("dg", "scaffold", "defs", COMPONENT, "position_sync", cwd=project, env=env)
    (defs,) = project.glob("src/**/position_sync/defs.yaml")

    with simulator(programs / "position-sync", folder, "simulate") as reached:
        attributes = of_a_host(defs.read_text(), reached["POSITION_SYNC_GATEWAY_PORT"], lake)
        defs.write_text(attributes)
        run("dg", "check", "defs", cwd=project, env=env)
        check_catalog(run("dg", "list", "defs", "--json", cwd=project, env=env))
        run("dg", "launch", "--assets", 'key:"ibkr/latest_positions"', cwd=project, env=env)

    env["POSITION_SYNC_LAKE"] = str(lake)  # a command reads no attributes of the component
    rows = json.loads(run("position-sync", "positions", "--json", cwd=project, env=env))
    if len(rows) < 100 or not (lake / "latest_positions").is_dir():
        raise ReleaseError(f"the project derived nothing from {len(rows)} positions")
    print(
        f"  create-dagster, dg scaffold, dg launch: {len(rows)} positions in the catalog of a host"
    )


def dagster_project(programs: Path, folder: Path, wheel: Path) -> Path:
    """Make a project with `create-dagster`, and install it and the wheel; return its folder."""
    env = outside(folder)
    locked = folder.parent / "locked.txt"
    # A project names the very version of Dagster that made it.
    version = re.search(r"^dagster(==\S+)", locked.read_text(), re.M)[1]
    run(UV, "tool", "run", "--quiet", "--python", programs / "python", "--from",
        f"create-dagster{version}", "create-dagster", "project", "trading", "--no-uv-sync",
        cwd=folder, env=env)  # fmt: skip

    project = folder / "trading"
    run(UV, "pip", "install", "--quiet", "--python", programs / "python",
        *with_locked_versions(folder.parent), "dagster-dg-cli", "--editable", project, wheel,
        cwd=folder, env=env)  # fmt: skip
    return project


def of_a_host(scaffolded: str, port: str, lake: Path) -> str:
    """Return the attributes of a component with a lake, a prefix and owners of its project."""
    text = re.sub(r"gateway_port: \d+", f"gateway_port: {port}", scaffolded)
    text = text.replace("lake: data/lake", f"lake: {lake}")
    more = "automation: false\n  key_prefix: ibkr\n  owners: ['team:trading']"
    return text.replace("automation: true", more)


def check_catalog(listed: str) -> None:
    """Raise an error if the assets of a project lack its prefix or its owners."""
    catalog = json.loads(listed)
    owners = {asset["asset_key"]: asset["owners"] for asset in catalog["assets"]}
    if owners.get("ibkr/position_updates") != [{"team": "trading"}]:
        raise ReleaseError(f"the catalog lacks the prefix or the owners: {owners}")


class Steps:
    """The steps of a check: one that fails is named, and the others are done all the same."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def run(self, title: str, step: Callable[..., Path | None], *arguments: object) -> Path | None:
        """Run one step and return what it returns; None too if it fails."""
        print(title, flush=True)
        try:
            return step(*arguments)
        except (ReleaseError, subprocess.TimeoutExpired) as error:
            print(f"  failed: {error}", flush=True)
            self.failed.append(title)
            return None


def check_wheel(steps: Steps, wheel: Path, python: str, folder: Path) -> Path | None:
    """Install the wheel for a Python, run what needs no gateway; return its bin."""
    folder.mkdir()
    title = f"Installing the wheel and what a demo needs with {python}"
    programs = steps.run(title, install, wheel, python, folder)
    if programs is not None:
        steps.run("Running it outside of the checkout", check_commands, programs, folder)
    return programs


def check(
    steps: Steps, folder: Path, pythons: Sequence[str], *, quick: bool, seconds: float
) -> None:
    """Build and check the release.

    Args:
        folder: An empty folder, in which everything is made.
        pythons: The Pythons to install it for; the first one runs the demo and makes a project.
        quick: Whether demo, example and project are left out.
        seconds: How long the demo runs.
    """
    sources = checkout(folder)
    title = "Building sdist and wheel of the simulator"
    simulator_wheel = steps.run(title, build_simulator, folder / "simulator-dist", sources)
    if simulator_wheel is None:
        return

    title = "Building sdist and wheel"
    wheel = steps.run(title, build, folder / "dist", sources, simulator_wheel)
    if wheel is None:
        return
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    alone = folder / "simulator"
    steps.run("The simulator alone", check_simulator, simulator_wheel, sys.executable, alone)
    steps.run("The wheel without extras", check_alone, wheel, pythons[0], folder / "alone")

    for number, python in enumerate(pythons):
        home = folder / str(number)
        programs = check_wheel(steps, wheel, python, home)
        if programs is None or quick:
            continue

        steps.run("Using it with a gateway", check_gateway, programs, home)
        if number == 0:
            title = f"Running the demo for {seconds:g} s, by uvx"
            steps.run(title, check_demo, programs / "python", home, wheel, seconds)
            title = "Making a Dagster project with the component"
            steps.run(title, check_component, programs, home, wheel)
        steps.run("Installing the sdist", check_sdist, sdist, programs, home)


def main() -> int:
    """Check the release; return the exit code."""
    parser = argparse.ArgumentParser(prog="release-check", description=__doc__)
    parser.add_argument("--python", action="append", help="a Python to install it for, repeated")
    parser.add_argument("--for", dest="seconds", type=float, default=60.0, help="of the demo")
    parser.add_argument("--quick", action="store_true", help="without demo, example and project")
    args = parser.parse_args()

    steps = Steps()
    folder = Path(tempfile.mkdtemp(prefix="release-"))
    try:
        pythons = args.python or oldest_and_newest()
        check(steps, folder, pythons, quick=args.quick, seconds=args.seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    if steps.failed:
        print(f"release-check: failed: {'; '.join(steps.failed)}.", file=sys.stderr)
        return 1
    print(f"The release {VERSION} is as it should be.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
