r"""Notes and reports whose wording carries the latents of the modality "text".

Each topic has an axis, a sign and two wordings. A note draws some topics, and takes the worse
wording with probability :math:`\operatorname{logit}^{-1}(\kappa z_q)`: the words of
several notes of a stay tell its latents, one sentence does not. All sentences were written for
this generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from scipy.special import expit

__all__ = ["FINDINGS", "IMPRESSIONS", "NURSING", "Topic", "findings", "note"]

SHARPNESS = 1.8

Array = np.ndarray


class Topic(NamedTuple):
    """One thing that a note speaks of: worse wordings, better wordings."""

    axis: int
    sign: int
    worse: Sequence[str]
    better: Sequence[str]


NURSING = (
    Topic(0, 1, ("bp labile, pressor dose increased to keep map above goal",
                 "hypotensive overnight, fluid bolus given with little effect"),
          ("bp stable off pressors", "hemodynamically stable throughout the shift")),
    Topic(0, 1, ("lethargic, difficult to arouse, not following commands",
                 "minimally responsive to voice, withdraws to pain"),
          ("alert and oriented, follows commands", "awake, pleasant, moves all extremities")),
    Topic(0, 1, ("increased work of breathing, coarse rhonchi, suctioned for thick secretions",
                 "desaturated with turning, oxygen requirement is higher"),
          ("lungs clear, weaned to nasal cannula", "breathing comfortably on low flow oxygen")),
    Topic(0, 1, ("urine output is poor, team aware", "oliguric despite diuretic"),
          ("voiding clear yellow urine in good amounts", "good urine output")),
    Topic(0, 1, ("family meeting held, prognosis discussed, code status under review",
                 "family called in, condition remains critical"),
          ("family updated, plan to call out to the floor",
           "family visiting, in good spirits, transfer planned")),
    Topic(0, 1, ("lactate rising, acidosis worse on last gas",),
          ("gas within normal limits, lactate cleared",)),
    Topic(1, 1, ("febrile, pan cultured, broad antibiotics started",
                 "temperature spike, cooling blanket applied"),
          ("afebrile, no growth on cultures", "temperature normal, antibiotics continued")),
    Topic(1, 1, ("fingersticks high, insulin drip titrated hourly",),
          ("fingersticks in range, no sliding scale coverage needed",)),
    Topic(1, 1, ("two plus pitting edema of both legs, weight is up",
                 "total body fluid overload, crackles at both bases"),
          ("no peripheral edema, weight at baseline", "appears euvolemic")),
    Topic(1, 1, ("tachycardic with frequent ectopy, electrolytes repleted",),
          ("sinus rhythm without ectopy",)),
)  # fmt: skip

FILLER = (
    "skin intact, repositioned every two hours",
    "tolerating diet, bowel sounds present",
    "lines patent, dressings dry and intact",
    "will continue to monitor and support",
    "plan of care reviewed with the team",
    "social work following",
)

FINDINGS = (
    Topic(0, 1, ("There are diffuse bilateral airspace opacities, worse than before.",
                 "New patchy consolidation in both lower lungs."),
          ("The lungs are clear.", "No focal consolidation is seen.")),
    Topic(0, 1, ("There is pulmonary vascular congestion with interstitial edema.",),
          ("No pulmonary edema.", "Pulmonary vascularity is normal.")),
    Topic(0, 1, ("Lung volumes are low with worsening bibasilar atelectasis.",),
          ("Lung volumes are well preserved.",)),
    Topic(1, 1, ("The cardiac silhouette is markedly enlarged.", "There is cardiomegaly."),
          ("The heart size is normal.", "Cardiomediastinal contours are unremarkable.")),
    Topic(1, 1, ("Moderate bilateral pleural effusions are present.",
                 "A layering effusion is increased on the right."),
          ("There is no pleural effusion.", "The costophrenic angles are sharp.")),
)  # fmt: skip

IMPRESSIONS = (
    Topic(0, 1, ("Worsening multifocal opacities, concerning for pneumonia or ARDS.",
                 "Increased pulmonary edema."),
          ("No acute cardiopulmonary process.", "No evidence of pneumonia.")),
    Topic(1, 1, ("Cardiomegaly with bilateral effusions.",), ("Normal heart size, no effusion.",)),
)  # fmt: skip


def note(topics: Sequence[Topic], latent: Array, rng: Generator, *, length: int) -> list[str]:
    """Sentences of one note, in random order.

    Args:
        topics: What may be spoken of.
        latent: The two latents of the stay's text.
        rng: Source of randomness.
        length: Number of topics drawn, without repetition.
    """
    chosen = rng.permutation(len(topics))[:length]
    draws = rng.random((len(chosen), 2))
    return [
        _sentence(topics[place], latent, draw) for place, draw in zip(chosen, draws, strict=True)
    ]


def findings(
    topics: Sequence[Topic], latent: Array, rng: Generator
) -> tuple[list[str], list[bool]]:
    """Sentences of all topics in order, and whether each took its worse wording."""
    draws = rng.random((len(topics), 2))
    sentences = [_sentence(t, latent, draw) for t, draw in zip(topics, draws, strict=True)]
    return sentences, [s in t.worse for s, t in zip(sentences, topics, strict=True)]


def _sentence(topic: Topic, latent: Array, draw: Array) -> str:
    worse = draw[0] < expit(SHARPNESS * topic.sign * latent[topic.axis])
    wordings = topic.worse if worse else topic.better
    return wordings[int(draw[1] * len(wordings))]
