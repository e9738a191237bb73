"""Documents to vectors: terms of paths, and a vocabulary of the training rows alone."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from cm2.clinical.prepare.documents import NoTermError, terms, vectorize

TEXTS = [
    f"treatment|organ{k % 3}|step{k % 4}\nmedication|drug{'abc'[k % 3] * 4} 5 mg" for k in range(40)
]
DOCUMENTS = pd.Series([*TEXTS, None], name="treatment")
TRAIN = DOCUMENTS.index[:30]


def test_terms_are_ancestors_and_words() -> None:
    assert terms("a|b|shock state\na|b") == ["a|b", "a|b|shock state", "a:shock", "a:state"]


def test_test_documents_do_not_change_the_vectors_of_others() -> None:
    changed = DOCUMENTS.copy()
    changed.iloc[35:40] = "treatment|never|seen"
    one, other = (vectorize(d, TRAIN, 4) for d in (DOCUMENTS, changed))
    assert_frame_equal(one.iloc[:35], other.iloc[:35], check_exact=True)


def test_training_documents_do() -> None:
    changed = DOCUMENTS.copy()
    changed.iloc[:10] = "treatment|never|seen"
    one, other = (vectorize(d, TRAIN, 4) for d in (DOCUMENTS, changed))
    assert not np.allclose(one.iloc[35:40], other.iloc[35:40])


def test_a_missing_document_is_a_row_of_nan_and_the_seed_decides() -> None:
    vectors = vectorize(DOCUMENTS, TRAIN, 4, seed=3)
    assert vectors.iloc[-1].isna().all()
    assert vectors.iloc[:-1].notna().all(axis=None)
    assert_frame_equal(vectors, vectorize(DOCUMENTS, TRAIN, 4, seed=3), check_exact=True)


def test_a_small_vocabulary_gives_fewer_numbers() -> None:
    assert vectorize(DOCUMENTS, TRAIN, 500).shape[1] < 500


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(ValueError, match="no training row has a document of 'treatment'"):
        vectorize(DOCUMENTS, DOCUMENTS.index[-1:])


def test_a_line_that_is_no_path_gives_its_words():
    assert terms("Small LEFT effusion, no pneumothorax.") == [
        "small",
        "left",
        "effusion",
        "pneumothorax",
    ]
    assert terms("a|b|Septic Shock") == ["a|b", "a|b|Septic Shock", "a:septic", "a:shock"]


def test_one_term_is_one_number_and_none_is_said():
    documents = pd.Series(["clear lungs", "lungs", None, "lungs"], name="report")
    found = vectorize(documents, pd.Index([0, 1, 3]), 4)
    np.testing.assert_allclose(found.iloc[:, 0], [1, 0, np.nan, 0])
    with pytest.raises(NoTermError, match="no term of 'report' is frequent enough in 3 documents"):
        vectorize(documents.replace("clear lungs", "lungs"), pd.Index([0, 1, 3]))
