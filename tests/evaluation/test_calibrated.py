"""The calibration slope: that of logistic regression, wherever the log odds lie."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from cm2.evaluation.calibrated import slope

ROWS = 4000


def made() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    odds = rng.normal(-1.5, 1.0, ROWS)
    return rng.random(ROWS) < expit(odds), odds


@pytest.mark.parametrize("factor", [3.0, 1.0, 0.1, 0.01, 0.003, -0.5])
@pytest.mark.parametrize("shift", [0.0, -4.0])
def test_it_is_that_of_logistic_regression(factor: float, shift: float) -> None:
    y, odds = made()
    # Without a penalty, on log odds of variance one; its tolerance is that of its gradient.
    regression = LogisticRegression(C=np.inf, tol=1e-10).fit(odds[:, None], y)
    found = slope(y, expit(factor * odds + shift))[0]
    assert found == pytest.approx(regression.coef_[0, 0] / factor, rel=1e-5)


def test_probabilities_that_differ_by_rounding_have_none() -> None:
    y, odds = made()
    assert np.isnan(slope(y, 0.08 * (1 + 1e-15 * odds))[0])
    assert np.isnan(slope(y, np.full(ROWS, 0.08))[0])
    assert np.isfinite(slope(y, 0.08 * (1 + 1e-9 * odds))[0])
