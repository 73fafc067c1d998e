"""What docs/paper.md says the benchmark prints, and the examples of the documents."""

import contextlib
import doctest
import io
import re
from pathlib import Path

import numpy as np
import pytest

import sat_env.problem
from benchmarks import paper
from sat_env.planning import predict
from sat_env.scenario import load_scenario
from sat_env.simulator import Simulator
from sat_env.world import prepare

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    return paper.headline()


def test_headline(figures):
    assert figures["delay_change_vs_ground_only_0p8gbps"] == pytest.approx(-0.42, abs=0.03)
    assert figures["delay_change_vs_pipelined_ground_only_0p8gbps"] > 0.5  # turned round
    assert figures["delay_change_vs_pipelined_ground_only_0p2gbps"] < -0.1
    assert figures["delay_change_vs_pipelined_ground_only_1080p"] < -0.1
    assert -0.73 <= figures["bytes_change_vs_ground_only"] <= -0.70
    assert 0.0 < figures["accuracy_drop"] <= 0.01
    assert figures["random_splits_below_1pct"] > 194
    assert [figures[f"split/satellite_{k}"] for k in (2, 3, 4, 5)] == [1, 7, 20, 20]


def test_compression_chain(figures):
    assert figures["chain/mask"] == pytest.approx(3.96, rel=0.01)
    assert figures["chain/int8"] == pytest.approx(11.56, rel=0.01)
    assert figures["chain/int8_measured"] == pytest.approx(11.56, rel=0.01)
    assert figures["chain/entropy_measured"] == pytest.approx(25.82, rel=0.05)


def test_no_planner_beats_the_proposal_and_the_ground_helps(figures):
    for name in ("uniform_over_proposal", "proportional_over_proposal", "paper_astar_over_exact"):
        assert figures[name] >= 1.0
    assert figures["uniform_over_proposal"] > 2.03 > figures["proportional_over_proposal"]
    for gbps in ("0.2gbps", "0.8gbps"):
        assert figures[f"ground_any/change_vs_proposal/{gbps}"] < -0.5
        assert figures[f"ground_any/change_vs_pipelined_ground_only/{gbps}"] < -0.1
    free, several, one = (
        figures[f"measured_table/delay_s/codec_{cores}"]
        for cores in ("none", f"{paper.CORES}_cores", "1_core")
    )
    assert free < several < one


def test_pipelined_ground_only_is_the_recurrence_of_its_links():
    """By hand: three links of 0.5 Gbit/s and the downlink, eight micro-batches of 8 images."""
    case = paper.case()
    bits = 8 * 854 * 480 * 3 * 8
    ground_s = 8 * 2 * 483.95e9 / (0.75 * 80.2e12)  # ViT-G's MACs
    services = [bits / 0.5e9] * 3 + [bits / 0.8e9, ground_s]
    latency_s = sum(case.costs.latency_s[i, i + 1] for i in range(3)) + case.costs.latency_s[3, 5]
    assert paper.ground_only_s(case) == pytest.approx(sum(services) + 7 * max(services) + latency_s, rel=1e-3)
    assert paper.ground_only_s(case, 1) == pytest.approx(8 * sum(services) + latency_s, rel=1e-3)


def test_the_environment_executes_what_is_predicted():
    prepared = prepare(load_scenario("PaperStatic").replace(windows=5, episode_epochs=3))
    simulator = Simulator(prepared, 1, "test")
    simulator.begin(seeds=np.zeros(1, dtype=np.uint64))
    level = prepared.levels.index(paper.LEVEL)
    cuts, levels = np.array([0, 1, 8, 28, 48]), np.array([0, level, level, level, 0])
    case = paper.case()
    simulator.step(cuts[None], levels[None])  # loads the weights
    simulator.step(cuts[None], levels[None])
    assert simulator.outcome.latency_s[0] == pytest.approx(predict(case.chain, cuts, levels), rel=1e-5)
    assert simulator.outcome.bytes[0] == pytest.approx(paper.moved_bytes(case, case.chain, (cuts, levels)))
    assert simulator.outcome.accuracy_drop[0] == pytest.approx(paper.drop_of_split(case, cuts))


def test_the_document_says_what_is_printed(figures):
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        if "_change_vs_" in line and line.startswith("|"):
            key = re.search(r"`(\w+_change_vs_\w+)`", line)[1]
            assert f"{100 * figures[key]:+.1f} %" in line, key
    for key in ("delay_s/proposal", "delay_s/ground_only_stored", "delay_s/ground_only_pipelined"):
        assert f"{figures[key]:.3f} s" in text
    for cores in ("none", f"{paper.CORES}_cores", "1_core"):
        row = [figures[f"measured_table/{name}/codec_{cores}"] for name in ("delay_s", "accuracy_drop")]
        assert f"| {row[0]:.3f} | {100 * row[1]:.2f} |" in text


def python_blocks(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```(?:\s*prints\s*```\n(.*?)```)?", text, re.DOTALL)
    return [block for block in blocks if ".learn(" not in block[0]]  # training has tests of its own


@pytest.mark.parametrize("name", ["README.md", "docs/planning.md"])
def test_the_examples_run(name):
    blocks = python_blocks(name)
    assert blocks
    for code, printed in blocks:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, name, "exec"), {})
        if printed:
            assert output.getvalue() == printed


def test_the_docstring_of_from_arrays_runs():
    results = doctest.testmod(sat_env.problem)
    assert results.attempted >= 4 and results.failed == 0
