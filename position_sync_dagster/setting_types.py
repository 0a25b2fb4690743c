"""The types of settings: their bounds, and how a text becomes a value.

Every number is finite and bounded: 1e308 seconds would end in no error but an overflow.
"""

import json
import os
import re
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

DAY_S = 86_400
LONGEST_PATH = 1024
LONGEST_NAME = 255
"""Bytes of a path, and of each name in it. Linux takes 4096 and 255, macOS 1024 and 255."""

AnyPath = TypeVar("AnyPath", str, Path)


def _checked_path(value: AnyPath) -> AnyPath:
    text = os.fspath(value)
    if "\0" in text:
        raise ValueError("a path has no NUL character")
    if len(os.fsencode(text)) > LONGEST_PATH:
        raise ValueError(f"a path has at most {LONGEST_PATH} bytes")
    if any(len(os.fsencode(name)) > LONGEST_NAME for name in text.split("/")):
        raise ValueError(f"each name in a path has at most {LONGEST_NAME} bytes")
    return value


def lake_path_error(path: str) -> str | None:
    """Return why Delta Lake cannot keep a table at a path; None where it can.

    delta-rs makes a URL of the path: some characters end in a panic there, and others name another
    folder than the one that was meant. Found by trying each (1.6.6).

    >>> lake_path_error("data/a[1]")
    "it contains '['"
    >>> lake_path_error("data/my lake #2")
    """
    found = _NOT_IN_LAKES.search(path)
    return None if found is None else f"it contains {found[0]!r}"


_NOT_IN_LAKES = re.compile(r"[\[\]^|\\\x00-\x1f\x7f\ud800-\udfff]|%[0-9A-Fa-f]{2}")


def _checked_lake(value: str) -> str:
    # A relative path has the characters of the working directory as well.
    wrong = lake_path_error(value if "://" in value else os.path.abspath(_checked_path(value)))
    if wrong is not None:
        raise ValueError(f"{wrong}, with which no table works: choose another folder")
    return _checked_path(value)


def address_flaw(url: str) -> str | None:
    """Return why a token cannot be sent to an address; None where it can. The address is not shown.

    >>> address_flaw("https://broker.example/flex")
    >>> address_flaw("https://ann:secret@broker.example/flex")
    'holds a user name or a password, which would be shown'
    >>> address_flaw("http://broker.example/flex")
    'would send the token in the clear'
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "is no address"
    if "@" in parts.netloc:
        return "holds a user name or a password, which would be shown"
    local = parts.scheme == "http" and host in ("127.0.0.1", "localhost", "::1")
    return (
        None
        if local or (parts.scheme == "https" and host)
        else ("would send the token in the clear")
    )


def _checked_address(value: str) -> str:
    flaw = address_flaw(value)
    if flaw is not None:
        raise ValueError(f"it {flaw}")
    return value


def _split_urls(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else value


def _split_severities(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = tuple(part.strip().upper() for part in value.split(",") if part.strip())
    if not names or not {"WARN", "ERROR"}.issuperset(names):
        raise ValueError("write WARN,ERROR or one of them")
    return names


def _split_types(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if len(text) > LONGEST_NAME:
        raise ValueError(f"it has more than {LONGEST_NAME} characters")
    if text.startswith("["):
        return json.loads(text)
    types = tuple(part.strip() for part in text.split(",") if part.strip())
    if not types:
        raise ValueError("name at least one type, such as OPT,FOP")
    return types


def _checked_day(value: str | None) -> str | None:
    if value is None or not value.strip():
        return None
    with suppress(ValueError):
        day = date.fromisoformat(value.strip())
        if 1990 <= day.year < 2100:  # a trading day that an exchange calendar knows
            return day.isoformat()
    raise ValueError("write a day such as 2026-01-02")


Seconds = Annotated[float, Field(gt=0, le=DAY_S)]
FilePath = Annotated[Path, AfterValidator(_checked_path)]
LakePath = Annotated[str, AfterValidator(_checked_lake)]
Day = Annotated[str | None, AfterValidator(_checked_day)]
Address = Annotated[str, AfterValidator(_checked_address)]
SecTypes = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_types)]
SecretUrls = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_urls)]
Severities = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_severities)]
