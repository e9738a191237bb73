"""A random forest as arrays, which say the same of a row as the forest that they were taken from.

In a file an array takes a small part of what two hundred estimators do, and few rows are told in a
tenth of the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int32
from numpy import ndarray
from sklearn.ensemble import RandomForestClassifier

TOGETHER = 2**13
"""Paths from a root that are followed together."""


class Forest:
    """Trees side by side: node 0 of the next follows the last node of the one before.

    Args:
        forest: A fitted forest.

    Attributes:
        classes_: The classes.
        roots_: The first node of each tree.
        children_: Where a row goes on that is greater than the threshold, and one that is not; a
            leaf leads to itself.
        feature_: What is compared at each node.
        threshold_: The greatest value that goes on to the second child.
        share_: Of each class at a leaf.
    """

    roots_: Int32[ndarray, " tree"]
    children_: Int32[ndarray, "node 2"]
    feature_: Int32[ndarray, " node"]
    threshold_: Float32[ndarray, " node"]
    share_: Float[ndarray, "node seen"]

    def __init__(self, forest: RandomForestClassifier) -> None:
        trees = [one.tree_ for one in forest.estimators_]
        self.classes_: Int[ndarray, " seen"] = forest.classes_
        size = np.array([tree.node_count for tree in trees])
        self.roots_ = (np.cumsum(size) - size).astype(np.int32)
        children = np.concatenate([[tree.children_right, tree.children_left] for tree in trees], 1)
        leaf = children[0] < 0
        there = np.where(leaf, np.arange(len(leaf)), children + np.repeat(self.roots_, size))
        self.children_ = np.ascontiguousarray(there.T, dtype=np.int32)
        self.feature_ = np.where(leaf, 0, _joined(trees, "feature")).astype(np.int32)
        self.threshold_ = _at_most(_joined(trees, "threshold"))
        self.share_ = np.where(leaf[:, None], _joined(trees, "value")[:, 0], 0.0)

    def predict_proba(self, x: Float[ndarray, "n feature"]) -> Float[ndarray, "n seen"]:
        """Shares of the classes, averaged over the trees."""
        x = np.asarray(x, dtype=np.float32)
        total = np.zeros((len(x), self.share_.shape[1]))
        row = np.arange(len(x))
        step = max(1, TOGETHER // max(1, len(x)))
        for first in range(0, len(self.roots_), step):
            node = np.repeat(self.roots_[first : first + step, None], len(x), axis=1)
            before = None
            while before is None or (node != before).any():
                before = node
                second = x[row, self.feature_[node]] <= self.threshold_[node]
                node = self.children_[node, second.astype(np.int8)]
            for leaf in node:
                total += self.share_[leaf]
        return total / len(self.roots_)


def _joined(trees: list[Any], name: str) -> ndarray:
    return np.concatenate([getattr(tree, name) for tree in trees])


def _at_most(threshold: Float[ndarray, " node"]) -> Float32[ndarray, " node"]:
    """The greatest numbers in single precision, as rows are, that are not above a threshold."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
