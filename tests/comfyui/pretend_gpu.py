"""A GPU for machines without one: tensors that say they lie on `pretend:0` and are kept in main memory.

Values are computed as ever, on the CPU; what is pretended is the place. An operation that mixes places fails
as it would on a real GPU, so a weight that the memory manager left behind is found by any machine. PyTorch
has a device type for backends written in Python, which this is.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from comfy_checkout import WHY_NOT
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

try:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
except ImportError:
    pytest.skip("this PyTorch has no backends written in Python", allow_module_level=True)

if WHY_NOT is not None:
    pytest.skip(WHY_NOT, allow_module_level=True)

_setup_privateuseone_for_python_backend("pretend")
# The device stays registered for the whole process, and PyTorch asks every device for these in later tests:
# checkpointing for the dtypes, `fork_rng` for the state of its random numbers.
torch.pretend.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
torch.pretend.get_rng_state = lambda device=None: torch.empty(0, dtype=torch.uint8)
torch.pretend.set_rng_state = lambda state, device=None: None

DEVICE = torch.device("pretend", 0)
_aten = torch.ops.aten

# May mix places on a real GPU as well: copies, and indices in main memory.
_ACROSS = (
    _aten._to_copy.default,
    _aten.copy_.default,
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
)


class MixedDevices(Exception):
    """One operation was given tensors of both places."""


class OnDevice(torch.Tensor):
    """A tensor on the pretended GPU; `held` has its values."""

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )

    def __init__(self, held: torch.Tensor):
        self.held = held

    def __repr__(self, *, tensor_contents=None):
        return f"OnDevice({self.held!r})"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.tolist:
            return args[0].held.tolist()
        if func is torch.nn.functional.scaled_dot_product_attention:
            # A device written in Python has no fused kernel; take the CPU's, whose rounding is the same.
            return _dispatch(func, args, kwargs)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            # torch makes a tensor of a list by ways that see no device written in Python.
            args = (args[0], _lists_as_tensors(args[1]), *args[2:])
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


class _Python(TorchFunctionMode):
    """What PyTorch does by ways that see no device written in Python."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            made = func(*tree_map(held, args), **kwargs)
            return made if device is None else made.to(device)
        if func == torch.Tensor.data.__set__ and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
            # A weight moved in place, `weight.data = weight.to(device)`, stays the same object.
            moved = torch.nn.Parameter(args[1], requires_grad=args[0].requires_grad)
            return torch.utils.swap_tensors(args[0], moved)
        return func(*args, **kwargs)


@contextmanager
def pretend_gpu():
    """Inside, `device="pretend:0"` works for constructors and for `.to`."""
    with _Python(), _Operations():
        yield


def _dispatch(func, args, kwargs):
    if func is _aten._has_compatible_shallow_copy_type.default:
        return True
    flat, shape = tree_flatten((args, kwargs))
    tensors = [x for x in flat if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, OnDevice)]
    # A scalar tensor in main memory may meet any other.
    here = [x for x in tensors if not isinstance(x, OnDevice) and x.ndim > 0]
    if there and here and func not in _ACROSS:
        raise MixedDevices(f"{func}: {[(tuple(x.shape), str(x.device)) for x in tensors]}")
    known = {id(x.held): x for x in there}
    args, kwargs = tree_unflatten([x.held if isinstance(x, OnDevice) else x for x in flat], shape)
    lands_there = bool(there)
    if kwargs.get("device") is not None:
        lands_there = torch.device(kwargs["device"]).type == DEVICE.type
        kwargs = {**kwargs, "device": "cpu"}
    if func is _aten.copy_.default:
        lands_there = id(args[0]) in known
    result = func(*args, **kwargs)
    if func is _aten._to_copy.default and result is args[0]:
        result = result.clone()
    if not lands_there:
        return result

    def wrapped(x):
        if not isinstance(x, torch.Tensor) or isinstance(x, OnDevice):
            return x
        return known[id(x)] if id(x) in known else OnDevice(x)  # in place: the tensor itself

    return tree_map(wrapped, result)


def _lists_as_tensors(index):
    if isinstance(index, list):
        return torch.tensor(index)
    return tuple(_lists_as_tensors(part) for part in index) if isinstance(index, tuple) else index


def held(value):
    """The values of a tensor, wherever it pretends to be; anything else as it is."""
    return value.held if isinstance(value, OnDevice) else value
