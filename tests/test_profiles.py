"""Profiles meet published figures, add up, and refuse what they cannot read."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_env.workload.profiles import (
    DECODER_SHAPES,
    IMAGE_SIZES,
    VIT_SHAPES,
    DecoderShape,
    VitShape,
    image_bytes,
    llm_profile,
    load_profile,
    profile_from_csv,
    profile_from_module,
    profile_to_csv,
    vit_profile,
)

# name: parameters M, GMAC (timm's model table), MB a block and boundary at fp32
PUBLISHED_VITS = {
    "vit-b": (86.57, 17.58, 28.4, 0.605),
    "vit-l": (304.33, 61.6, 50.4, 0.807),
    "vit-h": (630.76, 167.4, 78.7, 1.316),
    "vit-g14-small": (1012.6, 267.2, 101.0, 1.447),
    "vit-g": (1844.4, 483.95, 153.4, 1.711),
}
# name: parameters in 10^9 (model cards), KV cache in KiB a token at fp16
PUBLISHED_LLMS = {
    "llama-3.2-1b": (1.236, 32),
    "llama-3.2-3b": (3.213, 112),
    "llama-3.1-8b": (8.030, 128),
    "qwen2.5-0.5b": (0.494, 12),
    "qwen2.5-1.5b": (1.544, 28),
    "qwen2.5-7b": (7.615, 56),
}


def write_config(folder: Path, **fields: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("name", PUBLISHED_VITS)
def test_vit_meets_published_figures(name: str) -> None:
    parameters_m, gmac, block_mb, boundary_mb = PUBLISHED_VITS[name]
    profile = load_profile(name)
    assert profile.n_parameters / 1e6 == pytest.approx(parameters_m, rel=0.01)
    assert profile.flops_per_item.sum() / 2e9 == pytest.approx(gmac, rel=0.01)
    assert profile.weight_bytes[1] / 1e6 == pytest.approx(block_mb, rel=0.01)
    assert profile.boundary_entries[1] * profile.dtype_bytes / 1e6 == pytest.approx(boundary_mb, rel=0.01)


@pytest.mark.parametrize("name", PUBLISHED_LLMS)
def test_llm_meets_published_figures(name: str) -> None:
    parameters_b, kv_kib = PUBLISHED_LLMS[name]
    profile = load_profile(name)
    assert profile.n_parameters / 1e9 == pytest.approx(parameters_b, rel=0.01)
    assert profile.kv_bytes_per_token.sum() / 1024 == kv_kib


def test_every_named_model_is_checked_against_a_published_figure() -> None:
    assert set(PUBLISHED_VITS) == set(VIT_SHAPES)
    assert set(PUBLISHED_LLMS) == set(DECODER_SHAPES)


def test_a_tied_matrix_is_one_parameter_set_held_at_both_ends() -> None:
    tied, untied = load_profile("llama-3.2-1b"), load_profile("llama-3.1-8b")
    assert tied.weight_bytes.sum() == 2 * (tied.n_parameters + 128256 * 2048)
    assert untied.weight_bytes.sum() == 2 * untied.n_parameters
    middle = tied.weight_bytes[1]
    assert tied.weight_bytes[0] == middle + 2 * 128256 * 2048
    assert tied.weight_bytes[-1] == middle + 2 * (128256 * 2048 + 2048)


@given(prompt=st.integers(1, 4096))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_prefill_costs_the_sum_over_the_positions_of_the_prompt(prompt: int) -> None:
    shape = DecoderShape(4, 64, 4, 2, 128, 1000, tied=False, d_head=16)
    profile = llm_profile("small", shape, prompt_tokens=prompt)
    matrices = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    attention = sum(4 * 64 * attended for attended in range(1, prompt + 1))
    expected = 4 * (prompt * matrices + attention) + 2 * 64 * 1000
    assert profile.flops_per_item.sum() * prompt == pytest.approx(expected, rel=1e-12)
    assert profile.result_bytes_per_item * prompt == pytest.approx(4)
    # the next token is one more position, and runs the head again
    longer = llm_profile("small", shape, prompt_tokens=prompt + 1)
    step = longer.flops_per_item.sum() * (prompt + 1) - profile.flops_per_item.sum() * prompt
    assert profile.token_flops.sum() - 2 * 64 * 1000 == pytest.approx(step, rel=1e-9)


@given(name=st.sampled_from(["vit-b", "vit-g", "llama-3.2-1b", "qwen2.5-0.5b"]), data=st.data())
@settings(deadline=None, derandomize=True, max_examples=50)
def test_grouping_moves_boundaries_and_loses_nothing(name: str, data: st.DataObject) -> None:
    profile = load_profile(name)
    units = profile.grouped(data.draw(st.integers(1, profile.n_blocks)))
    for field in ("flops_per_item", "weight_bytes", "kv_bytes_per_token", "token_flops"):
        assert getattr(units, field).sum() == pytest.approx(getattr(profile, field).sum(), rel=1e-12)
    assert units.boundary_entries[[0, -1]].tolist() == profile.boundary_entries[[0, -1]].tolist()
    assert set(units.boundary_entries) <= set(profile.boundary_entries)
    sizes = units.weight_bytes / profile.weight_bytes[1]
    assert sizes[1:-1].size == 0 or np.ptp(np.round(sizes[1:-1])) <= 1


def test_grouped_vit_g_has_units_of_four_blocks() -> None:
    profile = load_profile("vit-g")
    units = profile.grouped(12)
    assert units.n_blocks == 12
    np.testing.assert_array_equal(units.weight_bytes, profile.weight_bytes.reshape(12, 4).sum(axis=1))
    np.testing.assert_array_equal(units.boundary_entries, profile.boundary_entries[::4])
    with pytest.raises(ValueError, match="n_units is 49; allowed: 1 to 48"):
        profile.grouped(49)


def test_dtype_scales_weights_and_kv_but_not_flops() -> None:
    half, full = load_profile("llama-3.2-1b"), load_profile("llama-3.2-1b", dtype_bytes=4)
    np.testing.assert_array_equal(full.weight_bytes, 2 * half.weight_bytes)
    np.testing.assert_array_equal(full.kv_bytes_per_token, 2 * half.kv_bytes_per_token)
    np.testing.assert_array_equal(full.flops_per_item, half.flops_per_item)


def test_raw_input_is_the_sensed_image() -> None:
    raw = image_bytes(*IMAGE_SIZES["480p"])
    assert raw == 854 * 480 * 3
    profile = load_profile("vit-g", input_bytes=raw)
    assert profile.input_bytes_per_item == profile.boundary_entries[0] == raw
    assert load_profile("vit-g").input_bytes_per_item == 224 * 224 * 3
    with pytest.raises(ValueError, match="width is 0; allowed: 1 or more"):
        image_bytes(0, 480)


def test_arrays_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        load_profile("vit-b").flops_per_item[0] = 0


def test_config_json_gives_the_named_model(tmp_path: Path) -> None:
    llama = write_config(
        tmp_path,
        model_type="llama",
        hidden_size=2048,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        intermediate_size=8192,
        vocab_size=128256,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
    )
    assert_same_costs(load_profile(llama), load_profile("llama-3.2-1b"))
    qwen = write_config(
        tmp_path,
        model_type="qwen2",
        hidden_size=3584,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        intermediate_size=18944,
        vocab_size=152064,
        dtype="float32",
    )
    assert_same_costs(
        load_profile(qwen, prompt_tokens=64), load_profile("qwen2.5-7b", dtype_bytes=4, prompt_tokens=64)
    )
    vit = write_config(
        tmp_path,
        model_type="vit",
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        num_labels=1000,
    )
    assert_same_costs(load_profile(vit), load_profile("vit-b"))


def assert_same_costs(ours, other) -> None:
    assert (ours.kind, ours.n_parameters, ours.dtype_bytes) == (
        other.kind,
        other.n_parameters,
        other.dtype_bytes,
    )
    for field in ("flops_per_item", "weight_bytes", "boundary_entries", "kv_bytes_per_token", "token_flops"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(other, field))


LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 100,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type is 'bert'; allowed: vit, llama, qwen2"),
        ({"hidden_size": None}, "hidden_size is None; allowed: an integer"),
        ({"hidden_size": "64"}, "hidden_size is '64'; allowed: an integer"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; allowed: an integer, 1 or more"),
        ({"num_attention_heads": True}, "num_attention_heads is True; allowed: an integer"),
        ({"num_attention_heads": 5}, "hidden_size is 64; allowed: multiples of num_attention_heads, 5"),
        ({"num_key_value_heads": 3}, "n_kv_heads is 3; allowed: divisors of n_heads, 4"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1; allowed: true or false"),
        ({"dtype": ["float32"]}, "dtype is .'float32'.; allowed: float32, float16, bfloat16"),
        ({"head_dim": None, "num_attention_heads": 5}, "hidden_size is 64; allowed: multiples"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is .*'bits': 4.*; allowed: none"),
        ({"dtype": "int3"}, "dtype is 'int3'; allowed: float32, float16, bfloat16"),
        ({"model_type": "vit", "patch_size": 15}, "image is 224 px; allowed: multiples of the patch, 15"),
        ({"model_type": "vit", "id2label": []}, "id2label is .*; allowed: an object"),
    ],
)
def test_bad_config_is_refused_in_one_line(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        load_profile(write_config(tmp_path, **{**LLAMA, **change}))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_config_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="allowed: a JSON object"):
        load_profile(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_profile("vit-x"), "model is 'vit-x'; allowed: vit-b, .*qwen2.5-7b"),
        (lambda: vit_profile("llama-3.1-8b"), "model is 'llama-3.1-8b'; allowed: vit-b"),
        (
            lambda: load_profile("absent/config.json"),
            "model file is 'absent/config.json'; allowed: a readable",
        ),
        (
            lambda: load_profile("vit-b", prompt_tokens=5),
            "prompt_tokens is 5; allowed: none, as vit-b is a vision",
        ),
        (lambda: load_profile("llama-3.1-8b", input_bytes=5), "input_bytes is 5; allowed: none"),
        (lambda: load_profile("llama-3.1-8b", prompt_tokens=0), "prompt_tokens is 0; allowed: 1 or more"),
        (lambda: load_profile("vit-b", dtype_bytes=0), "dtype_bytes is 0; allowed: 1 or more"),
        (lambda: load_profile("vit-b", input_bytes=-1), "input_bytes_per_item is -1"),
        (lambda: vit_profile("mine", VitShape(0, 8, 8, 16)), "mine: n_blocks is 0; allowed: 1 or more"),
        (
            lambda: load_profile("layers.csv", prompt_tokens=5),
            "prompt_tokens is 5; allowed: none, as layers.csv",
        ),
        (lambda: load_profile("layers.csv"), "model file is 'layers.csv'; allowed: a readable"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)


MEASURED = """# flops_per_s = 5e9
block,seconds,weight_bytes,output_bytes
0,0,0,150528
1,0.02,4000,800
2,0.03,6000,40
"""


def test_measured_csv_keeps_seconds_on_its_own_device(tmp_path: Path) -> None:
    path = tmp_path / "layers.csv"
    path.write_text(MEASURED)
    profile = load_profile(path)
    np.testing.assert_allclose(profile.flops_per_item / 5e9, [0.02, 0.03])
    assert profile.weight_bytes.tolist() == [4000, 6000]
    assert profile.boundary_entries.tolist() == [150528, 200, 10]
    assert (profile.input_bytes_per_item, profile.result_bytes_per_item) == (150528, 40)
    assert profile.n_parameters == 2500


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# flops_per_s = 5e9\n", "", "first line is 'block,seconds.*; allowed: '# flops_per_s = 1e13'"),
        ("# flops_per_s", "flops_per_s", "first line is 'flops_per_s = 5e9'; allowed"),
        ("5e9", "0", "first line is '# flops_per_s = 0'; allowed: .* a finite number above 0"),
        ("5e9", "inf", "first line is '# flops_per_s = inf'"),
        ("5e9", "5e9 FLOP/s", "first line is '# flops_per_s = 5e9 FLOP/s'"),
        ("seconds", "time", "columns are .*; allowed: a header with block, seconds"),
        ("0.02", "fast", "seconds of row 1 is 'fast'; allowed: a number"),
        ("6000", "-1", "weight_bytes of row 2 is '-1'; allowed: a number, 0 or more"),
        ("6000", "nan", "weight_bytes of row 2 is 'nan'"),
        (",40\n", "\n", "output_bytes of row 2 is None"),
        ("\n2,", "\n3,", "block of row 2 is 3; allowed: 2"),
        ("0,0,0,", "0,1,0,", "row 0 are .*; allowed: 0, it is the input"),
    ],
)
def test_bad_csv_is_refused_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "layers.csv"
    path.write_text(MEASURED.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as refusal:
        load_profile(path)
    assert "\n" not in str(refusal.value)


def test_an_empty_csv_is_refused_and_what_a_spreadsheet_adds_is_not(tmp_path: Path) -> None:
    path = tmp_path / "layers.csv"
    path.write_text("\n")
    with pytest.raises(ValueError, match="first line is ''; allowed"):
        load_profile(path)
    path.write_text(MEASURED)
    plain = load_profile(path).flops_per_item
    path.write_text("\ufeff" + MEASURED.replace("5e9", "5e9,,,"), encoding="utf-8")
    np.testing.assert_array_equal(load_profile(path).flops_per_item, plain)


def test_torch_module_agrees_with_the_shape() -> None:
    """torch counts a real ViT's FLOPs and parameters; the shape's formulas say the same, block by block."""
    torch = pytest.importorskip("torch")

    class Vit(torch.nn.Module):
        def __init__(self, shape: VitShape) -> None:
            super().__init__()
            self.patches = torch.nn.Conv2d(3, shape.d_model, shape.patch, shape.patch)
            n_tokens = (shape.image // shape.patch) ** 2 + 1
            self.token = torch.nn.Parameter(torch.zeros(1, 1, shape.d_model))
            self.positions = torch.nn.Parameter(torch.zeros(1, n_tokens, shape.d_model))
            self.blocks = torch.nn.ModuleList(
                torch.nn.TransformerEncoderLayer(
                    shape.d_model, 4, shape.d_ff, batch_first=True, norm_first=True
                )
                for _ in range(shape.n_blocks)
            )
            self.norm = torch.nn.LayerNorm(shape.d_model)
            self.head = torch.nn.Linear(shape.d_model, shape.n_classes)

        def forward(self, images):
            tokens = self.patches(images).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], dim=1) + self.positions
            for block in self.blocks:
                tokens = block(tokens)
            return self.head(self.norm(tokens)[:, 0])

    shape = VitShape(3, 64, 128, 16, image=64, n_classes=10)
    counted = profile_from_module(Vit(shape), torch.zeros(2, 3, 64, 64), name="counted")
    formula = vit_profile("small", shape, input_bytes=3 * 64 * 64)
    np.testing.assert_array_equal(counted.flops_per_item, formula.flops_per_item)
    np.testing.assert_array_equal(counted.weight_bytes, formula.weight_bytes)
    np.testing.assert_array_equal(counted.boundary_entries, formula.boundary_entries)
    assert counted.n_parameters == formula.n_parameters


def test_a_profile_is_written_as_it_was_counted(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).half()
    counted = profile_from_module(module, torch.zeros(3, 4).half())
    for profile in (counted, vit_profile("vit-b", input_bytes=3 * 720 * 1280)):
        profile_to_csv(profile, tmp_path / "mine.csv")
        read = profile_from_csv(tmp_path / "mine.csv", dtype_bytes=profile.dtype_bytes)
        np.testing.assert_allclose(read.flops_per_item, profile.flops_per_item, rtol=1e-15)
        assert read.weight_bytes.tolist() == profile.weight_bytes.tolist()
        assert read.boundary_entries[1:].tolist() == profile.boundary_entries[1:].tolist()
        assert read.input_bytes_per_item == profile.input_bytes_per_item
        assert read.result_bytes_per_item == profile.result_bytes_per_item
    with pytest.raises(ValueError, match="is a language model's; allowed: one of images"):
        profile_to_csv(load_profile("llama-3.2-1b"), tmp_path / "mine.csv")


def test_torch_module_refuses_unknown_and_reordered_blocks() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    assert profile_from_module(module, torch.zeros(1, 4)).weight_bytes.tolist() == [80, 40]
    with pytest.raises(ValueError, match="blocks holds '7'; allowed: 0, 1"):
        profile_from_module(module, torch.zeros(1, 4), blocks=["7"])
    with pytest.raises(ValueError, match=r"blocks run as \['0', '1'\]; allowed: \['1', '0'\]"):
        profile_from_module(module, torch.zeros(1, 4), blocks=["1", "0"])

    class Pair(torch.nn.Sequential):
        def forward(self, x):
            return (super().forward(x),)

    with pytest.raises(ValueError, match="output of the module is a tuple; allowed: a tensor"):
        profile_from_module(Pair(torch.nn.Linear(4, 4)), torch.zeros(1, 4))
