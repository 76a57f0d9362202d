"""What our HTML pages share: one style, escaping of all texts, cells and names as they fit a phone."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from pipelines.evaluation.metric_table import format_value

_FOLDER = Path(__file__).parent


def page_template(name: str, folder: Path = _FOLDER) -> Template:
    """Return a template that may extend `page.html.j2`; texts that it prints are escaped.

    Args:
        name: of the template's file.
        folder: where it stands.
    """
    loader = FileSystemLoader([folder, _FOLDER])
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=loader, keep_trailing_newline=True
    )
    environment.filters["cell"] = format_value
    environment.filters["breakable"] = breakable
    return environment.get_template(name)


def breakable(name: str) -> Markup:
    """Return an escaped metric name that may break after / and _, so that a table fits a phone."""
    return escape(name).replace("/", Markup("/<wbr>")).replace("_", Markup("_<wbr>"))
