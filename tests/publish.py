"""Make a release: `make release VERSION=0.2.0`. docs/release.md says what a person does around it.

It writes the version where it stands, heads the changelog with it, checks what people would
install (`tests.release`), commits, tags, and leaves sdist and wheel in dist/. It uploads nothing.
"""

import re
import subprocess
import sys
from datetime import UTC, date, datetime

from tests import release

ROOT = release.ROOT
UNRELEASED = "## [Unreleased]\n"
IMAGE = re.compile(r"(/position-sync-dagster:)\S+")
IMAGE_TAG = re.compile(r'^( +tag: )".+"$', re.MULTILINE)


def run(*command: str) -> str:
    """Run a command in the checkout, and return what it prints."""
    done = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)
    return done.stdout.strip()


def with_version(project: str, version: str) -> str:
    """Return the text of pyproject.toml with a version; refuse one that is not greater."""
    before = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    if before is None or not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise release.ReleaseError(f"{version!r} is no version such as 0.2.0.")
    if parts(version) <= parts(before[1]):
        raise release.ReleaseError(f"{version} is not greater than {before[1]}.")
    return project.replace(before[0], f'version = "{version}"', 1)


def parts(version: str) -> tuple[int, ...]:
    """Return the numbers of a version."""
    return tuple(map(int, version.split(".")))


def with_heading(changelog: str, version: str, today: date) -> str:
    """Return the changelog with what is unreleased under the heading of a version."""
    _before, found, after = changelog.partition(UNRELEASED)
    if not found or not after.partition("\n## [")[0].strip():
        raise release.ReleaseError("CHANGELOG.md has nothing under [Unreleased].")
    heading = f"{UNRELEASED}\n## [{version}] – {today:%Y-%m-%d}\n"
    return changelog.replace(UNRELEASED, heading, 1)


def write_version(version: str, today: date) -> list[str]:
    """Write the version into each file that names it; return the names of these files."""
    manifest = "deploy/kubernetes/position-sync.yaml"
    files = {
        "pyproject.toml": with_version((ROOT / "pyproject.toml").read_text(), version),
        "CHANGELOG.md": with_heading((ROOT / "CHANGELOG.md").read_text(), version, today),
        "deploy/helm/values.yaml": IMAGE_TAG.sub(
            rf'\1"{version}"', (ROOT / "deploy/helm/values.yaml").read_text()
        ),
        manifest: IMAGE.sub(rf"\g<1>{version}", (ROOT / manifest).read_text()),
    }
    for name, text in files.items():
        (ROOT / name).write_text(text)
    run(str(release.UV), "lock", "--quiet")
    return [*files, "uv.lock"]


def main() -> int:
    """Make the release that the first argument names; return the exit code."""
    version = ""
    if len(sys.argv) > 1:
        version = sys.argv[1]

    try:
        if run("git", "status", "--porcelain"):
            raise release.ReleaseError("The work tree has changes. Commit them first.")
        files = write_version(version, datetime.now(UTC).date())
    except release.ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1

    # In a process of its own, which reads the new version.
    checked = subprocess.run([sys.executable, "-m", "tests.release"], cwd=ROOT, check=False)
    if checked.returncode:
        run("git", "checkout", "--", *files)
        print("release: nothing was changed.", file=sys.stderr)
        return checked.returncode

    run("git", "commit", "--quiet", "--message", f"chore: release {version}", "--", *files)
    run("git", "tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    release.built(ROOT / "dist" / version)
    print(
        f"Tagged v{version}; sdist and wheel are in dist/{version}. docs/release.md says what next."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
