"""Figures draw what the data say, refuse data they cannot draw, and leave matplotlib alone."""

import base64
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure

from cm2.copulas import Frank, Gaussian, Gumbel
from cm2.evaluation.figures import (
    availability,
    calibration,
    comparison,
    density,
    pairs,
    ranks,
    style,
    training,
)


def results() -> pd.DataFrame:
    rows = [
        {"method": method, "rate": rate, "metric": metric, "value": v, "low": v - 0.05}
        for method, v in (("CM2", 0.8), ("late fusion", 0.7))
        for rate in (0.0, 0.3, 0.6)
        for metric in ("AUROC", "Brier")
    ]
    table = pd.DataFrame(rows)
    return table.assign(high=table["value"] + 0.05)


def test_comparison_has_a_line_for_each_method_at_its_values():
    figure = comparison.comparison(results(), ["AUROC", "Brier"])
    assert [ax.get_title() for ax in figure.axes] == ["AUROC", "Brier"]
    lines = [container.lines[0] for container in figure.axes[0].containers]
    assert [line.get_ydata().tolist() for line in lines] == [[0.8] * 3, [0.7] * 3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["CM2", "late fusion"]


def test_no_two_methods_of_a_comparison_look_alike_and_the_first_is_on_top():
    one = results()[lambda table: table["method"] == "CM2"]
    many = pd.concat([one.assign(method=f"method {k}") for k in range(40)])
    drawn = comparison.comparison(many, ["AUROC"]).axes[0].containers
    lines = [container.lines[0] for container in drawn]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == 40
    assert lines[0].zorder > max(line.zorder for line in lines[1:])
    start = [float(line.get_xdata()[0]) for line in lines]
    assert max(start) - min(start) < 0.06 * 0.6, "the shift stays small beside the rates"


def test_comparison_names_what_is_lacking():
    with pytest.raises(ValueError, match=r"lacks columns \['low'\]"):
        comparison.comparison(results().drop(columns="low"), ["AUROC"])
    with pytest.raises(ValueError, match=r"lacks metrics \['AUPR'\]; it has \['AUROC', 'Brier'\]"):
        comparison.comparison(results(), ["AUPR"])


def test_patterns_are_counted_and_rare_ones_left_out():
    present = np.array([[1, 1]] * 30 + [[1, 0]] * 50 + [[0, 1]] * 3, dtype=bool)
    table = availability.patterns(present, ["labs", "notes"], smallest=10)
    assert table["samples"].tolist() == [50, 30]
    assert table["notes"].tolist() == [False, True]
    figure = availability.availability(present, ["labs", "notes"])
    bars, dots, totals = figure.axes
    assert [bar.get_height() for bar in bars.patches] == [50, 30]
    assert [bar.get_width() for bar in totals.patches] == [80, 33]
    assert "not shown: 3" in dots.get_xlabel()
    with pytest.raises(ValueError, match="one column for each of 3 modalities"):
        availability.patterns(present, ["a", "b", "c"])
    with pytest.raises(ValueError, match="no modality may be named 'samples'"):
        availability.patterns(present, ["samples", "notes"])
    _, dots, _ = availability.availability(present, ["samples", "notes"]).axes
    assert [len(one.get_offsets()) for one in dots.collections] == [0, 2, 1, 1]


def test_reliability_of_true_probabilities_lies_on_the_diagonal():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=20_000)
    table = calibration.reliability(rng.uniform(size=p.size) < p, p, bins=10)
    assert table["samples"].sum() == p.size
    assert (table["low"] < table["observed"]).all()
    assert (table["observed"] < table["high"]).all()
    assert np.abs(table["observed"] - table["predicted"]).max() < 0.04
    assert len(calibration.calibration({"CM2": table, "late fusion": table}).axes) == 2


