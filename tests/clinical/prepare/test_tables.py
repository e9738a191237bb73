"""Opening raw tables: found in any case and format, and each broken file named with its fault."""

import gzip
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.tables import Tables

WANTED = {"patient": {"stay": "int64", "age": "float64", "sex": "string"}}
SECRET = "63.25"
CONTENT = f"stay,Age,SEX,other\n1,{SECRET},F,x\n2,forty,,y\n3,,M,z\n4,inf,M,z\n"
# So many rows that two unreadable values are few.
MANY = CONTENT + "".join(f"{k},50,F,x\n" for k in range(5, 305))


def gz(path: Path, text: str = CONTENT) -> Path:
    path.write_bytes(gzip.compress(text.encode()))
    return path


@pytest.mark.parametrize("name", ["patient.csv", "PATIENT.CSV", "patient.csv.gz", "Patient.CSV.GZ"])
def test_a_file_is_found_in_any_case(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.lower().endswith(".gz"):
        gz(path, MANY)
    else:
        path.write_text(MANY)
    with Tables(tmp_path, WANTED) as tables:
        frame = tables["patient"].order_by("stay").limit(4).execute()
        assert tables.unreadable == {"patient.age": 2}
    assert frame["stay"].tolist() == [1, 2, 3, 4]
    assert frame["age"].notna().tolist() == [True, False, False, False]
    assert frame["sex"].isna().tolist() == [False, True, False, False]
    assert list(frame.columns) == ["stay", "age", "sex"]


def test_parquet_is_preferred(tmp_path: Path) -> None:
    gz(tmp_path / "patient.csv.gz")
    pd.DataFrame({"STAY": [7], "age": [1.5], "sex": ["F"]}).to_parquet(tmp_path / "patient.parquet")
    with Tables(tmp_path, WANTED) as tables:
        frame = tables["patient"].execute()
    assert frame["stay"].tolist() == [7]
    assert frame["age"].tolist() == [1.5]


def test_flags_may_be_words(tmp_path: Path) -> None:
    words = ["True", "false", "TRUE", "1", "0", "1.0", ""]
    gz(tmp_path / "patient.csv.gz", "stay,died\n" + "".join(f"1,{w}\n" for w in words))
    wanted = {"patient": {"stay": "int64", "died": "int8"}}
    with Tables(tmp_path, wanted) as tables:
        died = tables["patient"].execute()["died"]
        assert tables.unreadable == {}
    with Tables(tmp_path, wanted, lazy={"patient"}) as tables:
        tables.check()
        assert tables["patient"].execute()["died"].equals(died)
    assert died.tolist()[:6] == [1, 0, 1, 1, 0, 1]
    assert died.isna().tolist() == [False] * 6 + [True]


@pytest.mark.parametrize("lazy", [True, False])
def test_identifiers_are_exact_and_may_be_written_as_floats(lazy: bool, tmp_path: Path) -> None:
    """2^53 + 1 is the first whole number that a float does not hold."""
    gz(tmp_path / "patient.csv.gz", f"stay\n{2**53 + 1}\n12.0\n{2**63 - 1}.00\n \n")
    wanted = {"patient": {"stay": "int64"}}
    with Tables(tmp_path, wanted, lazy={"patient"} if lazy else ()) as tables:
        stays = tables["patient"].stay.cast("string").execute()
    assert stays.dropna().tolist() == [str(2**53 + 1), "12", str(2**63 - 1)]


@pytest.mark.parametrize("lazy", [True, False])
def test_identifiers_are_whole_and_written_as_numbers_are(lazy: bool, tmp_path: Path) -> None:
    """Engines take ``0x1F`` and ``12.5`` for whole numbers, and not for the same."""
    read = ["-7.0", "+8.", "007", "1e2", "2.0000001E7"]
    unread = ["0x1F", "0b11", "12.5", "1_000", "9223372036854775808", "1e300", "1.5e0", "nan"]
    unread += ["9007199254740993.5", "9007199254740993e0", "0.9999999999999999999", "1e-999"]
    unread += [".5e1"]
    rows = "".join(f"{text}\n" for text in [*read, *unread, *range(1000, 3000)])
    gz(tmp_path / "patient.csv.gz", "stay\n" + rows)
    wanted = {"patient": {"stay": "int64"}}
    with Tables(tmp_path, wanted, lazy={"patient"} if lazy else ()) as tables:
        tables.check()
        stays = tables["patient"].stay.execute().dropna().astype("int64")
        assert tables.unreadable == ({} if lazy else {"patient.stay": len(unread)})
    assert sorted(stays) == [-7, 7, 8, 100, *range(1000, 3000), 20_000_001]


@pytest.mark.parametrize("lazy", [True, False])
def test_a_column_of_which_much_cannot_be_read_stops(lazy: bool, tmp_path: Path) -> None:
    rows = "".join(f"{k},{'forty' if k < 3 else 40},F,x\n" for k in range(200))
    gz(tmp_path / "patient.csv.gz", "stay,age,sex,other\n" + rows)
    options = {"lazy": {"patient"}} if lazy else {}
    with Tables(tmp_path, WANTED, **options) as tables:
        with pytest.raises(TableError, match=r"column age: 3 of 200 values cannot be read") as e:
            tables.check() if lazy else tables["patient"]
        assert "forty" not in str(e.value)
        assert "patient.csv.gz" in str(e.value)


def test_rows_of_a_lazy_table_say_what_could_not_be_read(tmp_path: Path) -> None:
    gz(tmp_path / "patient.csv.gz")
    with Tables(tmp_path, WANTED, lazy={"patient"}) as tables:
        frame = tables["patient"].order_by("stay").execute()
    assert frame["unreadable"].fillna("").tolist() == ["", "patient.age", "", "patient.age"]


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_a_table_without_rows_is_named(form: str, tmp_path: Path) -> None:
    path, header = tmp_path / f"patient.{form}", "stay,age,sex\n"
    if form == "parquet":
        pd.DataFrame({"stay": [], "age": [], "sex": []}).to_parquet(path)
    else:
        path.write_bytes(gzip.compress(header.encode()) if form != "csv" else header.encode())
    with Tables(tmp_path, WANTED) as tables:
        assert tables.empty == ["patient"]
    gz(tmp_path / "patient.csv.gz")
    if form == "csv.gz":
        with Tables(tmp_path, WANTED) as tables:
            assert tables.empty == []


def test_zeros_after_a_gzip_file_are_named(tmp_path: Path) -> None:
    path = gz(tmp_path / "patient.csv.gz")
    path.write_bytes(path.read_bytes() + b"\0" * 1000)
    with Tables(tmp_path, WANTED) as tables, pytest.raises(TableError, match="such as zeros"):
        tables["patient"]


def test_a_line_without_end_is_named(tmp_path: Path) -> None:
    rows = "1,2,F,x\n" * 400_000
    gz(tmp_path / "patient.csv.gz", CONTENT + '5,40,"F,x\n' + rows)
    with Tables(tmp_path, WANTED) as tables, pytest.raises(TableError, match="more than 2 MB"):
        tables["patient"]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Tables(tmp_path / "nowhere", WANTED)


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file for table\(s\) patient .*patient\.csv"):
        Tables(tmp_path, WANTED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stay,sex\n1,F\n", r"table patient lacks column\(s\) age; its first line has 2 names"),
        (CONTENT.replace(",", ";"), "not delimited by commas"),
        (CONTENT.replace(",", "\t"), "not delimited by commas"),
        ("", "empty file"),
    ],
)
def test_wrong_headers_are_refused_before_any_work(text: str, message: str, tmp_path: Path) -> None:
    gz(tmp_path / "patient.csv.gz", text)
    with pytest.raises(ValueError, match=message) as caught:
        Tables(tmp_path, WANTED)
    assert "patient.csv.gz" in str(caught.value)


