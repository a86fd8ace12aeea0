"""Laboratory values: log-normal latents around each woman's own level, and the 35 indicators computed from them."""

from __future__ import annotations

import numpy as np

from pmlm_env.cohort.simulator.schedule import Schedule
from pmlm_env.cohort.simulator.tables import LABEL_NAMES, LEVEL_WEEKS, SCHEMA, Floats, Levels, load_levels, load_shifts
from pmlm_env.cohort.simulator.women import Ints, Women

#: Number of decimals that a laboratory prints, by indicator.
DECIMALS = {
    **dict.fromkeys(("pH", "rbc", "wbc", "plateletcrit"), 2),
    **dict.fromkeys(
        (f"{cell}_count" for cell in ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")), 2
    ),
    **dict.fromkeys(
        (f"{cell}_ratio" for cell in ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")), 1
    ),
    **dict.fromkeys(("albumin", "total_protein", "indirect_bilirubin", "direct_bilirubin", "total_bilirubin"), 1),
    **dict.fromkeys(("total_bile_acid", "large_platelet_ratio", "mpv", "pdw", "rdw_cv", "rdw_sd"), 1),
    **dict.fromkeys(("mch", "hct", "mcv"), 1),
    **dict.fromkeys(("alkaline_phosphatase", "alt", "prealbumin", "large_platelet_count", "mchc", "plt", "hgb"), 0),
}
#: The condition that an atypical woman's labs resemble instead of her own (signal="paper").
_RESEMBLES = {
    "normal": "uterine scar",
    "uterine scar": "normal",
    "acute fetal distress (heart type)": "acute fetal distress (amniotic fluid type)",
    "pregnancy complicated with placental dysfunction": "gestational hypertension",
    "gestational hypertension": "pregnancy complicated with placental dysfunction",
    "premature rupture of membranes": "normal",
    "pregnancy complicated with hypothyroidism": "normal",
    "uterine rupture": "uterine scar",
    "acute fetal distress (amniotic fluid type)": "acute fetal distress (heart type)",
    "umbilical cord entanglement": "normal",
    "thalassemia": "pregnancy complicated with hypothyroidism",
    "gestational diabetes": "normal",
}
#: Share of such women, and of women whose condition hardly shows in the labs (signal="paper").
_MISTAKABLE, _FAINT = 0.04, 0.06
#: Autocorrelation time of the lasting half (by variance) of a woman's deviations from her own level, in days.
_MEMORY_DAYS = 21.0


def draw_labs(women: Women, schedule: Schedule, signal: str, rng: np.random.Generator) -> Floats:
    """Draw the indicators of every check-up without missing values, shape (R, 35), rounded as printed."""
    levels = load_levels()
    n, k = len(women), len(levels.names)
    own_level = levels.between_sd * (rng.standard_normal((n, k)) @ levels.mixing.T)
    deviation = levels.within_sd * (_draw_deviations(schedule, n, k, rng) @ levels.mixing.T)
    log_value = _medians(levels, schedule) + own_level[schedule.woman] + deviation
    log_value += levels.total_sd * _shifts(women, schedule, signal, rng)
    return print_indicators(dict(zip(levels.names, np.exp(log_value).T, strict=True)))


def _medians(levels: Levels, schedule: Schedule) -> Floats:
    """Return healthy women's log medians at each check-up's week, shape (R, K)."""
    columns = [np.interp(schedule.week, LEVEL_WEEKS, column) for column in levels.log_median.T]
    return np.stack(columns, axis=1) + schedule.after_birth[:, None] * levels.after_birth


def _draw_deviations(schedule: Schedule, n: int, k: int, rng: np.random.Generator) -> Floats:
    """Draw standard normal deviations, half of whose variance is autocorrelated over weeks, shape (R, K)."""
    lasting = np.empty((len(schedule.woman), k))
    state, day = rng.standard_normal((n, k)), np.zeros(n)
    for number in range(int(schedule.number.max()) + 1):
        rows = np.flatnonzero(schedule.number == number)
        who = schedule.woman[rows]
        decay = np.exp(-(day[who] - schedule.days_left[rows]) / _MEMORY_DAYS) if number else np.zeros(len(rows))
        fresh = rng.standard_normal((len(rows), k))
        state[who] = decay[:, None] * state[who] + np.sqrt(1 - decay**2)[:, None] * fresh
        day[who] = schedule.days_left[rows]
        lasting[rows] = state[who]
    return np.sqrt(0.5) * (lasting + rng.standard_normal(lasting.shape))


def _shifts(women: Women, schedule: Schedule, signal: str, rng: np.random.Generator) -> Floats:
    """Return each check-up's shifts due to the condition, in SDs of healthy women, shape (R, K)."""
    strength = np.clip(rng.normal(1.0, 0.2, len(women)), 0.5, 1.6)
    # A golden-ratio sequence ordered by label and date spreads atypical women evenly over labels and time.
    kind = np.empty(len(women))
    kind[np.lexsort((women.index_date, women.label))] = (rng.random() + 0.618034 * np.arange(len(women))) % 1
    shown: Ints = women.label
    if signal == "paper":
        other = np.array([LABEL_NAMES.index(_RESEMBLES[name]) for name in LABEL_NAMES])
        shown = np.where(kind < _MISTAKABLE, other[women.label], women.label)
        strength = np.where(kind > 1 - _FAINT, 0.25, strength)
    row = schedule.woman
    onset = (
        np.ones(len(row)),
        np.clip((schedule.week - 20) / 12, 0, 1),
        np.clip(1 - (schedule.days_left - 8) / 3, 0, 1),
        schedule.after_birth,
    )
    tables = load_shifts(verified_only=signal == "literature")
    total = np.zeros((len(row), tables.shape[-1]))
    for table, share in zip(tables, onset, strict=True):
        total += table[shown, women.severe.astype(int)][row] * (share * strength[row])[:, None]
    return total


def print_indicators(latent: dict[str, Floats]) -> Floats:
    """Compute the 35 indicators from the latents, each rounded as printed, shape (R, 35).

    Indicators that a laboratory computes (MCV, MCH, MCHC, total bilirubin, plateletcrit, cell counts ...) are computed
    from the printed values of the measured ones, so that every identity holds to the last printed digit.
    """
    out: dict[str, Floats] = {}

    def put(name: str, value: Floats) -> Floats:
        out[name] = np.round(value, DECIMALS[name])
        return out[name]

    rbc = put("rbc", latent["rbc"])
    hct = put("hct", latent["rbc"] * latent["mcv"] / 10)
    hgb = put("hgb", latent["rbc"] * latent["mcv"] * latent["mchc"] / 1000)
    put("mcv", 10 * hct / rbc)
    put("mch", hgb / rbc)
    put("mchc", 100 * hgb / hct)
    put("rdw_cv", latent["rdw_cv"])
    put("rdw_sd", latent["rdw_shape"] * latent["rdw_cv"] * latent["mcv"])
    cells = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
    total = sum((latent[cell] for cell in cells), start=np.zeros_like(rbc))
    wbc = put("wbc", total)
    others = sum((put(f"{cell}_ratio", 100 * latent[cell] / total) for cell in cells[1:]), start=np.zeros_like(rbc))
    put("neutrophil_ratio", 100 - others)
    for cell in cells:
        put(f"{cell}_count", wbc * out[f"{cell}_ratio"] / 100)
    plt = put("plt", latent["plt"])
    mpv = put("mpv", latent["mpv"])
    put("pdw", latent["pdw"])
    put("plateletcrit", plt * mpv / 1e4)
    put("large_platelet_count", plt * put("large_platelet_ratio", np.minimum(latent["large_platelet_ratio"], 75)) / 100)
    albumin = put("albumin", latent["albumin"])
    put("total_protein", np.maximum(latent["total_protein"], albumin + 14))
    indirect = put("indirect_bilirubin", latent["indirect_bilirubin"])
    put("total_bilirubin", indirect + put("direct_bilirubin", latent["direct_bilirubin"]))
    for name in ("alkaline_phosphatase", "alt", "prealbumin", "total_bile_acid", "pH"):
        put(name, latent[name])
    return np.stack([out[name] for name in SCHEMA.names], axis=1)
