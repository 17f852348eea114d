"""Dropout as a product with what it draws, so that the draw can be fed again."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

# What multiplies its first argument with what it draws.
PRODUCTS = ("dropout", "feature_dropout", "native_dropout")
ATTENTION = "scaled_dot_product_attention"
# How far attention that was computed again, in another order, may be from what the program had.
_SAME_RELATIVE = 1e-4


def draw_of(function: Callable[..., Any], first: torch.Tensor, args: Any, kwargs: Any) -> torch.Tensor:
    """What a dropout is about to multiply ``first`` with; the random numbers stay as they are."""
    with torch._C.DisableTorchFunction(), torch.no_grad():
        before = torch.get_rng_state()
        draw: torch.Tensor = function(torch.ones_like(first), *args, **kwargs)
        torch.set_rng_state(before)
    return draw


def attention_arguments(args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of attention by name."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    return dict(zip(names, args, strict=False)) | kwargs


def attention_draw(given: dict[str, Any]) -> torch.Tensor:
    """What attention is about to multiply its weights with."""
    query, key = given["query"], given["key"]
    with torch._C.DisableTorchFunction():
        # Queries may share keys, in groups; else leading axes broadcast.
        leads = [query.shape[:-2]] if given.get("enable_gqa") else [query.shape[:-2], key.shape[:-2]]
        lead = np.broadcast_shapes(*map(tuple, leads))
        ones = torch.ones((*lead, query.shape[-2], key.shape[-2]), dtype=query.dtype)
    return draw_of(torch.dropout, ones, (given["dropout_p"], True), {})


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    draw: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention whose weights are multiplied with what dropout drew: Vaswani et al., 2017."""
    if enable_gqa:
        times = query.size(-3) // key.size(-3)
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.size(-1)) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        masked = attn_mask.dtype is torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if masked else scores + attn_mask
    return (torch.softmax(scores, -1) * draw) @ value


def is_followed(out: torch.Tensor, given: dict[str, Any], draw: torch.Tensor) -> bool:
    """Whether attention with this draw gives what the program had."""
    known = inspect.signature(attention).parameters
    with torch._C.DisableTorchFunction(), torch.no_grad():
        again = attention(**{key: value for key, value in given.items() if key in known}, draw=draw)
        return torch.allclose(again, out, rtol=_SAME_RELATIVE, atol=_SAME_RELATIVE * float(out.abs().max()))