def test_truncated_gzip(tmp_path: Path) -> None:
    rows = "\n".join(f"{k},{k * 7919 % 101},F,{k * k}" for k in range(20_000))
    path = gz(tmp_path / "patient.csv.gz", CONTENT + rows)
    path.write_bytes(path.read_bytes()[:-2000])
    with Tables(tmp_path, WANTED) as tables, pytest.raises(ValueError, match="truncated") as caught:
        tables["patient"].execute()
    assert "patient.csv.gz" in str(caught.value)


def test_not_a_gzip_file(tmp_path: Path) -> None:
    (tmp_path / "patient.csv.gz").write_text(CONTENT)
    with pytest.raises(ValueError, match="truncated or not a gzip file"):
        Tables(tmp_path, WANTED)


def test_messages_carry_no_value_of_a_patient(tmp_path: Path) -> None:
    gz(tmp_path / "patient.csv.gz", CONTENT + f'5,{SECRET},F,x,too,many,"open\n')
    with Tables(tmp_path, WANTED) as tables, pytest.raises(ValueError, match="cannot be read") as e:
        tables["patient"].execute()
    assert SECRET not in str(e.value)
    assert e.value.__suppress_context__


def test_the_first_row_of_a_file_without_a_header_is_not_quoted(tmp_path: Path) -> None:
    gz(tmp_path / "patient.csv.gz", f"5,{SECRET},F,x\n6,40,M,y\n")
    with pytest.raises(ValueError, match="its first line has 4 names") as caught:
        Tables(tmp_path, WANTED)
    assert SECRET not in str(caught.value)


