"""The site of the documents: pages that are made of other files, and links that lead somewhere.

A hook of MkDocs (`mkdocs.yml`). README and the other documents of the root become pages, beside
the commands, settings, errors, the API of `/api/v1` and the public names. A link to a file that is
no page leads to the repository that `REPOSITORY_URL` names; without it the text of the link stays.
A link to what is not there stays a link: MkDocs warns of it, and a strict build fails.

MkDocs reads the Markdown that a repository shows; Sphinx would need another markup, or a parser.
"""

import inspect
import json
import os
import posixpath
import re
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import position_sync_dagster
from docs.command_pages import commands_page
from docs.recorded_files import ANSWERS, recorded_pages
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.web.api import openapi

ROOT = Path(__file__).parents[1]

# The documents of the checkout that are pages besides those of docs/, by their place on the site.
PAGES = {
    "index.md": "README.md",
    "simulator.md": "ib_gateway_simulator/README.md",
    "security.md": "SECURITY.md",
    "contributing.md": "CONTRIBUTING.md",
    "conduct.md": "CODE_OF_CONDUCT.md",
    "changelog.md": "CHANGELOG.md",
    "simulator_changelog.md": "ib_gateway_simulator/CHANGELOG.md",
    "settings.md": ".env.example",
}

# Files that pages link to, each shown as a page of its own.
SHOWN = ("examples/**/*.py", "examples/**/*.yaml", "examples/**/*.sh", "examples/**/*.sql",
         "examples/**/README.md", "deploy/**/*.yaml")  # fmt: skip

