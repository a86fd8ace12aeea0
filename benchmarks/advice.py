"""The threshold of the component ``advice``, and its error: python -m benchmarks.advice.

``advice_pairs.csv`` has pairs of a letter's advice and a sentence of a reply, labeled by hand. ``same`` is 1 if a
patient who follows the reply also does what the letter advises; details such as the interval may be missing. 62 pairs
set the threshold: 50 written by hand, and 12 with sentences from replies of the default LLM, whose general advice is
close to much else. 30 (``part`` is ``check``) were written after the rules, and only measure their error.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmlm_env.rewards.advice import Advice

PAIRS = Path(__file__).with_name("advice_pairs.csv")


@dataclass(frozen=True)
class Calibration:
    """What the pairs say.

    Attributes:
        threshold: The threshold with the fewest errors.
        accuracy: The share of pairs that it judges as labeled.
        missed: The share of the pairs with the same advice that it does not find.
        false: The share of the other pairs in which it finds the advice.
        left_out_error: The share of pairs judged otherwise than labeled by the best threshold of the others.
        check_error: The share of the 30 other pairs judged otherwise than labeled.
    """

    threshold: float
    accuracy: float
    missed: float
    false: float
    left_out_error: float
    check_error: float


def likenesses(part: str, device: str = "cpu") -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the likeness of each of a part's pairs, and whether it is labeled as the same advice, each (pairs,)."""
    with PAIRS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == part]
    advice = Advice(device)
    values = [advice.likeness([row["advice"]], row["reply"])[0] for row in rows]
    return np.array(values), np.array([row["same"] == "1" for row in rows])


def best_threshold(values: npt.NDArray[np.float64], same: npt.NDArray[np.bool_]) -> float:
    """Return the threshold with the fewest errors, of 0.01, 0.02 ... 1; of several, the median."""
    thresholds = np.arange(1, 101) / 100
    errors = ((values >= thresholds[:, None]) != same).sum(axis=1)
    best = thresholds[errors == errors.min()]
    return float(best[len(best) // 2])


def calibrate() -> Calibration:
    """Set the threshold on its pairs, and measure its error on each with that pair left out, and on the other pairs."""
    values, same = likenesses("threshold")
    threshold = best_threshold(values, same)
    found = values >= threshold
    others = [np.arange(len(values)) != i for i in range(len(values))]
    left_out = [(values[i] >= best_threshold(values[rest], same[rest])) != same[i] for i, rest in enumerate(others)]
    check_values, check_same = likenesses("check")
    return Calibration(
        threshold,
        float((found == same).mean()),
        float(1 - found[same].mean()),
        float(found[~same].mean()),
        float(np.mean(left_out)),
        float(((check_values >= threshold) != check_same).mean()),
    )


if __name__ == "__main__":
    print(calibrate())
