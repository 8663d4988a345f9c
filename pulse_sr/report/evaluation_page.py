"""The page of an evaluation: its tables and plots in one file that opens without a network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from pulse_sr.report.templates import template_environment


def evaluation_page(document: Mapping[str, Any], plots: Mapping[str, bytes]) -> str:
    """Returns the page as HTML; what came from outside, such as names of files, is escaped.

    Args:
        document: what `metrics.json` holds.
        plots: PNGs by their file names.
    """
    pictures = {name: base64.b64encode(data).decode("ascii") for name, data in plots.items()}
    template = template_environment(autoescape=True).get_template("evaluation.html")
    return template.render(document=document, plots=pictures)