LINK = re.compile(r"(!?\[)([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of something else."""
    made: dict[str, str | bytes] = {
        place: (ROOT / name).read_text(encoding="utf-8") for place, name in PAGES.items()
    }
    made |= {
        "settings.md": settings_page((ROOT / ".env.example").read_text(encoding="utf-8")),
        "commands.md": commands_page(),
        "errors.md": errors_page(),
        "api.md": api_page(openapi()),
        "openapi.json": json.dumps(openapi(), indent=1),
        "reference.md": reference_page(),
    }
    made |= {f"recorded-day/{place}": content for place, content in recorded_pages()}
    made |= {page_of(name): shown_file(name) for name in shown_files()}
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page whose links lead to pages, or to files of the repository."""
    place = page.file.src_uri
    if place == "start/recorded-day.md" and not ANSWERS.exists():
        markdown = (
            f"# {page.title}\n\nThis build has no recorded day: `make recorded-day` makes one."
        )
    source = PAGES.get(place, f"docs/{place}")
    for name in shown_files():
        source = name if page_of(name) == place else source
    return with_links(markdown, place, source, os.environ.get("REPOSITORY_URL"))


def with_links(markdown: str, place: str, source: str, repository: str | None) -> str:
    """Return the text of a page with links as they are on the site.

    Args:
        markdown: The text as in the checkout.
        place: Its place on the site.
        source: Its place in the checkout.
        repository: The address of the repository, if there is one.
    """
    place_of = {name: page for page, name in PAGES.items()}
    place_of |= {name: page_of(name) for name in shown_files()}

    def linked(link: re.Match[str]) -> str:
        opening, text, target, anchor = link.groups()
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        on_site = place_of.get(file) or (file.removeprefix("docs/") if is_page(file) else None)
        if on_site is not None:
            relative = posixpath.relpath(on_site, posixpath.dirname(place) or ".")
            return f"{opening}{text}]({relative}{anchor or ''})"
        if not (ROOT / file).exists():
            return link[0]
        if repository:
            return f"{opening}{text}]({repository.rstrip('/')}/blob/main/{file})"
        return text

    return LINK.sub(linked, markdown)


@cache
def shown_files() -> tuple[str, ...]:
    """Return the files that are shown as they are, by their places in the checkout."""
    found = (path for pattern in SHOWN for path in ROOT.glob(pattern) if path.is_file())
    return tuple(sorted(path.relative_to(ROOT).as_posix() for path in found))


def page_of(file: str) -> str:
    """Return the place of a shown file on the site."""
    return f"files/{file}" if file.endswith(".md") else f"files/{file}.md"


def shown_file(file: str) -> str:
    """Return the page of a file: its text as it is, or, of Markdown, the page that it is."""
    text = (ROOT / file).read_text(encoding="utf-8")
    kind = file.rpartition(".")[2]
    return text if kind == "md" else f"# {file}\n\n````{kind}\n{text.rstrip()}\n````\n"


def is_page(file: str) -> bool:
    """Return whether a file of the checkout is on the site."""
    return file.startswith("docs/") and not file.endswith(".py") and (ROOT / file).is_file()


def settings_page(example: str) -> str:
    r"""Return the settings of an `.env` file: its headings, what it says of each, and the default.

    >>> print(settings_page("# Money ---\n\n# How much.\n#LIMIT=5"))
    # Settings
    <BLANKLINE>
    ## Money
    <BLANKLINE>
    How much.
    <BLANKLINE>
    ```sh
    LIMIT=5
    ```
    """
    parts = ["# Settings"]
    for block in example.split("\n\n"):
        lines = block.splitlines()
        if heading := re.fullmatch(r"# (.+?) -+", lines[0]):
            parts.append(f"## {heading[1]}")
            continue

        text = " ".join(line[2:] for line in lines if line.startswith("# "))
        parts.append(re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](docs/\1)", text))
        values = [line.removeprefix("#") for line in lines if not line.startswith("# ")]
        parts += ["\n".join(["```sh", *values, "```"])] if values else []
    return "\n\n".join(filter(None, parts))


def errors_page() -> str:
    """Return each error with what it means, what to do, and the page that says more."""
    parts = [
        "# Errors",
        "An error says what happened, to what, and what to do. A command ends with 1 then, or "
        "with 2 where you can correct what you gave it.",
    ]
    for name in vars(position_sync_dagster)["__all__"]:
        getattr(position_sync_dagster, name)  # imports the module of each public error
    for error in sorted(errors_below(PositionSyncError), key=lambda each: each.__name__):
        paragraphs = (inspect.getdoc(error) or "").split("\n\n")
        means = "\n\n".join(takewhile(lambda each: not each.startswith(">>>"), paragraphs))
        link = posixpath.relpath(error.page, "docs") if error.page else ""
        more = f" More: [{error.page}]({link})." if link else ""
        parts += [f"## {error.__name__}", means, f"Exit code {error.exit_code}.{more}"]
    return "\n\n".join(parts)


def errors_below(root: type[PositionSyncError]) -> set[type[PositionSyncError]]:
    """Return the public classes of errors below one."""
    below = {error for each in root.__subclasses__() for error in errors_below(each)}
    return below | {each for each in root.__subclasses__() if not each.__name__.startswith("_")}


def reference_page() -> str:
    """Return the public names of the package, for mkdocstrings."""
    homes = vars(position_sync_dagster)["_HOMES"].items()
    names = [
        f"{position_sync_dagster.__name__}.{home}.{each}" for home, them in homes for each in them
    ]
    return "\n\n".join(["# Reference", *(f"::: {name}" for name in sorted(names))])


def api_page(description: dict[str, Any]) -> str:
    """Return the routes of the API, their parameters, and the fields of their answers."""
    schemas = description["components"]["schemas"]
    parts = ["# API", "Of the [description](openapi.json) (OpenAPI 3.1)."]
    for path, methods in description["paths"].items():
        operation = methods["get"]
        parts += [f"## {path}", f"{operation['summary']}."]
        parameters = {each["name"]: each | each["schema"] for each in operation["parameters"]}
        parts += _table("parameter", parameters)
        answer = json.dumps(operation["responses"]["200"]["content"])
        parts += [f"Answers {_linked(name)}." for name in re.findall(r"schemas/(\w+)", answer)]

    for name, schema in schemas.items():
        parts += [f"## {name}", schema.get("description", "")]
        parts += _table("field", schema.get("properties", {}))
        values = ", ".join(f"`{value}`" for value in schema.get("enum", ()))
        parts += [f"One of {values}."] if values else []
    return "\n\n".join(filter(None, parts))


def _table(what: str, of_names: dict[str, Any]) -> list[str]:
    """Return a table of parameters or fields, with their types; nothing for none."""
    rows = [
        f"| `{name}` | {type_of(schema)} | {schema.get('description', '').replace('|', '&#124;')} |"
        for name, schema in of_names.items()
    ]
    return ["\n".join([f"| {what} | type | |", "|---|---|---|", *rows])] if rows else []


def type_of(schema: dict[str, Any]) -> str:
    """Return the type of a JSON schema in words; null is unknown.

    >>> type_of({"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "null"}]})
    'list of number, or null'
    """
    if reference := schema.get("$ref"):
        return _linked(reference.rpartition("/")[2])

    if several := schema.get("anyOf"):
        return ", or ".join(map(type_of, several))

    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or schema.get("const") or "any")


def _linked(name: str) -> str:
    return f"[{name}](#{name.lower()})"
