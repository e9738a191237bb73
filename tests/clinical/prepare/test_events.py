"""Every trap of the raw tables, each on a few rows made for it."""

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cm2.clinical.prepare import events
from cm2.clinical.prepare.engine import start
from measured import MEASUREMENTS, STAYS, Extracted, lab, row, stay, tables

# Units and conversions


@pytest.mark.parametrize(
    ("item", "value", "unit", "expected"),
    [
        ("190", 0.5, "torr", 0.5),
        ("189", 0.4, "torr", 0.4),
        ("727", 35.0, "decFrc", 0.35),
        ("3420", 60.0, None, 0.6),
        ("223835", 100.0, None, 1.0),
        ("223835", 0.4, None, 0.4),
        ("223835", 21.0, "%", 0.21),
        ("190", 1.0, "torr", 1.0),
    ],
)
def test_inspired_oxygen_is_a_fraction(item, value, unit, expected):
    made = Extracted([row(item, value, unit=unit)])
    assert made.values("fraction_inspired_oxygen") == [pytest.approx(expected)]


@pytest.mark.parametrize("litres", [1.1, 2.0, 6.0, 15.0, 19.9])
def test_litres_per_minute_are_no_fraction(litres):
    made = Extracted([row("190", litres, unit="torr"), row("223835", litres)])
    assert made.values("fraction_inspired_oxygen") == []
    assert made.excluded == {("fraction_inspired_oxygen", "implausible"): 2}


@pytest.mark.parametrize(
    ("item", "value", "expected"),
    [("678", 98.6, 37.0), ("223761", 101.3, 38.5), ("676", 37.2, 37.2), ("223762", 36.6, 36.6)],
)
def test_temperature_is_celsius(item, value, expected):
    assert Extracted([row(item, value)]).values("temperature") == [pytest.approx(expected)]


def test_temperature_in_the_other_unit_than_its_item_is_told_by_its_value():
    made = Extracted([row("678", 37.0), row("676", 98.6, 2), row("676", 60.0, 3)])
    assert made.values("temperature") == pytest.approx([37.0, 37.0])
    assert made.excluded == {("temperature", "implausible"): 1}


@pytest.mark.parametrize(
    ("item", "value", "unit", "expected"),
    [
        ("763", 80.0, "kg", 80.0),
        ("763", 180.0, "lbs", 81.6466266),
        ("226531", 176.37, None, 80.000086),
        ("3581", 150.0, None, 68.0388555),
        ("3582", 2822.0, None, 80.0023425),
        ("226512", 80.0, None, 80.0),
    ],
)
def test_weight_is_kilograms(item, value, unit, expected):
    made = Extracted([row(item, value, unit=unit)])
    assert made.values("weight") == [pytest.approx(expected, abs=1e-4)]


def test_ounces_beside_pounds_are_no_weight():
    made = Extracted([row("3581", 150.0), row("3582", 7.0)])
    assert len(made.values("weight")) == 1
    assert made.excluded == {("weight", "implausible"): 1}


@pytest.mark.parametrize(
    ("item", "value", "unit", "expected"),
    [
        ("226707", 70.0, "Inch", 177.8),
        ("1394", 70.0, None, 177.8),
        ("920", 65.0, "inches", 165.1),
        ("226730", 168.0, "cm", 168.0),
    ],
)
def test_height_is_centimetres(item, value, unit, expected):
    assert Extracted([row(item, value, unit=unit)]).values("height") == [pytest.approx(expected)]


def test_saturation_of_one_and_less_is_a_fraction():
    made = Extracted([row("646", 0.97), row("220277", 98.0, 2), row("646", 0.0, 3)])
    assert made.values("oxygen_saturation") == pytest.approx([97.0, 98.0])
    assert made.excluded == {("oxygen_saturation", "implausible"): 1}


def test_what_is_not_blood_is_neither_ph_nor_glucose():
    rows = [lab("51491", 6.0), lab("51094", 6.5), lab("50831", 7.5), lab("51478", 250.0)]
    rows += [row("3839", 5.0), row("1673", 5.0)]
    made = Extracted(rows)
    assert made.events.empty
    assert made.excluded == {}


def test_an_item_counts_in_its_own_table_only():
    assert Extracted([row("50820", 7.4), lab("211", 80.0)]).events.empty


# Glasgow Coma Scale

