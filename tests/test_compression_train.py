"""The training command resumes and refuses foreign folders; the partition search; the quoted figures."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_env.compression import train
from sat_env.compression.codesign import Pipeline, best_partition
from sat_env.compression.table import load_table

deterministic = settings(deadline=None, derandomize=True, max_examples=15)


def test_a_folder_with_results_of_other_settings_is_refused(tmp_path):
    train.claim(tmp_path, train.Settings())
    train.claim(tmp_path, train.Settings())
    with pytest.raises(ValueError, match="holds results of"):
        train.claim(tmp_path, train.Settings(epochs=1))


@pytest.mark.parametrize("args", [train.Args(jobs=0), train.Args(settings=train.Settings(n_folds=0))])
def test_bad_arguments_are_refused_before_work(args):
    with pytest.raises(ValueError, match="at least"):
        train.main(args)


def test_progress_leaves_standard_output_to_results(capsys, tmp_path):
    train.run_all("networks", slice, train.Args(out=tmp_path, jobs=1), [(2, 0)])
    shown = capsys.readouterr()
    assert shown.out == "" and "networks" in shown.err


@deterministic
@given(drop=st.floats(0.001, 0.05), scale=st.floats(0.2, 3))
def test_free_cuts_are_never_slower_than_fixed_ones_and_keep_the_budget(drop, scale):
    table = load_table("digits-vit")
    pipeline = Pipeline(max_drop=drop, speeds=(1.0, 2.0, 5.3))
    free = best_partition(table, table.errors * scale, pipeline)
    fixed = best_partition(table, table.errors * scale, pipeline, cuts=(3, 5))
    assert free.latency <= fixed.latency
    for plan in (free, fixed):
        assert (scale * table.errors[np.array(plan.cuts) - 1, plan.levels]).sum() <= table.error_budget(drop)
    roomier = best_partition(table, table.errors * scale, Pipeline(max_drop=2 * drop, speeds=pipeline.speeds))
    assert roomier.latency <= free.latency


def shared_data() -> Path:
    """Return the folder of external data, or skip."""
    root = Path(__file__).resolve().parents[1]
    named = os.environ.get("SAT_ENV_SHARED_DATA")
    candidates = [Path(named)] if named else [root / "../shared/data", root / "../../shared/data"]
    for folder in candidates:
        if folder.is_dir():
            return folder
    pytest.skip("external data is absent: set SAT_ENV_SHARED_DATA")


def test_the_imagenet_figures_are_those_of_the_source():
    path = shared_data() / "vit_large_quant_imagenet" / "top1_by_cut_bits_format.csv"
    formats = {
        "float8": ("8", "float", "4", "noClamp"),
        "float6": ("6", "float", "4", "noClamp"),
        "int8-clip": ("8", "int", "0", "withClamp"),
        "float4-clip": ("4", "float", "3", "withClamp"),
        "int4-clip": ("4", "int", "0", "withClamp"),
    }
    with path.open() as file:
        top1 = {
            (row["bits"], row["format"], row["exp_bits"], row["clamp"], int(row["cut_after_sublayer"])): row[
                "top1"
            ]
            for row in csv.DictReader(file)
        }
    quoted = load_table("vit-l-imagenet").provenance["top1_percent"]
    for name, key in formats.items():
        source = [float(top1[(*key, 4 * block)]) for block in range(1, 24, 2)]
        np.testing.assert_allclose(quoted[name], source, atol=0.0501)


@pytest.mark.slow
def test_training_makes_a_table_and_resumes(tmp_path):
    tiny = train.Settings(seeds=1, n_folds=2, epochs=2, mask_epochs=1, plans=16)
    args = train.Args(settings=tiny, out=tmp_path / "run", table=tmp_path / "table.json", jobs=1)
    train.main(args)
    first = load_table(args.table)
    stamps = {path: path.stat().st_mtime_ns for path in args.out.iterdir() if path.suffix in (".pt", ".npz")}
    assert len(stamps) == 2 * (1 + 1 + 1)
    lost = args.out / f"measured-{train.FIRST_SEED}-1.npz"
    lost.unlink()
    train.main(args)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path != lost)
    np.testing.assert_array_equal(load_table(args.table).errors, first.errors)
