"""The command line: help without heavy imports, refusals before long work, exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import cm2
from cm2 import cli
from cm2.core.errors import InputError
from cm2.demo.folder import MARK, open_folder, write_config


def refuse(capsys, *arguments: str) -> str:
    assert cli.main(["demo", *arguments]) == 2
    return capsys.readouterr().err


def test_version_and_help(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"cm2 {cm2.__version__}"
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for option in ("--data", "--out", "--seeds", "--rates", "--config"):
        assert option in printed


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom cm2 import cli\n"
        "try:\n    cli.main(['demo', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "print('loaded', *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.rsplit("loaded", 1)[1].split()
    assert not set(loaded) & {"lightning", "sklearn", "pandas", "matplotlib", "ibis"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seedz", "3"], "seedz"),
        (["--seeds", "three"], "seeds"),
        (["--rates", "[0, x]"], "rates"),
        (["--config", "absent.yaml"], "absent.yaml"),
    ],
)
def test_mistyped_options_exit_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_an_option_that_a_file_gives_twice_is_refused(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("seeds: 3\nout: x\nseeds: 4\n")
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--config", str(path)])
    assert stop.value.code == 2
    assert "the key 'seeds' is there twice" in capsys.readouterr().err


def test_no_command_exits_with_2(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2


def test_bad_numbers_are_refused(capsys, tmp_path):
    out = ["--out", str(tmp_path / "run")]
    assert "--seeds should be at least 1, got 0" in refuse(capsys, "--seeds", "0", *out)
    assert "shares in [0, 1), got (0.0, 1.0)" in refuse(capsys, "--rates", "[0, 1]", *out)
    assert not (tmp_path / "run").exists()


def test_bad_data_folder_is_refused(capsys, tmp_path, monkeypatch):
    out = ["--out", str(tmp_path / "run")]
    absent = str(tmp_path / "absent")
    assert f"--data names {absent}, which does not exist" in refuse(capsys, "--data", absent, *out)
    message = refuse(capsys, "--data", str(tmp_path), *out)
    assert "has no table 'patient'" in message
    monkeypatch.setenv("CM2_DATA_HOME", absent)
    assert f"CM2_DATA_HOME names {absent}" in refuse(capsys, *out)
    assert not (tmp_path / "run").exists()


def test_incomplete_data_folder_is_refused(capsys, tmp_path):
    folder = tmp_path / "eicu-demo"
    folder.mkdir()
    (folder / "patient.csv").write_text("patientunitstayid,uniquepid\n1,a\n")
    message = refuse(capsys, "--data", str(folder), "--out", str(tmp_path / "run"))
    assert "table" in message


def test_other_content_of_the_out_folder_is_left_alone(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("CM2_DATA_HOME", raising=False)
    (tmp_path / "thesis.txt").write_text("mine")
    assert "holds no earlier run" in refuse(capsys, "--out", str(tmp_path))
    assert "is a file" in refuse(capsys, "--out", str(tmp_path / "thesis.txt"))
    message = refuse(capsys, "--out", str(tmp_path / "thesis.txt" / "run"))
    assert "cannot be written" in message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_earlier_run_may_be_written_over_and_repeated(tmp_path):
    folder = open_folder(tmp_path / "run")
    path = write_config(folder, {"seeds": 4, "rates": [0.0, 0.5]})
    assert path.read_text().startswith(MARK)
    assert yaml.safe_load(path.read_text()) == {"seeds": 4, "rates": [0.0, 0.5]}
    assert open_folder(folder) == folder
    chosen = cli.parser().parse_args(["demo", "--config", str(path)])
    assert (chosen.demo.seeds, list(chosen.demo.rates)) == (4, [0.0, 0.5])


def test_foreign_config_is_no_run(tmp_path):
    (tmp_path / "config.yaml").write_text("seeds: 4\n")
    with pytest.raises(InputError, match="holds no earlier run"):
        open_folder(Path(tmp_path))


@pytest.mark.parametrize("word", ["PA,AP", "[PA, AP]", '["PA","AP"]'])
def test_several_values_are_one_word(word):
    given = ["prepare", "mimic4", "--raw", "a", "--out", "b", "--views", word]
    assert cli.parser().parse_args(given).prepare.views == ("PA", "AP")
    assert cli.parser().parse_args([*given[:-1], "PA"]).prepare.views == ("PA",)
    assert cli.parser().parse_args([*given, "--fractions", ".8,.1,.1"]).prepare.fractions == (
        (0.8, 0.1, 0.1)
    )


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_replicates_are_counted(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--out", "page.html"] if command == "report" else []
    assert cli.main([command, "nowhere", "--replicates", "-5", *more]) == 2
    assert "--replicates should be at least 1, got -5" in capsys.readouterr().err


def test_an_option_of_several_values_is_given_once(capsys: pytest.CaptureFixture[str]) -> None:
    axes = ["--grid", "model.components=1,2", "--grid=model.fusion=lstm,mean"]
    assert cli.main(["sweep", "x.yaml", *axes]) == 2
    assert "--grid is given twice; give all its values after one" in capsys.readouterr().err
    for command in ("benchmark", "reproduce paper"):
        assert cli.main([*command.split(), "--only", "a", "--only", "b"]) == 2
        assert "--only is given twice" in capsys.readouterr().err
    for word in ("seed=1", "seed=2"):  # these add up
        assert cli.main(["sweep", "x.yaml", "--set", word, "--set", "name=a"]) == 2
    assert "given twice" not in capsys.readouterr().err
