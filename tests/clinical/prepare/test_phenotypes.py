"""Phenotyping: groups of diagnoses by hand, on generated data, and on the real demo."""

import json
from collections.abc import Callable
from pathlib import Path

import ibis
import pandas as pd
import pytest

import raw_mimic3
from cm2.cli import main
from cm2.clinical.prepare import phenotypes, summary
from cm2.clinical.prepare.cohort import Cohort
from cm2.clinical.prepare.engine import DuckDB
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.phenotypes import PHENOTYPES
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.places import Named
from prepared_batches import Prepared

FIRST = {2: ["0389", "99591", "99592"], 249: ["78551", "78552"], 98: ["4019"], 157: ["5849"]}
"""Codes of some categories; the file that is made up here has one more for each of the others."""


def old_layout(path: Path, codes: dict[int, list[str]] = FIRST, *, left_out: int = 0) -> Path:
    """ICD-9 as HCUP publishes it: a note, names and codes in single quotes, padded."""
    codes = {number: [f"X{number}"] for number in PHENOTYPES.values()} | codes
    rows = [
        f"'{code:<5}','{number:<4}','A group; of, or with','TITLE, \"OTHER\"',' ',' '"
        for number, several in codes.items()
        for code in several
        if number != left_out
    ]
    header = (
        "'ICD-9-CM CODE','CCS CATEGORY','CCS CATEGORY DESCRIPTION','ICD-9-CM CODE DESCRIPTION',"
        "'OPTIONAL CCS CATEGORY','OPTIONAL CCS CATEGORY DESCRIPTION'"
    )
    nothing = "'     ','0    ','No DX','INVALID CODES IN USER DATA',' ',' '"
    other = "'V5861','257  ','Other aftercare','LONG-TERM USE OF ANTICOAGUL',' ',' '"
    text = "\r\n".join(["A note, of one line", header, nothing, other, *rows]) + "\r\n"
    path.write_text(text, encoding="latin-1")
    return path


def new_layout(path: Path) -> Path:
    """ICD-10 as HCUP publishes it: codes in single quotes, titles in double ones."""
    rows = [f"'Y{n}','{n}',\"A title, with 'it'\",\"A group\",'7','x','7.1','y'"
            for n in PHENOTYPES.values()]  # fmt: skip
    header = (
        "'ICD-10-CM CODE','CCS CATEGORY','ICD-10-CM CODE DESCRIPTION','CCS CATEGORY DESCRIPTION',"
        "'MULTI CCS LVL 1','MULTI CCS LVL 1 LABEL','MULTI CCS LVL 2','MULTI CCS LVL 2 LABEL'"
    )
    path.write_text("\n".join([header, "'A419','2',\"Sepsis\",\"Septicemia\",,,,", *rows]) + "\n")
    return path


