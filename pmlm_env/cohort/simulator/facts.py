"""What a doctor knows about a woman when writing her note: bedside findings, and values and tags from her records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.simulator.labs import DECIMALS
from pmlm_env.cohort.simulator.tables import LABEL_NAMES, SCHEMA, Floats, load_conditions
from pmlm_env.cohort.simulator.women import Women

_TERM_DAYS = 37 * 7


@dataclass(frozen=True, slots=True)
class Facts:
    """What the doctor knows about one woman.

    Attributes:
        label: Her condition.
        values: Printed values that a phrase may quote, by placeholder.
        tags: Facts that hold, as used in the ``when`` column of ``phrases.csv``.
        extra: The columns of the patients' table.
    """

    label: str
    values: Mapping[str, str]
    tags: frozenset[str]
    extra: Mapping[str, str]


def draw_bedside(women: Women, rng: np.random.Generator) -> list[dict[str, str]]:
    """Draw each woman's blood pressure, fetal heart rate and screening tests, as plain text columns.

    Blood pressure is the highest measured. Fetal heart rate is the lowest measured for the heart type of fetal distress
    and the baseline otherwise.
    """
    n = len(women)

    def only(name: str) -> npt.NDArray[np.bool_]:
        return women.label == LABEL_NAMES.index(name)

    def choose(
        affected: npt.NDArray[np.bool_],
        mild: tuple[float, float],
        grave: tuple[float, float],
        other: tuple[float, float],
    ) -> Floats:
        spans = np.where((affected & women.severe)[:, None], grave, np.where(affected[:, None], mild, other))
        return spans[:, 0] + (spans[:, 1] - spans[:, 0]) * rng.beta(2, 2, n)

    hypertensive = only("gestational hypertension")
    systolic = choose(hypertensive, (140, 157), (160, 184), (100, 129))
    diastolic = np.where(hypertensive, np.maximum(0.62 * systolic, 90), 0.63 * systolic) + rng.integers(-3, 4, n)
    diastolic = np.where(hypertensive, np.maximum(diastolic, 90), np.minimum(diastolic, 84))
    heart = choose(only("acute fetal distress (heart type)"), (92, 109), (65, 92), (122, 156))
    tsh = choose(only("pregnancy complicated with hypothyroidism"), (4.1, 9.9), (10.2, 32), (0.4, 3.6))
    glucose = choose(only("gestational diabetes"), (5.1, 5.8), (5.6, 6.9), (4.0, 5.0))
    entangled = only("umbilical cord entanglement")
    loops = np.where(entangled, 1 + women.severe, 0)
    return [
        {
            "blood_pressure": f"{systolic[i]:.0f}/{diastolic[i]:.0f}",
            "fetal_heart_rate": f"{heart[i]:.0f}",
            "tsh": f"{tsh[i]:.1f}",
            "fasting_glucose": f"{glucose[i]:.1f}",
            "cord_loops": f"{loops[i]}",
        }
        for i in range(n)
    ]


def gather_facts(women: Women, i: int, values: Floats, bedside: Mapping[str, str]) -> Facts:
    """Return the facts of woman ``i``, whose check-ups are ``values``, shape (n, 35)."""
    label = LABEL_NAMES[women.label[i]]
    severe, delivered, cesarean = bool(women.severe[i]), bool(women.delivered[i]), bool(women.cesarean[i])
    gestation = int(women.gestation[i])
    form = load_conditions()[women.label[i]].forms[severe]
    extra = {
        "age": str(women.age[i]),
        "gestational_weeks": f"{gestation // 7}+{gestation % 7}",
        "gravidity": str(women.gravidity[i]),
        "parity": str(women.parity[i]),
        "previous_cesarean": "yes" if women.earlier_cesarean[i] else "no",
        "delivery": "cesarean" if cesarean else "vaginal" if delivered else "undelivered",
        "form": form,
        **bedside,
    }
    labs = _lab_values(values)
    quoted = {
        **{name: labs[key] for name, key in _QUOTES.items() if key in labs},
        "age": extra["age"],
        "weeks": extra["gestational_weeks"],
        "gravidity": extra["gravidity"],
        "parity": extra["parity"],
        "mode": "by cesarean" if cesarean else "vaginally",
        "bp": extra["blood_pressure"],
        "fhr": extra["fetal_heart_rate"],
        "tsh": extra["tsh"],
        "glucose": extra["fasting_glucose"],
    }
    tags = {
        "severe" if severe else "mild",
        "delivered" if delivered else "undelivered",
        "preterm" if gestation < _TERM_DAYS else "term",
        "two_loops" if bedside["cord_loops"] == "2" else "one_loop",
    }
    if delivered:
        tags.add("cesarean" if cesarean else "vaginal")
    return Facts(label, quoted, frozenset(tags | _lab_tags(labs, delivered=delivered)), extra)


#: Placeholder -> (indicator, statistic).
_QUOTES = {
    "hgb": ("hgb", "last"),
    "hgb_low": ("hgb", "lowest"),
    "mcv": ("mcv", "last"),
    "mch": ("mch", "last"),
    "plt": ("plt", "last"),
    "plt_low": ("plt", "lowest"),
    "wbc_high": ("wbc", "highest"),
    "alt_high": ("alt", "highest"),
    "albumin_low": ("albumin", "lowest"),
    "mpv_high": ("mpv", "highest"),
    "tba_high": ("total_bile_acid", "highest"),
}


def _lab_values(values: Floats) -> dict[tuple[str, str], str]:
    """Return the last, lowest and highest printed value of each quotable indicator that was measured."""
    out = {}
    for name in dict.fromkeys(name for name, _ in _QUOTES.values()):
        column = values[:, SCHEMA.index(name)]
        column = column[~np.isnan(column)]
        if len(column):
            for which, value in (("last", column[-1]), ("lowest", column.min()), ("highest", column.max())):
                out[name, which] = f"{value:.{DECIMALS[name]}f}"
    return out


def _lab_tags(labs: Mapping[tuple[str, str], str], *, delivered: bool) -> set[str]:
    """Return tags of what the labs show; labs that were never measured give no tag."""

    def value(name: str, which: str) -> float:
        return float(labs.get((name, which), "nan"))

    hgb, plt, mcv = value("hgb", "last"), value("plt", "last"), value("mcv", "last")
    known = {"hgb_known": hgb, "plt_known": plt, "wbc_known": value("wbc", "highest")}
    holds = {
        **{tag: not np.isnan(level) for tag, level in known.items()},
        "mcv_known": not np.isnan(mcv + value("mch", "last")),
        "anemia": hgb < (100 if delivered else 110),
        "hgb_fine": 110 <= hgb <= 150,
        "hgb_drop": value("hgb", "lowest") < 90,
        "plt_fine": 125 <= plt <= 350,
        "low_plt": value("plt", "lowest") < 100,
        "low_mcv": mcv < 80 and value("mch", "last") < 28,
        "high_wbc": value("wbc", "highest") >= 15,
        "high_alt": value("alt", "highest") > 40,
        "high_mpv": value("mpv", "highest") >= 12,
        "low_albumin": value("albumin", "lowest") < 30,
        "high_tba": value("total_bile_acid", "highest") >= 10,
    }
    return {tag for tag, true in holds.items() if true}
