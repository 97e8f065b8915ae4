"""Codecs on a device that is not the CPU, where no such device is at hand: run by test_compiled.py.

Registers a device "elsewhere" with torch, for the whole process, hence in a process of its own. Its tensors
keep their values in the CPU's memory, but only its kernels can read them: an operation that mixes them with
the CPU's tensors, which a GPU would refuse, fails here as well. Convolutions are computed in float64, so they
differ from the CPU's in the last bits, as a GPU's do.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, library
from torch._C import _acc, _dispatch_get_all_op_names, _dispatch_has_kernel_for_dispatch_key
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from taskpress.coding.allocation import AllocatorSettings
from taskpress.coding.codec import Codec

from .conftest import draw
from .test_compiled import check_same_files

DEVICE = "elsewhere"
CROSSING = {"aten::_to_copy", "aten::copy_", "aten::_copy_from"}


class Elsewhere(Tensor):
    """A tensor of the device; `here` has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "Elsewhere":
        tensor = _acc.create_empty_tensor(here.shape, here.dtype)
        tensor.__class__ = cls
        return tensor

    def __init__(self, here: Tensor) -> None:
        self.here = here

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.here})"


def here(value: Any) -> Any:
    return value.here if isinstance(value, Elsewhere) else value


def elsewhere(value: Any) -> Any:
    return Elsewhere(value) if isinstance(value, Tensor) else value


def kernel(op: torch._ops.OpOverload, *args: Any, **kwargs: Any) -> Any:
    """Any operation of torch's on the device."""
    name = op.name()
    for leaf in tree_leaves((args, kwargs)):
        if (
            isinstance(leaf, Tensor)
            and not isinstance(leaf, Elsewhere)
            and leaf.dim()
            and name not in CROSSING
        ):
            raise RuntimeError(f"{name} mixes tensors of {DEVICE} and {leaf.device}")
    values, options = tree_map(here, (args, kwargs))
    if name == "aten::_copy_from":
        values[1].copy_(values[0])
        return args[1]
    if name == "aten::_local_scalar_dense":
        return values[0].item()
    back = name == "aten::_to_copy" and torch.device(options.get("device") or DEVICE).type == "cpu"
    if options.get("device") is not None:
        options["device"] = torch.device("cpu")
    if name.startswith("aten::convolution"):
        precise = [v.double() if isinstance(v, Tensor) else v for v in values]
        return Elsewhere(torch.ops.aten.convolution(*precise).to(values[0].dtype))
    result = op(*values, **options)
    if op._schema.is_mutable:
        return kwargs.get("out", args[0] if args else None)
    return result if back else tree_map(elsewhere, result)


_setup_privateuseone_for_python_backend(DEVICE)
Library = library.Library
anything = Library("_", "IMPL", "PrivateUse1")
anything.fallback(kernel)
# Where torch has a kernel for every device it would not fall back to ours.
named = Library("aten", "IMPL")
for name in _dispatch_get_all_op_names():
    if name.startswith("aten::") and _dispatch_has_kernel_for_dispatch_key(name, "CompositeExplicitAutograd"):
        base, _, overload = name.removeprefix("aten::").partition(".")
        if op := getattr(getattr(torch.ops.aten, base), overload or "default", None):
            named.impl(name.removeprefix("aten::"), partial(kernel, op), "PrivateUse1")


@pytest.fixture(autouse=True)
def _without_autograd():
    """Its views would lose our tensors' values."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with torch.inference_mode():
        yield


def test_mixing_devices_fails() -> None:
    there = torch.ones(3).to(DEVICE)
    assert there.device.type == DEVICE
    with pytest.raises(RuntimeError, match=r"mixes|same device"):
        there + torch.ones(3)
    with pytest.raises(RuntimeError, match=r"mixes|same device"):
        torch.nn.functional.conv1d(there[None, None], torch.ones(1, 1, 1))


def test_same_files(codec: Codec) -> None:
    check_same_files(codec, copy.deepcopy(codec).to(DEVICE))


@pytest.mark.parametrize("kind", ["roi", "semantic"])
def test_same_files_with_an_allocator(lively: Callable[..., Codec], kind: str) -> None:
    codec = copy.deepcopy(lively("cheng2020-attention"))
    codec.attach_allocator(AllocatorSettings(kind, 5, 8, 3 if kind == "semantic" else 0), seed=5)
    check_same_files(codec, copy.deepcopy(codec).to(DEVICE))


def test_tiles(lively: Callable[..., Codec]) -> None:
    codec = lively("cheng2020-attention")
    there = copy.deepcopy(codec).to(DEVICE)
    data = there.encode(draw(150, 200), tile=64)
    expected = codec.decode(data, "tensor")
    torch.testing.assert_close(there.decode(data, "tensor").cpu(), expected, atol=1e-5, rtol=0)