def test_reliability_of_a_constant_is_one_bin():
    table = calibration.reliability(np.array([0, 1, 1, 1]), np.full(4, 0.5))
    assert table["observed"].tolist() == [0.75]
    with pytest.raises(ValueError, match="probability should have shape"):
        calibration.reliability(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="bins should be at least 1, got 0"):
        calibration.reliability(np.zeros(3), np.zeros(3), bins=0)


def test_a_value_beside_its_interval_is_drawn():
    table = results().assign(low=lambda table: table["value"] + 0.01)
    assert comparison.comparison(table, ["AUROC"]).axes


def test_numbers_are_not_taken_for_presence():
    with pytest.raises(ValueError, match=r"2 modalities, of booleans; .* dtype float64"):
        availability.patterns(np.array([[1.0, np.nan]] * 12), ["labs", "notes"])
    flags = np.array([[True, False]] * 12)
    table = availability.patterns(flags.tolist(), ["labs", "notes"])
    assert table["samples"].tolist() == [12]
    assert availability.availability(pd.DataFrame(flags), ["labs", "notes"]).axes


@pytest.mark.parametrize(("mean", "gap"), [({"a": np.nan}, 1.0), ({"a": 1.0}, np.nan), ({}, 1.0)])
def test_ranks_are_finite(mean, gap):
    with pytest.raises(ValueError, match="finite mean rank"):
        ranks.ranks(mean, gap)


def test_training_curves_skip_what_the_log_lacks():
    history = pd.DataFrame(
        {"epoch": [0, 1, 1], "loss": [2.0, 1.0, np.nan], "tau": [np.nan, 0.3, 0.4]}
    )
    groups = {"loss": ["loss", "penalty"], "dependence": ["tau"], "absent": ["ks"]}
    figure = training.curves(history, groups)
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "dependence"]
    assert figure.axes[0].lines[0].get_ydata().tolist() == [2.0, 1.0]
    with pytest.raises(ValueError, match="needs a column 'epoch'"):
        training.curves(history.drop(columns="epoch"), groups)
    with pytest.raises(ValueError, match=r"has none of \['ks'\]"):
        training.curves(history, {"absent": ["ks"]})


def test_density_contours_show_where_the_mass_is():
    figure = density.contours(
        {
            "Gumbel": Gumbel(dim=2, alpha=2.0),
            "Gaussian": Gaussian(dim=2, correlation=torch.tensor([[1.0, 0.7], [0.7, 1.0]])),
            "Frank": Frank(dim=2, theta=5.74),
        },
        points=41,
    )
    assert len(figure.axes) == 6
    with pytest.raises(ValueError, match=r"2 coordinates; these have others: \['wide'\]"):
        density.contours({"wide": Gumbel(dim=3, alpha=2.0)})


@pytest.mark.parametrize(
    "draw",
    [
        lambda: comparison.comparison(results(), ["AUROC"]),
        lambda: density.families(("gumbel",)),
        lambda: density.surfaces(Gumbel(dim=2, alpha=2.0), points=11),
        lambda: pairs.samples(Gumbel(dim=2, alpha=2.0), n=50),
        lambda: pairs.pairs(Gumbel(dim=2, alpha=2.0), Gumbel(dim=2, alpha=2.0).sample((50,))),
        lambda: availability.availability(np.ones((20, 2), dtype=bool), ["labs", "notes"]),
    ],
)
def test_a_notebook_shows_a_figure_without_pyplot(draw):
    """IPython knows matplotlib's own figures only once ``pyplot`` was imported."""
    shown, _ = DisplayFormatter().format(draw())
    assert shown["image/png"].startswith(b"\x89PNG")


def test_saved_twice_and_embedded(tmp_path):
    figure = comparison.comparison(results(), ["AUROC"])
    png, pdf = style.save(figure, tmp_path / "figures", "comparison")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    head, data = style.embed(figure).split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


def test_matplotlib_settings_are_left_alone():
    before = dict(mpl.rcParams)
    assert isinstance(comparison.comparison(results(), ["AUROC"]), Figure)
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or mpl.get_backend().lower() == "agg"
