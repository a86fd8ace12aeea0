"""What the predictors that read summaries have in common: a scikit-learn classifier, saved with skops."""

from __future__ import annotations

import logging
import re
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import sklearn
from threadpoolctl import threadpool_limits

from pmlm_env.cohort.schema import Cohort
from pmlm_env.io.checked_files import file_in
from pmlm_env.predictors.label_model import CONFIG_FILE, CURE, LabelModel
from pmlm_env.predictors.skops_files import load_model, save_model
from pmlm_env.predictors.summaries import summarize

logger = logging.getLogger(__name__)

MODEL_FILE = "model.skops"


class SummaryModel(LabelModel):
    """A scikit-learn classifier of the columns of ``summarize`` that are of use among the training patients."""

    #: The types in ``MODEL_FILE`` that some version of skops does not trust by itself.
    trusted: ClassVar[tuple[str, ...]]

    def __init__(self, seed: int = 0) -> None:
        """Make an unfitted predictor; see ``LabelModel``."""
        super().__init__(seed)
        self._model: Any = None
        self._n_summaries = 0
        self._columns = np.empty(0, dtype=np.intp)
        self._version = sklearn.__version__

    @abstractmethod
    def _make_model(self, n_patients: int) -> Any:
        """Return an unfitted classifier."""

    @abstractmethod
    def _useful(self, summaries: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which columns to read, given those of the training patients."""

    def _packed(self) -> Any:
        """Return the classifier as it is written to a file."""
        return self._model

    def _unpacked(self, model: Any) -> Any:
        """Return the classifier of a model from a file, which may be any object. May raise anything."""
        return model

    @abstractmethod
    def _is_valid(self, model: Any) -> bool:
        """Whether an unpacked model is of the right kind, and safe to use. May raise anything."""

    def _fit(self, cohort: Cohort, codes: npt.NDArray[np.intp]) -> None:
        summaries = summarize(cohort)
        self._n_summaries, self._columns = summaries.shape[1], np.flatnonzero(self._useful(summaries))
        self._model, self._version = self._make_model(len(cohort)), sklearn.__version__
        inputs = self._inputs(summaries)
        del summaries  # of many patients, the columns that are used are enough
        # On shared cores, spinning threads cost more than they gain.
        with threadpool_limits(limits=1), warnings.catch_warnings():
            # Due to rare labels, of which build_episodes warns once.
            warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
            self._model.fit(inputs, cohort.y)

    def _scores(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        return _scores(self._model, self._inputs(summarize(cohort)))

    def _inputs(self, summaries: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return summaries[:, self._columns]

    def _description(self) -> dict[str, Any]:
        return {
            "scikit-learn": self._version,
            "n_summaries": self._n_summaries,
            "columns": self._columns.tolist(),
        }

    def _read_description(self, content: Mapping[str, Any]) -> None:
        self._version, self._n_summaries = content["scikit-learn"], int(content["n_summaries"])
        if not re.fullmatch(r"[\w.+-]{1,40}", self._version):
            raise ValueError
        if not all(each in range(self._n_summaries) for each in content["columns"]):
            raise ValueError
        self._columns = np.array(content["columns"], dtype=np.intp)

    def _save(self, folder: Path) -> None:
        save_model(self._packed(), folder / MODEL_FILE)

    def _load(self, folder: Path) -> None:
        """Read the classifier. With another version of scikit-learn, a warning is logged.

        Raises:
            ValueError: The file is missing or damaged, or needs another version of scikit-learn.
        """
        path = file_in(folder, MODEL_FILE)
        versions = f"fitted with scikit-learn {self._version}, and this is {sklearn.__version__}"
        other = self._version != sklearn.__version__
        packed = load_model(path, self.trusted, f"it was {versions}: {CURE}" if other else CURE)
        try:
            self._model = self._unpacked(packed)
            whole = self._is_whole()
        except Exception:  # any of its attributes may be missing, or anything
            whole = False
        if not whole:
            raise ValueError(f"{path} is not the model that {CONFIG_FILE} describes: {CURE}")
        if other:
            logger.warning("%s was %s: its predictions may differ in the last digits", path, versions)

    def _is_whole(self) -> bool:
        """Whether a loaded model can predict the labels. May raise anything."""
        return (
            self._is_valid(self._model)
            and tuple(self._model.classes_) == self._labels
            and _scores(self._model, self._inputs(np.full((1, self._n_summaries), np.nan))).shape
            == (1, len(self._labels))
        )


def _scores(model: Any, inputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return each label's score before the softmax, shape (N, n_labels)."""
    with threadpool_limits(limits=1):
        scores = model.decision_function(inputs)
    return np.column_stack([np.zeros(len(scores)), scores]) if scores.ndim == 1 else scores
