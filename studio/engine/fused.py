"""The parts of a layer that cost most, each as one step of the gradient: LoRA's and DoRA's linear, norm, gated product.

Computed in the model's precision with LoRA's weights in fp32, they equal what transformers and peft compute, with one
saved activation instead of several. Wherever a module is not exactly what was tried, its own forward stays.
"""

from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from peft.tuners import lora
from peft.tuners.lora.variants import DoraLinearVariant
from torch.nn import functional

TRIED = {"peft": ((0, 21), (0, 22)), "transformers": ((5, 20), (5, 30))}  # first release tried, and first not


class LoraLinear(torch.autograd.Function):
    """x·Wᵀ + bias + scale·(x·Aᵀ)·Bᵀ for a frozen W: x [T, I], W [O, I], A [r, I], B [O, r] → [T, O].

    With `state` W is held in 4 bits by bitsandbytes, and made whole for each product: it is kept as it lies there.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        state: Any = None,
    ) -> torch.Tensor:
        small = x @ a.to(x.dtype).t()
        ctx.save_for_backward(x, small, weight, a, b)
        ctx.scale, ctx.state = scale, state
        return _sum(x, small, _whole(weight, state, x), bias, b, scale)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[Any, ...]:
        return *_through(ctx, *grad_outputs, *ctx.saved_tensors), None


class DoraLinear(torch.autograd.Function):
    """magnitude/norm · (x·Wᵀ + scale·(x·Aᵀ)·Bᵀ) + bias, with the norm a constant (DoRA, section 4.3).

    Only the scaled product is kept besides x: its sum against the gradient, by the magnitude, is what that learns from.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        magnitude: torch.Tensor,
        norm: torch.Tensor,
    ) -> torch.Tensor:
        small = x @ a.to(x.dtype).t()
        out = _sum(x, small, weight, None, b, scale)
        out.mul_(magnitude / norm)  # in fp32: near 1, bf16 knows steps of a hundredth or half of it
        ctx.save_for_backward(x, small, weight, a, b, magnitude, norm, out)
        ctx.scale, ctx.state = scale, None
        return out if bias is None else out + bias

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[Any, ...]:
        (gradient,) = grad_outputs
        x, small, weight, a, b, magnitude, norm, out = ctx.saved_tensors
        d_magnitude = (gradient * out).sum(0, dtype=magnitude.dtype) / magnitude
        d_x, _, _, d_a, d_b, _ = _through(ctx, gradient.clone().mul_(magnitude / norm), x, small, weight, a, b)
        return d_x, None, None, d_a, d_b, None, d_magnitude, None


def _through(
    ctx: Any,
    gradient: torch.Tensor,
    x: torch.Tensor,
    small: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
) -> tuple[Any, ...]:
    """The gradients of x·Wᵀ + scale·(x·Aᵀ)·Bᵀ, in the order of LoraLinear's inputs."""
    down = (gradient @ b.to(gradient.dtype)).mul_(ctx.scale)
    d_x = None
    if ctx.needs_input_grad[0]:
        d_x = (gradient @ _whole(weight, ctx.state, gradient)).addmm_(down, a.to(gradient.dtype))
    d_a = (down.t() @ x).to(a.dtype)
    d_b = (gradient.t() @ small).to(b.dtype).mul_(ctx.scale)
    return d_x, None, None, d_a, d_b, None


def _sum(
    x: torch.Tensor, small: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, b: torch.Tensor, scale: float
) -> torch.Tensor:
    """x·Wᵀ + bias + scale·small·Bᵀ, rounded once.

    What an adapter adds at first is under half a step of a number in 16 bits: added to a product that has been rounded
    it is gone, and the first hundreds of steps learn less than they would in fp32. So the product comes on top of what
    the adapter adds, and is summed in fp32 until then.
    """
    out = (small @ (scale * b).to(x.dtype).t()).addmm_(x, weight.t())
    return out if bias is None else out.add_(bias)


def _whole(weight: torch.Tensor, state: Any, like: torch.Tensor) -> torch.Tensor:
    """The weight itself, or what its 4 bits stand for."""
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit  # takes a second to load, and most runs do not need it

    return dequantize_4bit(weight, state).to(like.dtype)


