"""One HTML page of a run: tables, figures, cohort, configuration, versions.

The page carries its style and its figures inside it, so it opens without a network and can be
sent as one file. It is handed aggregates only; nothing here reads samples.
"""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from cm2.figures import style

PACKAGES = ("cm2", "torch", "lightning", "scikit-learn", "pandas", "numpy", "scipy", "matplotlib")


class Table(NamedTuple):
    """A table under its caption; numbers stand as they should be read."""

    caption: str
    frame: pd.DataFrame
    strong: Sequence[str] = ()  # rows to emphasise, by their first cell


class Picture(NamedTuple):
    """A figure above its caption."""

    caption: str
    figure: Figure


class Section(NamedTuple):
    """A part of the page: paragraphs, then tables, then figures."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The versions of Python and of the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in packages:
        found[name] = importlib.metadata.version(name)
    return found


def pairs(facts: Mapping[str, Any], names: tuple[str, str] = ("", "")) -> pd.DataFrame:
    """A mapping as a table of two columns."""
    return pd.DataFrame({names[0]: list(facts), names[1] or " ": [str(v) for v in facts.values()]})


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.3f}"
    return str(value)


def _table(table: Table) -> dict[str, Any]:
    rows = [[_cell(value) for value in row] for row in table.frame.itertuples(index=False)]
    columns = [str(name) for name in table.frame.columns]
    return {
        "caption": table.caption,
        "columns": columns,
        "text": [any(row[k][:1].isalpha() for row in rows) for k in range(len(columns))],
        "rows": rows,
        "strong": set(table.strong),
    }


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Renders a page.

    Args:
        title: Its heading.
        lead: One sentence that says what was done on what.
        sections: Its parts in order.

    Returns:
        A self-contained HTML document; all text is escaped.
    """
    template = resources.files("cm2").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    parts = [
        {
            "title": section.title,
            "text": section.text,
            "tables": [_table(table) for table in section.tables],
            "figures": [
                {"caption": picture.caption, "source": style.embed(picture.figure)}
                for picture in section.pictures
            ],
        }
        for section in sections
    ]
    footer = f"cm2 {importlib.metadata.version('cm2')}. Aggregates only, no single patients."
    return environment.from_string(template).render(
        title=title, lead=lead, sections=parts, footer=footer
    )


def write(path: Path, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Renders a page into a file and returns its path."""
    path.write_text(render(title, lead, sections), encoding="utf-8")
    return path
