"""README and addresses of the package, as an index shows them.

Where the environment has `REPOSITORY_URL`, links of the README to files become absolute, and the
addresses of the project are those of the repository. Without it both stay as they are.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

INDEX = "https://pypi.org/project/position-sync-dagster/"

# A link or a picture: what stands before its target, the target, and what stands behind.
LINK = re.compile(r"(!?)(\[[^\]]*\]\()(?!https?:|mailto:|#)([^)\s]+)(\))")


def with_absolute_links(text: str, repository: str | None) -> str:
    """Return a README whose links to files lead to the repository, if there is one.

    >>> with_absolute_links("[a](docs/a.md) ![b](b.png)", "https://example.org/x")
    '[a](https://example.org/x/blob/main/docs/a.md) ![b](https://example.org/x/raw/main/b.png)'
    """
    if not repository:
        return text

    def absolute(link: re.Match[str]) -> str:
        picture, before, target, after = link.groups()
        kind = "raw" if picture else "blob"
        return f"{picture}{before}{repository.rstrip('/')}/{kind}/main/{target}{after}"

    return LINK.sub(absolute, text)


def addresses(repository: str | None) -> dict[str, str]:
    """Return the addresses of the project."""
    if not repository:
        return {"Homepage": INDEX, "Changelog": f"{INDEX}#history"}
    place = repository.rstrip("/")
    return {
        "Homepage": place,
        "Changelog": f"{place}/blob/main/CHANGELOG.md",
        "Issues": f"{place}/issues",
    }


class ReadmeAndAddresses(MetadataHookInterface):
    """Fills `readme` and `urls` of the project."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill them."""
        repository = os.environ.get("REPOSITORY_URL")
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = with_absolute_links(text, repository)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = addresses(repository)
