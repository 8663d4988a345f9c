"""A hook of mkdocs: pages of the site that lie outside of docs/, beside what they are about."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: Files that a page links to, as they are.
EXAMPLES = sorted((ROOT / "examples" / "cluster").iterdir())
#: File of the repository -> file of the site.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "pulse_sr/priors/bundled/README.md": "cards/faces-128.md",
    "pulse_sr/priors/bundled/faces-128.png": "cards/faces-128.png",
    "pulse_sr/sr/bundled/README.md": "cards/networks.md",
    **{str(file.relative_to(ROOT)): str(file.relative_to(ROOT)) for file in EXAMPLES},
}


def on_files(files: Files, config: Any) -> Files:
    """Adds the files of `PAGES`."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turns links between files of the repository into links between pages of the site."""
    for source, page in PAGES.items():
        link = rf"\]\((\.\./)?{re.escape(source)}(#[\w-]+)?\)"
        markdown = re.sub(link, rf"]({page}\2)", markdown)
    return markdown.replace("](docs/", "](").replace("](../../../docs/", "](../")
