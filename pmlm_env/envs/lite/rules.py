"""The rule-based replies of ``PMLMLite-v0``: no model, no randomness, and no medical claims."""

from __future__ import annotations

import re
from itertools import compress

import numpy as np
import numpy.typing as npt

from pmlm_env.core.words import letters

#: The description and the advice that a reply gives for each condition in the prompt.
CONDITIONS: dict[str, tuple[str, str]] = {
    "normal": ("Normal pregnancy.", "Continue routine visits and gentle exercise."),
    "scar": ("Scarred uterus.", "Measure its thickness by ultrasound and plan delivery early."),
    "distress": ("Fetal distress.", "Lie on the left side and take oxygen."),
    "placental": ("Placental dysfunction.", "Count fetal movements and check growth weekly."),
    "hypertension": ("Gestational hypertension.", "Measure blood pressure twice daily and limit salt."),
    "membranes": ("Ruptured membranes.", "Stay in bed and watch your temperature."),
    "hypothyroidism": ("Hypothyroidism.", "Take levothyroxine and recheck TSH monthly."),
    "rupture": ("Uterine rupture.", "Avoid another pregnancy for two years."),
    "meconium": ("Meconium in amniotic fluid.", "Have the newborn's breathing observed."),
    "cord": ("Umbilical cord entanglement.", "Recheck its position shortly before labour."),
    "thalassemia": ("Thalassemia.", "Test the partner and seek genetic counselling."),
    "diabetes": ("Gestational diabetes.", "Follow a sugar-free diet and monitor fasting glucose."),
}
HEADING = "Discharge diagnosis:"
FOLLOW_UP = "Return to the obstetric clinic in one week."
_CHATTER = "Every woman is different, so please ask whoever knows more."
_PADDING = "This information does not replace a doctor, and laboratory values depend on method, time and food."

#: The words that the rules depend on; the reply follows from which of them are left.
CUES = (*CONDITIONS, "diagnosis", "advice", "medical", "similar", "sentence")
#: All statements that a reply may contain, in this order.
STATEMENTS = (
    HEADING,
    "Nothing certain can be said.",
    *(description for description, _ in CONDITIONS.values()),
    *(advice for _, advice in CONDITIONS.values()),
    FOLLOW_UP,
    _CHATTER,
    _PADDING,
)
_TOKEN = re.compile(r"[a-z0-9]+")


def cue_bit(word: str) -> int:
    """Return 1 << the index of the cue that a word is, or 0 if it is none."""
    core = letters(word)
    return 1 << CUES.index(core) if core in CUES else 0


def apply_rules(left: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which statements are made.

    Args:
        left: Which cues are still in the prompt, bool (n, number of cues).

    Returns:
        Bool (n, number of statements).
    """
    conditions = left[:, : len(CONDITIONS)]
    diagnosis, advice, medical, similar, sentence = left[:, len(CONDITIONS) :].T
    made = np.empty((len(left), len(STATEMENTS)), dtype=np.bool_)
    made[:, 0] = diagnosis
    made[:, 1] = ~conditions.any(axis=1)
    made[:, 2 : 2 + len(CONDITIONS)] = conditions
    made[:, 2 + len(CONDITIONS) : -3] = conditions & advice[:, None]
    made[:, -3], made[:, -2], made[:, -1] = medical, similar, ~sentence
    return made


def say(made: npt.NDArray[np.bool_]) -> str:
    """Join the statements that are made."""
    return " ".join(compress(STATEMENTS, made.tolist()))


def tokens(text: str) -> list[str]:
    """Split a text into tokens as ROUGE does: runs of Latin letters and digits, in lower case."""
    return _TOKEN.findall(text.lower())
