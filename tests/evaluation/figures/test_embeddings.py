"""Outlines of embeddings: they hold the share they say, and need enough samples."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.path import Path as Outline

from cm2.evaluation.figures import embeddings, training


def test_outlines_hold_a_quarter_half_and_three_quarters():
    """In two dimensions the plane of the components is the data's own, up to a rotation."""
    z = np.random.default_rng(0).normal(size=(2000, 2)) * [3.0, 1.0]
    figure = embeddings.embeddings({"one": {"labs": z}})
    (ax,) = figure.axes
    centred = z - z.mean(0)
    points = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    signs = [np.array([a, b]) for a in (1, -1) for b in (1, -1)]
    for outline, share in zip(ax.collections[1].get_paths(), (0.75, 0.5, 0.25), strict=True):
        inside = [Outline(outline.vertices).contains_points(points * sign).mean() for sign in signs]
        assert np.median(inside) == pytest.approx(share, abs=0.04)


def test_modalities_with_few_samples_are_left_out():
    rng = np.random.default_rng(0)
    many, few = rng.normal(size=(60, 4)), rng.normal(size=(5, 4))
    figure = embeddings.embeddings({"a": {"labs": many, "notes": few}})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["labs"]
    figure = embeddings.embeddings({"a": {"labs": many, "notes": few}, "b": {"notes": many}})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["labs", "notes"]
    with pytest.raises(ValueError, match="no modality has 30 samples"):
        embeddings.embeddings({"a": {"notes": few}})
    with pytest.raises(ValueError, match="one coordinate have no plane"):
        embeddings.embeddings({"a": {"labs": many[:, :1]}})


def test_embeddings_that_have_collapsed_can_be_drawn():
    figure = embeddings.embeddings({"a": {"labs": np.ones((50, 3)), "notes": np.zeros((50, 3))}})
    assert len(figure.axes[0].collections) == 4


def test_alpha_needs_a_log_with_it():
    log = pd.DataFrame({"epoch": [0, 1], "alpha": [1.5, 2.0]})
    left, right = training.gumbel({"one": [log]}).axes
    assert left.lines[0].get_ydata().tolist() == [1.5, 2.0]
    assert right.lines[0].get_ydata().tolist() == pytest.approx([1 / 3, 0.5])
    with pytest.raises(ValueError, match=r"lacks columns \['alpha'\]"):
        training.gumbel({"one": [log.drop(columns="alpha")]})
    with pytest.raises(ValueError, match="no log of a Gumbel copula"):
        training.gumbel({})
