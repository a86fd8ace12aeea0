"""A GPU for machines without one: it computes on the CPU, but parts its tensors from the CPU's as a GPU does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo  # torch would import it in the midst of all this
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _DummyPrivateUse1Hook,
    _setup_privateuseone_for_python_backend,
)


class _Backend(_DummyBackendModule):
    """Says how many such GPUs there are; nobody who looks for one outside of ``pretend_gpu`` shall find it."""

    count = 0

    def is_available(self) -> bool:
        return self.device_count() > 0

    def device_count(self) -> int:
        return _Backend.count

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class _Hook(_DummyPrivateUse1Hook):
    def is_available(self) -> bool:
        return _Backend.count > 0


#: Where tensors are said to be: on torch's device for backends of others.
GPU = torch.device("privateuseone:0")

#: What takes tensors of both devices: copies, and the CPU's indices into a GPU's tensor.
_MAY_MIX = ("aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put_", "aten::_index_put_impl_")


class OnGpu(torch.Tensor):
    """A tensor that says it is on the GPU; ``inner`` holds its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnGpu:
        """Wrap a tensor of the CPU."""
        outer = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=GPU
        )
        outer.inner = inner
        return outer

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, as the mode does for those who make tensors."""
        return _compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Bring the numbers to the CPU first; torch does so for a GPU's tensor, but not for a subclass."""
        return self.cpu().tolist()


class _Mode(TorchDispatchMode):
    """Makes tensors on the GPU where they are asked for there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU what was asked of the GPU.

    Raises:
        RuntimeError: Tensors of both are to be computed with; a single number of the CPU may be.
    """
    leaves, name = tree_leaves((args, kwargs)), func._schema.name
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    on_gpu = any(isinstance(tensor, OnGpu) for tensor in tensors)
    strangers = any(not isinstance(tensor, OnGpu) and tensor.dim() for tensor in tensors)
    if name == "aten::_has_compatible_shallow_copy_type":
        return not (on_gpu and strangers)
    if on_gpu and strangers and name not in _MAY_MIX:
        raise RuntimeError(f"{name} got tensors of the GPU and of the CPU: bring them to one device")
    if asked := [leaf for leaf in leaves if isinstance(leaf, torch.device)]:
        on_gpu = asked[0] == GPU
    inner = tree_map(_on_cpu, (args, kwargs))
    result = func(*inner[0], **inner[1])
    if any(returned.alias_info is not None and returned.alias_info.is_write for returned in func._schema.returns):
        return args[0]  # changed in place
    return tree_map(lambda leaf: OnGpu(leaf) if isinstance(leaf, torch.Tensor) else leaf, result) if on_gpu else result


def _on_cpu(leaf: Any) -> Any:
    """Return the CPU's tensor, or the CPU, in place of the GPU's."""
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.inner if isinstance(leaf, OnGpu) else leaf


class _Generator(torch.Generator):
    """Draws on the CPU; says that it is where it was asked to be, and its state there is not what a CPU's is."""

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        """Make one."""
        made = super().__new__(cls)
        made.asked = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        """Where it was asked to be."""
        return self.asked

    def get_state(self) -> torch.Tensor:
        """One byte longer on the GPU."""
        state = super().get_state()
        return torch.cat([state, state[:1]]) if self.asked == GPU else state

    def set_state(self, state: torch.Tensor) -> None:
        """Take what ``get_state`` returned there, and nothing else."""
        if len(state) != len(self.get_state()):
            raise RuntimeError("RNG state is wrong size")
        super().set_state(state[:-1].clone() if self.asked == GPU else state)


@cache
def _register() -> None:
    """Tell torch of the device, which cannot be taken back: never where there is a real GPU."""
    _setup_privateuseone_for_python_backend("pretend", _Backend(), _Hook())


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """Let tensors and generators be on ``GPU`` for a while."""
    _register()
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=GPU) is made on the CPU, then brought
    try:
        with patch.object(_Backend, "count", 1), patch.object(torch, "Generator", _Generator), _Mode():
            yield GPU
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
