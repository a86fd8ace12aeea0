"""Choice of the models' device and number format, and seeding of torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Check for a GPU through the driver, not the CUDA runtime, which would break workers that are forked later.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")


def choose_device(name: str = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device; ``auto`` is a GPU if there is one.

    Of several processes that ``torchrun`` has started on a machine, each gets a GPU of its own, as far as there are
    enough; ``cuda:N`` is the same for all.

    Raises:
        ValueError: The name is none of these, or there is no such GPU.
    """
    if name == "auto":
        return _own_gpu() if torch.cuda.is_available() else torch.device("cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"device is {name!r}: use auto, cpu, cuda or cuda:N")
    if name != "cpu" and not torch.cuda.is_available():
        raise ValueError(
            f"device is {name!r}, but torch {torch.__version__} sees no GPU: use cpu, or see `pmlm doctor`"
        )
    if name.startswith("cuda:") and int(name[5:]) >= (n := torch.cuda.device_count()):
        raise ValueError(f"device is {name!r}, but there are {n} GPUs, cuda:0 to cuda:{n - 1}: use one of them")
    return _own_gpu() if name == "cuda" else torch.device(name)


def _own_gpu() -> torch.device:
    local = os.environ.get("LOCAL_RANK", "")  # of torchrun
    return torch.device(f"cuda:{int(local) % torch.cuda.device_count()}" if local.isdecimal() else "cuda")


def llm_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 if the processor supports it (measured: 1.8 times the speed of float32), else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # torch has no public name for it
    return torch.bfloat16 if has_bfloat16() else torch.float32


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators, used for initial weights and dropout, inside this context; then restore them.

    Args:
        seed: Seed of the CPU's generator and the device's.
        device: A device that is used besides the CPU. Generators of other devices are not touched.
    """
    gpu = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=gpu):
        torch.default_generator.manual_seed(seed)
        for each in gpu:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one CPU thread.

    A small network gains little from more threads and loses much on shared cores; results do not depend on the number
    of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
