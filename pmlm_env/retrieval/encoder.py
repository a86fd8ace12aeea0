"""The patient encoder of the paper, a network that maps check-ups to the patient vector x_hat of Eq. 2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save

from pmlm_env.cohort.schema import Cohort, Schema
from pmlm_env.core.checkups import CheckupForm, Checkups
from pmlm_env.device import choose_device, one_thread
from pmlm_env.io.checked_files import file_in, read_object, read_tensors
from pmlm_env.io.files import write, write_json
from pmlm_env.predictors.inputs import SCALER_ARRAYS, InputScaler, checkup_form
from pmlm_env.retrieval.encoder_files import CONFIG_FILE, CURE, WEIGHTS_FILE, difference
from pmlm_env.retrieval.network import VECTOR_SIZE, EncoderNetwork, train_network
from pmlm_env.retrieval.packed import PackedCheckups

#: Patients encoded at once; bounds the memory.
CHUNK = 1024


class NetworkEncoder:
    """Maps check-ups to vectors by a network, whose weights are frozen; see ``PatientEncoder``.

    A vector depends only on the patient's own check-ups: it is computed in float64, whose rounding errors, which depend
    on the batch, do not survive the rounding to float32.
    """

    def __init__(self, form: CheckupForm, scaler: InputScaler, network: EncoderNetwork) -> None:
        """Make an encoder from its parts; usually, use ``fit`` or ``load``."""
        self._config = _config(form)
        self._scaler = scaler
        self._network = network.requires_grad_(False).double()

    @property
    def vector_size(self) -> int:
        """The length of a vector: 128."""
        return VECTOR_SIZE

    @classmethod
    def fit(cls, cohort: Cohort, seed: int, device: str = "auto") -> NetworkEncoder:
        """Train an encoder on the training patients' check-ups and labels (``network.train_network``).

        Args:
            cohort: The training patients.
            seed: The same seed, cohort and kind of device give the same encoder; global generators are not used.
            device: Where it is trained and encodes: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

        Raises:
            ValueError: The cohort is empty, or there is no such device.
        """
        if not len(cohort):
            raise ValueError("a patient encoder cannot be fitted to an empty cohort")
        scaler = InputScaler.fit(cohort)
        persons = [patient.person for patient in cohort]
        place = choose_device(device)
        network = train_network(PackedCheckups(cohort, scaler, place), cohort.y, seed, place, persons)
        return cls(checkup_form(cohort.schema), scaler, network)

    @classmethod
    def of_policy(cls, weights: Mapping[str, torch.Tensor], learned_from: Checkups) -> NetworkEncoder:
        """Return the encoder that an agent has learned as a part of its policy (the paper's Algorithm 1).

        Args:
            weights: The weights of the policy's ``PatientNetwork``.
            learned_from: Any of the check-ups that it was learned from.
        """
        network = EncoderNetwork(learned_from.form.size, torch.Generator())
        network.load_state_dict({name: weight.detach().cpu() for name, weight in weights.items()})
        return cls(learned_from.form, InputScaler(*learned_from.statistics), network)

    def encode(self, cohort: Cohort) -> npt.NDArray[np.float32]:
        """Return the patients' vectors, shape (N, 128), float32.

        Raises:
            ValueError: The cohort has other indicators, units or ``max_checkups`` than the training patients.
        """
        if different := difference(_config(checkup_form(cohort.schema)), self._config):
            raise ValueError(f"the schema of the patients differs from that of the patient encoder: {different}")
        device = next(self._network.parameters()).device
        vectors = np.empty((len(cohort), VECTOR_SIZE), dtype=np.float32)
        with one_thread(), torch.inference_mode():
            for start in range(0, len(cohort), CHUNK):
                padded = self._scaler.pad(cohort[start : start + CHUNK])
                vectors[start : start + CHUNK] = (
                    self._network(torch.from_numpy(padded).to(device).double()).cpu().numpy()
                )
        return vectors

    def save(self, folder: Path | str) -> None:
        """Write the weights and the scaler (safetensors) and what they are valid for (JSON) to a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.float().cpu().contiguous() for name, tensor in self._network.state_dict().items()}
        tensors |= {name: torch.from_numpy(array) for name, array in self._scaler.arrays().items()}
        write(folder / WEIGHTS_FILE, save(tensors))
        write_json(folder / CONFIG_FILE, self._config)

    @classmethod
    def load(cls, folder: Path | str, schema: Schema, device: str = "auto") -> NetworkEncoder:
        """Read what ``save`` wrote.

        Args:
            folder: The folder.
            schema: The schema of the patients to encode.
            device: Where it encodes.

        Raises:
            ValueError: The encoder was fitted to patients of another schema, or has other sizes, or a file is missing
                or damaged.
        """
        folder = Path(folder)
        form = checkup_form(schema)
        if different := difference(read_object(file_in(folder, CONFIG_FILE)), _config(form)):
            raise ValueError(f"{folder / CONFIG_FILE}: {different}: {CURE}")
        network = EncoderNetwork(form.size, torch.Generator())
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        shapes |= dict.fromkeys(SCALER_ARRAYS, (len(schema.indicators),))
        tensors = read_tensors(file_in(folder, WEIGHTS_FILE), shapes, doubles=SCALER_ARRAYS, cure=CURE)
        scaler = InputScaler(*(tensors.pop(name).numpy() for name in SCALER_ARRAYS))
        network.load_state_dict(tensors)
        return cls(form, scaler, network.to(choose_device(device)))


def _config(form: CheckupForm) -> dict[str, Any]:
    """Return what an encoder's weights are valid for."""
    return {
        "format": 1,
        "indicators": list(form.indicators),
        "units": list(form.units),
        "max_checkups": form.max_checkups,
        "vector_size": VECTOR_SIZE,
    }
