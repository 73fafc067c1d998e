"""The adaptive rule keeps its budget and answers to importance, accumulated error and content."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_env.compression.rule import adaptive_levels, layer_importance
from sat_env.compression.table import load_table, table_names

TABLES = {name: load_table(name) for name in table_names()}
deterministic = settings(deadline=None, derandomize=True, max_examples=80)
cut_sets = st.sets(st.integers(1, 23), min_size=1, max_size=7).map(sorted)


@deterministic
@given(
    name=st.sampled_from(sorted(TABLES)),
    cuts=cut_sets,
    complexity=st.floats(0.2, 5),
    max_drop=st.floats(0, 0.1),
)
def test_the_summed_error_stays_within_the_budget(name, cuts, complexity, max_drop):
    table = TABLES[name]
    levels = adaptive_levels(table, 24, cuts, complexity, max_drop)
    spent = complexity * table.error_at(24)[cuts, levels].sum()
    assert spent <= table.error_budget(max_drop) * (1 + 1e-12)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_no_error_allowed_means_no_lossy_level_that_errs(name):
    table = TABLES[name]
    levels = adaptive_levels(table, 24, [8, 12], max_drop=0.0)
    assert not table.error_at(24)[[8, 12], levels].any() or table.error_budget(0.0) > 0


def _bits(table, levels):
    return sum(table.levels[level].bits_per_entry for level in levels)


def test_a_lone_cut_gets_fewer_bits_with_more_budget_and_simpler_content():
    table = TABLES["digits-vit"]
    by_budget = [_bits(table, adaptive_levels(table, 8, [3], max_drop=d)) for d in (0.001, 0.01, 0.1, 0.5)]
    assert by_budget == sorted(by_budget, reverse=True) and by_budget[0] > by_budget[-1]
    by_content = [_bits(table, adaptive_levels(table, 8, [3], complexity=c)) for c in (0.05, 1.0, 20.0)]
    assert by_content == sorted(by_content) and by_content[0] < by_content[-1]


def test_a_cut_where_nothing_errs_takes_the_fewest_bits_of_any_budget():
    table = TABLES["digits-vit"]
    errors = table.errors.copy()
    errors[: len(errors) // 2] = 0.0
    calm = replace(table, errors=errors)
    fewest = int(np.argmin([level.bits_per_entry for level in table.levels]))
    for max_drop in (0.0, 0.01, 1.0):  # of the last the budget has no end
        assert adaptive_levels(calm, 12, [2, 4, 10], max_drop=max_drop)[:2] == (fewest, fewest)


def test_importance_averages_one_and_ends_at_zero():
    importance = layer_importance(TABLES["vit-l-imagenet"], 24)
    assert importance[[0, -1]].tolist() == [0.0, 0.0]
    assert importance[1:-1].mean() == pytest.approx(1.0)
    assert np.argmax(importance) == 7  # the published cliff: outlier activations after block 7


@pytest.mark.parametrize("cuts", [[0], [8], [3, 3], [4, 2]])
def test_bad_cuts_are_refused(cuts):
    with pytest.raises(ValueError, match="cuts"):
        adaptive_levels(TABLES["digits-vit"], 8, cuts)


def test_bad_complexity_is_refused():
    with pytest.raises(ValueError, match="complexity"):
        adaptive_levels(TABLES["digits-vit"], 8, [3], complexity=0.0)
