"""No file of the repository holds a key, a token or the account of a person."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A text of all files is searched ten times as fast for what begins with a letter.
SECRETS = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "a key of AWS": re.compile(r"A(?:KI|SI)A[0-9A-Z]{16}\b"),
    "a token of GitHub": re.compile(r"g(?:h[oprsu]_[0-9A-Za-z]{36}|ithub_pat_\w{30})"),
    "a token of an index": re.compile(r"pypi-[\w-]{40}"),
    "a token of Slack": re.compile(r"xox[abprs]-[\w-]{20}"),
    "a token of Flex": re.compile(r"(?i)token\W{1,5}\d{18,}\b"),
    "an account": re.compile(r"\b(?:D?[FIU])\d{6,9}\b"),
}

# What the tests and the examples invented.
INVENTED_TEXT = """
    AKIAOFTHETESTS000000
    DF1234567 DU1000001 DU1000002 DU1120207 DU1234567 DU9000001 F1234567 I1234567 U1122334
    U123456 U1234567 U1234568 U7654321 U7777777 U9988776
"""
INVENTED = set(INVENTED_TEXT.split())


def secrets_in(files: Iterable[Path]) -> Iterator[str]:
    """Yield each secret by its file and line; it does not show it."""
    for path in files:
        text = path.read_text(errors="replace")
        looked_for = {kind: pattern for kind, pattern in SECRETS.items() if pattern.search(text)}
        lines = text.splitlines() if looked_for else []
        for number, line in enumerate(lines, start=1):
            for kind, pattern in looked_for.items():
                if {*pattern.findall(line)} - INVENTED:
                    yield f"{path.name}:{number}: {kind}"


def test_no_tracked_file_has_a_secret():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    tracked = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert [*secrets_in(path for path in tracked if path.is_file())] == []


# One of each kind, in two parts: none of them is in this file.
PLANTED = {
    "a private key": ("-----BEGIN RSA", " PRIVATE KEY-----"),
    "a key of AWS": ("AKIA", "Z7Q4M2X9K1B8N5C3"),
    "a token of GitHub": ("ghp_", "a1B2" * 9),
    "a token of an index": ("pypi-", "AgEIcHlwaS5vcmc" * 3),
    "a token of Slack": ("xoxb-", "2468013579-abcdefghij"),
    "a token of Flex": ('FLEX_TOKEN="', '246801357924680135"'),
    "an account": ("U", "2468013"),
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_of_each_kind_is_found_by_its_line(kind, tmp_path):
    file = tmp_path / "settings.env"
    file.write_text(f"# of a person\n{''.join(PLANTED[kind])}\n")
    assert [*secrets_in([file])] == [f"settings.env:2: {kind}"]
