"""Published lists of splits: read from where they lie, and refused where they do not fit."""

from pathlib import Path

import pandas as pd
import pytest

import raw_mimic3
from cm2.cli import main
from cm2.clinical.prepare import lists
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.places import Named
from cm2.clinical.prepare.run import Run

BENCHMARK = ("mimic3-benchmarks", "mimic3")
MEDFUSE = ("medfuse", "mimic4")


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_mimic3.write(tmp_path_factory.mktemp("raw"), raw_mimic3.tables())


@pytest.mark.parametrize(
    "places", [(".", "."), ("mimic3benchmark/resources", "mimic3models/resources")]
)
def test_patients_are_in_the_part_of_their_list(tmp_path: Path, places: tuple[str, str]) -> None:
    test, validation = places
    write(
        tmp_path,
        {f"{test}/testset.csv": "7,1\n8,0\n9,0\n", f"{validation}/valset.csv": "8,1\n9,0\n10,0\n"},
    )
    parts = {7: "test", 8: "validation", 9: "train", 10: "train"}
    assert lists.read("mimic3-benchmarks", tmp_path, "mimic3") == (parts, "train")


@pytest.mark.parametrize("place", ["mimic4extract/mimic3models/resources", "ehr_utils/resources"])
def test_the_lists_of_medfuse_have_names_of_their_own(tmp_path: Path, place: str) -> None:
    test = "mimic4extract/mimic3benchmark/resources"
    # The lists of MIMIC-III lie beside them.
    write(
        tmp_path,
        {
            f"{test}/testset.csv": "1,1\n",
            f"{place}/valset.csv": "2,1\n",
            f"{test}/testset_iv.csv": "7,1\n8,0\n",
            f"{place}/valset_iv.csv": "8,1\n",
        },
    )
    assert lists.read("medfuse", tmp_path, "mimic4").parts == {7: "test", 8: "validation"}


def test_lists_of_stays_tell_the_patients_too(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "train_listfile.csv": "stay,y_true\n7_episode1_timeseries.csv,0\n"
            "7_episode2_timeseries.csv,1\n",
            "val_listfile.csv": "stay,period_length,stay_id,y_true\n"
            "8_episode1_timeseries.csv,0,5,1\n",
            "test_listfile.csv": "stay,y_true\n9_episode3_timeseries.csv,0\n",
        },
    )
    parts = {7: "train", 8: "validation", 9: "test"}
    assert lists.read("mimic3-benchmarks", tmp_path, "mimic3") == (parts, None)


def test_a_fold_of_carebench_is_three_tables_of_stays(tmp_path: Path) -> None:
    # Their lists of X-rays hold commas and quotes.
    cxrs = "\"[('a', Timestamp('2150-01-01')), ('b', Timestamp('2150-01-02'))]\""
    files = {
        "stays_train.csv": f"stay_id,subject_id,valid_cxrs\n1,7,{cxrs}\n2,7,[]\n",
        "stays_val.csv": "stay_id,subject_id,valid_cxrs\n3,8,[]\n",
        "stays_test.csv": "stay_id,subject_id,valid_cxrs\n4,9,[]\n",
    }
    write(tmp_path, files)
    assert lists.read("carebench", tmp_path, "mimic4") == (
        {7: "train", 8: "validation", 9: "test"},
        None,
    )
    write(tmp_path, {"stays_test.csv": "stay_id,subject_id\n4,8\n"})
    with pytest.raises(TableError, match="1 patients stand in the lists of two parts"):
        lists.read("carebench", tmp_path, "mimic4")
    write(tmp_path, {"stays_test.csv": "stay_id,subject_id\n4,\n5,x\n"})
    with pytest.raises(TableError, match="2 stays have no number of a patient"):
        lists.read("carebench", tmp_path, "mimic4")
    (tmp_path / "stays_val.csv").unlink()
    with pytest.raises(MissingError, match=r"not all of stays_train\.csv.*/stays_val\.csv$"):
        lists.read("carebench", tmp_path, "mimic4")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"testset.csv": "subject,test\n7,1\n"}, r"testset\.csv: line 1: a patient's number and 0"),
        ({"testset.csv": "7,0,1\n"}, "line 1: a patient's number"),
        ({"testset.csv": "7,2\n"}, "line 1: a patient's number"),
        ({"testset.csv": "7,1\n7,0\n"}, "line 2: this patient stands there with 0 and with 1"),
        ({"testset.csv": "8,1\n"}, "1 patients stand in the lists of two parts"),
    ],
)
def test_lists_that_are_not_as_published_are_refused(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    write(tmp_path, {"valset.csv": "8,1\n"} | files)
    with pytest.raises(TableError, match=message):
        lists.read("mimic3-benchmarks", tmp_path, "mimic3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("y_true\n", "a list of stays begins with the column stay"),
        ("stay,y_true\n9_timeseries.csv,0\n", "1 stays are not written as SUBJECT_episodeN"),
        (
            "stay,y_true\n7_episode2_timeseries.csv,0\n",
            "1 patients stand in the lists of two parts",
        ),
    ],
)
def test_lists_of_stays_that_cannot_be_read_are_refused(
    tmp_path: Path, line: str, message: str
) -> None:
    good = "stay,y_true\n{}_episode1_timeseries.csv,0\n"
    write(
        tmp_path,
        {
            "train_listfile.csv": good.format(7),
            "val_listfile.csv": good.format(8),
            "test_listfile.csv": line,
        },
    )
    with pytest.raises(TableError, match=message):
        lists.read("mimic3-benchmarks", tmp_path, "mimic3")


