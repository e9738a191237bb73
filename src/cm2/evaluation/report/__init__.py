"""One HTML page of a run: tables, figures, cohort, configuration, versions.

The page carries its style and its figures inside it, so it opens without a network and can be
sent as one file. It is handed aggregates only; nothing here reads samples.
"""

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from matplotlib.figure import Figure
from rich import box
from rich.markup import escape
from rich.table import Table as RichTable

from cm2.core.files import slug, write_text
from cm2.core.versions import versions as versions
from cm2.evaluation import bootstrap
from cm2.evaluation.figures import style

NARROWEST = 12
"""Characters that the first column of a table keeps on a narrow terminal."""


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


def pairs(facts: Mapping[str, Any], names: tuple[str, str] = ("", "")) -> pd.DataFrame:
    """A mapping as a table of two columns."""
    return pd.DataFrame({names[0]: list(facts), names[1] or " ": [str(v) for v in facts.values()]})


def noted(rows: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """What the rows of a table of results note on their intervals, once for all metrics alike.

    Args:
        rows: With ``notes``, several with a semicolon between.
        metric: The key of the metric's name.

    Example:
        >>> noted([{"m": "AUROC", "notes": "few"}, {"m": "AUPR", "notes": "few"}], "m")
        ['AUROC, AUPR: few']
    """
    return bootstrap.told((row[metric], row["notes"].split("; ")) for row in rows)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.3f}"
    return str(value)


def _table(table: Table) -> dict[str, Any]:
    frame = shown(table)
    rows = frame.to_numpy(dtype=object).tolist()
    return {
        "caption": table.caption,
        "columns": list(frame.columns),
        "text": [any(row[k][:1].isalpha() for row in rows) for k in range(len(frame.columns))],
        "rows": rows,
        "strong": set(table.strong),
    }


def shown(table: Table) -> pd.DataFrame:
    """The cells of a table as they are read, all of them text."""
    columns = [str(name) for name in table.frame.columns]
    rows = [[_cell(value) for value in row] for row in table.frame.itertuples(index=False)]
    return pd.DataFrame(rows, columns=columns, dtype=str)


def latex(table: Table) -> str:
    """A table for LaTeX with the package booktabs; all text is escaped."""
    frame = shown(table)
    lines = [
        r"\begin{tabular}{" + "l" + "r" * (len(frame.columns) - 1) + "}",
        r"\toprule",
        " & ".join(map(_escaped, frame.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_escaped, row)) + r" \\" for row in frame.itertuples(index=False)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return f"% {table.caption}\n" + "\n".join(lines) + "\n"


def write_tables(folder: Path, tables: Sequence[Table]) -> list[Path]:
    """Writes each table as CSV and LaTeX, with its number and caption as the name.

    Args:
        folder: Where; made if it is absent. Tables that were written to it before go.
        tables: With captions.

    Returns:
        The paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.iterdir():  # those of another call would stand among these
        if re.fullmatch(r"\d{2,3}-[a-z0-9-]*\.(csv|tex)", earlier.name):
            earlier.unlink()
    paths = []
    for number, table in enumerate(tables, start=1):
        stem = folder / f"{number:02d}-{slug(table.caption)[:60].rstrip('-')}"
        write_text(stem.with_suffix(".csv"), shown(table).to_csv(index=False))
        write_text(stem.with_suffix(".tex"), latex(table))
        paths += [stem.with_suffix(".csv"), stem.with_suffix(".tex")]
    return paths


def rich_table(table: Table) -> RichTable:
    """A table for the terminal, with intervals in brackets on a line of their own."""
    drawn = RichTable(
        title=table.caption, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    frame = shown(table)
    for k, column in enumerate(frame.columns):
        drawn.add_column(
            column,
            justify="right" if k else "left",
            no_wrap=k > 0,
            min_width=None if k else NARROWEST,
        )
    for row in frame.itertuples(index=False):
        cells = [str(cell).replace(" [", "\n[") for cell in row]
        drawn.add_row(*map(escape, cells), style="bold" if row[0] in table.strong else "")
    return drawn


SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}


def _escaped(text: str) -> str:
    """Text as LaTeX sets it."""
    return "".join(SPECIAL.get(sign, sign) for sign in text)


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Renders a page.

    Args:
        title: Its heading.
        lead: One sentence that says what was done on what.
        sections: Its parts in order.

    Returns:
        A self-contained HTML document; all text is escaped.
    """
    template = (
        resources.files("cm2.evaluation.report")
        .joinpath("report.html.j2")
        .read_text(encoding="utf-8")
    )
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
    write_text(path, render(title, lead, sections))
    return path
