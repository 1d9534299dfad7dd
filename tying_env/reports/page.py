"""What every page of ours is made with: one HTML file that opens offline, its figures inside, every text escaped."""

import base64
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from tying_env.files import written_whole
from tying_env.reports.drawing import as_png, as_svg
from tying_env.reports.gallery import Picture, failure
from tying_env.reports.out import check_out
from tying_env.reports.template import STYLE

# A larger drawing (thousands of decisions) goes in as pixels.
_MAX_SVG_BYTES = 100_000


def render(template: str, **values: Any) -> str:
    """Return a page made from a template of tying_env.reports.template; every text in it is escaped."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style = Markup(STYLE)  # our own text, in which > and quotes are to stay
    return environment.from_string(template.lstrip()).render(style=style, **values)


def write_page(text: str, path: Path, overwrite: bool = False) -> None:
    """Write a page.

    Raises:
        FileExistsError: the file exists and `overwrite` is off.
        OSError: it cannot be written.
    """
    check_out(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def for_page(picture: Picture) -> dict[str, str]:
    """Return a picture as the templates want it."""
    source, problem = "", picture.problem
    if picture.figure is not None:
        try:
            source = _as_source(picture.figure)
        except Exception as error:  # labels are laid out only now: one figure must not cost the page
            problem = failure(error)
    return {"name": picture.name, "caption": picture.caption, "problem": problem, "source": source}


def _as_source(figure: Figure) -> str:
    kind, content = "svg+xml", as_svg(figure)
    if len(content) > _MAX_SVG_BYTES:
        kind, content = "png", as_png(figure, dpi=130)
    # An image of its own, so that the names inside one drawing cannot meet those of another.
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