EYES = [
    ("184", "1 No Response", 1),
    ("184", "2 To pain", 2),
    ("184", "3 To speech", 3),
    ("184", "4 Spontaneously", 4),
    ("220739", "None", 1),
    ("220739", "To Pain", 2),
    ("220739", "To Speech", 3),
    ("220739", "Spontaneously", 4),
]
MOTOR = [
    ("454", "1 No Response", 1),
    ("454", "2 Abnorm extensn", 2),
    ("454", "3 Abnorm flexion", 3),
    ("454", "4 Flex-withdraws", 4),
    ("454", "5 Localizes Pain", 5),
    ("454", "6 Obeys Commands", 6),
    ("223901", "No response", 1),
    ("223901", "Abnormal extension", 2),
    ("223901", "Abnormal Flexion", 3),
    ("223901", "Flex-withdraws", 4),
    ("223901", "Localizes Pain", 5),
    ("223901", "Obeys Commands", 6),
]
VERBAL = [
    ("723", "1 No Response", 1),
    ("723", "1.0 ET/Trach", 1),
    ("723", "2 Incomp sounds", 2),
    ("723", "3 Inapprop words", 3),
    ("723", "4 Confused", 4),
    ("723", "5 Oriented", 5),
    ("223900", "No Response", 1),
    ("223900", "No Response-ETT", 1),
    ("223900", "Incomprehensible sounds", 2),
    ("223900", "Inappropriate Words", 3),
    ("223900", "Confused", 4),
    ("223900", "Oriented", 5),
]


def test_words_become_scores_and_each_its_own_category():
    for name, cases in {"gcs_eye": EYES, "gcs_motor": MOTOR, "gcs_verbal": VERBAL}.items():
        rows = [row(item, text, hour) for hour, (item, text, _) in enumerate(cases)]
        made = Extracted(rows)
        assert made.values(name) == [score for *_, score in cases]
        levels = made.last[made.last["variable"] == name]["level"]
        assert sorted(levels) == list(range(len(cases)))
        assert made.excluded == {}


def test_refill_is_charted_in_words():
    rows = [row("115", "Normal <3 secs"), row("223951", "Abnormal >3 Seconds", 2)]
    assert Extracted(rows).values("capillary_refill_rate") == [0, 1]


def test_numbers_without_words_are_scores_too():
    rows = [
        row("Glasgow coma score/Eyes", "3", 1, origin="nursecharting"),
        row("Glasgow coma score/GCS Total", 11.0, 1, text="11", origin="nursecharting"),
        row("184", 4.0, 2, text=""),
    ]
    rows[2]["text"] = None
    made = Extracted(rows)
    assert made.values("gcs_eye") == [3, 4]
    assert made.values("gcs_total") == [11]


def test_metavision_total_is_the_sum_of_one_charttime():
    rows = [
        row("220739", "To Pain", 1),
        row("223900", "No Response-ETT", 1, stored=2),
        row("223901", "Localizes Pain", 1),
        # Parts of different charttimes are no total.
        row("220739", "Spontaneously", 2),
        row("223901", "Obeys Commands", 2.5),
        row("223900", "Oriented", 2.5),
    ]
    made = Extracted(rows)
    assert made.values("gcs_total") == [8]


def test_intubated_verbal_counts_one_whatever_its_number():
    rows = [row("220739", "None"), row("223901", "No response")]
    rows.append({**row("223900", 0.0), "text": "No Response-ETT"})
    made = Extracted(rows)
    assert made.values("gcs_verbal") == [1]
    assert made.values("gcs_total") == [3]


def test_carevue_total_is_its_own_and_never_summed():
    rows = [
        row("184", "4 Spontaneously"),
        row("454", "6 Obeys Commands"),
        row("723", "1.0 ET/Trach"),
        row("198", 11.0, text="11", hour=1),
    ]
    assert Extracted(rows).values("gcs_total") == [11]
    assert Extracted(rows[:3]).values("gcs_total") == []


def test_of_duplicates_at_one_charttime_the_last_stored_counts():
    rows = [
        row("220739", "Spontaneously", 1, stored=3),
        row("220739", "To Pain", 1, stored=2),
        row("220739", "None", 1),
        row("223900", "Oriented", 1),
        row("223901", "Obeys Commands", 1),
    ]
    made = Extracted(rows)
    assert made.values("gcs_eye") == [1, 2, 4], "all are kept, the one that counts comes last"
    assert made.at_bin("gcs_eye", 1) == 4
    assert made.values("gcs_total") == [15]


def test_a_part_that_is_left_out_leaves_no_total():
    rows = [
        row("220739", "Spontaneously"),
        row("223900", "Oriented", error=True),
        row("223901", "Obeys Commands"),
    ]
    assert Extracted(rows).values("gcs_total") == []


# Which of several rows counts


