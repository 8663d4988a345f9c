"""The texts of pages and cards as jinja2 templates."""

from __future__ import annotations

import jinja2


def template_environment(autoescape: bool) -> jinja2.Environment:
    """Where the templates of this folder are found; lines with a tag alone leave no line.

    Args:
        autoescape: for HTML: what comes from outside can not become a tag.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader("pulse_sr.report"),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def card_environment() -> jinja2.Environment:
    """The same for Markdown, with the filter `cell`: text on one line of a table."""
    environment = template_environment(autoescape=False)
    environment.filters["cell"] = lambda text: " ".join(text.split()).replace("|", "\\|")
    return environment
