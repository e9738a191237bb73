"""A benchmark: no test row is seen in fitting, it goes on where it stopped, and counts right."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from cm2.benchmark import jobs, page, pieces, results
from cm2.benchmark.command import run as command
from cm2.benchmark.folder import Job, load, place
from cm2.benchmark.jobs import TimeUpError, limited
from cm2.benchmark.methods import METHODS, POOLED, Budget, Method
from cm2.benchmark.patterns import OBSERVED, Pattern, apply
from cm2.benchmark.run import Settings, open_studies, run, seconds
from cm2.benchmark.studies import Given, Split
from cm2.benchmark.suites import SUITES
from cm2.core.errors import InputError
from cm2.evaluation import bootstrap, summary
from cm2.samples.container import Samples

HALF = Pattern("random", 0.5)
TRAINED = Pattern("random", 0.5, "both")


class Plain:
    """Logistic regression with zeros where something is missing; counts its fits."""

    fits: list[tuple[int, float]] = []

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def fit(self, X: dict[str, Any], y: np.ndarray, *, groups: np.ndarray) -> "Plain":
        x = self._x(X)
        Plain.fits.append((len(y), float(np.isnan(np.hstack(list(X.values()))).mean())))
        self.model = LogisticRegression(C=self.scale).fit(x, y)
        return self

    def predict_proba(self, X: dict[str, Any]) -> np.ndarray:
        return self.model.predict_proba(self._x(X))

    def _x(self, X: dict[str, Any]) -> np.ndarray:
        return np.nan_to_num(np.hstack(list(X.values())))


class Asleep(Plain):
    """Never ends."""

    def fit(self, X: dict[str, Any], y: np.ndarray, *, groups: np.ndarray) -> "Asleep":
        time.sleep(60)
        return self


def study(rows: int = 400) -> Given:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows)
    X = {name: rng.normal(size=(rows, 2)) + 0.8 * y[:, None] for name in ("a", "b", "c")}
    return Given(X, y, title="Made up", source="numpy")


def _values(made: Given) -> list[np.ndarray]:
    return list(made.blocks(np.arange(len(made.y))).values())


def methods(**more: Method) -> dict[str, Method]:
    return {
        POOLED: Method(lambda budget: Plain(1.0), "ours", ours=True),
        "strong": Method(lambda budget: Plain(0.1), "a rival"),
        "weak": Method(lambda budget: Plain(1e-6), "another"),
        **more,
    }


@pytest.fixture
def settings() -> Settings:
    Plain.fits.clear()
    return Settings({"made": study()}, (OBSERVED, HALF, TRAINED), methods(), seeds=2)


def test_patterns_that_train_alike_share_a_fit(settings, tmp_path, capsys):
    every = run(settings, tmp_path / "out")
    assert "6 of 12 are made, about" in capsys.readouterr().err, "said after the first seed"
    assert len(every) == 2 * 2 * 3, "seeds, kinds of training rows, methods"
    assert len(Plain.fits) == len(every)
    train, test = settings.studies["made"].split(0)
    assert {rows for rows, _ in Plain.fits} == {len(train)}, "no test row is fitted"
    shares = np.array([share for _, share in Plain.fits])
    assert (shares == 0).sum() == len(every) / 2
    # Half is removed but for the one modality that stays.
    assert ((shares > 0.35) & (shares < 0.5)).sum() == len(every) / 2
    kept = load(tmp_path / "out", every[0])
    np.testing.assert_array_equal(kept.rows, test)
    assert set(kept.probability) == set(every[0].patterns) == {OBSERVED, HALF}


def test_a_second_call_makes_what_is_lacking_alone(settings, tmp_path):
    out = tmp_path / "out"
    every = run(settings, out)
    before = {job: load(out, job).probability for job in every}
    place(out, every[3]).unlink()
    Plain.fits.clear()
    run(settings, out)
    assert len(Plain.fits) == 1
    for job, probability in before.items():
        for pattern, values in load(out, job).probability.items():
            np.testing.assert_array_equal(values, probability[pattern])
    with pytest.raises(InputError, match="holds a benchmark of another epochs"):
        run(Settings(settings.studies, settings.patterns, methods(), epochs=3), out)
    whole = place(out, every[0]).read_bytes()
    for damaged in (b"half a file", b"", whole[:-100], whole[:60]):
        place(out, every[0]).write_bytes(damaged)
        with pytest.raises(InputError, match="is damaged; delete it"):
            run(settings, out)


def test_a_fit_that_took_too_long_is_made_again_where_it_may_take_longer(tmp_path):
    slow = {"slow": Method(lambda budget: Asleep(), "sleeps")}
    settings = Settings({"made": study()}, (OBSERVED,), slow, seeds=1, limit=0.2)
    (job,) = run(settings, tmp_path / "out")
    now = {"slow": Method(lambda budget: Plain(1.0), "no longer")}
    for limit in (0.1, 0.2):
        run(replace(settings, methods=now, limit=limit), tmp_path / "out")
        assert load(tmp_path / "out", job).fault == "more than 0.2 s"
    run(replace(settings, methods=now, limit=None), tmp_path / "out")
    assert not load(tmp_path / "out", job).fault


def test_fits_on_other_data_are_not_taken_for_those_of_a_study(settings, tmp_path):
    run(settings, tmp_path / "out")
    rng = np.random.default_rng(1)
    other = Given({"a": rng.normal(size=(400, 2))}, rng.integers(0, 2, 400))
    told = (tmp_path / "out" / "config.json").read_text()
    with pytest.raises(InputError, match="holds fits on other data called 'made'; give a new"):
        run(replace(settings, studies={"made": other}, seeds=7), tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_text() == told
    rng = np.random.default_rng(2)
    again = Given({name: rng.normal(size=(400, 2)) for name in ("a", "b", "c")}, study().y)
    with pytest.raises(InputError, match="holds fits on other data called 'made'"):
        run(replace(settings, studies={"made": again}), tmp_path / "out")
    of_pairs = Given({"a": np.ones((400, 2))}, study().y, groups=np.arange(400) // 2)
    with pytest.raises(InputError, match="holds fits on other data called 'made'"):
        run(replace(settings, studies={"made": of_pairs}), tmp_path / "out")


def test_methods_whose_names_are_too_much_alike_are_refused(settings, tmp_path):
    alike = methods() | {"strong+": methods()["strong"]}
    with pytest.raises(InputError, match=r"'strong' and 'strong\+' are told apart by letters"):
        run(replace(settings, methods=alike), tmp_path / "out")
    with pytest.raises(InputError, match="needs a letter or a digit"):
        run(replace(settings, methods={"++": methods()["strong"]}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_is_of_one_label():
    with pytest.raises(ValueError, match="y has 2 labels a sample; a study is of one"):
        Given({"a": np.ones((4, 2))}, np.array([[0, 1], [1, 0], [1, 1], [0, 0]]))


def test_other_folders_are_left_alone(settings, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").touch()
    with pytest.raises(InputError, match="holds no benchmark"):
        run(settings, tmp_path / "letters")


def test_a_limit_ends_a_fit_and_is_named(tmp_path):
    slow = {"slow": Method(lambda budget: Asleep(), "sleeps")}
    settings = Settings({"made": study()}, (OBSERVED,), methods(**slow), seeds=1, limit=0.5)
    every = run(settings, tmp_path / "out")
    found = results.faults(results.cells(tmp_path / "out", every))
    assert found == {"made, slow, seed 0, observed": "more than 0.5 s"}
    table = results.measured(results.cells(tmp_path / "out", every), settings, 20).table
    assert set(table["method"]) == {POOLED, "strong", "weak"}
    assert "more than 0.5 s" in page.write(tmp_path / "out", settings, every, 40).read_text()


def test_a_data_set_without_any_prediction_leaves_the_page_of_the_others(tmp_path):
    slow = {"slow": Method(lambda budget: Asleep(), "sleeps")}
    quick = Settings({"one": study()}, (OBSERVED,), methods(), seeds=1)
    every = run(quick, tmp_path / "out")
    none = Settings({"other": study()}, (OBSERVED,), slow, seeds=1, limit=0.1)
    both = Settings(quick.studies | none.studies, (OBSERVED,), methods(**slow), seeds=1)
    source = page.write(tmp_path / "out", both, every + run(none, tmp_path / "out"), 80).read_text()
    assert "one: AUROC" in source
    assert "none of the fits has predictions" in source
    source = page.write(tmp_path / "out", none, none.jobs(), 40).read_text()
    assert "more than 0.1 s" in source
    assert "more than 0.1 s" in (tmp_path / "out" / "table.csv").read_text()


def test_a_limit_stops_what_runs_and_nothing_later():
    with limited(5.0):
        pass
    with pytest.raises(TimeUpError), limited(0.05):
        time.sleep(5)


def test_verdicts_compare_with_the_best_rival_of_each_cell(settings, tmp_path):
    every = run(settings, tmp_path / "out")
    table = results.measured(results.cells(tmp_path / "out", every), settings, 300).table
    found = results.verdicts(table)
    assert len(found) == 3 * 2, "patterns and measures"
    assert set(found.loc[found["metric"] == "log loss", "rival"]) == {"strong"}
    own = table.set_index(["method", "pattern", "metric"])["value"]
    for row in found.itertuples():
        sign = -1 if row.metric == "log loss" else 1
        gap = own[POOLED, row.pattern, row.metric] - own[row.rival, row.pattern, row.metric]
        assert row.difference == pytest.approx(sign * gap)
        assert row.low <= row.difference <= row.high


def test_pieces_with_other_rivals_join_to_what_one_run_has(settings, tmp_path):
    def piece(*names):
        own = replace(settings, methods={name: methods()[name] for name in (POOLED, *names)})
        folder = tmp_path / "-".join(names)
        return results.measured(results.cells(folder, run(own, folder)), own, 300).table

    key = ["data", "pattern", "method", "metric"]
    whole = piece("strong", "weak").set_index(key)
    strong, weak = piece("strong"), piece("weak")
    for later, earlier in ((strong, weak), (weak, strong)):
        made = pieces.merged(later, earlier).set_index(key)
        assert len(made) == len(whole)
        made = made.loc[whole.index]
        of_rivals = made.index.get_level_values("method") != POOLED
        alone = list(summary.COMPARISON)
        assert made.loc[of_rivals, alone].isin(["", np.nan]).all(axis=None)
        same = [name for name in whole.columns if name not in ("seconds", *alone)]
        pd.testing.assert_frame_equal(made[same], whole[same])
        pd.testing.assert_frame_equal(made.loc[~of_rivals, alone], whole.loc[~of_rivals, alone])
    elsewhere = weak.assign(data="other")
    assert len(pieces.merged(strong, elsewhere)) == len(strong) + len(weak)
    assert pieces.merged(strong, strong).equals(strong)
    assert pieces.merged(whole.reset_index(), weak).equals(whole.reset_index())


def test_a_measure_that_is_best_in_the_middle_has_no_best_rival(settings, tmp_path):
    every = run(settings, tmp_path / "out")
    table = results.measured(results.cells(tmp_path / "out", every), settings, 20).table
    compared = table[table["metric"] == "calibration slope"]
    assert len(compared)
    assert set(compared["rival"]) == {""}
    assert compared["difference"].isna().all()


def test_the_page_says_first_where_it_loses(tmp_path):
    strong, weak = methods()["strong"], methods()["weak"]
    turned = {POOLED: weak._replace(ours=True), "strong": strong}
    settings = Settings({"made": study(1200)}, (OBSERVED,), turned, seeds=2)
    every = run(settings, tmp_path / "out")
    table = results.measured(results.cells(tmp_path / "out", every), settings, 300).table
    found = results.verdicts(table).set_index("metric")["verdict"]
    assert found["log loss"] == "worse"
    source = page.write(tmp_path / "out", settings, every, 50).read_text()
    assert source.index("Cells that CM² loses") < source.index("All cells")


def test_holm_by_hand_and_ranks():
    p = np.array([0.01, np.nan, 0.02, 0.5])
    np.testing.assert_allclose(results.holm(p), [0.03, np.nan, 0.04, 0.5])
    rows = [
        {"data": d, "pattern": "x", "metric": "log loss", "method": m, "value": v, "splits": 5}
        for d in ("one", "two")
        for m, v in (("a", 0.1), ("b", 0.2), ("c", 0.3))
    ]
    found = results.ranks(pd.DataFrame(rows), "log loss")
    assert found.mean.to_dict() == {"a": 1.0, "b": 2.0, "c": 3.0}
    # Demšar's table: q of three methods at .05 is 2.343.
    assert found.critical == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 2)), abs=1e-3)
    easy = pd.DataFrame([*rows[:2], rows[2] | {"value": 0.0, "splits": 1}, *rows[3:]])
    assert results.ranks(easy, "log loss").cells == 1, "one split is no mean over five"


def test_so_few_draws_that_no_cell_could_be_told_are_refused(settings, tmp_path):
    """The least p-value, corrected for the number of cells, is below the level."""
    with pytest.raises(InputError, match=r"119 draws .* for 3 cells; .* should be at least 120"):
        page.write(tmp_path / "out", settings, [], 119)
    for draws, clear in ((119, False), (120, True)):
        p = bootstrap.p_value(np.full(draws, 1.0))
        assert bool(results.holm(np.full(3, p))[0] < results.LEVEL) == clear
    suite = SUITES["open"]
    all_of_it = Settings(dict.fromkeys(suite.studies, study()), suite.patterns)
    results.check_replicates(results.REPLICATES, all_of_it)
    with pytest.raises(InputError, match="--replicates should be at least"):
        command("quick", tmp_path / "out", only=["cross-rank"], replicates=79)


def test_strata_of_few_patients_are_not_shown(tmp_path):
    made = study()
    X = {name: block.copy() for name, block in zip(made.modalities, _values(made), strict=True)}
    X["a"][:9] = np.nan  # nine patients at most lack one
    few = Settings({"made": Given(X, made.y)}, (OBSERVED,), methods(), seeds=3)
    page.write(tmp_path / "out", few, run(few, tmp_path / "out"), 40)
    (path,) = (tmp_path / "out" / "tables").glob("*slope-by-modalities-missing.csv")
    found = pd.read_csv(path)
    assert found["missing"].tolist() == [0]
    assert found["patients"].min() >= page.SMALLEST


def test_tables_of_another_call_do_not_stay(settings, tmp_path):
    out = tmp_path / "out"
    page.write(out, settings, run(settings, out), 120)
    one = replace(settings, patterns=(OBSERVED,), methods=dict(list(methods().items())[:2]))
    page.write(out, one, run(one, out), 40)
    numbers = [path.name[:2] for path in (out / "tables").glob("*.csv")]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("name", ["site A/B", "..", "", "a\\b"])
def test_a_data_set_whose_name_is_no_folder_is_refused(name, settings, tmp_path):
    with pytest.raises(InputError, match="a data set is kept under its name, and no file"):
        run(replace(settings, studies={name: study()}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_splits_that_cannot_be_made_are_refused_before_the_first_fit(settings, tmp_path):
    world = open_studies(["cross-rank"], {})
    with pytest.raises(InputError, match="cross-rank has no split of seed 20: a world has seeds"):
        run(replace(settings, studies=world, seeds=21), tmp_path / "out")

    class Parted(Given):
        def split(self, seed: int) -> Split:
            return Split(np.flatnonzero(self.y == 0), np.flatnonzero(self.y == 1))

    made = study()
    parted = Parted(dict(zip(made.modalities, _values(made), strict=True)), made.y)
    with pytest.raises(InputError, match="made has no training row of class '1' in the split of"):
        run(replace(settings, studies={"made": parted}), tmp_path / "out")
    assert not Plain.fits


@pytest.mark.parametrize(
    ("turned", "message"),
    [
        (lambda p: p * np.nan, "should be finite"),
        (lambda p: 5 * p, "should lie from 0 to 1"),
        (lambda p: np.c_[p, 0 * p[:, 0]], r"should return 2 probabilities, .* shape \(120, 3\)"),
        (lambda p: p[:-1], r"for each of 120 rows; it has shape \(119, 2\)"),
    ],
)
def test_what_is_no_probability_ends_the_first_fit(turned, message, settings, tmp_path):
    class Turned(Plain):
        def predict_proba(self, X):
            return turned(super().predict_proba(X))

    own = {"own": Method(lambda budget: Turned(), "a user's")}
    with pytest.raises(ValueError, match=message):
        run(replace(settings, methods=own), tmp_path / "out")


def test_a_rival_that_lacks_runs_is_compared_over_those_that_it_has() -> None:
    """Neither is it the best for having ended in an easy one, nor left out where it is better."""

    def cell(method: str, seed: int, value: float) -> summary.Cell:
        scores = {"AUROC": np.full(11, value)}
        return summary.Cell(method, seed, 0.0, 50, 20, 50, 1.0, scores, {"AUROC": 20})

    own, steady = {0: 0.90, 1: 0.70}, {0: 0.88, 1: 0.69}
    for once, best, gap in ((0.87, "steady", 0.015), (0.93, "once", -0.03)):
        cells = [cell(POOLED, seed, value) for seed, value in own.items()]
        cells += [cell("steady", seed, value) for seed, value in steady.items()]
        table = summary.summarise([*cells, cell("once", 0, once)], ["steady", "once"])
        row = table.set_index("method").loc[POOLED]
        assert row["rival"] == best
        assert row["difference"] == pytest.approx(gap)
        assert ("once: 1 of 2 runs" in row["notes"]) == (best == "once")
    notes = table.set_index("method")["notes"]
    assert notes["once"] == "1 of 2 runs"
    assert notes["steady"] == "once: 1 of 2 runs", "its rival, that is"


def test_the_command_writes_all_files(tmp_path, monkeypatch):
    monkeypatch.delenv("CM2_DATA_HOME", raising=False)
    out = tmp_path / "out"
    chosen = ["LR + dropout", "late fusion"]
    path = command("quick", out, only=["cross-rank"], methods=chosen, seeds=1, replicates=80,
                   processes=1)  # fmt: skip
    long = pd.read_csv(out / "table.csv")
    assert list(long.columns) == [
        "data", "method", "pattern", "rate", "seed", "metric", "value", "seconds"
    ]  # fmt: skip
    assert set(long["method"]) == set(chosen)
    assert {"AUROC", "AUPR", "Brier", "log loss", "calibration slope"} == set(long["metric"])
    assert json.loads((out / "config.json").read_text())["suite"] == "quick"
    source = path.read_text()
    assert "cross-rank: AUROC" in source
    assert str(tmp_path) not in source


def test_bad_options_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.delenv("CM2_DATA_HOME", raising=False)
    out = tmp_path / "out"
    for options, message in (
        ({"suite": "huge"}, "--suite should be one of"),
        ({"only": ["mnist"]}, "--only names 'mnist'; the suite has"),
        ({"methods": ["magic"]}, "--methods names 'magic'"),
        ({"seeds": 0}, "--seeds should be at least 1"),
        ({"data": ["rosmap"]}, "--data takes NAME=DIR with a name of digits, .*, not 'rosmap'"),
        ({"data": ["rosmop=."]}, "--data takes NAME=DIR with a name of digits, .*, not 'rosmop=.'"),
        ({"data": ["rosmap=nowhere"]}, "--data rosmap: there is no nowhere"),
        ({"data": ["rosmap="]}, "--data rosmap=: no folder is named; give rosmap=DIR"),
        ({"only": ["rosmap"]}, r"no data for rosmap \(folder rosmap\)"),
    ):
        with pytest.raises(InputError, match=message):
            command(**({"suite": "quick"} | options), out=out)
        assert not out.exists()


def test_suites_name_what_there_is():
    for suite in SUITES.values():
        assert set(suite.methods) <= set(METHODS)
        assert any(not METHODS[name].ours for name in suite.methods)
        assert POOLED in suite.methods
        assert {pattern.at("train") for pattern in suite.patterns}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("small_models")
def test_every_method_fits_and_predicts(name):
    done = jobs.run(study(120), METHODS[name], Budget(0, 1), (OBSERVED, HALF))
    for probability in done.probability.values():
        assert np.isfinite(probability).all()
        np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="remove the same from the training rows"):
        jobs.run(study(120), METHODS[name], Budget(0, 1), (OBSERVED, TRAINED))


@pytest.mark.parametrize("name", ["CM², joint", "concat. LR", "MedFuse"])
@pytest.mark.usefixtures("small_models")
def test_what_no_training_row_has_is_shown_to_no_method(name):
    made = study(120)
    pattern = Pattern("whole", 0.5, "train")
    gone = jobs.run(made, METHODS[name], Budget(0, 1), (pattern,))
    train = made.split(0).train
    left = [m for m, x in apply(pattern, "train", dict(made.blocks(train)), 0).items()
            if not np.isnan(x).all()]  # fmt: skip
    assert len(left) == 1
    alone = Given({m: made.blocks(train)[m] for m in left}, made.y)
    said = jobs.run(alone, METHODS[name], Budget(0, 1), (OBSERVED,)).probability[OBSERVED]
    np.testing.assert_allclose(gone.probability[pattern], said, rtol=1e-6)
    assert (gone.missing[pattern] == 0).all(), "of what test rows lack, nothing was removed"


class Looks(Plain):
    """Keeps what it is given."""

    def fit(self, X, y, *, groups, present=None):
        self.given = [(X, present)]
        return self

    def predict_proba(self, X, present=None):
        self.given.append((X, present))
        return np.full((len(next(iter(X.values())) if isinstance(X, dict) else X), 2), 0.5)


def test_methods_with_encoders_get_samples_that_lack_the_same():
    made = study(120)
    made.samples = Samples(
        {name: [f"{name} {row}" for row in range(120)] for name in made.modalities}
    )
    for pattern in (TRAINED, Pattern("whole", 0.5, "train")):
        numbers, raw = (
            jobs.run(
                made,
                Method(lambda budget: Looks(), "", encodes=encodes),
                Budget(0, 1),
                (pattern,),
            ).method.given
            for encodes in (False, True)
        )
        for rows, (blocks, _), (seen, present) in zip(made.split(0), numbers, raw, strict=True):
            assert list(seen.columns) == list(blocks)
            for at, name in enumerate(blocks):
                assert list(seen.columns[name].values) == [[f"{name} {row}"] for row in rows]
                there = ~np.isnan(blocks[name]).all(axis=1)
                np.testing.assert_array_equal(there, present[:, at])
            assert present.all() == (len(blocks) == 1)


def test_networks_encode_and_cost_more_where_there_is_something_to_encode():
    networks = {name for name, one in METHODS.items() if one.encodes}
    assert {"MedFuse", "UMSE", "CM², zero-filled", "CM², joint", POOLED} <= networks
    assert networks.isdisjoint({"LR + dropout", "stacking", "multimodal VAE"})
    plain, raw = study(), study()
    raw.samples = Samples({"a": ["text"] * 400})
    lasts = seconds(Settings({"plain": plain, "raw": raw}, (OBSERVED,)))
    assert {name for name in METHODS if lasts["raw", name] > lasts["plain", name]} == networks


@pytest.mark.parametrize("suite", SUITES)
def test_every_fit_has_a_file_of_its_own(suite):
    patterns = SUITES[suite].patterns
    every = Settings({"made": study()}, patterns, methods(), seeds=2).jobs()
    assert len({place(Path("x"), job) for job in every}) == len(every)
    assert sum(len(job.patterns) for job in every) == 2 * 3 * len(patterns)


def test_a_job_says_what_it_is():
    job = Job("made", "late fusion", 3, (TRAINED,))
    file = Path("x") / "predictions" / "made" / "late-fusion" / "3.random-0.5.npz"
    assert place(Path("x"), job) == file
    assert open_studies(["digits"], {})["digits"].title