def test_last_of_a_bin_by_charttime_then_storetime_then_item():
    later = Extracted([row("455", 120.0, 1.5), row("51", 110.0, 1.9)])
    assert later.at_bin("systolic_blood_pressure", 1) == 110
    stored = Extracted([row("455", 120.0, 1.5, stored=2), row("51", 110.0, 1.5, stored=3)])
    assert stored.at_bin("systolic_blood_pressure", 1) == 110
    cuff = Extracted([row("455", 120.0, 1.5, stored=2), row("51", 110.0, 1.5, stored=2)])
    assert cuff.at_bin("systolic_blood_pressure", 1) == 120
    missing = Extracted([row("455", 120.0, 1.5), row("51", 110.0, 1.5, stored=2)])
    assert missing.at_bin("systolic_blood_pressure", 1) == 110, "no storetime counts least"


def test_two_words_of_one_score_have_an_order():
    words = ["No Response-ETT", "No Response"]
    for first, second in (words, words[::-1]):
        made = Extracted([row("223900", first), row("223900", second)])
        assert made.values("gcs_verbal") == [1, 1]
        assert made.last["level"].tolist() == [11]


def test_item_ids_are_compared_as_numbers():
    made = Extracted([row("51", 110.0), row("220050", 100.0), row("6701", 120.0)])
    assert made.at_bin("systolic_blood_pressure", 1) == 100


def test_order_of_rows_changes_nothing():
    generator = np.random.default_rng(0)
    rows = [
        row(item, float(value), hour, stored=hour + 1)
        for item in ("51", "455", "220050")
        for hour in (0.2, 0.2, 0.7, 5.0)
        for value in generator.integers(90, 130, 2)
    ]
    first = Extracted(rows)
    again = Extracted([rows[k] for k in generator.permutation(len(rows))])
    assert first.events.equals(again.events)
    keys = ["stay_id", "variable", "bin"]
    ordered = [made.last.sort_values(keys, ignore_index=True) for made in (first, again)]
    assert ordered[0].equals(ordered[1])


def test_last_row_of_the_sorted_events_is_the_last_of_the_bin():
    generator = np.random.default_rng(1)
    rows = [
        row(item, float(generator.integers(90, 130)), float(hour), stored=float(stored))
        for item in ("51", "455", "220050", "220179")
        for hour in generator.integers(0, 6, 8) / 2
        for stored in generator.integers(3, 5, 1)
    ]
    made = Extracted(rows)
    from_file = made.events.assign(bin=np.floor(made.events["hour"]).astype(int))
    from_file = from_file.groupby(["stay_id", "variable", "bin"])["value"].last()
    expected = made.last.set_index(["stay_id", "variable", "bin"])["value"].sort_index()
    assert from_file.to_dict() == expected.to_dict()


# What is left out, and counted


def test_exclusions_are_counted_by_variable_and_reason():
    rows = [
        row("211", 80.0),
        row("211", 80.0, error=True),
        row("211", None),
        row("211", "ERROR"),
        row("220179", 11647.0),
        row("211", 80.0, None),
        row("211", 80.0, -0.5),
        lab("50809", "GREATER THAN 500"),
        lab("50931", 140.0, 80.0, hadm_id=10),
        row("220052", -8.0),
    ]
    made = Extracted(rows)
    assert made.values("heart_rate") == [80]
    assert made.excluded == {
        ("heart_rate", "error flag"): 1,
        ("heart_rate", "empty"): 1,
        ("heart_rate", "unreadable"): 1,
        ("heart_rate", "no charttime"): 1,
        ("heart_rate", "outside stay"): 1,
        ("systolic_blood_pressure", "implausible"): 1,
        ("mean_blood_pressure", "implausible"): 1,
        ("glucose", "unreadable"): 1,
    }


def test_numbers_written_as_text_are_read():
    rows = [
        row("FiO2", "45%", origin="respiratorycharting"),
        row("FiO2", " 60 ", 2, origin="respiratorycharting"),
        row("FiO2", "room air", 3, origin="respiratorycharting"),
    ]
    made = Extracted(rows)
    assert made.values("fraction_inspired_oxygen") == pytest.approx([0.45, 0.6])
    assert made.excluded == {("fraction_inspired_oxygen", "unreadable"): 1}


def test_errors_are_flagged_or_null():
    rows = [row("211", 80.0), row("211", 90.0, 2)]
    rows[0]["error"] = None
    assert Extracted(rows).values("heart_rate") == [80, 90]


# To which stay a row belongs