def test_lists_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"the first path tried was .*/testset\.csv$"):
        lists.read(*BENCHMARK[:1], tmp_path, "mimic3")
    write(tmp_path, {"testset_iv.csv": "7,1\n"})
    with pytest.raises(MissingError, match=r"the first path tried was .*/valset_iv\.csv$"):
        lists.read("medfuse", tmp_path, "mimic4")
    with pytest.raises(MissingError, match="no such folder of lists"):
        lists.read("medfuse", tmp_path / "nowhere", "mimic4")
    with pytest.raises(
        TableError, match="the lists of medfuse are of patients of mimic4, not mimic3"
    ):
        lists.read("medfuse", tmp_path, "mimic3")


def test_a_preparation_splits_by_the_lists(raw: Path, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "lists", {"testset.csv": "1,1\n2,0\n3,0\n4,0\n", "valset.csv": "2,1\n3,0\n4,0\n"}
    )
    out = tmp_path / "out"
    command = ["prepare", "mimic3", "--raw", str(raw), "--out", str(out)]
    command += ["--splits-from", "mimic3-benchmarks", "--lists", str(folder)]
    assert main(command) == 0
    stays = pd.read_parquet(out / "stays.parquet").set_index("subject_id")["split"]
    parts = {1: "test", 2: "validation"}
    assert all(part == parts.get(subject, "train") for subject, part in stays.items())
    options = Options(splits_from="mimic3-benchmarks")
    about = prepare("mimic3", raw, out, options, named=Named(split_lists=folder))
    unlisted = stays[~stays.index.isin([1, 2, 3, 4])]
    assert about["counts"]["in no list"] == {
        "patients": unlisted.index.nunique(),
        "stays": len(unlisted),
    }
    assert len(unlisted) > 0
    write(folder, {"valset.csv": "2,0\n3,1\n4,0\n"})
    with pytest.raises(TableError, match="differs in split_file"):
        prepare("mimic3", raw, out, options, named=Named(split_lists=folder))


def test_patients_of_no_list_of_stays_are_left_out(raw: Path, tmp_path: Path) -> None:
    good = "stay,y_true\n{}_episode1_timeseries.csv,0\n"
    files = {
        f"{part}_listfile.csv": good.format(k) for k, part in enumerate(["test", "train", "val"], 1)
    }
    about = prepare(
        "mimic3",
        raw,
        tmp_path / "out",
        Options(splits_from="mimic3-benchmarks"),
        named=Named(split_lists=write(tmp_path / "lists", files)),
    )
    stays = pd.read_parquet(tmp_path / "out/stays.parquet")
    assert set(stays["subject_id"]) == {1, 2, 3}
    assert dict(about["flow"])["excluded: patient not in the file of splits"] == 4
    assert "in no list" not in about["counts"]


def test_lists_of_other_data_are_refused_before_large_tables_are_read(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "lists", {"testset.csv": "901,1\n", "valset.csv": "902,1\n"})
    options = Options(splits_from="mimic3-benchmarks")

    def read(*_: object) -> None:
        pytest.fail("the large tables are read")

    monkeypatch.setattr(Run, "_measure", read)
    with pytest.raises(TableError, match=r"none of the \d+ patients that are left is in"):
        prepare("mimic3", raw, tmp_path / "out", options, named=Named(split_lists=folder))
    split = tmp_path / "split.csv"
    for parts, message in (
        ("subject_id,split\n901,train\n902,test\n", "no stay is left"),
        ("subject_id,split\n1,test\n2,test\n", "is of the training split"),
    ):
        split.write_text(parts)
        with pytest.raises(TableError, match=message):
            prepare("mimic3", raw, tmp_path / "out", named=Named(split_file=split))
    assert not (tmp_path / "out").exists()


def test_two_ways_to_split_are_refused(raw: Path, tmp_path: Path) -> None:
    options = Options(splits_from="mimic3-benchmarks")
    with pytest.raises(TableError, match="--splits-from needs --lists"):
        prepare("mimic3", raw, tmp_path / "out", options)
    with pytest.raises(TableError, match="--splits-from needs --lists"):
        prepare("mimic3", raw, tmp_path / "out", named=Named(split_lists=tmp_path))
    with pytest.raises(TableError, match="--splits and --splits-from are two ways"):
        prepare(
            "mimic3",
            raw,
            tmp_path / "out",
            options,
            named=Named(split_file=raw, split_lists=tmp_path),
        )
    with pytest.raises(TableError, match="--split-by and --splits-from are two ways"):
        Options(splits_from="medfuse", split_by="anchor_year_group")
    with pytest.raises(
        TableError, match="splits_from must be None or mimic3-benchmarks or medfuse or carebench"
    ):
        Options(splits_from="mimic-cxr")
    with pytest.raises(TableError, match="physionet2012 has no use for --lists"):
        prepare("physionet2012", raw, tmp_path / "out", named=Named(split_lists=tmp_path))
