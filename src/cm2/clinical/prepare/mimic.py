"""What MIMIC-III and MIMIC-IV have in common: how stays and measurements are read.

Where the two differ in names, a class says so as data.
"""

from __future__ import annotations

import functools
import operator
from abc import abstractmethod
from typing import ClassVar

import ibis
import ibis.expr.types as ir

from cm2.clinical.prepare.source import MEASUREMENTS, STAYS, Source, shaped

__all__ = ["ADMISSIONS", "MIMIC"]

ADMISSIONS = {
    "subject_id": "int64",
    "hadm_id": "int64",
    "admittime": "timestamp",
    "dischtime": "timestamp",
    "deathtime": "timestamp",
    "hospital_expire_flag": "int8",
}


class MIMIC(Source):
    """A version of MIMIC.

    Attributes:
        stay: The column that names a stay.
        places: Pairs of columns of ``icustays`` that differ where a patient was transferred.
    """

    filled = frozenset({"patients", "admissions", "icustays", "chartevents"})
    tasks = (*Source.tasks, "phenotyping")
    stay: ClassVar[str] = "stay_id"
    places: ClassVar[tuple[tuple[str, str], ...]] = (("first_careunit", "last_careunit"),)

    @abstractmethod
    def age(self, stays: ir.Table) -> ir.NumericValue:
        """Returns ages in years.

        Args:
            stays: Stays with the columns of their patients.
        """

    def stays(self) -> ir.Table:
        stays = self.raw["icustays"]
        moved = [stays[first] != stays[last] for first, last in self.places]
        stays = stays.mutate(
            stay_id=stays[self.stay], transferred=functools.reduce(operator.or_, moved)
        )
        admissions = self.raw["admissions"].distinct()
        # An admission of somebody else is none of the stay.
        joined = stays.left_join(admissions, ["hadm_id", "subject_id"])
        joined = joined.drop("hadm_id_right", "subject_id_right")
        joined = joined.left_join(self.raw["patients"].distinct(), "subject_id")
        joined = joined.drop("subject_id_right")
        # Who died at a known time and was discharged alive has no outcome that could be believed.
        flag = joined.hospital_expire_flag
        died = ibis.ifelse((flag == 0) & joined.deathtime.notnull(), ibis.null(flag.type()), flag)
        return shaped(joined.mutate(died=died, age=self.age(joined)), STAYS)

    def measurements(self) -> ir.Table:
        there = (name for name in ("chartevents", "labevents") if name in self.raw)
        return ibis.union(*(self._measured(name) for name in there))

    def _measured(self, name: str) -> ir.Table:
        """The rows of a table; what it has no column for is null, and no row is an error."""
        table = self.raw[name]
        columns = {self.stay: "int64", "storetime": "timestamp", "error": "int8"}
        lacking = {
            column: ibis.null(kind)
            for column, kind in columns.items()
            if column not in table.columns
        }
        table = table.mutate(**lacking)
        return shaped(
            table.mutate(
                stay_id=table[self.stay],
                item=table.itemid.cast("string"),
                origin=ibis.literal(name),
                text=table.value,
                number=table.valuenum,
                unit=table.valueuom,
                error=ibis.coalesce(table.error, 0) == 1,
            ),
            MEASUREMENTS,
        )
