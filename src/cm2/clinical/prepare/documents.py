"""Documents (coded paths, one a line, or free text) as dense vectors: TF-IDF, then truncated SVD.

Vocabulary, weights and directions are learned from the documents given to ``vectorizer(...).fit``,
so that nothing of a test row enters them (latent semantic analysis, Deerwester et al. 1990).
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline

__all__ = ["NoTermError", "terms", "vectorize", "vectorizer"]


class NoTermError(ValueError):
    """Documents have no term that tells them apart."""


FLOOR = 0.01
"""The share of the documents in which a term must stand, at least."""

WORD = re.compile(r"[a-z][a-z\-]{3,}")


def terms(document: str) -> list[str]:
    """Lists the terms of a document: every ancestor of each line's path, and its leaf's words.

    A line that is no path is free text, and gives its words.

    Example:
        >>> terms("treatment|cardiovascular|shock|vasopressors")[:3]
        ['treatment|cardiovascular', 'treatment|cardiovascular|shock',
         'treatment|cardiovascular|shock|vasopressors']
    """
    found: dict[str, None] = {}
    for line in document.splitlines():
        parts = line.split("|")
        for length in range(2, len(parts) + 1):
            found["|".join(parts[:length])] = None
        kind = f"{parts[0]}:" if len(parts) > 1 else ""
        for word in WORD.findall(parts[-1].lower()):
            found[f"{kind}{word}"] = None
    return list(found)


def vectorizer(dimensions: int = 16, *, seed: int = 0) -> Pipeline:
    """Returns an unfitted pipeline from documents to ``dimensions`` numbers.

    Args:
        dimensions: Directions kept of the TF-IDF matrix.
        seed: Of the randomised SVD.
    """
    return Pipeline(
        [
            (
                "tfidf",
                TfidfVectorizer(
                    analyzer=terms, binary=True, min_df=FLOOR, max_df=0.95, dtype=np.float64
                ),
            ),
            ("svd", TruncatedSVD(dimensions, random_state=seed)),
        ]
    )


def vectorize(
    documents: pd.Series, train: pd.Index, dimensions: int = 16, *, seed: int = 0
) -> pd.DataFrame:
    """Turns documents into vectors, learned on the rows of ``train`` only.

    Args:
        documents: One document a stay; a missing one is null and its row all NaN.
        train: Index labels of the training rows.
        dimensions: Numbers a document; fewer where the vocabulary is smaller.
        seed: Of the randomised SVD.

    Returns:
        A frame with the index of ``documents``.

    Raises:
        NoTermError: If no term stands in some of the training documents and not in all.
        ValueError: If no training row has one.
    """
    there = documents.dropna()
    fitted_on = there[there.index.isin(train)]
    if fitted_on.empty:
        raise ValueError(f"no training row has a document of {documents.name!r}")
    pipeline = vectorizer(dimensions, seed=seed)
    try:
        counts = pipeline[0].fit_transform(fitted_on)
    except ValueError:
        raise NoTermError(
            f"no term of {documents.name!r} is frequent enough in {len(fitted_on)} documents"
        ) from None
    if counts.shape[1] > 1:
        pipeline[1].set_params(n_components=min(dimensions, counts.shape[1]))
        pipeline[1].fit(counts)
    else:  # one term is a direction already
        pipeline = pipeline[:1]
    values = pipeline.transform(there)
    values = values.toarray() if issparse(values) else values
    columns = [f"{documents.name}_{j}" for j in range(values.shape[1])]
    return pd.DataFrame(values, index=there.index, columns=columns).reindex(documents.index)
