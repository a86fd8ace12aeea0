"""What the built-in predictors have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from pmlm_env.cohort.schema import MAX_INDICATORS, Cohort
from pmlm_env.cohort.wording import quoted
from pmlm_env.io.checked_files import file_in, read_object
from pmlm_env.io.files import write_json
from pmlm_env.predictors.base import most_probable

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG_FILE = "predictor.json"
CURE = "fit the predictor again with `pmlm prepare`"


class LabelModel(ABC):
    """A ``Predictor`` that gives each label a score, the softmax of which are the probabilities.

    This class has the checks, the case of one label, and the JSON file; subclasses fit and save the model itself, for
    at least two labels.
    """

    def __init__(self, seed: int = 0) -> None:
        """Make an unfitted predictor.

        Args:
            seed: Seeds everything that is random. The same seed and cohort give the same predictions.
        """
        self.seed = seed
        self._labels: tuple[str, ...] = ()
        self._indicators: tuple[str, ...] = ()
        self._units: tuple[str, ...] = ()  # those of files of earlier versions are not known

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the training patients, sorted; empty before ``fit``."""
        return self._labels

    def fit(self, cohort: Cohort) -> Self:
        """Fit to the patients' check-ups and labels. If there is only one label, it is always predicted.

        Raises:
            ValueError: The cohort is empty.
        """
        if not len(cohort):
            raise ValueError("a predictor cannot be fitted to an empty cohort")
        labels, codes = np.unique(cohort.y, return_inverse=True)
        self._labels = tuple(map(str, labels))
        self._indicators = cohort.schema.names
        self._units = tuple(indicator.unit for indicator in cohort.schema.indicators)
        if len(labels) > 1:
            self._fit(cohort, codes)
        return self

    def predict_proba(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        """Return each label's probability for each patient, shape (N, n_labels).

        Raises:
            RuntimeError: ``fit`` has not been called.
            ValueError: The patients have other indicators or units than those of ``fit``.
        """
        self._check_fitted()
        if cohort.schema.names != self._indicators:
            raise ValueError("these patients have other indicators than those that the predictor was fitted to")
        for known, indicator in zip(self._units, cohort.schema.indicators, strict=False):
            if indicator.unit != known:
                raise ValueError(
                    f"{indicator.name} of these patients is in {quoted(indicator.unit)}, but the predictor was fitted "
                    f"to values in {quoted(known)}: read their tables with the schema of the training patients"
                )
        if len(self._labels) == 1 or not len(cohort):
            return np.ones((len(cohort), len(self._labels)))
        # Matrix products round in ways that depend on the number of patients. In float32 the differences are gone, and
        # the sum over the labels is rounded in the same way for each patient, if rows are contiguous.
        scores = np.ascontiguousarray(self._scores(cohort), dtype=np.float32)
        return softmax(scores.astype(np.float64), axis=1)

    def predict(self, cohort: Cohort) -> npt.NDArray[np.str_]:
        """Return each patient's most probable label, shape (N,)."""
        return most_probable(self.predict_proba(cohort), self._labels)

    def save(self, folder: Path) -> None:
        """Write ``predictor.json`` and, unless there is only one label, the model's own files.

        Raises:
            RuntimeError: ``fit`` has not been called.
        """
        self._check_fitted()
        content = {
            "format": 1,
            "model": type(self).__name__,
            "seed": self.seed,
            "arguments": self._arguments(),
            "labels": self._labels,
            "indicators": self._indicators,
        }
        if self._units:
            content["units"] = self._units
        if len(self._labels) > 1:
            content |= self._description()
            self._save(folder)
        write_json(folder / CONFIG_FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            ValueError: A file is missing or damaged, or was not written by ``save``.
        """
        path = file_in(folder, CONFIG_FILE)
        content = read_object(path, CURE)
        try:
            if (content["format"], content["model"]) != (1, cls.__name__):
                raise ValueError
            made = cls(int(content["seed"]), **content["arguments"])
            made._labels, made._indicators = _names(content["labels"]), _names(content["indicators"])
            if "units" in content:
                made._units = _names(content["units"], len(made._indicators))
            if list(made._labels) != sorted(set(made._labels)) or len(made._indicators) > MAX_INDICATORS:
                raise ValueError
            if len(made._labels) > 1:
                made._read_description(content)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ValueError(f"{path} is damaged, or of another version of pmlm-env: {CURE}") from None
        if len(made._labels) > 1:
            made._load(folder)
        return made

    def _check_fitted(self) -> None:
        if not self._labels:
            raise RuntimeError(f"{type(self).__name__} has not been fitted: call fit(cohort) first")

    def _arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the seed, as JSON values."""
        return {}

    def _description(self) -> dict[str, Any]:
        """Return what else belongs into ``predictor.json`` if there are at least two labels."""
        return {}

    def _read_description(self, content: Mapping[str, Any]) -> None:  # noqa: B027, most models have none
        """Read what ``_description`` returned. KeyError, TypeError and ValueError mean that it is damaged."""

    @abstractmethod
    def _fit(self, cohort: Cohort, codes: npt.NDArray[np.intp]) -> None:
        """Fit to patients with at least two labels; ``codes`` are their positions in ``labels``."""

    @abstractmethod
    def _scores(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        """Return scores of shape (N, n_labels), N > 0, computed in float64."""

    @abstractmethod
    def _save(self, folder: Path) -> None:
        """Write the fitted model into files of its own."""

    @abstractmethod
    def _load(self, folder: Path) -> None:
        """Read what ``_save`` wrote.

        Raises:
            ValueError: A file is missing or damaged.
        """


def _names(value: Any, n: int | None = None) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise ValueError
    if n is not None and len(value) != n:
        raise ValueError
    return tuple(value)