def test_without_ibis_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['ibis'] = None; import cm2.clinical.prepare.tables"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "pip install 'cm2[tables]'" in run.stderr


def test_parts_of_a_table_have_the_type_that_all_can_have(tmp_path: Path) -> None:
    wanted = {"b": {"stay": "int64", "value": "float64"}}
    for number, values in enumerate(([10, 20], [30.5, 40.0])):
        part = tmp_path / "b.parquet" / f"{number}.parquet"
        part.parent.mkdir(exist_ok=True)
        pd.DataFrame({"stay": [2 * number, 2 * number + 1], "value": values}).to_parquet(part)
    for lazy in (set(), {"b"}):
        with Tables(tmp_path, wanted, lazy=lazy) as tables:
            found = tables["b"].order_by("stay").execute()
        assert found["value"].tolist() == [10.0, 20.0, 30.5, 40.0]
    last = pd.DataFrame({"stay": [9], "value": [1.0], "of its own": ["x"]})
    last.to_parquet(tmp_path / "b.parquet" / "2.parquet")
    with Tables(tmp_path, wanted) as tables:
        assert len(tables["b"].execute()) == 5
    for unit in (1, 2):
        place = tmp_path / "c.parquet" / f"unit={unit}" / "0.parquet"
        place.parent.mkdir(parents=True)
        last.to_parquet(place)
    with Tables(tmp_path, {"c": {"stay": "int64", "unit": "int64"}}) as tables:
        assert sorted(tables["c"].execute()["unit"]) == [1, 2], "of the folders' names"
    last.drop(columns="value").to_parquet(tmp_path / "b.parquet" / "2.parquet")
    with pytest.raises(TableError, match="1 of 3 parts lack a column of stay, value"):
        Tables(tmp_path, wanted)


@pytest.mark.parametrize("lazy", [False, True])
def test_times_of_a_zone_are_refused(lazy: bool, tmp_path: Path) -> None:
    """They would be read hours apart from others, which tell the clock of the hospital."""
    wanted = {"stays": {"stay": "int64", "intime": "timestamp"}}
    times = pd.to_datetime(["2150-01-01 10:00", "2150-07-01 10:00"])
    for zone in (None, "America/New_York"):
        frame = pd.DataFrame({"stay": [1, 2], "intime": times.tz_localize(zone)})
        frame.to_parquet(tmp_path / "stays.parquet")
        with Tables(tmp_path, wanted, lazy={"stays"} if lazy else ()) as tables:
            if zone is None:
                assert tables["stays"].execute()["intime"].tolist() == times.tolist()
                continue
            with pytest.raises(TableError, match="column intime: times of a zone"):
                tables.check() if lazy else tables["stays"]


def test_a_table_of_two_schemas_is_refused_if_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "all.duckdb"
    with duckdb.connect(str(path)) as connection:
        for schema in ("demo", "hosp"):
            connection.execute(f"create schema {schema}")
            connection.execute(f"create table {schema}.patient as select 1 as stay, 2.0 as age")
        connection.execute("create table hosp.icustays as select 1 as stay")
    with pytest.raises(TableError, match="two tables patient, one of them in schema hosp"):
        Tables(path, {"patient": {"stay": "int64"}})
    with Tables(path, {"icustays": {"stay": "int64"}}) as tables:
        assert tables["icustays"].execute()["stay"].tolist() == [1]
