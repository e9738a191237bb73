"""The maps of codes that come with the package."""

from pathlib import Path

from cm2.clinical.prepare import codes
from cm2.clinical.prepare.variables import NAMES, VARIABLES, items


def test_the_map_of_the_public_converter_has_the_items_of_mimic4_and_no_other() -> None:
    lines = codes.read(codes.find(Path("mimic4")))
    known = {one.item: one for one in items("mimic4")}
    there = [f"LAB//{item}//bpm" for item in known]
    there += [f"LAB//RESULT//{n}//%" for n, one in known.items() if one.table == "labevents"]
    found = codes.resolve(lines, [*there, "LAB//226755//UNK", "LAB//SPECIMEN_COLLECTED//50820"])
    assert sorted(one.item for one in found) == sorted(there)
    for one in found:
        item = known[one.item.split("//")[-2]]
        assert (one.variable, one.low, one.high) == (item.variable, item.low, item.high)
        assert one.unit == item.unit
    chart = [one for one in found if known[one.item.split("//")[-2]].table == "chartevents"]
    numbers = [int(one.item.split("//")[1]) for one in sorted(chart, key=lambda one: one.rank)]
    assert numbers == sorted(numbers), "at one time the greater item wins, as in MIMIC-IV"
    assert codes.variables(lines) == VARIABLES


def test_the_map_of_our_own_events_has_all_variables() -> None:
    lines = codes.read(codes.find(Path("cm2")))
    assert [one.code for one in lines] == [one.variable for one in lines] == list(NAMES)
    assert codes.variables(lines) == VARIABLES


def test_a_whole_code_comes_before_a_beginning_and_a_longer_before_a_shorter() -> None:
    lines = [codes.Line(*line) for line in (
        ("A//*", "ph", "", 2), ("A//B//*", "glucose", "mmol/L", 3), ("A//B//C", "crp", "mg/L", 4),
    )]  # fmt: skip
    found = {one.item: one for one in codes.resolve(lines, ["A//X", "A//B//D", "A//B//C", "B"])}
    assert {code: one.variable for code, one in found.items()} == {
        "A//X": "ph", "A//B//D": "glucose", "A//B//C": "crp",
    }  # fmt: skip
    assert found["A//B//D"].conversion == "milligram"
    assert [one.name for one in codes.variables(lines)] == ["glucose", "ph", "crp"]
