"""The peers of ``cosine``, found faster among many patients by faiss (Douze et al. 2024, arXiv 2401.08281)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pmlm_env.retrieval.cosine import CHUNK, DECIMALS, CosineRetriever, rounded

try:
    import faiss
except ImportError:  # raised here, because the registry imports this module before anything is fitted
    raise ValueError("the retriever faiss needs faiss: install it with `pip install 'pmlm-env[faiss]'`") from None


class FaissRetriever(CosineRetriever):
    """Finds the same peers as ``CosineRetriever``, ties included.

    faiss computes all inner products in float32 (``IndexFlatIP``) and returns more patients than are needed. Their
    cosines are computed again in float64. If a patient whom faiss left out might be as near as the last peer, given the
    largest possible rounding error, all cosines are.
    """

    def __init__(self, vectors: npt.NDArray[np.float32], ids: Sequence[str], labels: Sequence[str]) -> None:
        """Store the training patients; see ``CosineRetriever``."""
        super().__init__(vectors, ids, labels)
        self._flat = faiss.IndexFlatIP(self._units.shape[1])
        self._flat.add(self._units.astype(np.float32))

    def _nearest(
        self, units: npt.NDArray[np.float64], own: npt.NDArray[np.intp], k: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        n, size = min(4 * k + 16, len(self)), units.shape[1]
        rows, cosines = np.empty((len(units), k), dtype=np.intp), np.empty((len(units), k))
        unsure = np.zeros(len(units), dtype=np.bool_)
        scores, candidates = self._flat.search(units.astype(np.float32), n)  # slower in small batches
        step = max(1, CHUNK // (n * size))
        for start in range(0, len(units), step):
            part = slice(start, start + step)
            found = candidates[part]
            exact = rounded((self._units[found] @ units[part, :, None])[:, :, 0])
            exact[found == own[part, None]] = -np.inf
            order = np.lexsort((found, -exact))[:, :k]
            rows[part], cosines[part] = (np.take_along_axis(each, order, axis=1) for each in (found, exact))
            # Both vectors are rounded to float32, and so are `size` products and sums of them (Higham 2002, Eq. 3.5).
            error = (size + 4) * 2.0**-24 + 10.0**-DECIMALS
            unsure[part] = cosines[part, -1] <= scores[part, -1] + error
        if n < len(self):
            rows[unsure], cosines[unsure] = super()._nearest(units[unsure], own[unsure], k)
        return rows, cosines
