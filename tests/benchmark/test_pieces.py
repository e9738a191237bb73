"""Tables of a benchmark in pieces: what joins, and what is refused because nobody measured it."""

import numpy as np
import pandas as pd
import pytest

from cm2.benchmark import pieces
from cm2.core.errors import InputError
from cm2.evaluation import summary


def rows(**of_methods):
    """A table of one cell: of each method its value, its rival and the difference."""
    same = {"data": "d", "pattern": "p", "rate": 0.5, "metric": "AUROC"}
    numbers = {"splits": 5, "rows": 9, "positives": 3, "patients": 2000}
    found = [
        {**same, "method": name, "value": value, "rival": rival, "difference": gap, **numbers}
        for name, (value, rival, gap) in of_methods.items()
    ]
    return pd.DataFrame(found).reindex(columns=[*found[0], *summary.COMPARISON[2:]])


@pytest.mark.parametrize("turned", [False, True])
def test_the_better_rival_is_that_of_the_greater_value(turned):
    # The method's own value may differ by a rounding, and with it the order of the differences.
    first = rows(own=(0.8800, "x", -0.0005), x=(0.8805, "own", 0.0005))
    second = rows(own=(0.8795, "y", -0.0007), y=(0.8802, "own", 0.0007))
    order = (second, first) if turned else (first, second)
    made = pieces.merged(*order, method="own").set_index("method")
    assert made.loc["own", "rival"] == "x"
    assert made.loc["own", "value"] == 0.8800
    assert set(made.index) == {"own", "x", "y"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": 0.89}, "own is not the same in both pieces"),
        ({"value": np.nan}, "own is not the same in both pieces"),
        ({"splits": 3}, "own is not the same in both pieces"),
        ({"patients": 2002}, "own is not the same in both pieces"),
        ({"pattern": "q"}, "the same patterns"),
    ],
)
def test_pieces_of_other_runs_do_not_join(change, said):
    first = rows(own=(0.88, "x", 0.01), x=(0.87, "own", -0.01))
    second = rows(own=(0.88, "y", 0.02), y=(0.86, "own", -0.02))
    with pytest.raises(InputError, match=said):
        pieces.merged(first, second.assign(**change), method="own")


def test_a_rival_that_is_made_again_takes_its_whole_piece_along():
    # A row of x beside a comparison with what x was would be a difference that nobody measured.
    both = rows(own=(0.88, "x", -0.02), x=(0.90, "own", 0.02), y=(0.86, "x", -0.04))
    again = rows(own=(0.88, "x", 0.03), x=(0.85, "own", -0.03))
    with pytest.raises(InputError, match="own in common and nothing else, not own, x"):
        pieces.merged(again, both, method="own")
    with pytest.raises(InputError, match="not nothing"):
        pieces.merged(rows(z=(0.8, "", np.nan)), both, method="own")
