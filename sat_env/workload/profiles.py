"""What a model costs, block by block: FLOPs, weights, activations and KV cache.

A model is a chain of L blocks, cut at any of its L + 1 boundaries. Boundary 0 is the raw input, boundary L
the result. The embedding belongs to the first block and the head to the last. One FLOP is one addition or
multiplication, so a multiply-accumulate (MAC) counts as two.

An *item* is what the arrays count per: one image for a vision transformer, one prompt token for a language
model, one sample of the measured batch for a profiled one.

References
----------
Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021 (ViT-B, L, H); Zhai et al., "Scaling Vision
Transformers", 2022 (ViT-g, ViT-G); Grattafiori et al., "The Llama 3 Herd of Models", 2024; Qwen Team,
"Qwen2.5 Technical Report", 2024.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

FloatArray: TypeAlias = NDArray[np.float64]
Kind: TypeAlias = Literal["vit", "llm", "measured"]

IMAGE_SIZES: dict[str, tuple[int, int]] = {
    "240p": (426, 240),
    "360p": (640, 360),
    "480p": (854, 480),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
}
"""Width and height in pixels of the 16:9 formats."""

TOKEN_ID_BYTES = 4
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
DEFAULT_PROMPT_TOKENS = 512


def image_bytes(width: int, height: int) -> int:
    """Bytes of a raw RGB image, 8 bits a sample.

    Parameters
    ----------
    width, height : int
        Pixels, at least 1.

    Raises
    ------
    ValueError
        If a side is below 1.
    """
    for field, value in (("width", width), ("height", height)):
        if value < 1:
            raise ValueError(f"{field} is {value}; allowed: 1 or more pixels")
    return width * height * 3


@dataclass(frozen=True, eq=False)
class ModelProfile:
    """Cost of a model of L blocks. Arrays are read-only float64.

    Raises
    ------
    ValueError
        If an array has the wrong shape, or holds a negative or non-finite number.
    """

    name: str
    kind: Kind
    n_parameters: int  # distinct parameters: a matrix tied between embedding and head counts once
    dtype_bytes: int  # bytes of a weight and of an uncompressed activation entry
    input_bytes_per_item: float  # raw, as sent before block 1
    result_bytes_per_item: float
    flops_per_item: FloatArray  # (L,) an LLM's are the mean over the tokens of a prompt
    weight_bytes: FloatArray  # (L,) a tied matrix counts at both ends: a split model needs it there
    boundary_entries: FloatArray  # (L + 1,) values per item; [0] raw input, [L] result
    kv_bytes_per_token: FloatArray  # (L,) KV cache a resident token takes; zero unless an LLM
    token_flops: FloatArray  # (L,) of one decoded token; zero unless an LLM
    prompt_tokens: int = 0  # prompt length behind flops_per_item and token_flops; zero unless an LLM

    def __post_init__(self) -> None:
        for field in ("dtype_bytes", "input_bytes_per_item", "result_bytes_per_item"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field} is {value}; allowed: a finite number above 0")
        n_blocks = len(self.flops_per_item)
        if n_blocks == 0:
            raise ValueError("flops_per_item has shape (0,); allowed: at least one block")
        for field in ("flops_per_item", "weight_bytes", "kv_bytes_per_token", "token_flops"):
            self._freeze(field, (n_blocks,))
        self._freeze("boundary_entries", (n_blocks + 1,))

    def _freeze(self, field: str, shape: tuple[int, ...]) -> None:
        array = np.array(getattr(self, field), dtype=np.float64)
        if array.shape != shape:
            raise ValueError(f"{field} has shape {array.shape}; allowed: {shape}")
        if not (np.isfinite(array).all() and (array >= 0).all()):
            raise ValueError(
                f"{field} holds {array.min()} to {array.max()}; allowed: finite numbers, 0 or more"
            )
        array.flags.writeable = False
        object.__setattr__(self, field, array)

    @property
    def n_blocks(self) -> int:
        """Number of blocks L."""
        return len(self.flops_per_item)

    def grouped(self, n_units: int) -> ModelProfile:
        """Merge consecutive blocks into units, which then are the profile's blocks.

        Parameters
        ----------
        n_units : int
            1 to L. Where it does not divide L, unit sizes differ by one block.

        Returns
        -------
        ModelProfile
            FLOPs, weights and KV bytes summed over each unit; boundaries between units kept.
        """
        if not 1 <= n_units <= self.n_blocks:
            raise ValueError(
                f"n_units is {n_units}; allowed: 1 to {self.n_blocks}, the blocks of {self.name}"
            )
        edges = np.arange(n_units + 1) * self.n_blocks // n_units  # (U + 1,) boundaries that stay
        return replace(
            self,
            flops_per_item=np.add.reduceat(self.flops_per_item, edges[:-1]),
            weight_bytes=np.add.reduceat(self.weight_bytes, edges[:-1]),
            boundary_entries=self.boundary_entries[edges],
            kv_bytes_per_token=np.add.reduceat(self.kv_bytes_per_token, edges[:-1]),
            token_flops=np.add.reduceat(self.token_flops, edges[:-1]),
        )


@dataclass(frozen=True)
class VitShape:
    """Dimensions of a vision transformer with a class token and learned positions."""

    n_blocks: int
    d_model: int
    d_ff: int
    patch: int  # pixels a side
    image: int = 224  # pixels a side, after resizing
    channels: int = 3
    n_classes: int = 1000
    qkv_bias: bool = True


@dataclass(frozen=True)
class DecoderShape:
    """Dimensions of a decoder language model: grouped-query attention, gated MLP, RMS norm."""

    n_blocks: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    vocabulary: int
    tied: bool  # the head reuses the embedding matrix
    d_head: int
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False


VIT_SHAPES: dict[str, VitShape] = {
    "vit-b": VitShape(12, 768, 3072, 16),
    "vit-l": VitShape(24, 1024, 4096, 16),
    "vit-h": VitShape(32, 1280, 5120, 14),
    "vit-g14-small": VitShape(40, 1408, 6144, 14),  # "ViT-g/14", 1.0 B
    "vit-g": VitShape(48, 1664, 8192, 14),  # "ViT-G/14", 1.8 B
}

DECODER_SHAPES: dict[str, DecoderShape] = {
    "llama-3.2-1b": DecoderShape(16, 2048, 32, 8, 8192, 128256, tied=True, d_head=64),
    "llama-3.2-3b": DecoderShape(28, 3072, 24, 8, 8192, 128256, tied=True, d_head=128),
    "llama-3.1-8b": DecoderShape(32, 4096, 32, 8, 14336, 128256, tied=False, d_head=128),
    "qwen2.5-0.5b": DecoderShape(24, 896, 14, 2, 4864, 151936, tied=True, d_head=64, qkv_bias=True),
    "qwen2.5-1.5b": DecoderShape(28, 1536, 12, 2, 8960, 151936, tied=True, d_head=128, qkv_bias=True),
    "qwen2.5-7b": DecoderShape(28, 3584, 28, 4, 18944, 152064, tied=False, d_head=128, qkv_bias=True),
}


ShapeT = TypeVar("ShapeT", VitShape, DecoderShape)


def load_profile(
    source: str | Path,
    *,
    dtype_bytes: int | None = None,
    input_bytes: float | None = None,
    prompt_tokens: int | None = None,
) -> ModelProfile:
    """Profile of a named model, of a Hugging Face `config.json`, or of a measured CSV.

    Parameters
    ----------
    source : str or Path
        A key of `VIT_SHAPES` or `DECODER_SHAPES`, or a path that ends in .json (a Hugging Face style
        config of the families vit, llama, qwen2) or .csv (see `profile_from_csv`).
    dtype_bytes : int, optional
        Bytes of a weight and an activation entry. Default: 4 (vision, measured), 2 (language), or the
        config's.
    input_bytes : float, optional
        Raw bytes of an image as sensed, before it is resized to the model's input; vision models only.
        Default: a raw image of the model's input size.
    prompt_tokens : int, optional
        Length of the prompt; language models only, default 512.

    Raises
    ------
    ValueError
        If the name, the file, a field in it or an option is not allowed.
    """
    if dtype_bytes is not None and dtype_bytes < 1:
        raise ValueError(f"dtype_bytes is {dtype_bytes}; allowed: 1 or more")
    path = Path(source)
    options = {"input_bytes": input_bytes, "prompt_tokens": prompt_tokens}

    def refuse_except(kind: str, *allowed: str) -> None:
        for option, value in options.items():
            if value is not None and option not in allowed:
                raise ValueError(f"{option} is {value}; allowed: none, as {source} is a {kind}")

    shape: VitShape | DecoderShape
    if path.suffix == ".csv":
        refuse_except("measured profile")
        return profile_from_csv(path, dtype_bytes=dtype_bytes or 4)
    if path.suffix == ".json":
        name = path.parent.resolve().name if path.name == "config.json" else path.stem
        shape, config_dtype_bytes = _read_config(path)
        dtype_bytes = dtype_bytes or config_dtype_bytes
    else:
        name = str(source)
        known: dict[str, VitShape | DecoderShape] = {**VIT_SHAPES, **DECODER_SHAPES}
        if name not in known:
            raise ValueError(
                f"model is {name!r}; allowed: {', '.join(known)}, or a path to a .json or .csv file"
            )
        shape = known[name]
    if isinstance(shape, VitShape):
        refuse_except("vision model", "input_bytes")
        return vit_profile(name, shape, dtype_bytes=dtype_bytes or 4, input_bytes=input_bytes)
    refuse_except("language model", "prompt_tokens")
    return llm_profile(
        name,
        shape,
        dtype_bytes=dtype_bytes or 2,
        prompt_tokens=DEFAULT_PROMPT_TOKENS if prompt_tokens is None else prompt_tokens,
    )


def vit_profile(
    name: str = "vit-g",
    shape: VitShape | None = None,
    *,
    dtype_bytes: int = 4,
    input_bytes: float | None = None,
) -> ModelProfile:
    """Profile of a vision transformer from its shape; an item is one image.

    A block of n tokens takes 2n(4d^2 + 2 d d_ff) FLOPs in its matrices and 4 n^2 d in attention. The result
    is the logits.

    Parameters
    ----------
    name : str
        Name of the profile; where `shape` is not given, a key of `VIT_SHAPES`.
    shape : VitShape, optional
        Dimensions, where the model is not a known one.
    dtype_bytes : int
        Bytes of a weight, an activation entry and a logit.
    input_bytes : float, optional
        Raw bytes of an image as sensed. Default: one of the model's input size.

    Raises
    ------
    ValueError
        If the name is unknown or a dimension is not allowed.
    """
    if shape is None:
        shape = _known(name, VIT_SHAPES)
    _require_positive(name, shape)
    if shape.image % shape.patch:
        raise ValueError(
            f"{name}: image is {shape.image} px; allowed: multiples of the patch, {shape.patch} px"
        )
    d = shape.d_model
    n_patches = (shape.image // shape.patch) ** 2
    n_tokens = n_patches + 1
    patch_values = shape.channels * shape.patch**2

    block_matrices = 4 * d * d + 2 * d * shape.d_ff
    block_biases = (
        d + d + shape.d_ff + (3 * d if shape.qkv_bias else 0)
    )  # attention out, MLP down, MLP up, QKV
    block_parameters = block_matrices + block_biases + 4 * d  # two layer norms
    embedding_parameters = (
        patch_values * d + d + d + n_tokens * d
    )  # patches, their bias, class token, positions
    head_parameters = 2 * d + d * shape.n_classes + shape.n_classes  # last layer norm, classifier

    flops = np.full(shape.n_blocks, 2.0 * n_tokens * block_matrices + 4.0 * n_tokens**2 * d)
    flops[0] += 2.0 * n_patches * patch_values * d
    flops[-1] += 2.0 * d * shape.n_classes
    parameters = np.full(shape.n_blocks, float(block_parameters))
    parameters[0] += embedding_parameters
    parameters[-1] += head_parameters
    if input_bytes is None:
        input_bytes = shape.channels * shape.image**2
    entries = np.full(shape.n_blocks + 1, float(n_tokens * d))
    entries[0], entries[-1] = input_bytes, shape.n_classes  # one byte a raw sample
    return ModelProfile(
        name=name,
        kind="vit",
        n_parameters=int(parameters.sum()),
        dtype_bytes=dtype_bytes,
        input_bytes_per_item=input_bytes,
        result_bytes_per_item=shape.n_classes * dtype_bytes,
        flops_per_item=flops,
        weight_bytes=parameters * dtype_bytes,
        boundary_entries=entries,
        kv_bytes_per_token=np.zeros(shape.n_blocks),
        token_flops=np.zeros(shape.n_blocks),
    )


def llm_profile(
    name: str = "llama-3.1-8b",
    shape: DecoderShape | None = None,
    *,
    prompt_tokens: int = DEFAULT_PROMPT_TOKENS,
    dtype_bytes: int = 2,
) -> ModelProfile:
    """Profile of a decoder language model from its shape; an item is one prompt token.

    Attention is causal, so a prompt token attends to (P + 1)/2 positions on average, at 4 FLOPs for each of
    the n_heads*d_head query channels, and the first decoded token to P + 1. The head runs for the last prompt
    token alone: its FLOPs, and the one token id that leaves the model, are spread over the P items of the
    prompt.

    Parameters
    ----------
    name : str
        Name of the profile; where `shape` is not given, a key of `DECODER_SHAPES`.
    shape : DecoderShape, optional
        Dimensions, where the model is not a known one.
    prompt_tokens : int
        Prompt length P.
    dtype_bytes : int
        Bytes of a weight, an activation entry and a KV entry.

    Raises
    ------
    ValueError
        If the name is unknown or a dimension is not allowed.
    """
    if shape is None:
        shape = _known(name, DECODER_SHAPES)
    _require_positive(name, shape)
    if shape.n_heads % shape.n_kv_heads:
        raise ValueError(
            f"{name}: n_kv_heads is {shape.n_kv_heads}; allowed: divisors of n_heads, {shape.n_heads}"
        )
    if prompt_tokens < 1:
        raise ValueError(f"prompt_tokens is {prompt_tokens}; allowed: 1 or more")
    d = shape.d_model
    q_width, kv_width = shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head

    block_matrices = 2 * d * q_width + 2 * d * kv_width + 3 * d * shape.d_ff
    block_biases = (
        (q_width + 2 * kv_width if shape.qkv_bias else 0)
        + (d if shape.output_bias else 0)
        + (2 * shape.d_ff + d if shape.mlp_bias else 0)
    )
    block_parameters = block_matrices + block_biases + 2 * d  # two RMS norms
    embedding_parameters = d * shape.vocabulary
    head_flops = 2.0 * embedding_parameters

    flops = np.full(shape.n_blocks, 2.0 * block_matrices + 4.0 * q_width * (prompt_tokens + 1) / 2)
    flops[-1] += head_flops / prompt_tokens
    token_flops = np.full(shape.n_blocks, 2.0 * block_matrices + 4.0 * q_width * (prompt_tokens + 1))
    token_flops[-1] += head_flops
    parameters = np.full(shape.n_blocks, float(block_parameters))
    parameters[0] += embedding_parameters
    parameters[-1] += embedding_parameters + d  # head, last RMS norm
    entries = np.full(shape.n_blocks + 1, float(d))
    entries[0], entries[-1] = 1.0, 1.0 / prompt_tokens
    return ModelProfile(
        name=name,
        kind="llm",
        n_parameters=int(parameters.sum()) - (embedding_parameters if shape.tied else 0),
        dtype_bytes=dtype_bytes,
        input_bytes_per_item=TOKEN_ID_BYTES,
        result_bytes_per_item=TOKEN_ID_BYTES / prompt_tokens,
        flops_per_item=flops,
        weight_bytes=parameters * dtype_bytes,
        boundary_entries=entries,
        kv_bytes_per_token=np.full(shape.n_blocks, 2.0 * kv_width * dtype_bytes),
        token_flops=token_flops,
        prompt_tokens=prompt_tokens,
    )


def profile_from_csv(path: str | Path, *, dtype_bytes: int = 4) -> ModelProfile:
    """Profile of a model measured block by block.

    The first line is ``# flops_per_s = 10.7e12``, the rate credited to the device that the seconds were
    measured on: a block's FLOPs are its seconds times this rate, so a slot of half the rate takes twice as
    long. Then a CSV follows with the columns block, seconds, weight_bytes, output_bytes. Row 0 is the input:
    its seconds and weights are zero and its output is the raw input. Rows 1..L are the blocks; the output of
    row L is the result. Seconds and output bytes are those of one item.

    Parameters
    ----------
    path : str or Path
        The file.
    dtype_bytes : int
        Bytes of an activation entry and of a weight in the file.

    Raises
    ------
    ValueError
        If the file cannot be read, the rate or a column is missing, or a value is not allowed.
    """
    first, *lines = [line for line in _read_text(path).splitlines() if line.strip()] or [""]
    flops_per_s = _rate(path, first)
    columns = ("block", "seconds", "weight_bytes", "output_bytes")
    reader = csv.DictReader(lines)
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(
            f"{path}: columns are {reader.fieldnames}; allowed: a header with {', '.join(columns)}"
        )
    rows: list[list[float]] = []
    for number, record in enumerate(reader):
        row = []
        for column in columns:
            try:
                value = float(record[column])
            except (TypeError, ValueError):
                value = math.nan
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"{path}: {column} of row {number} is {record[column]!r}; allowed: a number, 0 or more"
                )
            row.append(value)
        if row[0] != number:
            raise ValueError(
                f"{path}: block of row {number} is {row[0]:g}; allowed: {number}, rows count from 0"
            )
        rows.append(row)
    if len(rows) < 2:
        raise ValueError(f"{path}: {len(rows)} rows; allowed: row 0 for the input and one or more blocks")
    _, seconds, weight_bytes, output_bytes = np.array(rows).T
    if seconds[0] or weight_bytes[0]:
        raise ValueError(
            f"{path}: seconds, weight_bytes of row 0 are {rows[0][1:3]}; allowed: 0, it is the input"
        )
    n_blocks = len(rows) - 1
    entries = output_bytes / dtype_bytes
    entries[0] = output_bytes[0]  # one byte a raw sample
    return ModelProfile(
        name=Path(path).stem,
        kind="measured",
        n_parameters=round(weight_bytes.sum() / dtype_bytes),
        dtype_bytes=dtype_bytes,
        input_bytes_per_item=float(output_bytes[0]),
        result_bytes_per_item=float(output_bytes[-1]),
        flops_per_item=seconds[1:] * flops_per_s,
        weight_bytes=weight_bytes[1:],
        boundary_entries=entries,
        kv_bytes_per_token=np.zeros(n_blocks),
        token_flops=np.zeros(n_blocks),
    )


def profile_to_csv(profile: ModelProfile, path: str | Path) -> None:
    """Write a profile as the CSV that `profile_from_csv` reads, and a scenario names: of a torch module, say.

    Seconds are those of a device of 1e12 FLOP/s. The reader needs the profile's `dtype_bytes`.

    Raises
    ------
    ValueError
        A language model, whose KV cache and generated tokens no column holds.
    """
    if profile.kind == "llm":
        raise ValueError(f"profile {profile.name!r} is a language model's; allowed: one of images")
    flops_per_s = 1e12
    output_bytes = profile.boundary_entries * profile.dtype_bytes
    output_bytes[0] = profile.input_bytes_per_item
    rows = zip(profile.flops_per_item / flops_per_s, profile.weight_bytes, output_bytes[1:], strict=True)
    lines = [
        f"# flops_per_s = {flops_per_s}",
        "block,seconds,weight_bytes,output_bytes",
        f"0,0,0,{output_bytes[0]}",
    ]
    lines += [",".join(map(str, (block, *row))) for block, row in enumerate(rows, 1)]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rate(path: str | Path, line: str) -> float:
    """Read the rate off the first line of a measured CSV."""
    name, _, value = line.partition("=")
    try:
        flops_per_s = float(value.strip(" ,"))  # spreadsheets pad a line with commas
    except ValueError:
        flops_per_s = math.nan
    if "".join(name.split()) != "#flops_per_s" or not 0 < flops_per_s < math.inf:
        raise ValueError(
            f"{path}: first line is {line!r}; allowed: '# flops_per_s = 1e13', "
            "a finite number above 0, of the device that the seconds were measured on"
        )
    return flops_per_s


def profile_from_module(
    module: torch.nn.Module,
    example_input: torch.Tensor,
    *,
    blocks: Sequence[str] | None = None,
    name: str | None = None,
) -> ModelProfile:
    """Profile of any torch module, by running it once under `torch.utils.flop_counter.FlopCounterMode`.

    FLOPs of what runs between two blocks go to the earlier one, of what runs before all of them to the first.
    So do the parameters outside every block: to the block in which the module that owns them is called, or
    the first. A parameter used in two blocks is counted in both. The counter sees matrix products,
    convolutions and attention.

    Parameters
    ----------
    module : torch.nn.Module
        Maps `example_input` to one tensor, calling its blocks one after the other, each once.
    example_input : torch.Tensor
        A batch; the first axis counts items.
    blocks : sequence of str, optional
        Dotted names of the submodules that are the blocks, in order. Default: the children of the longest
        `Sequential` or `ModuleList`.
    name : str, optional
        Name of the profile. Default: the module's class.

    Raises
    ------
    ValueError
        If a block is not a submodule, or the blocks do not run in the given order, once each.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    submodules = dict(module.named_modules())
    if blocks is None:
        lists = {
            path: list(child.named_children())
            for path, child in submodules.items()
            if isinstance(child, (torch.nn.Sequential, torch.nn.ModuleList)) and len(child)
        }
        if not lists:
            raise ValueError(
                "blocks is None; allowed: names of submodules, as no Sequential or ModuleList was found"
            )
        longest = max(lists, key=lambda path: len(lists[path]))
        blocks = [f"{longest}.{child}" if longest else child for child, _ in lists[longest]]
    for block in blocks:
        if block not in submodules:
            allowed = ", ".join(path for path in submodules if path)
            raise ValueError(f"blocks holds {block!r}; allowed: {allowed}")
    block_of = {submodules[block]: index for index, block in enumerate(blocks)}

    started: list[int] = []  # block indices in calling order
    flops_before: list[float] = []  # counted when each block starts
    entries: list[float] = [float(example_input[0].numel())]
    called_in: dict[torch.nn.Module, int] = {}  # block running, or last run, when a module was first called
    counter = FlopCounterMode(display=False)
    n_items = len(example_input)

    def on_call(called: torch.nn.Module, _args: object) -> None:
        if called in block_of:
            started.append(block_of[called])
            flops_before.append(counter.get_total_flops())
        called_in.setdefault(called, max(len(started) - 1, 0))

    def on_return(returned: torch.nn.Module, _args: object, output: object) -> None:
        activation = output[0] if isinstance(output, tuple) else output
        if not isinstance(activation, torch.Tensor):
            raise ValueError(
                f"output of {blocks[block_of[returned]]!r} is a {type(output).__name__}; allowed: a tensor"
            )
        entries.append(activation.numel() / n_items)

    hooks = [child.register_forward_pre_hook(on_call) for child in submodules.values()]
    hooks += [submodules[block].register_forward_hook(on_return) for block in blocks]
    was_training = {child: child.training for child in submodules.values()}
    had_fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter sees neither it nor a CPU's fused attention
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            result = module.eval()(example_input)
    finally:
        torch.backends.mha.set_fastpath_enabled(had_fastpath)
        for child, mode in was_training.items():
            child.training = mode
        for hook in hooks:
            hook.remove()
    if started != list(range(len(blocks))):
        ran = [blocks[index] for index in started]
        raise ValueError(f"blocks run as {ran}; allowed: {list(blocks)}, each once and in order")

    parameters: list[set[torch.nn.Parameter]] = [set() for _ in blocks]
    for path, owner in submodules.items():
        inside = [index for index, block in enumerate(blocks) if f"{path}.".startswith(f"{block}.")]
        home = inside[0] if inside else called_in.get(owner, 0)
        parameters[home].update(owner.parameters(recurse=False))
    if not isinstance(result, torch.Tensor):
        raise ValueError(f"output of the module is a {type(result).__name__}; allowed: a tensor")
    flops_at_edges = np.array([0.0, *flops_before[1:], counter.get_total_flops()])
    entries[-1] = result.numel() / n_items
    return ModelProfile(
        name=name or type(module).__name__,
        kind="measured",
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
        dtype_bytes=result.element_size(),
        input_bytes_per_item=example_input[0].numel() * example_input.element_size(),
        result_bytes_per_item=entries[-1] * result.element_size(),
        flops_per_item=np.diff(flops_at_edges) / n_items,
        weight_bytes=np.array(
            [sum(p.numel() * p.element_size() for p in held) for held in parameters], dtype=float
        ),
        boundary_entries=np.array(entries),
        kv_bytes_per_token=np.zeros(len(blocks)),
        token_flops=np.zeros(len(blocks)),
    )


