"""Missing values: panels are ordered as a whole, and a few single values are missing."""

from __future__ import annotations

import numpy as np

from pmlm_env.cohort.simulator.schedule import Schedule
from pmlm_env.cohort.simulator.tables import SCHEMA, Floats
from pmlm_env.cohort.simulator.women import Bools

#: Panels and their indicators; every other indicator belongs to the blood count.
PANELS = {
    "blood gas": ("pH",),
    "liver": (
        *("albumin", "total_protein", "indirect_bilirubin", "direct_bilirubin", "total_bilirubin"),
        *("alkaline_phosphatase", "alt", "prealbumin", "total_bile_acid"),
    ),
    "platelet indices": ("large_platelet_count", "plateletcrit", "large_platelet_ratio", "mpv", "pdw"),
    "red cell width": ("rdw_cv", "rdw_sd"),
}
PANELS["blood count"] = tuple(name for name in SCHEMA.names if not any(name in panel for panel in PANELS.values()))

#: Share of check-ups without a panel, as in the Tongji data (Yan 2020), whose rows are days with any of these labs.
MISSING = {"blood count": 0.096, "liver": 0.122, "blood gas": 0.897, "platelet indices": 0.182, "red cell width": 0.128}
#: Share of single values missing from a measured panel.
MISSING_SINGLE = 0.003


def draw_measured(schedule: Schedule, rng: np.random.Generator) -> Bools:
    """Draw which values were measured, shape (R, 35): at least one panel per check-up.

    Platelet indices and red cell widths come with the blood count and are missing slightly more often. Blood gas is
    measured only in hospital.
    """
    n = len(schedule.woman)
    count = rng.random(n) >= MISSING["blood count"]
    liver = rng.random(n) >= MISSING["liver"] / (1 - MISSING["blood count"])
    admitted = schedule.days_left <= 8
    gas = admitted & (rng.random(n) < (1 - MISSING["blood gas"]) / max(admitted.mean(), 1 - MISSING["blood gas"]))
    given_count = 1 - MISSING["blood count"]
    ordered = {
        "blood count": count,
        "liver": liver | ~count,
        "blood gas": gas,
        "platelet indices": count & (rng.random(n) < (1 - MISSING["platelet indices"]) / given_count),
        "red cell width": count & (rng.random(n) < (1 - MISSING["red cell width"]) / given_count),
    }
    measured = np.zeros((n, len(SCHEMA.names)), dtype=np.bool_)
    for panel, names in PANELS.items():
        measured[:, [SCHEMA.index(name) for name in names]] = ordered[panel][:, None]
    return measured & (rng.random(measured.shape) >= MISSING_SINGLE)


def leave_gaps(values: Floats, measured: Bools) -> Floats:
    """Return ``values`` with NaN where not measured."""
    return np.where(measured, values, np.nan)
