"""The documentation holds together: every page is in the menu, every link and picture leads somewhere."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tying_agents.commands import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Pages at the root of the repository that docs/root_pages.py puts on the site.
ROOT_PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
PAGES = [*(ROOT / name for name in ROOT_PAGES.values()), *sorted(DOCS.rglob("*.md"))]

SITE: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def in_the_menu(entry: Any = SITE["nav"]) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in in_the_menu(part)]


def without_code(page: Path) -> str:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", text)


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", without_code(page))
    return [link for link in found if not re.match(r"https?:", link)]


def anchor(heading: str) -> str:
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[\s]+", "-", plain)


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)} | {
        name for name in re.findall(r"^::: (\S+)", text, re.MULTILINE)
    }


def test_every_page_is_in_the_menu_once_and_nothing_else_is() -> None:
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} | set(ROOT_PAGES)
    menu = in_the_menu()
    assert sorted(menu) == sorted(set(menu))
    assert set(menu) == there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for link in links(page):
        where, _, place = link.partition("#")
        target = (page.parent / where).resolve() if where else page
        assert target.is_file(), f"{link}: there is no {target}"
        assert target.is_relative_to(ROOT), link
        if place:
            assert place in anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_say_what_they_show(page: Path) -> None:
    assert "![](" not in without_code(page)


def test_every_picture_is_on_a_page() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    assert {path for path in DOCS.rglob("*.png") if path not in shown} == set()


def test_the_api_pages_name_what_is_there() -> None:
    import importlib

    named = [name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)]
    assert len(named) > 40
    for name in named:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name


def test_links_of_the_root_pages_lead_to_the_same_pages_on_the_site() -> None:
    names: dict[str, Any] = {"__file__": str(DOCS / "root_pages.py")}
    exec((DOCS / "root_pages.py").read_text(encoding="utf-8"), names)
    assert names["PAGES"] == {source: page for page, source in ROOT_PAGES.items()}
    seen = names["as_page"](
        "[a](docs/doors/index.md) [b](CHANGELOG.md#x) ![c](docs/growth.png) [d](https://x.org/docs/)"
    )
    assert seen == "[a](doors/index.md) [b](changelog.md#x) ![c](growth.png) [d](https://x.org/docs/)"


def test_commands_on_the_pages_are_those_that_there_are() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"^\s*layer-tying ([a-z]+)", text, re.MULTILINE)) <= set(COMMANDS), page
        scripts = re.findall(r"\bscripts/(\w+\.py)", text)
        assert [name for name in scripts if not (ROOT / "scripts" / name).is_file()] == [], page


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert SITE["theme"]["font"] is False
    assert "analytics" not in SITE.get("extra", {})
    scripts = [*SITE.get("extra_javascript", []), *SITE.get("extra_css", []), *SITE["extra"]["polyfills"]]
    assert [script for script in scripts if "//" in script or not (DOCS / script).is_file()] == []


def test_how_the_site_is_built_is_documented() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^docs:.*\n.*mkdocs build --strict", makefile, re.MULTILINE)
    assert "/site/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "make docs" in (ROOT / page).read_text(encoding="utf-8")
