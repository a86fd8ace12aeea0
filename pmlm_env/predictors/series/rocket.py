"""ROCKET: random convolutions and a linear model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from scipy.special import softmax
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

from pmlm_env.cohort.schema import Cohort
from pmlm_env.io.files import write
from pmlm_env.predictors.calibration import fit_temperature
from pmlm_env.predictors.label_model import CURE
from pmlm_env.predictors.series.histories import WEIGHTS_FILE, Histories, SeriesModel

if TYPE_CHECKING:
    from aeon.transformations.collection.convolution_based import Rocket as RocketTransform

#: Penalties of the ridge regression to choose from. Features are standardized; there are two per kernel.
ALPHAS = np.logspace(0, 6, 13)

MAX_KERNELS = 100_000

#: Names of what ``RocketTransform.kernels`` consists of.
_KERNELS = tuple(
    f"kernels.{name}" for name in ("weights", "lengths", "biases", "dilations", "paddings", "n_channels", "channels")
)

#: The shortest series that kernels of up to 11 steps suit.
MIN_STEPS = 12
MAX_STEPS = 1_000  # as for the check-ups of a schema


class Rocket(SeriesModel):
    """aeon's ROCKET (Dempster, Petitjean & Webb 2020) with a ridge regression of the labels.

    aeon's kernels need series of equal length. With ``true_lengths``, the check-ups are therefore stretched to it by
    repetition (uniform scaling, Tan et al. 2019), instead of followed by zeros. Series are not normalized one by one,
    as aeon does by default, because a value's level tells more than its course.

    The penalty is the one with the lowest squared leave-one-out error, and the predictions for those left out also give
    the temperature that turns the regression's scores into probabilities.
    """

    def __init__(
        self, seed: int = 0, *, true_lengths: bool = True, missingness: bool = True, n_kernels: int = 10_000
    ) -> None:
        """Make an unfitted predictor.

        Args:
            seed: Draws the kernels. The same seed and cohort give the same predictions.
            true_lengths: Whether the model ignores the zeros after the last check-up; in the paper it does not.
            missingness: Whether the model reads what was measured; in the paper it does not.
            n_kernels: The number of random kernels, each of which gives two features.

        Raises:
            ValueError: A switch is not True or False, or ``n_kernels`` is not in 1 to 100,000.
        """
        super().__init__(seed, true_lengths=true_lengths, missingness=missingness)
        if type(n_kernels) is not int or not 1 <= n_kernels <= MAX_KERNELS:
            raise ValueError(f"n_kernels is {n_kernels!r}: use 1 to {MAX_KERNELS:,}")
        self.n_kernels = n_kernels
        self._n_steps = 0
        self._transform: RocketTransform | None = None
        self._weights = np.empty((0, 0), dtype=np.float32)
        self._bias = np.empty(0, dtype=np.float32)

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "n_kernels": self.n_kernels}

    def _fit_series(self, histories: Histories, codes: npt.NDArray[np.intp], persons: Sequence[str]) -> None:
        self._n_steps = max(histories.channels.shape[1], MIN_STEPS)
        self._transform = self._draw_kernels()
        features = self._features_of(histories)
        mean, sd = features.mean(axis=0), features.std(axis=0)
        sd[sd == 0] = 1.0
        targets = np.where(codes[:, None] == np.arange(len(self._labels)), 1.0, -1.0)
        offset = targets.mean(axis=0)
        # This criterion is the default one, but makes the regression keep its predictions instead of their errors.
        ridge = RidgeCV(ALPHAS, scoring="neg_mean_squared_error", store_cv_results=True)
        with threadpool_limits(limits=1):
            ridge.fit((features - mean) / sd, targets - offset)
        left_out = ridge.cv_results_[:, :, ALPHAS.tolist().index(ridge.alpha_)] + offset
        temperature = fit_temperature(softmax(left_out, axis=1), self._labels, np.array(self._labels)[codes])
        weights = ridge.coef_.T / sd[:, None]
        bias = offset + ridge.intercept_ - mean @ weights
        self._weights = (weights / temperature).astype(np.float32)
        self._bias = (bias / temperature).astype(np.float32)

    def _scores_of(self, histories: Histories) -> npt.NDArray[np.float64]:
        # Not a matrix product: BLAS may round one by where the arrays are in memory. NumPy's sums are always the same.
        features = self._features_of(histories)
        return np.stack([(features * column).sum(axis=1) for column in self._weights.T], axis=1) + self._bias

    def features(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        """Return aeon's features of the patients' histories, shape (N, 2 * n_kernels)."""
        return self._features_of(self._histories(cohort))

    def _features_of(self, histories: Histories) -> npt.NDArray[np.float64]:
        assert self._transform is not None
        steps = np.arange(self._n_steps) * histories.lengths[:, None] // self._n_steps
        series = np.take_along_axis(histories.channels, steps[:, :, None], axis=1).transpose(0, 2, 1)
        return self._transform.transform(np.ascontiguousarray(series)).astype(np.float64)

    def _draw_kernels(self) -> RocketTransform:
        try:
            from aeon.transformations.collection.convolution_based import Rocket as RocketTransform
        except ImportError:
            raise ValueError(
                "the predictor rocket needs aeon: install it with `pip install 'pmlm-env[rocket]'`"
            ) from None
        transform = RocketTransform(n_kernels=self.n_kernels, normalise=False, n_jobs=1, random_state=self.seed)
        return transform.fit(np.zeros((1, self._n_channels, self._n_steps), dtype=np.float32))

    def _description(self) -> dict[str, Any]:
        return {"n_steps": self._n_steps}

    def _read_description(self, content: Mapping[str, Any]) -> None:
        self._n_steps = content["n_steps"]
        if type(self._n_steps) is not int or not MIN_STEPS <= self._n_steps <= MAX_STEPS:
            raise ValueError

    def _save(self, folder: Path) -> None:
        assert self._scaler is not None
        tensors = {name: array.astype(np.float32) for name, array in self._kernels().items()}
        tensors |= {"ridge.weights": self._weights, "ridge.bias": self._bias}
        write(folder / WEIGHTS_FILE, save({**tensors, **self._scaler.arrays()}))

    def _load(self, folder: Path) -> None:
        """Read the kernels too, because a processor may round those that the seed draws in another way.

        Raises:
            ValueError: The file is missing or damaged, or has other kernels. aeon does not check them, so that it
                would read outside of a series.
        """
        self._transform = self._draw_kernels()
        drawn, n_labels = self._kernels(), len(self._labels)
        shapes = {name: array.shape for name, array in drawn.items()}
        shapes |= {"ridge.weights": (2 * self.n_kernels, n_labels), "ridge.bias": (n_labels,)}
        tensors = {name: tensor.numpy() for name, tensor in self._read_tensors(folder, shapes).items()}
        if not all(np.allclose(tensors[name], array, atol=1e-5) for name, array in drawn.items()):
            raise ValueError(f"{folder / WEIGHTS_FILE} has other kernels than this version of aeon draws: {CURE}")
        self._transform.kernels = tuple(tensors[name].astype(array.dtype) for name, array in drawn.items())
        self._weights, self._bias = tensors["ridge.weights"], tensors["ridge.bias"]

    def _kernels(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return what aeon's kernels consist of, by name."""
        assert self._transform is not None
        return dict(zip(_KERNELS, self._transform.kernels, strict=True))
