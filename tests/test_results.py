"""Results files come back as they were written, refuse what was tampered with, and turn into tables."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_env.evaluation.metrics import EpisodeMetrics, episode_metrics
from sat_env.evaluation.report import leaderboard_markdown, main, results_table, summarise
from sat_env.evaluation.results import (
    Results,
    Row,
    Run,
    World,
    file_hash,
    load_results,
    merge,
    this_run,
    write_results,
)


def metrics(latency_s: float, n_jobs: int = 2, dropped: bool = False, loss: float = 0.005) -> EpisodeMetrics:
    return episode_metrics(
        latency_s=[latency_s] * n_jobs,
        deadline_s=[60.0] * n_jobs,
        dropped=[dropped] * n_jobs,
        accuracy_drop=[loss] * n_jobs,
        sent_bytes=[2e6] * n_jobs,
        energy_j=[100.0] * n_jobs,
        reload_bytes=[0.0] * n_jobs,
        decision_ms=[0.25],
    )


RUN = Run(command=("eval.py", "--episodes", "1"), packages={"numpy": "2.0"}, git_commit=None, git_dirty=None)


def results(
    entry: str = "uniform", *rows: tuple[int, EpisodeMetrics], scenario: str = "PaperStatic"
) -> Results:
    return Results(
        schema_version=4,
        entries={scenario: {entry: "0" * 64}},
        worlds={scenario: World("sat_env/PaperStatic-v0", "1" * 64, "2" * 64, "3" * 64)},
        runs=(RUN,),
        rows=tuple(Row(entry, scenario, seed=0, episode=episode, run=0, metrics=m) for episode, m in rows),
    )


SMALL = results("uniform", (0, metrics(3.0)), (1, metrics(5.0, dropped=True)))


def test_a_file_comes_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, SMALL)
    assert load_results(path) == SMALL
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@given(latency=st.floats(0, 1e6), seed=st.integers(0, 2**63), name=st.text(min_size=1, max_size=8))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_any_row_comes_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, latency: float, seed: int, name: str
) -> None:
    one = results(name, (0, metrics(latency)))
    one = replace(one, rows=(replace(one.rows[0], seed=seed),))
    path = tmp_path_factory.getbasetemp() / "results.json"
    write_results(path, one)
    assert load_results(path) == one


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, SMALL)
    bad = metrics(3.0)
    object.__setattr__(bad, "j_s", float("nan"))
    broken = replace(SMALL, rows=(replace(SMALL.rows[0], metrics=bad),))
    with pytest.raises(ValueError):
        write_results(path, broken)
    assert load_results(path) == SMALL
    with pytest.raises(ValueError, match="allowed: a path in an existing folder"):
        write_results(tmp_path / "absent" / "results.json", SMALL)
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_this_run_names_the_commit_of_a_checkout() -> None:
    run = this_run(["eval.py"])
    assert run.command == ("eval.py",)
    assert {"python", "numpy", "gymnasium"} <= set(run.packages)
    try:
        log = ["git", "log", "-1", "--format=%H"]
        commit = subprocess.run(log, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        commit = ""
    assert run.git_commit == (commit or None)
    assert (run.git_dirty is None) == (run.git_commit is None)


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    path = tmp_path / "policy.zip"
    path.write_bytes(b"abc")
    assert file_hash(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_merge_keeps_every_row_and_its_run() -> None:
    other_run = replace(RUN, command=("eval.py", "elsewhere"))
    other = replace(results("greedy", (0, metrics(2.0))), runs=(other_run,))
    both = merge([SMALL, other])
    assert {(row.entry, both.runs[row.run].command[1]) for row in both.rows} == {
        ("uniform", "--episodes"),
        ("greedy", "elsewhere"),
    }
    assert merge([SMALL]) == SMALL


def test_an_entry_may_be_another_policy_on_every_scenario() -> None:
    # as zoo:rollouts is: a file a scenario
    elsewhere = results("uniform", (0, metrics(2.0)), scenario="WalkerRush")
    elsewhere = replace(elsewhere, entries={"WalkerRush": {"uniform": "f" * 64}})
    both = merge([SMALL, elsewhere])
    assert both.entries == {"PaperStatic": {"uniform": "0" * 64}, "WalkerRush": {"uniform": "f" * 64}}


def test_merge_refuses_conflicts() -> None:
    slower = replace(SMALL.rows[0], metrics=replace(SMALL.rows[0].metrics, energy_j=1.0))
    with pytest.raises(
        ValueError, match=r"row \('uniform'.*\) is in two files with two outcomes; allowed: the same"
    ):
        merge([SMALL, replace(SMALL, rows=(slower,))])
    with pytest.raises(ValueError, match=r"entries\['PaperStatic'\]\['uniform'\] is f+; allowed: 0+, as in"):
        merge([SMALL, replace(SMALL, entries={"PaperStatic": {"uniform": "f" * 64}})])
    changed = replace(SMALL.worlds["PaperStatic"], trace_hash="f" * 64)
    with pytest.raises(ValueError, match=r"worlds\['PaperStatic'\] is .*; allowed: .*, as in"):
        merge([SMALL, replace(SMALL, worlds={"PaperStatic": changed})])


def test_an_episode_that_two_files_played_alike_counts_once() -> None:
    again = [replace(row, metrics=replace(row.metrics, decision_p50_ms=9.0)) for row in SMALL.rows]
    both = merge([SMALL, replace(SMALL, rows=tuple(again))])
    assert both.rows == SMALL.rows and len(both.runs) == 2 * len(SMALL.runs)


def change(document: dict, where: str, value: object) -> None:
    *path, last = (int(step) if step.isdigit() else step for step in where.split("/"))
    for step in path:
        document = document[step]
    if value is KeyError:
        del document[last]
    else:
        document[last] = value


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("schema_version", 3, "schema_version is 3; allowed: 4"),
        ("rows/0/metrics/j_s", "fast", r"results.rows\[0\].metrics.j_s is 'fast'; allowed: a finite number"),
        ("rows/0/metrics/j_s", float("nan"), "j_s is nan; allowed: a finite number"),
        ("rows/0/metrics/j_s", -3.0, r"rows\[0\].metrics.j_s is -3.0; allowed: a finite number, 0 or more"),
        ("rows/0/metrics/j_s", 10**400, r"metrics.j_s is 1000.*; allowed: a finite number"),
        ("rows/0/metrics/n_jobs", 0, r"rows\[0\].metrics.n_jobs is 0; allowed: 1 or more"),
        ("rows/0/metrics/n_dropped", 7, "metrics.n_dropped is 7; allowed: 0 to 2"),
        ("rows/1/metrics/n_over_limit", 1, "metrics.n_over_limit is 1; allowed: 0 to 0"),
        (
            "rows/0/metrics/latency_p50_s",
            None,
            "latency_p50_s is None; allowed: null exactly where no such job",
        ),
        (
            "rows/1/metrics/accuracy_drop",
            0.0,
            "accuracy_drop is 0.0; allowed: null exactly where no such job",
        ),
        ("rows/0/metrics/n_jobs", 1.5, "n_jobs is 1.5; allowed: an integer"),
        ("rows/0/metrics/n_jobs", True, "n_jobs is True; allowed: an integer"),
        ("rows/0/metrics/j_s", KeyError, "metrics.j_s is missing; allowed: exactly n_jobs"),
        ("rows/0/metrics/luck", 7, "metrics.luck is unknown; allowed: exactly n_jobs"),
        ("rows/0/entry", "ghost", r"rows\[0\].entry is 'ghost'; allowed: uniform"),
        ("rows/0/run", 3, r"rows\[0\].run is 3; allowed: 0"),
        ("rows/0", [], r"results.rows\[0\] is a list; allowed: an object"),
        ("rows/1/episode", 0, r"rows\[1\] repeats .*; allowed: each \(entry"),
        ("rows", None, "results.rows is None; allowed: a list"),
        ("worlds", [], r"results.worlds is \[\]; allowed: an object"),
        ("runs/0/git_dirty", "no", "git_dirty is 'no'; allowed: true or false"),
        ("runs/0/packages/numpy", 2, r"packages\['numpy'\] is 2; allowed: a string"),
    ],
)
def test_a_changed_file_is_refused_in_one_line(
    tmp_path: Path, where: str, value: object, message: str
) -> None:
    path = tmp_path / "results.json"
    write_results(path, SMALL)
    document = json.loads(path.read_text())
    change(document, where, value)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message) as refusal:
        load_results(path)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_what_is_no_results_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="allowed") as refusal:
        load_results(path)
    assert "\n" not in str(refusal.value)


def test_absent_file_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"results file is 'absent.json'; allowed: a readable JSON file"):
        load_results("absent.json")


ROWS = merge(
    [
        results("uniform", (0, metrics(4.0)), (1, metrics(6.0, n_jobs=6))),
        results("greedy", (0, metrics(3.0)), (1, metrics(9.9, dropped=True))),
        results("doomed", (0, metrics(9.9, dropped=True)), scenario="Second"),
    ]
).rows


def write(folder: Path, *parts: Results) -> list[str]:
    paths = [str(folder / f"{number}.json") for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        write_results(path, part)
    return paths


def test_files_of_several_authors_make_one_leaderboard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    greedy = results("greedy", (0, metrics(2.0)), (1, metrics(2.5)))
    main(write(tmp_path, SMALL, greedy))
    assert capsys.readouterr().out == leaderboard_markdown(merge([SMALL, greedy]).rows)


def test_the_report_says_what_it_takes() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "sat_env.evaluation.report", "--help"], capture_output=True, text=True
    )
    assert ran.returncode == 0 and "results files as Markdown" in ran.stdout


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            results("greedy", (0, metrics(2.0))),
            "episodes of 'greedy' on PaperStatic: 1, not all .* 'uniform' .2.",
        ),
        (
            replace(SMALL, worlds={"PaperStatic": World(None, "9" * 64, "2" * 64, "3" * 64)}),
            r"worlds\['PaperStatic'\] is",
        ),
        (
            results("greedy", (0, metrics(2.0, n_jobs=3)), (1, metrics(2.0))),
            "n_jobs of 'greedy' on PaperStatic, episode 0: 3; must be 2",
        ),
    ],
)
def test_files_that_cannot_be_compared_are_refused(tmp_path: Path, other: Results, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        main(write(tmp_path, SMALL, other))
    assert "\n" not in str(refusal.value)


def test_summaries_weigh_jobs_and_rank_by_j() -> None:
    uniform, greedy, doomed = summarise(ROWS)
    assert (uniform.scenario, uniform.entry, greedy.entry, doomed.scenario) == (
        "PaperStatic",
        "uniform",
        "greedy",
        "Second",
    )
    assert uniform.j_s == uniform.latency_mean_s == pytest.approx((2 * 4 + 6 * 6) / 8)
    assert greedy.j_s == pytest.approx((3 + 60) / 2)
    assert (greedy.latency_mean_s, greedy.latency_p95_s, greedy.drop_share) == (3.0, 3.0, 0.5)
    assert uniform.bytes_per_job == 2e6
    assert doomed.latency_mean_s is None and doomed.accuracy_drop is None


def test_jobs_over_the_limit_stand_in_their_own_column() -> None:
    (one,) = summarise(results("lossy", (0, metrics(60.0, loss=0.3)), (1, metrics(4.0, n_jobs=6))).rows)
    assert (one.over_limit_share, one.drop_share) == (0.25, 0.0)
    assert (one.latency_mean_s, one.latency_p95_s) == (4.0, 4.0)
    assert one.accuracy_drop == pytest.approx((2 * 0.3 + 6 * 0.005) / 8)


def test_markdown_and_terminal_show_the_same_cells() -> None:
    import io

    from rich.console import Console

    markdown = leaderboard_markdown(ROWS)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    assert {len(line) for line in lines} == {13}
    assert [line[1] for line in lines] == ["policy", "---", "uniform", "greedy", "doomed"]
    assert lines[3][2:10] == ["31.500", "3.000", "3.000", "3.000", "2.00", "50.0", "0.0", "0.50"]
    assert lines[4][3:6] == ["-", "-", "-"]

    screen = io.StringIO()
    Console(file=screen, width=200).print(results_table(ROWS))
    for line in (lines[2], lines[3], lines[4]):
        assert any(all(cell in shown for cell in line) for shown in screen.getvalue().splitlines())


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
def test_no_figure_is_cut_off_in_a_narrow_terminal(width: int) -> None:
    import io

    from rich.console import Console

    screen = io.StringIO()
    Console(file=screen, width=width).print(results_table(ROWS, width))
    text = screen.getvalue()
    assert "…" not in text and all(entry in text for entry in ("uniform", "greedy", "doomed"))
    assert "31.500" in text and all(len(line) <= width for line in text.splitlines())
    assert ("too narrow for: reload MB/job" in text) == (width <= 120)


def test_names_are_no_markup() -> None:
    import io

    from rich.console import Console

    screen = io.StringIO()
    rows = [replace(ROWS[0], entry=name) for name in ("mine[v2]", "mine[/x]", "a|b\\")]
    Console(file=screen, width=200).print(results_table(rows))
    assert all(row.entry in screen.getvalue() for row in rows)
    assert "| a\\|b\\ |" in leaderboard_markdown(rows)
    one = [replace(ROWS[0], entry="mine | 1 |\n| WalkerRush | priced")]
    assert len(leaderboard_markdown(one).splitlines()) == 3