def coded(*rows: tuple[int, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["HADM_ID", "ICD9_CODE"])


CODES = coded(
    (11, "99591"), (11, "78552"), (12, "4019"), (12, "99999"), (13, "0389"), (13, "0389"),
    (14, "V5861"), (15, None), (22, "5849"), (31, "4019"), (17, "5849"),
)  # fmt: skip


def raw(folder: Path, codes: pd.DataFrame = CODES) -> Path:
    return raw_mimic3.write(folder, raw_mimic3.tables() | {"DIAGNOSES_ICD": codes})


def test_groups_are_those_of_the_benchmark() -> None:
    assert len(PHENOTYPES) == len(set(PHENOTYPES.values())) == 25
    # The names of the benchmark, by the categories of HCUP's single-level CCS.
    assert sorted(PHENOTYPES.values()) == [
        2, 49, 50, 53, 55, 98, 99, 100, 101, 105, 106, 108, 109, 122, 127, 130, 131, 133, 134, 151,
        153, 157, 158, 238, 249,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    ccs = old_layout(folder / "$dxref 2015.csv")
    command = ["prepare", "mimic3", "--raw", str(raw(folder / "raw")), "--out", str(folder / "out")]
    assert main([*command, "--task", "phenotyping", "--ccs", str(ccs)]) == 0
    return folder / "out"


def test_labels_by_hand(made: Path) -> None:
    stays = pd.read_parquet(made / "stays.parquet").set_index("stay_id")
    # 105 has a row without a code, 106 no row: what they had is not known.
    assert stays.index.tolist() == [101, 102, 103, 104, 122, 131]
    assert stays["label"].isna().all()
    names = [f"label_{name}" for name in PHENOTYPES]
    assert [name for name in stays if name.startswith("label_")] == names
    found = {stay: [n[6:] for n in names if row[n]] for stay, row in stays.iterrows()}
    assert found == {
        101: ["septicemia", "shock"],
        102: ["essential_hypertension"],
        103: ["septicemia"],
        104: [],
        122: ["acute_renal_failure"],
        131: ["essential_hypertension"],
    }


def test_the_manifest_counts_and_the_reader_hands_out_rows_of_labels(made: Path) -> None:
    data = Prepared(made, split=None)
    assert data.labels == tuple(PHENOTYPES)
    assert data.target is not None
    assert data.target.shape == (6, 25)
    assert data.target.sum(dim=1).tolist() == [2, 1, 1, 0, 1, 1]
    assert data[[0, 3]].target.tolist() == data.target[[0, 3]].tolist()
    folder = Prepared(made, split="train")
    assert folder.target is not None
    assert len(folder.target) == len(folder)


def test_the_report_of_a_preparation(made: Path, tmp_path: Path) -> None:
    options = Options(task="phenotyping")
    about = json.loads((made / "manifest.json").read_text())
    assert about["classes"] is None
    assert about["labels"] == list(PHENOTYPES)
    assert about["positives"]["septicemia"] == 2
    assert about["positives"]["other_liver_diseases"] == 0
    assert sum(part["positive"] for part in about["counts"]["stays"].values()) == 5
    assert dict(about["flow"])["excluded: no code of a diagnosis"] == 2
    # 99591, 78552, 4019 twice, 99999, 0389, V5861 and 5849, of admissions in the cohort.
    assert about["counts"]["diagnoses"] == {"codes": 8, "of no category": 1}
    assert "stays with septicemia" in summary.text(about)
    other = old_layout(tmp_path / "other.csv", FIRST | {2: ["0389"]})
    with pytest.raises(TableError, match=r"differs in input \(ccs_icd9\)"):
        prepare("mimic3", made.parent / "raw", made, options, named=Named(ccs=[other]))


def test_both_layouts_are_read(tmp_path: Path) -> None:
    old, new = old_layout(tmp_path / "$dxref 2015.csv"), new_layout(tmp_path / "ccs10.csv")
    found = phenotypes.read([new, old])
    assert set(found) == {9, 10}
    assert found[9].categories["0389"] == 2
    assert found[9].categories["V5861"] == 257
    assert "" not in found[9].categories
    assert (found[10].categories["A419"], found[10].categories["Y249"]) == (2, 249)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "none.csv", "no such file of CCS"),
        (lambda path: old_layout(path / "x.csv", left_out=249), r"no code of the CCS categories"),
        (lambda path: new_layout(path / "old.csv").rename(path / "two.csv"), "a second CCS file"),
        (lambda path: raw(path / "raw") / "DIAGNOSES_ICD.csv", "no header with ICD-9-CM CODE"),
    ],
)
def test_files_that_are_no_ccs_are_refused(make, message: str, tmp_path: Path) -> None:
    with pytest.raises((TableError, MissingError), match=message):
        phenotypes.read([new_layout(tmp_path / "ccs10.csv"), make(tmp_path)])


def one_stay(engine: DuckDB, *rows: tuple[str, int]) -> tuple[Cohort, ibis.Table]:
    kept = engine.keep("kept", ibis.memtable({"stay_id": [5], "hadm_id": [7]}))
    frame = pd.DataFrame(rows, columns=["code", "version"]).assign(hadm_id=7)
    return Cohort(kept, kept, 1, []), engine.keep("codes", ibis.memtable(frame))