class Norm(torch.autograd.Function):
    """RMS norm in fp32 with a frozen weight: x [..., H] → x/rms(x) in x's precision, times the weight."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.to(torch.float32, copy=True)
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return wide.mul_(scale).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        unit = x.to(torch.float32, copy=True).mul_(scale)
        gradient = (grad_outputs[0] * weight).to(torch.float32, copy=True)
        along = (gradient * unit).mean(-1, keepdim=True)
        return gradient.sub_(unit.mul_(along)).mul_(scale).to(x.dtype), None, None


class Gated(torch.autograd.Function):
    """silu(gate)·up, of which only gate and up are kept."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        (gradient,) = grad_outputs
        return torch.ops.aten.silu_backward(gradient * up, gate), functional.silu(gate).mul_(gradient)


def linear(module: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The forward of a LoRA or DoRA linear; anything but training one plain adapter is left to peft."""
    (name,) = module.active_adapters if len(module.active_adapters) == 1 else ("",)
    if not name or module.disable_adapters or module.merged or args or kwargs:
        return type(module).forward(module, x, *args, **kwargs)
    base, a, b, scale = module.base_layer, module.lora_A[name], module.lora_B[name], module.scaling[name]
    parts = x.reshape(-1, x.shape[-1]), base.weight, base.bias, a.weight, b.weight, scale
    if module.lora_variant:
        out = DoraLinear.apply(*parts, module.lora_magnitude_vector[name].weight, _row_norms(module, name))
    else:
        out = LoraLinear.apply(*parts, getattr(base.weight, "quant_state", None))
    return out.view(*x.shape[:-1], -1)


@torch.no_grad()
def _row_norms(module: Any, name: str) -> torch.Tensor:
    """‖W + sBA‖ of each row, without making B·A: ‖W‖² + 2s·(W·Aᵀ)∘B + s²·(B·(A·Aᵀ))∘B, summed over a row; in fp32."""
    weight, scale = module.base_layer.weight, module.scaling[name]
    a, b = (part[name].weight.float() for part in (module.lora_A, module.lora_B))
    if not hasattr(module, "squares"):  # of the frozen weight, so they stay
        module.squares = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32).square_()
    mixed = (weight @ a.to(weight.dtype).t()).float().mul_(2 * scale)
    mixed.addmm_(b, a @ a.t(), alpha=scale**2)
    return mixed.mul_(b).sum(1).add_(module.squares).clamp_(min=torch.finfo(torch.float32).tiny).sqrt_()


def norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    if x.is_cuda:  # there it is one kernel
        return functional.rms_norm(x, module.weight.shape, module.weight, module.variance_epsilon)
    return Norm.apply(x, module.weight, module.variance_epsilon)


def gated(module: Any, x: torch.Tensor) -> torch.Tensor:
    return module.down_proj(Gated.apply(module.gate_proj(x), module.up_proj(x)))


def fuse(model: torch.nn.Module) -> int:
    """Replace the forward of every module that is exactly what was tried; return how many."""
    if not all(low <= _release(name) < high for name, (low, high) in TRIED.items()):
        return 0
    count = 0
    module: Any
    for module in model.modules():
        quick = _quick(module)
        if quick:
            module.forward = partial(quick, module)
            count += 1
    return count


def _quick(module: Any) -> Any:
    name = type(module).__name__
    if isinstance(module, lora.LoraLayer):
        return linear if _plain(module) else None
    if name in ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "Phi3RMSNorm"):
        return norm
    if name in ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP") and _is_silu(module.act_fn):
        return gated
    return None


def _plain(module: Any) -> bool:
    """Whether it is a linear in full precision with LoRA or DoRA, or one in 4 bits with LoRA; no dropout, no bias."""
    kind, variants = type(module), module.lora_variant.values()
    if kind is lora.Linear:
        known = type(module.base_layer) is torch.nn.Linear and not module.fan_in_fan_out
        known = known and all(isinstance(part, DoraLinearVariant) for part in variants)
    else:  # bitsandbytes' own kind exists only where that is installed
        known = (kind.__module__, kind.__name__) == ("peft.tuners.lora.bnb", "Linear4bit") and not variants
    dry = all(isinstance(part, torch.nn.Identity) for part in module.lora_dropout.values())
    return known and dry and all(part.bias is None for part in module.lora_B.values())


def _is_silu(activation: Any) -> bool:
    return isinstance(activation, torch.nn.SiLU) or type(activation).__name__ == "SiLUActivation"


def _release(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:2])
