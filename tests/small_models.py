"""Fewer trees and fewer settings to choose among, for tests of what does not depend on them."""

from typing import Any

import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

TREES = {"cm2.estimators.heads.scores": 10, "cm2.estimators.tuning": 30}
"""Trees of a forest, by module: rivals need every row out of some tree's bag, experts do not."""
ROUNDS = 10
PENALTIES = (0.1, 1.0)


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Makes experts and rivals quick to fit, wherever they are built."""
    patch.setattr("cm2.estimators.heads.scores.PENALTIES", PENALTIES)
    for module, trees in TREES.items():

        def forest(_: int, trees: int = trees, **options: Any) -> RandomForestClassifier:
            return RandomForestClassifier(trees, **options)

        patch.setattr(f"{module}.RandomForestClassifier", forest)

    def boosting(**options: Any) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(**options | {"max_iter": ROUNDS})

    patch.setattr("cm2.estimators.tuning.HistGradientBoostingClassifier", boosting)
    patch.setattr("cm2.estimators.heads.early.ROUNDS", (ROUNDS, ROUNDS))
    patch.setattr("cm2.estimators.heads.early.STRENGTHS", (0.07,))
