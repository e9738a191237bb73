"""Predictions in MEDS, checked by the schema that meds-evaluation 0.0.6 adds to that of labels."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from flexible_schema import Optional
from meds import LabelSchema

from cm2.core.errors import InputError
from cm2.experiments.predictions import Predictions, meds


class PredictionSchema(LabelSchema):
    """As in ``meds_evaluation.schema``, which needs polars and hydra."""

    predicted_boolean_value: Optional(pa.bool_())
    predicted_boolean_probability: Optional(pa.float32())


STAYS = pd.DataFrame(
    {
        "subject_id": [5, 5, 9],
        "prediction_time": pd.to_datetime(["2150-01-02"] * 2 + ["2151-01-01"]),
    }
)


def found(probability: np.ndarray, target: list[int]) -> Predictions:
    spread = np.zeros_like(probability)
    return Predictions(np.array(target), probability, spread, np.ones((len(target), 1), bool))


def two(target: list[int]) -> Predictions:
    positive = np.array([0.2, 0.7, 0.5])
    return found(np.stack([1 - positive, positive], axis=1), target)


def test_the_columns_are_those_of_meds_evaluation() -> None:
    table = meds(STAYS, two([0, 1, 0]))
    PredictionSchema.validate(table)
    frame = table.to_pandas()
    assert frame["boolean_value"].tolist() == [False, True, False]
    assert frame["predicted_boolean_value"].tolist() == [False, True, False]
    assert frame["predicted_boolean_probability"].tolist() == np.float32([0.2, 0.7, 0.5]).tolist()
    assert frame["prediction_time"].tolist() == STAYS["prediction_time"].tolist()


def test_without_an_outcome_there_is_no_column_of_outcomes() -> None:
    table = meds(STAYS, two([0, -1, 0]))
    PredictionSchema.validate(table)
    assert "boolean_value" not in table.column_names


def test_what_meds_evaluation_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="two classes, but the model has 3"):
        meds(STAYS, found(np.full((3, 3), 1 / 3), [0, 1, 2]))
    with pytest.raises(InputError, match="3 of 3 stays have no prediction_time"):
        meds(STAYS[["subject_id"]], two([0, 1, 0]))
