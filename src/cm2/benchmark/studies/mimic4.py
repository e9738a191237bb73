"""Generated MIMIC-IV: series, X-ray and report of stays that never were."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from cm2.benchmark.studies.base import register
from cm2.benchmark.studies.numbers import held
from cm2.benchmark.studies.prepared import Prepared


@register("mimic4-generated")
class Generated(Prepared):
    """Death in hospital from the first 48 hours, of tables that ``cm2 synthesize mimic4`` writes.

    The outcome depends on what series, pictures and reports show together; see
    :mod:`cm2.clinical.synthesize.latents`. It is read as the real tables are, by
    ``cm2 prepare mimic4``. CM² and networks read it by small encoders, which are trained; other
    methods read numbers.
    """

    patients: ClassVar[int] = 1200

    def __init__(self, folder: Path | None = None) -> None:
        from cm2.clinical.prepare.pipeline import Options, prepare
        from cm2.clinical.synthesize import synthesize

        with TemporaryDirectory() as place:
            raw, root = Path(place) / "raw", Path(place) / "prepared"
            synthesize("mimic4", self.patients, raw)
            manifest = prepare("mimic4", raw, root, Options())
            self.samples = held(self.read(root, manifest["flow"]).samples)
        self.title = "In-hospital mortality after 48 hours of generated intensive care"
        self.source = (
            f"cm2 synthesize mimic4 --patients {self.patients}: no patient data; series, X-ray and "
            "report"
        )