def test_codes_go_by_the_file_of_their_version(tmp_path: Path) -> None:
    groups = phenotypes.read([old_layout(tmp_path / "9.csv"), new_layout(tmp_path / "10.csv")])
    engine = DuckDB()
    # Y249 is no code of ICD-9, 038.9 has its point, a41.9 small letters too.
    cohort, codes = one_stay(engine, ("Y249", 9), (" 4019 ", 9), ("a41.9", 10), ("0389", 10))
    labels, counts = phenotypes.label(engine, cohort, codes, groups)
    row = engine.frame(labels).iloc[0]
    given = [name for name in PHENOTYPES if row[f"label_{name}"]]
    assert given == ["essential_hypertension", "septicemia"]
    assert counts == {"codes": 4, "of no category": 2}


def test_codes_of_a_version_without_a_file_are_refused(tmp_path: Path) -> None:
    groups = phenotypes.read([old_layout(tmp_path / "9.csv")])
    engine = DuckDB()
    cohort, codes = one_stay(engine, ("4019", 9), ("A419", 10), ("I10", 10))
    with pytest.raises(TableError, match="2 codes of diagnoses are of ICD-10, but the CCS file"):
        phenotypes.label(engine, cohort, codes, groups)
    engine = DuckDB()
    cohort, codes = one_stay(engine, ("unheard", 9))
    with pytest.raises(TableError, match="none of the 1 codes"):
        phenotypes.label(engine, cohort, codes, groups)


def test_what_cannot_be_is_said_first(tmp_path: Path) -> None:
    folder, out = raw(tmp_path / "raw"), tmp_path / "out"
    with pytest.raises(TableError, match="give --ccs FILE"):
        prepare("mimic3", folder, out, Options(task="phenotyping"))
    with pytest.raises(TableError, match="MEDS has one outcome a row, phenotyping 25"):
        Options(task="phenotyping", meds=True)
    with pytest.raises(TableError, match="in-hospital-mortality has no use for --ccs"):
        prepare("mimic3", folder, out, named=Named(ccs=[tmp_path / "x.csv"]))
    with pytest.raises(TableError, match=r"eicu does not allow the task phenotyping.*discharge"):
        prepare("eicu", folder, out, Options(task="phenotyping"))
    with pytest.raises(TableError, match="physionet2012 has no use for --ccs"):
        prepare("physionet2012", folder, out, named=Named(ccs=[tmp_path / "x.csv"]))
    (folder / "DIAGNOSES_ICD.csv").unlink()
    ccs = [old_layout(tmp_path / "ccs.csv")]
    with pytest.raises(MissingError, match=r"no file for table\(s\) diagnoses_icd"):
        prepare("mimic3", folder, out, Options(task="phenotyping"), named=Named(ccs=ccs))


def test_labels_of_the_real_demo_against_a_plain_count(
    dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    demo = dataset("mimiciii-demo")
    codes = {
        2: ["0389", "99591", "99592"], 131: ["51881", "51884"], 157: ["5849", "5845"],
        98: ["4019"], 106: ["42731"], 249: ["78551", "78552"],
    }  # fmt: skip
    ccs = [old_layout(tmp_path / "ccs.csv", codes)]
    about = prepare(
        "mimic3", demo, tmp_path / "out", Options(task="phenotyping"), named=Named(ccs=ccs)
    )
    assert about["flow"][-1] == ["stays kept", 57]
    stays = pd.read_parquet(tmp_path / "out" / "stays.parquet").set_index("hadm_id")
    rows = pd.read_csv(demo / "DIAGNOSES_ICD.csv.gz", dtype={"ICD9_CODE": str})
    for name, number in PHENOTYPES.items():
        those = rows.loc[rows["ICD9_CODE"].isin(codes.get(number, [])), "HADM_ID"]
        assert (stays[f"label_{name}"] == stays.index.isin(those)).all(), name
    assert stays["label_septicemia"].sum() > 5
