"""The patient encoder, which maps check-ups to the patient vector x_hat of Eq. 2."""

from __future__ import annotations

import json
from pathlib import Path
from reprlib import repr as shortened

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pmlm_env.cohort.schema import INDICATOR_NAMES, MAX_CHECKUPS, Cohort
from pmlm_env.io.checked_files import file_in, read_object
from pmlm_env.predictors.inputs import InputScaler
from pmlm_env.retrieval.network import VECTOR_SIZE, EncoderNetwork, one_thread, train_network

WEIGHTS_FILE, CONFIG_FILE = "patient_encoder.safetensors", "patient_encoder.json"

#: What the weights are valid for. ``load`` rejects files with other values.
CONFIG = {"format": 1, "indicators": list(INDICATOR_NAMES), "max_checkups": MAX_CHECKUPS, "vector_size": VECTOR_SIZE}

#: Patients encoded at once; bounds the memory.
CHUNK = 1024


class PatientEncoder:
    """Maps check-ups to vectors; its weights are frozen.

    A vector depends only on the patient's own check-ups (up to float32 rounding, which may depend on the batch).
    """

    def __init__(self, scaler: InputScaler, network: EncoderNetwork) -> None:
        """Make an encoder from its parts; usually, use ``fit`` or ``load``."""
        self._scaler = scaler
        self._network = network.requires_grad_(False)

    @classmethod
    def fit(cls, cohort: Cohort, seed: int, device: str = "auto") -> PatientEncoder:
        """Train an encoder on the training patients' check-ups and labels (``network.train_network``).

        Args:
            cohort: The training patients.
            seed: The same seed, cohort and kind of device give the same encoder; global generators are not used.
            device: Where it is trained and encodes: ``"auto"`` (the GPU if there is one) or a torch device.

        Raises:
            ValueError: The cohort is empty.
        """
        if not len(cohort):
            raise ValueError("a patient encoder cannot be fitted to an empty cohort")
        scaler = InputScaler.fit(cohort)
        return cls(scaler, train_network(scaler.pad(cohort), cohort.y, seed, _device(device)))

    def encode(self, cohort: Cohort) -> npt.NDArray[np.float32]:
        """Return the patients' vectors, shape (N, 128), float32."""
        device = next(self._network.parameters()).device
        vectors = np.empty((len(cohort), VECTOR_SIZE), dtype=np.float32)
        with one_thread(), torch.inference_mode():
            for start in range(0, len(cohort), CHUNK):
                padded = self._scaler.pad(cohort[start : start + CHUNK])
                vectors[start : start + CHUNK] = self._network(torch.from_numpy(padded).to(device)).cpu().numpy()
        return vectors

    def save(self, folder: Path | str) -> None:
        """Write the weights and the scaler (safetensors) and ``CONFIG`` (JSON) to a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self._network.state_dict().items()}
        for name in ("median", "mean", "sd"):
            tensors[f"scaler.{name}"] = torch.from_numpy(getattr(self._scaler, name))
        save_file(tensors, folder / WEIGHTS_FILE)
        (folder / CONFIG_FILE).write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> PatientEncoder:
        """Read what ``save`` wrote.

        Raises:
            ValueError: The encoder was made for other indicators or sizes, or a file is missing or damaged.
        """
        folder = Path(folder)
        config = read_object(file_in(folder, CONFIG_FILE))
        for key, expected in CONFIG.items():
            if config.get(key) != expected:
                raise ValueError(
                    f"{folder / CONFIG_FILE}: {key} is {shortened(config.get(key))}, "
                    f"expected {expected!r}; fit the encoder again"
                )
        weights, network = file_in(folder, WEIGHTS_FILE), EncoderNetwork(torch.Generator())
        try:
            tensors = load_file(weights)
            scaler = InputScaler(*(tensors.pop(f"scaler.{name}").numpy() for name in ("median", "mean", "sd")))
            network.load_state_dict(tensors)
        except (SafetensorError, KeyError, RuntimeError):
            raise ValueError(f"{weights} is damaged; fit the encoder again") from None
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise ValueError(f"{weights} has numbers that are not finite; fit the encoder again")
        return cls(scaler, network.to(_device(device)))


def _device(name: str) -> torch.device:
    """Return the torch device of a name or ``"auto"``."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
