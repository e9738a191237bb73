"""The page of a run: complete, escaped, and without anything fetched from elsewhere."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd

from cm2.evaluation import report
from cm2.evaluation.figures import calibration


class Page(HTMLParser):
    """Collects what a page would load, its text, and whether its tags are balanced."""

    void = frozenset({"meta", "img", "link", "br", "hr"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.loads += [
            value for name, value in attrs if name in {"src", "srcset", "data"} or tag == "link"
        ]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page() -> str:
    p = np.linspace(0.05, 0.95, 60)
    table = calibration.reliability((p > 0.5).astype(int), p, bins=5)
    sections = [
        report.Section(
            "Results",
            ["First paragraph with <b>markup</b>."],
            [
                report.Table(
                    "AUROC", pd.DataFrame({"method": ["CM²", "LR"], "0%": [0.8123, np.nan]})
                )
            ],
            [report.Picture("Reliability.", calibration.calibration({"CM²": table}))],
        ),
        report.Section("Versions", tables=[report.Table("", report.pairs(report.versions()))]),
    ]
    return report.render("A title & more", "What was done.", sections)


def test_page_is_self_contained_and_well_formed():
    source = page()
    parsed = Page(source)
    assert not parsed.open
    assert len(parsed.loads) == 1
    assert parsed.loads[0].startswith("data:image/png;base64,")
    for fetch in ("http://", "https://", "@import", "url(", "<script"):
        assert fetch not in source


def test_page_shows_what_it_was_given_and_escapes_it():
    words = " ".join(Page(page()).words)
    for text in ("A title & more", "<b>markup</b>", "CM²", "0.812", "Reliability.", "torch"):
        assert text in words
    assert "nan" not in words


def test_tables_of_an_earlier_call_go_and_nothing_else(tmp_path):
    several = [report.Table(name, pd.DataFrame({"a": [1]})) for name in ("one", "two")]
    report.write_tables(tmp_path, several)
    (tmp_path / "results.csv").touch()
    report.write_tables(tmp_path, several[1:])
    assert {path.name for path in tmp_path.iterdir()} == {"01-two.csv", "01-two.tex", "results.csv"}


def test_write_returns_the_path(tmp_path):
    path = report.write(tmp_path / "report.html", "t", "l", [report.Section("Empty")])
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
