"""Standardized summaries as patient vectors: plain k-nearest neighbors, for which nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from pmlm_env.cohort.schema import Cohort, Schema
from pmlm_env.io.checked_files import file_in, read_object, read_tensors
from pmlm_env.io.files import write, write_json
from pmlm_env.predictors.inputs import CLIP
from pmlm_env.predictors.summaries import STATISTICS, summarize, summary_names
from pmlm_env.retrieval.encoder_files import CONFIG_FILE, CURE, WEIGHTS_FILE, difference

_ARRAYS = ("mean", "sd")


class SummaryEncoder:
    """Standardizes ``summarize``'s columns by the training patients' means and SDs; see ``PatientEncoder``.

    What is missing counts as the mean. Standardized values are clipped to ``CLIP`` SDs, so that no outlier dominates.
    Columns that do not vary among the training patients are 0.
    """

    def __init__(self, schema: Schema, mean: npt.NDArray[np.float64], sd: npt.NDArray[np.float64]) -> None:
        """Make an encoder from its parts; usually, use ``fit``."""
        self._config = _config(schema)
        self._mean, self._sd = mean, sd

    @property
    def vector_size(self) -> int:
        """The length of a vector: seven per indicator, and two more."""
        return len(self._mean)

    @classmethod
    def fit(cls, cohort: Cohort) -> SummaryEncoder:
        """Compute the means and SDs of the training patients' summaries; labels are not used."""
        summaries = summarize(cohort)
        known = np.isfinite(summaries)
        n = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, summaries, 0.0).sum(axis=0) / n
        sd = np.sqrt(np.where(known, (summaries - mean) ** 2, 0.0).sum(axis=0) / n)
        return cls(cohort.schema, mean, np.where(sd > _noise(mean), sd, np.inf))

    def encode(self, cohort: Cohort) -> npt.NDArray[np.float32]:
        """Return the patients' vectors, shape (N, vector_size), float32.

        Raises:
            ValueError: The cohort has other indicators or units than the training patients.
        """
        if different := difference(_config(cohort.schema), self._config):
            raise ValueError(f"the schema of the patients differs from that of the patient encoder: {different}")
        standardized = (summarize(cohort) - self._mean) / self._sd
        return np.nan_to_num(np.clip(standardized, -CLIP, CLIP)).astype(np.float32)

    def save(self, folder: Path | str) -> None:
        """Write the means and SDs (safetensors) and what they are valid for (JSON) to a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / WEIGHTS_FILE, save(dict(zip(_ARRAYS, (self._mean, self._sd), strict=True))))
        write_json(folder / CONFIG_FILE, self._config)

    @classmethod
    def load(cls, folder: Path, schema: Schema) -> SummaryEncoder:
        """Read what ``save`` wrote.

        Raises:
            ValueError: The encoder was fitted to patients with other indicators, or a file is missing or damaged.
        """
        if different := difference(read_object(file_in(folder, CONFIG_FILE), CURE), _config(schema)):
            raise ValueError(f"{folder / CONFIG_FILE}: {different}: {CURE}")
        path = file_in(folder, WEIGHTS_FILE)
        shapes = dict.fromkeys(_ARRAYS, (len(summary_names(schema)),))
        tensors = read_tensors(path, shapes, doubles=_ARRAYS, cure=CURE)
        if not bool(tensors["mean"].isfinite().all()) or not bool((tensors["sd"] > 0).all()):
            raise ValueError(f"{path} has means or SDs that no patients have: {CURE}")
        return cls(schema, *(tensors[name].numpy() for name in _ARRAYS))


def _noise(mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the SDs that rounding errors alone may cause, as in the slope of an indicator that never changes."""
    level = np.abs(mean[:-2].reshape(len(STATISTICS), -1)[: STATISTICS.index("count")]).max(axis=0)
    return 1e-9 * np.concatenate([np.tile(level, len(STATISTICS)), [0.0, 0.0]])


def _config(schema: Schema) -> dict[str, Any]:
    """Return what the means and SDs are valid for."""
    return {
        "format": 1,
        "kind": "summaries",
        "indicators": list(schema.names),
        "units": [indicator.unit for indicator in schema.indicators],
    }
