"""Brings what ``cm2 benchmark`` measured into the docs: tables, reliability, README's picture.

    cm2 benchmark --suite tables --out runs/tables
    python benchmarks/results.py runs/tables --name tables --face

Writes ``docs/results/NAME.csv`` of the suite NAME, which pages of the docs read. A long suite can
be run in pieces: data sets and rivals that the run lacks stay in the file as they are. With
``--face``, from a run on PhysioNet's set b, also ``reliability.csv`` and ``physionet2012.png``, and
README's table is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import pandas as pd

from cm2.benchmark import pieces
from cm2.benchmark.methods import POOLED
from cm2.benchmark.results import LEVEL, verdicts
from cm2.benchmark.suites import SUITES, Suite
from cm2.evaluation import summary
from cm2.evaluation.figures import comparison, style

DOCS = Path(__file__).parents[1] / "docs" / "results"
LEFT_OUT = ["sd", "p_runs", "notes"]
"""Columns that no page shows."""

COMPARISON = [name for name in summary.COMPARISON if name not in LEFT_OUT]
"""Columns that pages show of CM2 alone, and that would be the half of a file."""

FACE = "physionet2012-ab"
SHOWN = {
    "CM², pooled heads": "**CM2, the default**",
    "boosting + dropout": "boosting, trained with modalities removed",
    "LR + dropout": "logistic regression, the same",
    "imputed LR": "logistic regression, chained imputation",
    "late fusion, forests": "late fusion of forests",
    "concat. boosting": "boosting, gaps as they are",
}


def face(table: pd.DataFrame) -> str:
    """Draws README's picture, and returns its table."""
    own = pd.concat([table[table["method"] == name] for name in SHOWN])
    with mpl.rc_context(style.RC):
        comparison.comparison(own, ("AUROC", "log loss")).savefig(DOCS / "physionet2012.png")
    wide = own.pivot(index="method", columns=["metric", "rate"], values="value")
    rates = sorted(own["rate"].unique())
    heads = [f"{100 * rate:.0f}% removed" if rate else "as observed" for rate in rates]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(rates) + 1) + "|"]
    for name, said in SHOWN.items():
        pairs = [(wide.loc[name, ("AUROC", r)], wide.loc[name, ("log loss", r)]) for r in rates]
        cells = [f"{a:.3f} ({loss:.3f})".replace("0.", ".") for a, loss in pairs]
        stars = "**" if said.startswith("**") else ""
        lines.append(f"| {said} | {' | '.join(stars + cell + stars for cell in cells)} |")
    return "\n".join(lines)


def reliability(run: Path, patterns: list[str]) -> pd.DataFrame:
    """Slopes of calibration by what a row lacks, a pattern after the other."""
    parts = []
    for pattern in patterns:
        slug = pattern.split("%")[0].replace(" ", "-")
        [path] = (run / "tables").glob(f"*{FACE}*{slug}*slope-by*.csv")
        part = pd.read_csv(path)
        part.insert(0, "removed", pattern.split(" at ")[0])
        parts.append(part)
    return pd.concat(parts)


def parts(suite: Suite) -> dict[str, list[str]]:
    """What a suite's table may have in its columns, in order."""
    patterns = [pattern.name for pattern in suite.patterns]
    return {"data": list(suite.studies), "pattern": patterns, "method": list(suite.methods)}


def ordered(table: pd.DataFrame, order: dict[str, list[str]]) -> pd.DataFrame:
    """Sorts by columns, whose values come in an order."""
    places = {name: table[name].map(values.index) for name, values in order.items()}
    return table.loc[pd.DataFrame(places).sort_values(list(order), kind="stable").index]


def warn(table: pd.DataFrame) -> None:
    """Says of which data sets the draws were too few for all cells that there are now."""
    found = verdicts(table.assign(rival=table["rival"].fillna("")))
    least, most = found.groupby("data")["p"].min(), found.groupby("metric").size().max()
    # As small a value, found in several data sets, is the least that their draws can tell.
    few = least[(least < 0.001) & (least * most >= LEVEL)]
    if len(few):
        print(
            f"With {most} cells nothing of {', '.join(few.index)} can be won or lost: measure them "
            "again with more --replicates."
        )


def read(path: Path) -> pd.DataFrame:
    """Reads a table in which names of methods or patterns may look like missing values."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True, choices=SUITES)
    parser.add_argument("--face", action="store_true", help="README's picture and table too")
    given = parser.parse_args()
    table = read(given.run / "summary.csv")
    order = parts(SUITES[given.name])
    for column, values in order.items():
        if unknown := sorted(set(table[column]) - set(values)):
            parser.error(f"{given.run} has {column} {unknown[0]!r}, which the suite has not")
    kept = table.drop(columns=LEFT_OUT, errors="ignore")
    kept.loc[kept["method"] != POOLED, COMPARISON] = None
    path = DOCS / f"{given.name}.csv"
    if path.exists():
        earlier = read(path)
        for column, values in order.items():  # what the suite has no more goes
            earlier = earlier[earlier[column].isin(values)]
        kept = pieces.merged(kept, earlier)
    ordered(kept, order).to_csv(path, index=False, float_format="%.4g")
    warn(kept)
    if given.face:
        own = table[table["data"] == FACE]
        slopes = reliability(given.run, list(dict.fromkeys(own["pattern"])))
        slopes.to_csv(DOCS / "reliability.csv", index=False, float_format="%.4g")
        print(face(own))


if __name__ == "__main__":
    main()
