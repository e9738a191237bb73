"""The table of raw items: complete, consistent, and without the items that only look right."""

import csv
from importlib import resources

import pytest

from cm2.clinical.prepare import variables
from cm2.clinical.prepare.grid import COLUMNS, CONTINUOUS

# Facts of the benchmark's itemid_to_variable_map.csv: the items of its 17 variables.
BENCHMARK = {
    "capillary_refill_rate": "115 3348 8377",
    "diastolic_blood_pressure": "8368 220051 225310 8555 8441 220180 8502 8440 8503 8504 8507 8506"
    " 224643",
    "fraction_inspired_oxygen": "3420 223835 3422 189 727",
    "gcs_eye": "184 220739",
    "gcs_motor": "454 223901",
    "gcs_total": "198",
    "gcs_verbal": "723 223900",
    "glucose": "50931 807 811 1529 50809 51478 3745 225664 220621 226537",
    "heart_rate": "211 220045",
    "height": "226707 226730 1394",
    "mean_blood_pressure": "52 220052 225312 224 6702 224322 456 220181 3312 3314 3316 3322 3320",
    "oxygen_saturation": "834 50817 8498 220227 646 220277",
    "ph": "50820 51491 3839 1673 50831 51094 780 1126 223830 4753 4202 860 220274",
    "respiratory_rate": "618 220210 3603 224689 614 651 224422 615 224690",
    "systolic_blood_pressure": "51 220050 225309 6701 455 220179 3313 3315 442 3317 3323 3321"
    " 224167 227243",
    "temperature": "3655 677 676 223762 3654 678 223761 679",
    "weight": "763 224639 226512 3580 3693 3581 226531 3582",
}
NOT_BLOOD = {"51478", "51491", "51094", "50831", "3839", "1673"}


@pytest.mark.parametrize("name", variables.NAMES)
def test_every_item_of_the_benchmark_is_there_and_urine_is_not(name):
    used = {one.item for one in variables.items("mimic3") if one.variable == name}
    wanted = set(BENCHMARK[name].split())
    assert wanted - used == wanted & NOT_BLOOD
    listed = {one.item for one in variables.table() if one.variable == name}
    assert wanted <= listed, "an item that is left out says so in the table"


def test_fraction_inspired_oxygen_has_the_item_that_usual_lists_lack():
    assert {one.conversion for one in variables.items("mimic3") if one.item == "190"} == {
        "fraction"
    }


@pytest.mark.parametrize("source", ["mimic3", "mimic4", "eicu"])
def test_every_source_measures_what_it_charts(source):
    there = {one.variable for one in variables.items(source)}
    missing = {
        "mimic3": set(),
        # MIMIC-IV is MetaVision: its GCS total is summed, not charted.
        "mimic4": {"gcs_total"},
        "eicu": {"capillary_refill_rate"},
    }
    assert set(variables.NAMES) - there == missing[source]


def test_ranges_hold_the_normal_value_and_agree_over_items():
    ranges = {}
    for one in variables.items():
        ranges.setdefault(one.variable, set()).add((one.low, one.high))
    for name, found in ranges.items():
        assert len(found) == 1, name
        low, high = found.pop()
        assert low <= variables.variable(name).normal <= high
        codes = [code.value for code in variables.variable(name).codes]
        assert all(low <= value <= high for value in codes)


def test_three_pressures_of_one_charttime_come_from_one_device():
    """Ordered by item id, line, cuff and second line stand in the same order for all three."""
    systems = {
        "carevue": [("51", "8368", "52"), ("455", "8441", "456"), ("6701", "8555", "6702")],
        "metavision": [
            ("220050", "220051", "220052"),
            ("220179", "220180", "220181"),
            ("225309", "225310", "225312"),
        ],
    }
    for devices in systems.values():
        for pressure in zip(*devices, strict=True):
            ranks = [int(item) for item in pressure]
            assert ranks == sorted(ranks)
    eicu = {one.item: one.rank for one in variables.items("eicu")}
    for pressure in ("systolic", "diastolic", "mean"):
        assert eicu[f"systemic{pressure}"] < eicu[f"noninvasive{pressure}"]


def test_columns_are_those_of_the_reference():
    assert len(COLUMNS) == len(set(COLUMNS)) == 76
    assert len(CONTINUOUS) == 12
    assert sum(name.startswith("mask_") for name in COLUMNS) == 17
    sizes = {one.name: len(one.codes) for one in variables.VARIABLES if one.codes}
    assert sizes == {
        "capillary_refill_rate": 2,
        "gcs_eye": 8,
        "gcs_motor": 12,
        "gcs_total": 13,
        "gcs_verbal": 12,
    }


def test_no_two_categories_are_written_alike():
    for one in variables.VARIABLES:
        texts = [text for code in one.codes for text in code.texts]
        assert len(texts) == len(set(texts))
        assert all(text == text.lower().strip() for text in texts)


def test_the_table_reads_as_a_plain_file():
    text = (
        resources.files("cm2.clinical.prepare")
        .joinpath("variables.csv")
        .read_text(encoding="utf-8")
    )
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len(variables.table())
    assert all(row["note"] for row in rows if row["conversion"] == "excluded")


def test_an_unknown_variable_is_answered_with_the_known():
    with pytest.raises(ValueError, match="unknown variable 'lactate'; there are capillary_refill"):
        variables.variable("lactate")
