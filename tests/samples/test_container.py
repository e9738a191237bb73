"""Samples of any kind: found by looking, indexed with all they have, refused with a reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from PIL import Image
from sklearn.model_selection import GroupKFold
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from cm2 import Samples

TABLE = np.arange(12.0).reshape(4, 3)
SERIES = [np.ones((2, 5)), None, np.zeros((3, 5)), np.full((2, 5), np.nan)]
TEXTS = ["a cough", None, " ", "fever"]
GREY = [np.zeros((8, 8), np.uint8), None, np.zeros((9, 7, 3), np.uint8), np.ones((8, 8), np.uint8)]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str | None]:
    folder = tmp_path_factory.mktemp("pictures")
    for name in "abc":
        Image.new("L", (20, 10), 7).save(folder / f"{name}.png")
    return [str(folder / "a.png"), str(folder / "b.png"), None, str(folder / "c.png")]


@pytest.mark.parametrize(
    ("values", "kind", "present"),
    [
        (TABLE, "table", [1, 1, 1, 1]),
        (TABLE.tolist(), "table", [1, 1, 1, 1]),
        (pd.DataFrame(TABLE), "table", [1, 1, 1, 1]),
        (scipy.sparse.csr_matrix(TABLE), "table", [1, 1, 1, 1]),
        (np.where(np.arange(4)[:, None] == 2, np.nan, TABLE), "table", [1, 1, 0, 1]),
        (SERIES, "series", [1, 0, 1, 0]),
        (np.ones((4, 2, 5)), "series", [1, 1, 1, 1]),
        (TEXTS, "text", [1, 0, 0, 1]),
        (pd.Series(TEXTS), "text", [1, 0, 0, 1]),
        (np.array(TEXTS, dtype=object), "text", [1, 0, 0, 1]),
        (["a cough", np.nan, pd.NA, "fever"], "text", [1, 0, 0, 1]),
        ([["a cough", "none"], ["fever"], None, [" "]], "text", [1, 1, 0, 0]),
        ([["a cough", "none"], ["fever", "none"], None, ["", "none"]], "text", [1, 1, 0, 1]),
        ([["1", "2"]] * 4, "text", [1, 1, 1, 1]),
        ([["a cough", "none"], [], [" "], ("fever",)], "text", [1, 0, 0, 1]),
        ([np.array(["a cough", "none"], object)] * 4, "text", [1, 1, 1, 1]),
        (["see a.png", "b.png", "c", "no.png"], "text", [1, 1, 1, 1]),  # there are no such files
        ([[1.0, 2.0], None, (3.0, np.nan), np.nan], "table", [1, 0, 1, 0]),
        ([np.ones(2), None, np.zeros(2), np.ones(2)], "table", [1, 0, 1, 1]),
        (list(np.ones((4, 2))), "table", [1, 1, 1, 1]),
        (GREY, "image", [1, 0, 1, 1]),
        (np.zeros((4, 8, 8), np.uint8), "image", [1, 1, 1, 1]),
        ([Image.new("L", (5, 5)), None, Image.new("RGB", (6, 5)), None], "image", [1, 0, 1, 0]),
    ],
)
def test_kinds_are_found_by_looking(values: Any, kind: str, present: list[int]) -> None:
    S = Samples({"m": values})
    assert S.kinds == {"m": kind}
    assert S.present[:, 0].tolist() == list(map(bool, present))
    assert S.shape == (4, 1)


def test_files_that_exist_are_images_unless_they_are_said_to_be_text(
    paths: list[str | None],
) -> None:
    assert Samples({"m": paths}).kinds == {"m": "image"}
    assert Samples({"m": [None if p is None else Path(p) for p in paths]}).kinds == {"m": "image"}
    assert Samples({"m": paths}, kinds={"m": "text"}).kinds == {"m": "text"}
    assert Samples({"m": TABLE}, kinds={"m": "embedding"}).kinds == {"m": "embedding"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: "patient-77.png"}, "1 of 3 strings name no file that exists, the first in row 1"),
        ({1: "no image"}, "1 of 3 strings name no file"),
        ({1: ""}, "1 of 3 strings name no file"),
        ({0: "long" * 2000 + ".png", 1: "\0.png"}, "2 of 3 strings name no file"),
        ({0: "77.png", 1: "77.JPG", 3: "78.tif"}, "3 of 3 strings name no file that exists"),
        ({1: __file__}, "strings name files, but not all end like images"),
        ({0: __file__, 1: __file__, 3: __file__}, "strings name files, but not all end like"),
        ({0: __file__, 1: "77", 3: "78"}, "2 of 3 strings name no file"),
    ],
)
def test_trap_names_of_files_never_become_texts(
    paths: list[str | None], change: dict[int, str], message: str
) -> None:
    """A vocabulary would be learned of paths, which may name patients."""
    given = [change.get(row, path) for row, path in enumerate(paths)]
    with pytest.raises(ValueError, match=message) as caught:
        Samples({"m": given})
    assert "'m'" in str(caught.value)
    assert "kinds={'m': 'text'}" in str(caught.value)
    assert "patient-77" not in str(caught.value)
    assert Samples({"m": given}, kinds={"m": "text"}).kinds == {"m": "text"}
    assert Samples({"m": given}, kinds={"m": "image"}).kinds == {"m": "image"}
    with pytest.raises(ValueError, match=r"in row|strings name files"):
        Samples({"m": [None if one is None else [one] for one in given]})


def test_lists_of_images_are_no_documents(paths: list[str | None]) -> None:
    with pytest.raises(ValueError, match="lists of image files, but may have one image each"):
        Samples({"m": [None if path is None else [path, path] for path in paths]})


@pytest.mark.parametrize(
    "nothing", [[None] * 4, [np.nan] * 4, np.full(4, np.nan), pd.Series([pd.NA] * 4)]
)
def test_a_modality_that_all_samples_lack_needs_its_kind(nothing: Any) -> None:
    with pytest.raises(ValueError, match=r"shows no kind: say .* kinds=\{'m': 'text'\}"):
        Samples({"labs": TABLE, "m": nothing})
    for kind in ("table", "series", "text", "image", "embedding"):
        S = Samples({"labs": TABLE, "m": nothing}, kinds={"m": kind})
        assert not S[1:].present[:, 1].any()


def every(paths: list[str | None]) -> Samples:
    X = {"labs": TABLE, "vitals": SERIES, "notes": TEXTS, "xray": paths}
    return Samples(X, ids=list("abcd"), groups=[1, 1, 2, 3], y=[0, 1, 0, 1])


def test_rows_keep_their_names_patients_and_outcomes(paths: list[str | None]) -> None:
    S = every(paths)
    for key in ([3, 1], np.array([3, 1])):
        part = S[key]
        assert (part.ids.tolist(), part.groups.tolist()) == (["d", "b"], [3, 1])
        assert part.y.tolist() == [1, 1]
        np.testing.assert_array_equal(part.present, S.present[[3, 1]])
    assert len(S[1:]) == 3
    assert S[np.array([True, False, True, False]), ...].ids.tolist() == ["a", "c"]
    with pytest.raises(IndexError, match="chosen by rows"):
        S[[0], [1]]


def test_scikit_learn_counts_and_parts_samples(paths: list[str | None]) -> None:
    S = every(paths)
    assert _num_samples(S) == 4
    assert _safe_indexing(S, [0, 2]).ids.tolist() == ["a", "c"]
    for train, test in GroupKFold(2).split(S, S.y, S.groups):
        assert not set(S[train].groups) & set(S[test].groups)


def test_what_is_said_of_samples_has_no_value_of_theirs(paths: list[str | None]) -> None:
    expected = "labs (table), vitals (series, 2), notes (text, 2), xray (image, 3)"
    assert repr(every(paths)) == f"Samples(4 samples: {expected})"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"X": {}}, "X has no modality"),
        ({"X": {"a": TABLE, "b": TEXTS[:3]}}, "different numbers of rows: {'a': 4, 'b': 3}"),
        ({"X": {"a": TABLE}, "y": [1, 2]}, r"y has the shape \(2,\), but there are 4 samples"),
        ({"X": {"a": TABLE}, "kinds": {"b": "text"}}, "unknown modality 'b'. X has: a"),
        ({"X": {"a": TABLE}, "kinds": {"a": "tabel"}}, "did you mean 'table'"),
        ({"X": {"a": [np.ones((2, 2)), np.ones((2, 3))]}}, r"series of \[2, 3\] variables"),
        ({"X": {"a": SERIES}, "kinds": {"a": "image"}}, "row 0 holds float64 of shape"),
        ({"X": {"a": [1, 2]}, "kinds": {"a": "text"}}, "row 0 is no text"),
        ({"X": {"a": [1.0, 2.0]}}, "must be two-dimensional"),
        ({"X": {"a": [[1.0, 2.0], [3.0]]}}, "modality 'a' is no table: its rows differ in length"),
    ],
)
def test_what_cannot_be_read_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Samples(given.pop("X"), **given)
