"""The files of a patient encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

#: The subfolder of a run that contains the encoder trained in it.
ENCODER_FOLDER = "patient_encoder"

WEIGHTS_FILE, CONFIG_FILE = "patient_encoder.safetensors", "patient_encoder.json"

CURE = "fit the encoder again"


def encoder_in(folder: Path) -> Path:
    """Return the folder of an encoder, given this folder or that of the run in which it was trained."""
    return folder if (folder / CONFIG_FILE).exists() else folder / ENCODER_FOLDER


def difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Describe the first difference between two descriptions of encoders; "" if there is none."""
    for key, value in expected.items():
        if (other := found.get(key)) != value:
            if isinstance(value, list) and isinstance(other, list):
                if len(other) != len(value):
                    return f"there are {len(other)} {key}, expected {len(value)}"
                place = next(i for i, pair in enumerate(zip(other, value, strict=True)) if pair[0] != pair[1])
                key, other, value = f"{key}[{place}]", other[place], value[place]
            return f"{key} is {shortened(other)}, expected {shortened(value)}"
    return ""
