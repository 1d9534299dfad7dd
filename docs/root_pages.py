"""MkDocs hook: adds the files at the root of the repository to the site, README.md as its first page.

The links in them are seen from the root; on the site they lead to the same pages.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
FILES = ("LICENSE", "CITATION.cff")


def on_files(files: Any, config: Any) -> Any:
    """Add pages and files to the site."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=as_page((ROOT / source).read_text(encoding="utf-8"))))
    for name in FILES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def as_page(text: str) -> str:
    """Return a page of the root with its links as they are seen from docs/."""
    return re.sub(r"\]\(([^)#\s]+)", lambda link: f"]({_seen_from_docs(link[1])}", text)


def _seen_from_docs(target: str) -> str:
    return PAGES.get(target, target.removeprefix("docs/"))
