"""Motion modules in the layouts of the public files, with random weights, and what they compute in plain steps.

The reference below is written from AnimateDiff's description and shares nothing with the pack: it reads a file's own names.
"""

import math

import torch
import torch.nn.functional as F

HEADS = 8


def modules(widths, res_blocks, middle):
    """Yield (place in a file, width) of every module."""
    for level, width in enumerate(widths):
        for number in range(res_blocks[level]):
            yield f"down_blocks.{level}.motion_modules.{number}", width
    if middle:
        yield "mid_block.motion_modules.0", widths[-1]
    for index, level in enumerate(reversed(range(len(widths)))):
        for number in range(res_blocks[level] + 1):
            yield f"up_blocks.{index}.motion_modules.{number}", widths[level]


def motion_file(widths, res_blocks, middle=False, frames=24, seed=0, dtype=torch.float32):
    """Return a state dict in AnimateDiff's layout; every tensor is random, the tables of positions too."""
    random = torch.Generator().manual_seed(seed)

    def tensor(*shape, scale=None, around=0.0):
        scale = shape[-1] ** -0.5 if scale is None else scale
        return (around + scale * torch.randn(shape, generator=random)).to(dtype)

    state = {}
    for place, c in modules(widths, res_blocks, middle):
        at = f"{place}.temporal_transformer"
        block = f"{at}.transformer_blocks.0"
        for norm in ("norm", *(f"transformer_blocks.0.{n}" for n in ("norms.0", "norms.1", "ff_norm"))):
            state[f"{at}.{norm}.weight"] = tensor(c, scale=0.1, around=1.0)
            state[f"{at}.{norm}.bias"] = tensor(c, scale=0.1)
        linears = {f"{at}.proj_in": (c, c), f"{at}.proj_out": (c, c), f"{block}.ff.net.0.proj": (c * 8, c)}
        linears[f"{block}.ff.net.2"] = (c, c * 4)
        for k in range(2):
            attention = f"{block}.attention_blocks.{k}"
            state[f"{attention}.pos_encoder.pe"] = tensor(1, frames, c, scale=0.5)
            for name in ("to_q", "to_k", "to_v"):
                state[f"{attention}.{name}.weight"] = tensor(c, c)
            linears[f"{attention}.to_out.0"] = (c, c)
        for name, shape in linears.items():
            state[f"{name}.weight"], state[f"{name}.bias"] = tensor(*shape), tensor(shape[0], scale=0.05)
    return state


def hotshot(state):
    """Return a file's tensors under HotshotXL's names."""
    swaps = (
        ("motion_modules", "temporal_attentions"),
        (".temporal_transformer.", "."),
        ("encoder.pe", "encoder.positional_encoding"),
    )
    return renamed(state, swaps)


def diffusers(state):
    """Return a file's tensors under the names of diffusers' MotionAdapter, which has one table for both attentions."""
    swaps = [(".temporal_transformer.", "."), ("ff_norm", "norm3")]
    for k in range(2):
        swaps += [(f"attention_blocks.{k}.to", f"attn{k + 1}.to"), (f"norms.{k}", f"norm{k + 1}")]
    kept = {k: v for k, v in state.items() if ".attention_blocks.1.pos_encoder" not in k}
    return renamed(kept, [*swaps, ("attention_blocks.0.pos_encoder.pe", "pos_embed.pe")])


def one_table(state):
    """Return a file whose two attention layers of a module have the same table, as those of the public files have."""
    tables = {k: v for k, v in state.items() if "attention_blocks.0.pos_encoder" in k}
    return state | {k.replace("blocks.0.pos", "blocks.1.pos"): v.clone() for k, v in tables.items()}


def renamed(state, swaps):
    def name(key):
        for old, new in swaps:
            key = key.replace(old, new)
        return key

    return {name(key): value for key, value in state.items()}


def clip_norm(x, frames, weight, bias, eps):
    """Group norm of ((b t), c, h, w) features that takes a clip's frames as one picture."""
    clips = x.unflatten(0, (-1, frames)).transpose(1, 2)
    return F.group_norm(clips, 32, weight, bias, eps).transpose(1, 2).flatten(0, 1)


def reference(state, place, x, frames, whole_clip=False):
    """Return what the module at `place` makes of ((b t), c, h, w) features, one pixel's frames at a time.

    Args:
        whole_clip: its group norm sees all frames.
    """
    at = f"{place}.temporal_transformer"
    w = {k.removeprefix(f"{at}."): v.to(x) for k, v in state.items() if k.startswith(f"{at}.")}

    def linear(name, y, bias=True):
        return F.linear(y, w[f"{name}.weight"], w[f"{name}.bias"] if bias else None)

    def layer_norm(name, y):
        return F.layer_norm(y, y.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    c, height, width = x.shape[1:]
    out = torch.empty_like(x)
    seen = clip_norm(x, frames, w["norm.weight"], w["norm.bias"], 1e-6) if whole_clip else None
    for clip in range(len(x) // frames):
        rows = slice(clip * frames, (clip + 1) * frames)
        normed = seen[rows] if whole_clip else F.group_norm(x[rows], 32, w["norm.weight"], w["norm.bias"], 1e-6)
        for i in range(height):
            for j in range(width):
                y = linear("proj_in", normed[:, :, i, j])
                for k in range(2):
                    attention = f"transformer_blocks.0.attention_blocks.{k}"
                    z = layer_norm(f"transformer_blocks.0.norms.{k}", y) + w[f"{attention}.pos_encoder.pe"][0, :frames]
                    heads = [linear(f"{attention}.to_{n}", z, bias=False).unflatten(-1, (HEADS, -1)) for n in "qkv"]
                    q, k_, v = (h.transpose(0, 1) for h in heads)
                    weights = (q @ k_.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(dim=-1)
                    y = y + linear(f"{attention}.to_out.0", (weights @ v).transpose(0, 1).flatten(1))
                z, gate = linear(
                    "transformer_blocks.0.ff.net.0.proj", layer_norm("transformer_blocks.0.ff_norm", y)
                ).chunk(2, -1)
                y = y + linear("transformer_blocks.0.ff.net.2", z * F.gelu(gate))
                out[rows, :, i, j] = x[rows, :, i, j] + linear("proj_out", y)
    return out
