"""One self-contained HTML page: text, tables, and pictures inside it; nothing is loaded from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from recflow.atomic import write_text


@dataclass(frozen=True)
class Picture:
    """A PNG file with a line that says what it shows."""

    path: Path
    caption: str

    @property
    def data(self) -> str:
        """The file as a ``data:`` address."""
        return "data:image/png;base64," + base64.b64encode(self.path.read_bytes()).decode()


@dataclass(frozen=True)
class Table:
    """A table: the first column holds names, the others are numbers."""

    title: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]


def write_page(
    path: Path,
    *,
    title: str,
    lead: Sequence[str],
    small: Sequence[str],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: Where to.
        title: Heading.
        lead: What it says, one line each.
        small: What every number must be read with, one line each.
        tables: The first stands above the pictures, the others below.
        pictures: Their files must be there.
    """
    environment = Environment(
        loader=PackageLoader("recflow.evaluation", "web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=title, lead=lead, small=small, tables=tables, pictures=pictures
    )
    write_text(path, page)
