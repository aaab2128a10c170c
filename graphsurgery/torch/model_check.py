"""Models that no block can be attached to, or no longer: each refused with where, or when, to attach instead."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from ..errors import RequestError
from .hooks import hooks_in

_WRAPPERS = (
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
    torch.optim.swa_utils.AveragedModel,
)
_FUSED = ("torch.ao.nn.intrinsic", "torch.ao.nn.quantized", "torch.ao.nn.qat")


def check(model: object) -> nn.Module:
    """The model. RequestError if no block can be attached to it."""
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if inspect.isclass(model) else f"of type {type(model).__name__}"
        raise RequestError(f"blocks are attached to a torch.nn.Module; the model is {what}", option="model")
    reason = next(_reasons(model), "") or next(_too_late(model), "")
    if reason:
        raise RequestError(reason, option="model")
    return model


def _reasons(model: nn.Module) -> Iterator[str]:
    """What speaks against a model, as it is."""
    if attached := [f"{path}.{hook.name}" for path, _, hook in hooks_in(model)]:
        yield f"the model has blocks attached already ({attached[0]} for one); detach them, or make one recipe of both"
    if type(model).__module__.startswith("ultralytics.") and hasattr(model, "predictor"):
        name = type(model).__name__
        yield f"{name} is the wrapper that trains and exports; attach to its model: attach(yolo.model, ...)"
    for path, module in model.named_modules():
        kind = type(module).__name__
        what = f"{path} ({kind})" if path else f"the model ({kind})"
        inner = f"{path}.module" if path else "model.module"
        if isinstance(module, torch.jit.ScriptModule):
            yield f"{what} is TorchScript; attach to the module that it was made from, and script or trace that"
        if isinstance(module, _compiled_kinds()) or module._compiled_call_impl is not None:
            yield f"{what} is compiled, and would go on as it is; attach first, then torch.compile"
        if isinstance(module, _WRAPPERS) or "FullyShardedDataParallel" in kind:
            yield f"{what} wraps the model; attach to {inner}, before it is wrapped"
        replaced = getattr(vars(module).get("forward"), "__name__", "forward")
        if replaced.startswith("forward_fuse") or type(module).__module__.startswith(_FUSED):
            yield f"{what} is fused, and can no longer be trained; attach to the model before it is fused"


def _too_late(model: nn.Module) -> Iterator[str]:
    """Who has taken hold of the model or its parameters already, as far as that can be seen."""
    if found := next(_holders(model), None):
        gc.collect()  # what nobody uses any more may not have been thrown away yet
        found = next(_holders(model), None)
    if isinstance(found, torch.optim.Optimizer):
        kind = type(found).__name__
        yield f"an optimizer ({kind}) holds the model's parameters and would not train the blocks; attach before it"
    elif found is not None:
        yield f"{type(found).__name__} holds the model already; attach to the model first, then wrap or compile it"


def _holders(model: nn.Module) -> Iterator[object]:
    own = {id(each) for each in model.parameters()}
    kinds = _with_subclasses((torch.optim.Optimizer, *_compiled_kinds(), *_WRAPPERS[:2]))
    for each in [each for each in gc.get_objects() if type(each) in kinds]:
        groups = each.param_groups if isinstance(each, torch.optim.Optimizer) else [{"params": each.parameters()}]
        if any(id(parameter) in own for group in groups for parameter in group["params"]):
            yield each


def _with_subclasses(kinds: Sequence[type]) -> set[type]:
    """The classes and all that derive from them: asked of every object there is, isinstance would take a second."""
    found, pending = set[type](), list(kinds)
    while pending:
        kind = pending.pop()
        if kind not in found:
            found.add(kind)
            pending += kind.__subclasses__()
    return found


def _compiled_kinds() -> tuple[type, ...]:
    """The class that torch.compile wraps a module in; () where nothing has been compiled: it takes long to import."""
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    return (compiler.OptimizedModule,) if compiler is not None else ()