def config_dtype_bytes(path: Path) -> int | None:
    """Return the bytes of a number that a Hugging Face style config.json states; None if it states none."""
    return _read_config(path)[1]


def _read_config(path: Path) -> tuple[VitShape | DecoderShape, int | None]:
    """Shape and, if stated, bytes of the dtype in a Hugging Face style `config.json`.

    Read from a `vit` config: hidden_size, num_hidden_layers, intermediate_size, image_size, patch_size,
    num_channels, qkv_bias, id2label or num_labels. From `llama` and `qwen2`: hidden_size, num_hidden_layers,
    num_attention_heads, num_key_value_heads, head_dim, intermediate_size, vocab_size, tie_word_embeddings,
    attention_bias, mlp_bias. What a config may leave out has the default of its family in `transformers`.
    """
    try:
        config = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: line {error.lineno} is not JSON ({error.msg}); allowed: a JSON object"
        ) from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: holds a {type(config).__name__}; allowed: a JSON object")

    def integer(field: str, default: int | None = None) -> int:
        value = config.get(field)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{path}: {field} is {value!r}; allowed: an integer, 1 or more")
        return value

    def flag(field: str, default: bool) -> bool:
        value = config.get(field, default)
        if not isinstance(value, bool):
            raise ValueError(f"{path}: {field} is {value!r}; allowed: true or false")
        return value

    dtype = config.get("dtype") or config.get("torch_dtype")
    if dtype is not None and (not isinstance(dtype, str) or dtype not in DTYPE_BYTES):
        raise ValueError(f"{path}: dtype is {dtype!r}; allowed: {', '.join(DTYPE_BYTES)}")
    quantised = config.get("quantization_config")
    if quantised is not None:  # weights of a few bits would count as whole ones
        raise ValueError(f"{path}: quantization_config is {quantised!r}; allowed: none")
    family = config.get("model_type")
    shape: VitShape | DecoderShape
    if family == "vit":
        labels = config.get("id2label")
        if labels is not None and not (isinstance(labels, dict) and labels):
            raise ValueError(f"{path}: id2label is {labels!r}; allowed: an object with a name for each class")
        shape = VitShape(
            n_blocks=integer("num_hidden_layers"),
            d_model=integer("hidden_size"),
            d_ff=integer("intermediate_size"),
            patch=integer("patch_size", 16),
            image=integer("image_size", 224),
            channels=integer("num_channels", 3),
            n_classes=len(labels) if labels else integer("num_labels", 2),
            qkv_bias=flag("qkv_bias", True),
        )
    elif family in ("llama", "qwen2"):
        d_model, n_heads = integer("hidden_size"), integer("num_attention_heads")
        if d_model % n_heads and config.get("head_dim") is None:
            raise ValueError(
                f"{path}: hidden_size is {d_model}; allowed: multiples of num_attention_heads, {n_heads}"
            )
        attention_bias = family == "llama" and flag("attention_bias", False)
        shape = DecoderShape(
            n_blocks=integer("num_hidden_layers"),
            d_model=d_model,
            n_heads=n_heads,
            n_kv_heads=integer("num_key_value_heads", n_heads),
            d_ff=integer("intermediate_size"),
            vocabulary=integer("vocab_size"),
            tied=flag("tie_word_embeddings", False),
            d_head=integer("head_dim", d_model // n_heads),
            qkv_bias=family == "qwen2" or attention_bias,
            output_bias=attention_bias,
            mlp_bias=family == "llama" and flag("mlp_bias", False),
        )
    else:
        raise ValueError(f"{path}: model_type is {family!r}; allowed: vit, llama, qwen2")
    return shape, None if dtype is None else DTYPE_BYTES[dtype]


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"model file is {str(path)!r}; allowed: a readable text file ({error})") from None


def _known(name: str, shapes: Mapping[str, ShapeT]) -> ShapeT:
    if name not in shapes:
        raise ValueError(f"model is {name!r}; allowed: {', '.join(shapes)}, or give a shape")
    return shapes[name]


def _require_positive(name: str, shape: VitShape | DecoderShape) -> None:
    for field, value in vars(shape).items():
        if not isinstance(value, bool) and value < 1:
            raise ValueError(f"{name}: {field} is {value}; allowed: 1 or more")
