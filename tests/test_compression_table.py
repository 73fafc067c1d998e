"""The compression tables: shapes, interpolation by relative depth, budget and refusal of bad files."""

import json
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_env.compression.table import load_table, save_table, table_names

TABLES = [load_table(name) for name in table_names()]
each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
deterministic = settings(deadline=None, derandomize=True, max_examples=60)


def test_both_profiles_ship():
    assert {"digits-vit", "vit-l-imagenet"} <= set(table_names())


@each_table
def test_level_0_is_lossless_and_ratios_are_against_32_bit(table):
    assert table.levels[0].keep == 1
    assert table.ratios()[0] == pytest.approx(1.0)
    assert (table.ratios()[1:] > 1).all()
    assert not table.error_at(12)[:, 0].any()


@each_table
@pytest.mark.parametrize("n_blocks", [1, 2, 8, 24, 48, 80])
def test_raw_input_and_result_are_never_lossy(table, n_blocks):
    errors = table.error_at(n_blocks)
    assert errors.shape == (n_blocks + 1, len(table.levels))
    assert not errors[[0, -1]].any()


@each_table
def test_measured_cuts_come_back_unchanged(table):
    n_blocks = {"digits-vit": 8, "vit-l-imagenet": 24}[table.name]
    rows = np.rint(table.positions * n_blocks).astype(int)
    np.testing.assert_allclose(table.error_at(n_blocks)[rows], table.errors, atol=1e-5)


@each_table
@deterministic
@given(errors=st.lists(st.floats(0, 20), min_size=2, max_size=20))
def test_drop_is_monotone_from_zero_to_at_most_one(table, errors):
    drops = table.accuracy_drop(np.sort(errors))
    assert table.accuracy_drop(0.0) == 0
    assert (np.diff(drops) >= 0).all()
    assert (drops >= 0).all() and (drops <= 1).all()


@each_table
@deterministic
@given(max_drop=st.floats(0, 0.999))
def test_budget_is_the_largest_error_within_the_drop(table, max_drop):
    budget = table.error_budget(max_drop)
    assert table.accuracy_drop(budget) <= max_drop
    if np.isfinite(budget):
        assert table.accuracy_drop(budget * (1 + 1e-6) + 1e-9) > max_drop - 1e-12


@each_table
def test_budget_of_the_whole_accuracy_is_unlimited(table):
    assert table.error_budget(1.0) == np.inf


@each_table
def test_a_saved_table_reads_back(table, tmp_path):
    save_table(table, tmp_path / "copy.json")
    copy = load_table(tmp_path / "copy.json")
    assert copy.levels == table.levels and copy.provenance == table.provenance
    np.testing.assert_array_equal(copy.errors, table.errors)
    np.testing.assert_array_equal(copy.drop_knots, table.drop_knots)


BROKEN = {
    "format": lambda r: r.update(format="other"),
    "missing": lambda r: r.pop("errors"),
    "level field": lambda r: r["levels"][1].update(surprise=1),
    "level keep": lambda r: r["levels"][1].update(keep=0),
    "level bits": lambda r: r["levels"][1].update(bits_per_entry=None),
    "level speed": lambda r: r["levels"][1].update(encode_entries_per_s=-1.0),
    "level names": lambda r: r["levels"][1].update(name="none"),
    "positions": lambda r: r["positions"].reverse(),
    "errors shape": lambda r: r["errors"].pop(),
    "errors ragged": lambda r: r["errors"][0].pop(),
    "errors negative": lambda r: r["errors"][0].__setitem__(1, -0.1),
    "lossless column": lambda r: r["errors"][0].__setitem__(0, 0.1),
    "drop_knots": lambda r: r["drop_knots"][1].__setitem__(0, 0.1),
    "levels": lambda r: r.update(levels=[]),
    "not a list": lambda r: r.update(levels=3),
}


@pytest.mark.parametrize("breakage", BROKEN, ids=str)
def test_malformed_files_are_refused_in_one_line(breakage, tmp_path):
    shipped = files("sat_env.compression") / "tables" / "digits-vit.json"
    record = json.loads(shipped.read_text(encoding="utf-8"))
    BROKEN[breakage](record)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="compression table") as caught:
        load_table(path)
    assert "\n" not in str(caught.value)


def test_unknown_names_and_non_json_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"neither a file nor a shipped profile .*digits-vit"):
        load_table("no-such-table")
    path = tmp_path / "text.json"
    for content in (b"hello", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^compression table '.*text.json' is not JSON: "):
            load_table(path)


@pytest.mark.parametrize("n_blocks", [0, -3])
def test_models_without_blocks_are_refused(n_blocks):
    with pytest.raises(ValueError, match="n_blocks"):
        TABLES[0].error_at(n_blocks)


@pytest.mark.parametrize("max_drop", [-0.01, float("nan")])
def test_negative_budgets_are_refused(max_drop):
    with pytest.raises(ValueError, match="max_drop"):
        TABLES[0].error_budget(max_drop)


def test_arrays_are_read_only():
    with pytest.raises(ValueError):
        TABLES[0].errors[0, 0] = 1