def test_window_is_half_open_with_its_seconds():
    second = 1 / 3600
    rows = [row("211", value, hour) for value, hour in
            [(70.0, -second), (71.0, 0.0), (72.0, 48 - second), (73.0, 48.0)]]  # fmt: skip
    made = Extracted(rows)
    assert made.values("heart_rate") == [71, 72]
    assert made.events["hour"].tolist() == pytest.approx([0, 48 - second])
    assert made.last.sort_values("bin")["bin"].tolist() == [0, 47]


def test_bins_begin_at_admission_to_the_second():
    made = Extracted([row("211", 70.0, 1 - 1 / 3600), row("211", 80.0, 1.0)])
    assert (made.at_bin("heart_rate", 0), made.at_bin("heart_rate", 1)) == (70, 80)
    two = Extracted([row("211", 70.0, 1.99), row("211", 80.0, 2.0)], hours_per_bin=2)
    assert (two.at_bin("heart_rate", 0), two.at_bin("heart_rate", 1)) == (70, 80)


def test_a_row_without_stay_belongs_by_its_admission_and_must_lie_within_the_stay():
    rows = [
        lab("50931", 100.0, -0.5),
        lab("50931", 101.0, 0.0),
        lab("50931", 102.0, 29.99),
        lab("50931", 103.0, 30.0),
        lab("50931", 104.0, 10.0, hadm_id=99),
        lab("50931", 105.0, 10.0, hadm_id=None),
    ]
    made = Extracted(rows, [stay(length=30)])
    assert made.values("glucose") == [101, 102]
    assert made.excluded == {("glucose", "outside stay"): 1, ("glucose", "no admission named"): 1}


def test_a_row_with_a_stay_is_not_given_to_another_of_its_admission():
    stays = [stay(100, length=10), stay(200, intime="2150-03-03 00:00:00")]
    rows = [row("211", 70.0, 1, stay_id=200), row("211", 80.0, 1, stay_id=100)]
    rows += [row("211", 90.0, 1, stay_id=300), lab("50931", 100.0, 5), lab("50931", 110.0, 41)]
    made = Extracted(rows, stays)
    found = made.events[["stay_id", "variable", "value"]].values.tolist()
    assert found == [
        [100, "glucose", 100.0],
        [100, "heart_rate", 80.0],
        [200, "glucose", 110.0],
    ]


def test_stays_keep_their_rows_apart():
    stays = [stay(100, 10), stay(200, 20)]
    rows = [row("211", 70.0, stay_id=100), row("211", 80.0, stay_id=200, hadm_id=20)]
    made = Extracted(rows, stays)
    assert made.events.set_index("stay_id")["value"].to_dict() == {100: 70, 200: 80}


# Before the window, and entered after it


def matched(rows, **options) -> pd.DataFrame:
    return ibis.duckdb.connect().execute(events.match(*tables(rows), hours=48, **options))


def test_height_and_weight_are_looked_for_before_the_stay():
    rows = [
        row("226730", 168.0, -24.0),
        row("226730", 169.0, -24.01),
        row("226512", 80.0, -0.5),
        row("226512", 81.0, -0.25, stay_id=None),
        row("211", 90.0, -0.5),
    ]
    found = matched(rows, look_back=24)
    kept = found[found["reason"].isna()].sort_values("value")
    assert kept["value"].tolist() == [80, 81, 168]
    assert kept["hour"].tolist() == [-0.5, -0.25, -24]
    assert matched(rows)["reason"].eq("outside stay").all()
    engine = ibis.duckdb.connect()
    accepted = events.accept(
        engine.create_table("m", events.match(*tables(rows), hours=48, look_back=24))
    )
    last = engine.execute(events.last_in_bin(accepted).order_by("value"))
    assert last["bin"].tolist() == [-1, -1]
    assert last["value"].tolist() == [81, 168]


def test_what_is_entered_after_the_window_is_counted_or_left_out():
    rows = [
        row("211", 80.0, 47.0, stored=47.5),
        row("211", 81.0, 46.0, stored=48.0),
        row("211", 82.0, 45.0, stored=60.0),
        row("211", 83.0, 44.0),
    ]
    engine = ibis.duckdb.connect()
    for known_by, left in (("charttime", 4), ("storetime", 2)):
        found = engine.create_table(
            known_by, events.match(*tables(rows), hours=48, known_by=known_by)
        )
        counts = engine.execute(events.entered(found)).iloc[0].to_dict()
        assert counts == {"rows": 4, "late": 2, "stays": 1, "untold": 1}
        assert len(engine.execute(events.accept(found))) == left
    with pytest.raises(ValueError, match="known_by is charttime or storetime"):
        events.match(*tables(rows), hours=48, known_by="hearsay")


def test_times_that_cannot_be_read_are_told_from_none():
    rows = [row("211", 80.0, None), row("211", 80.0, None), row("211", 80.0, 1)]
    measurements, stays = tables(rows)
    measurements = measurements.mutate(
        unreadable=(measurements.charttime.isnull()).ifelse(
            "chartevents.charttime", ibis.null("string")
        )
    )
    engine = ibis.duckdb.connect()
    found = engine.create_table("m", events.match(measurements, stays, hours=48))
    excluded = engine.execute(events.exclusions(found))
    assert excluded[["reason", "rows"]].to_numpy().tolist() == [["unreadable charttime", 2]]
    counted = engine.execute(events.unreadable(found))
    assert counted.to_numpy().tolist() == [["chartevents.charttime", 2, 3]]


# Engines


def plan():
    measurements = ibis.table(ibis.schema(MEASUREMENTS), name="measurements")
    stays = ibis.table(ibis.schema(STAYS), name="stays")
    matched = events.match(measurements, stays, hours=48)
    accepted = events.accept(matched)
    return [events.exclusions(matched), events.long_form(accepted), events.last_in_bin(accepted)]


def test_compiles_for_bigquery():
    for expression in plan():
        sql = ibis.to_sql(expression, dialect="bigquery")
        assert "UNIX_SECONDS" in sql


def random_rows(generator, count=60):
    """Rows of every kind over four days."""
    words = [("220739", "To Pain"), ("223900", "Oriented"), ("223901", "Obeys Commands")]
    made = []
    for _ in range(count):
        hour = float(np.round(generator.uniform(-2, 96) * 12) / 12)
        kind = generator.integers(4)
        if kind == 0:
            made += [row(item, text, hour) for item, text in words]
        elif kind == 1:
            made.append(lab("50931", float(generator.integers(60, 300)), hour))
        else:
            item = str(generator.choice(["211", "455", "51", "190", "678"]))
            value = {"190": 0.5, "678": 99.0}.get(item, float(generator.integers(60, 150)))
            made.append(row(item, value, hour, stored=hour + 0.5))
    return made


@pytest.mark.slow
# PySpark 4.3 calls what pandas 3 has renamed.
@pytest.mark.filterwarnings("ignore")
def test_spark_agrees(tmp_path):
    """The same rows and counts, in the same order, whichever engine runs the expressions."""
    generator = np.random.default_rng(0)
    rows = random_rows(generator, 150)
    for one in rows[::11]:
        one["error"] = True
    for one in rows[5::13]:
        one["text"], one["number"] = "ERROR", None
    rows += [row("FiO2", "45%", 3, origin="respiratorycharting"), row("226531", 150.0, 4)]
    rows += [row(item, text, 5 + k / 3) for k, (item, text, _) in enumerate(VERBAL)]
    measurements, stays = tmp_path / "measurements.parquet", tmp_path / "stays.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=MEASUREMENTS), measurements)
    pq.write_table(pa.Table.from_pylist([stay()], schema=STAYS), stays)
    found = {}
    for name in ("duckdb", "spark"):
        (tmp_path / name).mkdir()
        engine = start(name, folder=tmp_path / name)
        try:
            read = engine.read(measurements), engine.read(stays)
            matched = engine.keep("matched", events.match(*read, hours=48))
            accepted = engine.keep("accepted", events.accept(matched))
            last = events.last_in_bin(accepted).order_by("stay_id", "variable", "bin")
            wanted = (events.long_form(accepted), events.exclusions(matched), last)
            found[name] = [engine.frame(table) for table in wanted]
        finally:
            engine.close()
    for ours, theirs in zip(found["duckdb"], found["spark"], strict=True):
        assert len(ours) > 10
        pd.testing.assert_frame_equal(ours, theirs, check_dtype=False, rtol=1e-12)


def test_measurements_are_read_in_one_pass():
    measurements = ibis.table(ibis.schema(MEASUREMENTS), name="measurements")
    stays = ibis.table(ibis.schema(STAYS), name="stays")
    sql = ibis.to_sql(events.match(measurements, stays, hours=48), dialect="duckdb")
    assert sql.count('"measurements"') == 1


@pytest.mark.parametrize("hours", [0, -1, float("nan")])
def test_window_and_bin_have_a_length(hours):
    with pytest.raises(ValueError, match="longer than 0 hours"):
        events.match(*tables([row("211", 80.0)]), hours=hours)
    accepted = events.accept(events.match(*tables([row("211", 80.0)]), hours=48))
    with pytest.raises(ValueError, match="longer than 0 hours"):
        events.last_in_bin(accepted, hours_per_bin=hours)
