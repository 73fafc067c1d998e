"""train.py and eval.py as a user runs them: bad input, an interruption, a resumed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from sat_env.commands import describe_input, fail_cleanly, new_console, resolve, swap_model
from sat_env.evaluation.results import load_results
from sat_env.evaluation.runner import world_of
from sat_env.scenario import Elements, load_scenario

pytest.importorskip("stable_baselines3")

TINY = ("--steps", "4096", "--episodes", "1")


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, cwd=ROOT)


def broken_tle(folder: Path) -> str:
    path = folder / "broken.tle"
    path.write_text(
        "TEST\n"
        "1 25544U 98067A   24001.50000000  .00016717  00000-0  10270-3 0  9000\n"
        "2 25544  51.6416 247.4627 0006703 130.5360 325.0288 15.72125391 12345\n",
        encoding="utf-8",
    )
    return str(path)


def toml(folder: Path, text: str) -> str:
    path = folder / "Mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def no_text(folder: Path) -> str:
    path = folder / "config.json"
    path.write_bytes(b'{"model_type": "\xff"}')
    return str(path)


def outage_of_ones_own(folder: Path) -> str:
    path = folder / "WalkerOutage.toml"
    path.write_text('[motion]\nkind = "walker"\n', encoding="utf-8")
    return str(path)


BAD = {
    "missing elements": lambda f: ("train.py", "--elements", str(f / "none.tle")),
    "broken checksum": lambda f: ("train.py", "--elements", broken_tle(f)),
    "unknown scenario": lambda f: ("train.py", "--scenario", "Nowhere"),
    "unknown agent": lambda f: ("eval.py", "--agents", "clever"),
    "missing policy": lambda f: ("eval.py", "--agents", str(f / "none.zip")),
    "negative episodes": lambda f: ("eval.py", "--episodes", "-1"),
    "negative steps": lambda f: ("train.py", "--steps", "-5"),
    "a seed that no generator takes": lambda f: ("train.py", "--seed", str(2**32)),
    "unknown model": lambda f: ("train.py", "--model", "vit-xxl"),
    "two things at once": lambda f: ("train.py", "--tune", "3", "--export", str(f)),
    "foresight of a network without": lambda f: ("train.py", "--algo", "residual", "--foresight", "3"),
    "a file for a folder": lambda f: ("train.py", "--out", toml(f, "")),
    "a file above the folder": lambda f: ("train.py", "--out", toml(f, "") + "/run"),
    "a file for the folder of a search": lambda f: ("train.py", "--tune", "1", "--out", toml(f, "")),
    "a search and what it ignores": lambda f: ("train.py", "--tune", "1", "--jobs", "4"),
    "not in the zoo": lambda f: ("eval.py", "--agents", "zoo:clever"),
    "best plan of another model": lambda f: ("eval.py", "--agents", "best-static", "--model", "vit-l"),
    "a folder for a file": lambda f: ("eval.py", "--out", str(f)),
    "a model that is no text": lambda f: ("eval.py", "--model", no_text(f)),
    "a world of a name that ships": lambda f: ("-m", "baselines.tune", "--scenario", outage_of_ones_own(f)),
    "no such folder": lambda f: ("eval.py", "--out", str(f / "no" / "file.json")),
    "no run folder": lambda f: ("train.py", "--resume", "--episodes", "1"),
    "not a run folder": lambda f: ("train.py", "--resume", str(f)),
    "no run folder to export": lambda f: ("train.py", "--export", str(f)),
    "block too large": lambda f: (
        "eval.py",
        "--scenarios",
        toml(f, '[motion]\nkind = "walker"\n[payload]\nmemory_bytes = 1e6\n'),
    ),
    "too many slots": lambda f: (
        "eval.py",
        "--scenarios",
        toml(f, '[motion]\nkind = "walker"\nplanes = 1\nper_plane = 4\nphasing = 0\n[chain]\nslots = 6\n'),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case, tmp_path):
    before = set(tmp_path.iterdir())
    script, *arguments = BAD[case](tmp_path)
    written = set(tmp_path.iterdir())
    new = script == "train.py" and not {"--out", "--resume", "--export"} & set(arguments)
    ran = run(script, *arguments, *(("--out", str(tmp_path / "run")) if new else ()))
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1
    assert set(tmp_path.iterdir()) == written | before


def test_altitude_that_contradicts_the_mean_motion(shared_data, tmp_path):
    file = shared_data / "orbits" / "iridium_next_2026-05-07.tle"
    mine = toml(tmp_path, f'[motion]\nkind = "elements"\nfile = "{file}"\naltitude_km = 550.0\n')
    ran = run("eval.py", "--scenarios", mine)
    assert ran.returncode == 2 and "altitude" in ran.stderr and ran.stderr.count("\n") == 1


def test_train_leaves_a_run_folder_and_eval_reads_it(tmp_path):
    folder = tmp_path / "run"
    trained = run("train.py", "--scenario", "PaperStatic", *TINY, "--out", str(folder))
    assert trained.returncode == 0, trained.stderr
    for name in (
        "config.json",
        "command.txt",
        "model.zip",
        "results.json",
        "logs/progress.csv",
        "last.zip",
        "evaluations.csv",
        "curve.png",
    ):
        assert (folder / name).is_file(), name
    assert list((folder / "logs").glob("events.out.tfevents.*"))
    results = json.loads((folder / "results.json").read_text())
    assert {row["entry"] for row in results["rows"]} >= {"rollouts", "static-astar", "uniform"}
    played = run(
        "eval.py", "--agents", f"random,{folder / 'model.zip'}", "--scenarios", "PaperStatic",
        "--episodes", "1", "--out", str(tmp_path / "r.json"),
    )  # fmt: skip
    assert played.returncode == 0, played.stderr
    assert "rollouts" in played.stdout


@pytest.fixture
def begun(tmp_path):
    """A run folder of which nothing but the start is written."""
    import train
    from agents.models import Run

    scenario = load_scenario("PaperStatic")
    seeded = Run("rollouts", scenario, train.RolloutConfig(), train.tuned_constants(scenario), 0)
    (tmp_path / "begun").mkdir()
    train.write_config(tmp_path / "begun", seeded, None)
    return tmp_path / "begun"


def refusal(*arguments: str) -> str:
    """Return the line with which train.py refuses a command line, in this process."""
    import train

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError) as refused:
        patch.setattr(sys, "argv", ["train.py", *arguments])
        train.main(train.parse())
    return str(refused.value)


def parsed(*arguments: str):
    """Return what train.py reads of a command line."""
    import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *arguments])
        return train.parse()


def test_defaults_are_those_found_for_the_world_whatever_its_file_is_called(tmp_path, monkeypatch):
    from agents.config import DEFAULTS

    mine = Path(toml(tmp_path, 'name = "bar"\n[motion]\nkind = "walker"\n'))
    found = {"prices": {"gamma": 0.5}, "found": {"prices": {"scenario_hash": load_scenario(mine).hash()}}}
    (tmp_path / "bar.json").write_text(json.dumps(found), encoding="utf-8")
    monkeypatch.setattr("agents.config.CONFIGS_DIR", tmp_path)
    asked = ("--algo", "prices", "--scenario", str(mine))
    assert parsed(*asked).config.gamma == 0.5
    assert parsed(*asked, "--gamma", "0.7").config.gamma == 0.7
    assert parsed(*asked, "--tune", "0").config.gamma == 0.5  # no search
    assert parsed(*asked, "--tune", "3").config == DEFAULTS["prices"]
    assert parsed(*asked, "--model", "vit-l").config == DEFAULTS["prices"]  # another world
    toml(tmp_path, 'name = "bar"\nepoch_s = 21.0\n[motion]\nkind = "walker"\n')
    assert parsed(*asked).config == DEFAULTS["prices"]


def test_a_search_does_not_overwrite_what_ships(tmp_path):
    assert "must be another than that of a scenario that ships" in refusal(
        "--tune", "1", "--scenario", outage_of_ones_own(tmp_path), "--out", str(tmp_path / "search")
    )


def test_a_run_that_stopped_before_its_first_evaluation_says_so(tmp_path, monkeypatch, capsys):
    import train
    from agents import training

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_all", stopped)
    args = parsed("--scenario", "PaperStatic", "--episodes", "1", "--out", str(tmp_path / "run"))
    with pytest.raises(KeyboardInterrupt):
        train.main(args)
    assert "stopped before its first evaluation, so no weights are played" in capsys.readouterr().out


def test_resume_refuses_options_that_it_would_ignore(begun):
    line = refusal("--resume", str(begun), "--steps", "100000", "--seed", "5", "--episodes", "2")
    assert "seed, steps = 5, 100000: must not be given with --resume" in line
    assert "algo = 'ppo': must not" in refusal("--resume", str(begun), "--algo", "ppo")
    assert "steps = 5: must not be given with --export" in refusal("--export", str(begun), "--steps", "5")


def test_resume_refuses_the_same_run_twice(begun):
    line = refusal("--resume", str(begun), str(begun))
    assert f"resume = '{begun}': must differ from '{begun}' in its seed" in line


def test_resume_refuses_a_world_whose_files_have_changed(tmp_path):
    import train
    from agents.models import Run

    table = tmp_path / "table.json"
    shipped = ROOT / "sat_env" / "compression" / "tables" / "digits-vit.json"
    table.write_bytes(shipped.read_bytes())
    scenario = load_scenario("PaperStatic").replace(**{"model.compression": str(table)})
    (tmp_path / "begun").mkdir()
    begun = Run("rollouts", scenario, train.RolloutConfig(), train.tuned_constants(scenario), 0)
    train.write_config(tmp_path / "begun", begun, None)
    was = scenario.hash()
    figures = json.loads(table.read_text())
    figures["levels"][1]["bits_per_entry"] *= 1.5
    table.write_text(json.dumps(figures))
    line = refusal("--resume", str(tmp_path / "begun"))
    assert f"another world ({scenario.hash()}) than it was begun in; must be as they were ({was})" in line


@pytest.mark.parametrize("option", ["resume", "export"])
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{", "", "config.json must be"),
        ('"seed"', '"sed"', "'seed' is missing"),
        ('"seed": 0', '"seed": "x"', "seed = 'x', must be an integer"),
        ('"algo": "rollouts"', '"algo": "magic"', "algo = 'magic', must be one of"),
        ('"steps": 19200', '"steps": "many"', "config.json must be"),
        ('"scenario": {', '"scenario": 3, "other": {', "config.json must be"),
        ('"horizon"', '"horizont"', "config.json must be"),
    ],
)
def test_a_broken_config_is_refused_in_one_line(begun, option, old, new, expected):
    text = (begun / "config.json").read_text()
    assert old in text
    (begun / "config.json").write_text(text.replace(old, new, 1))
    line = refusal(f"--{option}", str(begun))
    assert line.startswith(f"{option} = '{begun}': ") and expected in line


def test_a_list_for_a_config_is_refused_in_one_line(begun):
    (begun / "config.json").write_text("[1]")
    assert "config.json must be" in refusal("--resume", str(begun))


def test_a_new_run_is_never_put_beside_another(begun):
    before = sorted(begun.iterdir())
    line = refusal("--scenario", "PaperStatic", "--out", str(begun))
    assert (
        f"holds a run already; must be another folder, or go on with: python train.py --resume {begun}"
        in line
    )
    assert "must be a new or empty folder" in refusal("--out", str(begun.parent))
    assert sorted(begun.iterdir()) == before


def test_the_default_folder_gets_the_next_free_number(tmp_path, monkeypatch):
    import train

    monkeypatch.chdir(tmp_path)
    made = [str(train.make_folder(train.Args(), "Mine", 0)) for _ in range(3)]
    made.append(str(train.make_folder(train.PPOArgs(algo="ppo"), "Mine", 1)))
    assert made == ["runs/Mine-0", "runs/Mine-0-2", "runs/Mine-0-3", "runs/Mine-ppo-1"]
    assert str(train.make_folder(train.Args(out="few", seeds=2), "Mine", 1)) == "few-1"


def test_interruption_keeps_the_model_and_resume_goes_on(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "--algo", "ppo", "--scenario", "PaperStatic", "--steps", "2000000",
         "--episodes", "1", "--out", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        # A shell that runs the tests in the background has children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.zip").is_file():
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.2)
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and not err, err
    assert f"interrupted; go on with: python train.py --resume {folder}\n" in out
    assert (folder / "model.zip").is_file()
    assert json.loads((folder / "results.json").read_text())["rows"]

    config = json.loads((folder / "config.json").read_text())
    from stable_baselines3 import PPO

    reached = PPO.load(folder / "checkpoint.zip", device="cpu").num_timesteps
    config["config"]["steps"] = reached + 4096
    (folder / "config.json").write_text(json.dumps(config))
    resumed = run("train.py", "--resume", str(folder), "--episodes", "1")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resumed at step {reached}" in resumed.stdout
    assert PPO.load(folder / "last.zip", device="cpu").num_timesteps == reached + 4096


OWN_POLICY = """
from sat_env.plan import Plan


class Halves:
    name = "halves"

    def reset(self, spec, seed):
        self.blocks = spec.blocks

    def act(self, problem):
        half = self.blocks // 2
        return Plan((0, half, *[self.blocks] * (problem.slots - 2)), (1,) * problem.slots)
"""


FAILING = """
import os
import signal

from sat_env.planning import costs_from_arrays


class Fails:
    name = "fails[/x]"

    def reset(self, spec, seed):
        pass

    def act(self, problem):
        raise ValueError("mine")


class Stopped(Fails):
    def act(self, problem):
        raise KeyboardInterrupt


class Terminated(Fails):
    def act(self, problem):
        os.kill(os.getpid(), signal.SIGTERM)


class Misuses(Fails):
    def act(self, problem):
        costs_from_arrays([1.0], [1.0], [1.0])


class Named(Fails):
    name = ""


class Needs(Fails):
    def __init__(self, what):
        pass


instance = Fails()
"""


@pytest.mark.parametrize(
    ("kind", "code", "how", "place"),
    [
        ("Fails", 1, "failed", "raise ValueError"),
        ("Misuses", 1, "failed", "costs_from_arrays([1.0]"),
        ("Stopped", 130, "interrupted", ""),
        ("Terminated", 130, "interrupted", ""),
    ],
)
def test_who_fails_or_is_stopped_keeps_the_rows_before(kind, code, how, place, tmp_path):
    (tmp_path / "mine.py").write_text(FAILING, encoding="utf-8")
    out = tmp_path / "results.json"
    played = subprocess.run(
        [sys.executable, str(ROOT / "eval.py"), "--agents", f"uniform,mine:{kind}", "--scenarios", "PaperStatic",
         "--episodes", "1", "--out", str(out)],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert played.returncode == code and f"{how}: 1 of 2 episodes played" in played.stdout
    assert "uniform" in played.stdout and [row.entry for row in load_results(out).rows] == ["uniform"]
    assert place in played.stderr if place else not played.stderr


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ("mine:Needs", "must be a class made without arguments (missing a required argument: 'what')"),
        ("mine:instance", "must name a class of mine"),
        ("mine:", "must name a class of mine"),
        (":Fails", "must be module:Class"),
        ("mine:Named", "name = '': must be text that is not empty"),
    ],
)
def test_what_is_no_policy_class_is_refused(agent, message, tmp_path, monkeypatch):
    from eval import load

    monkeypatch.syspath_prepend(tmp_path)  # and takes back what loading adds
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(FAILING, encoding="utf-8")
    with pytest.raises(ValueError) as refusal:
        load(agent, load_scenario("PaperStatic"))
    assert str(refusal.value).startswith(f"agent = {agent!r}") and message in str(refusal.value)
    sys.modules.pop("mine", None)


def test_what_a_policy_fails_to_import_is_shown_where_it_stands(tmp_path, monkeypatch):
    from eval import load

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imports_it.py").write_text("import nowhere_to_be_found\n", encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        load("imports_it:Mine", load_scenario("PaperStatic"))
    with pytest.raises(
        ValueError, match=r"^agent = 'nowhere_to_be_found:Mine': must name an importable module"
    ):
        load("nowhere_to_be_found:Mine", load_scenario("PaperStatic"))


def test_an_agent_of_the_zoo_says_that_it_was_trained_on_another_world(tmp_path):
    changed = tmp_path / "WalkerOutage.toml"
    text = (ROOT / "sat_env" / "scenarios" / "WalkerOutage.toml").read_text(encoding="utf-8")
    changed.write_text(text.replace("episode_epochs = 150", "episode_epochs = 20"), encoding="utf-8")
    played = run(
        "eval.py", "--agents", "zoo:rollouts", "--scenarios", f"{changed},WalkerRush", "--episodes", "1"
    )
    assert played.returncode == 0, played.stderr
    assert played.stdout.count("zoo:rollouts was trained on WalkerOutage") == 1
    assert played.stdout.count("a job:") == 1  # of the changed world; what ships needs no description


def test_a_policy_of_another_size_is_refused_before_anything_is_played(tmp_path):
    import train
    from agents.models import Run, new_model
    from agents.training import save_policy

    scenario = load_scenario("PaperStatic")
    plans = Run("ppo", scenario, train.PPOConfig(), train.tuned_constants(scenario), 0)
    save_policy(tmp_path / "model.zip", new_model(plans), plans)
    played = run(
        "eval.py", "--agents", str(tmp_path / "model.zip"), "--scenarios", "PaperStatic,WalkerOutage"
    )
    assert played.returncode == 2 and not played.stdout
    assert "slots and 12 blocks; must be played on a scenario of the same sizes" in played.stderr
    assert played.stderr.count("\n") == 1


def test_brackets_in_a_name_are_no_markup(capsys):
    new_console().print("run folder: runs/[bold]mine[/x]")
    assert capsys.readouterr().out == "run folder: runs/[bold]mine[/x]\n"


def test_a_policy_of_ones_own_joins_the_leaderboard(tmp_path):
    (tmp_path / "mine.py").write_text(OWN_POLICY, encoding="utf-8")
    arguments = ("--agents", "mine:Halves,random", "--scenarios", "PaperStatic", "--episodes", "1")
    played = subprocess.run(
        [sys.executable, str(ROOT / "eval.py"), *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert played.returncode == 0, played.stderr
    assert "halves" in played.stdout
    twice = run("eval.py", "--agents", "random,random", "--scenarios", "PaperStatic", "--episodes", "1")
    assert twice.returncode == 2 and "different names" in twice.stderr


@pytest.mark.parametrize(
    ("file", "own"), [("sat_env/module.py", True), (".venv/lib/library.py", False), ("mine.py", False)]
)
def test_only_errors_of_the_project_s_own_code_are_bad_input(file, own, tmp_path, monkeypatch, capsys):
    # Neither a virtual environment in the checkout nor a user's file there is part of the project.
    monkeypatch.setattr("sat_env.commands.PROJECT", tmp_path)
    file = tmp_path / file
    code = compile("def fail():\n    raise ValueError('level = 7:\\n must be 1')", str(file), "exec")
    exec(code, found := {})
    with pytest.raises(SystemExit if own else ValueError):
        fail_cleanly(found["fail"])
    assert capsys.readouterr().err == ("error: level = 7: must be 1\n" if own else "")


@pytest.mark.parametrize("name", ["StarlinkLLM", "WalkerOutage", "WalkerEclipse", "PaperStatic"])
def test_a_model_in_its_own_place_changes_nothing(name):
    scenario = load_scenario(name)
    assert swap_model(scenario, scenario.model.profile) == scenario


def test_a_config_brings_its_number_format(tmp_path):
    sizes = {
        "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256,
        "tie_word_embeddings": True,
    }  # fmt: skip
    path = tmp_path / "config.json"
    for stated, expected in (({}, 2.0), ({"torch_dtype": "float32"}, 4.0), ({"dtype": "bfloat16"}, 2.0)):
        path.write_text(json.dumps(sizes | stated))
        assert swap_model(load_scenario("StarlinkLLM"), str(path)).model.dtype_bytes == expected


def test_another_language_model_gets_the_requests_and_the_share_of_memory_of_the_old():
    llama = load_scenario("StarlinkLLM")
    qwen = swap_model(llama, "qwen2.5-7b")
    drones = load_scenario("DroneSwarm")
    few = swap_model(drones, "llama-3.1-8b").jobs
    assert few.micro_batches == few.items < drones.jobs.micro_batches  # no request is cut in two
    assert (qwen.jobs.prompt_tokens, qwen.jobs.generated_tokens) == (512.0, 64.0)
    assert 0.8 < qwen.payload.memory_bytes / llama.payload.memory_bytes < 1.0  # 7.6 billion weights for 8.0
    images = swap_model(llama, "vit-g")
    assert images.jobs.kind == "images" and swap_model(images, "qwen2.5-7b").jobs.generated_tokens == 32.0


def test_a_model_that_the_old_share_of_memory_does_not_hold_says_so(tmp_path):
    path = tmp_path / "mine.csv"
    rows = ("0,0,0,602112", "1,0.0021,113418240,1210368", "2,0.0020,113418240,4000")
    path.write_text(
        "\n".join(["# flops_per_s = 10.68e12", "block,seconds,weight_bytes,output_bytes", *rows, ""]),
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match="model = ") as refused:
        resolve("WalkerOutage", model=str(path))
    assert "or stand in a scenario file with a memory of its own" in str(refused.value)


def test_satellites_of_another_shell_are_said_to_be_left_out(tmp_path):
    header = (
        "OBJECT_NAME,OBJECT_ID,EPOCH,MEAN_MOTION,ECCENTRICITY,INCLINATION,RA_OF_ASC_NODE,ARG_OF_PERICENTER,MEAN_ANOMALY,"
        "EPHEMERIS_TYPE,CLASSIFICATION_TYPE,NORAD_CAT_ID,ELEMENT_SET_NO,REV_AT_EPOCH,BSTAR,MEAN_MOTION_DOT,MEAN_MOTION_DDOT"
    )
    row = "SAT {0},2025-001A,2025-03-20T06:30:00.0,{1},0.0001,53,0,0,{2},0,U,{0},999,1,0,0,0"
    rows = [row.format(n, 15.06 if n else 15.5, 15 * n) for n in range(24)]
    path = tmp_path / "ring.csv"
    path.write_text("\n".join([header, *rows]))
    ring = load_scenario("WalkerOutage").replace(motion=Elements(file=str(path)), **{"chain.slots": 3})
    assert describe_input(ring)[-1] == f"left out of {path}: 1 of another shell (SAT 0)"
    assert len(describe_input(load_scenario("WalkerOutage"))) == 3


def test_ships_are_not_called_satellites():
    world, job, table = describe_input(load_scenario("ShipFleet"))
    assert "10 ships from 2026-01-01 00:00:00 UTC" in world and "a ship holds" in job
    assert "borrowed from the table vit-l-imagenet" in table


def test_only_a_registered_scenario_has_an_environment_id():
    scenario = load_scenario("PaperStatic")
    assert world_of(scenario).environment_id == "sat_env/PaperStatic-v0"
    assert world_of(scenario.replace(epoch_s=31.0)).environment_id is None
    other = world_of(scenario.replace(**{"links.relay_s": 0.1}))
    assert other.trace_hash == world_of(scenario).trace_hash
    assert other.play_hash != world_of(scenario).play_hash == world_of(scenario).play_hash
    assert world_of(scenario.replace(name="Mine")).environment_id is None


def test_results_name_the_policies_of_every_scenario(tmp_path):
    (tmp_path / "mine.py").write_text(OWN_POLICY, encoding="utf-8")
    out = tmp_path / "results.json"
    played = subprocess.run(
        [sys.executable, str(ROOT / "eval.py"), "--agents", "mine:Halves,zoo:rollouts,priced", "--scenarios",
         "WalkerOutage,WalkerRush", "--episodes", "1", "--out", str(out)],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert played.returncode == 0, played.stderr
    entries = load_results(out).entries
    for name, same in (("halves", True), ("zoo:rollouts", False), ("priced", False)):
        assert (entries["WalkerOutage"][name] == entries["WalkerRush"][name]) == same, name
    board = run("-m", "sat_env.evaluation.report", str(out))
    assert board.returncode == 0 and board.stdout.count("zoo:rollouts") == 2 and not board.stderr
    assert (
        run("-m", "sat_env.evaluation.report").stderr
        == "error: results files = []: must be one or more paths\n"
    )


def test_a_changed_world_plays_untuned_and_says_so(tmp_path):
    arguments = (
        "--agents",
        "priced,static-astar",
        "--scenarios",
        "PaperStatic",
        "--model",
        "vit-l",
        "--episodes",
        "1",
    )
    out = tmp_path / "results.json"
    played = run("eval.py", *arguments, "--out", str(out))
    assert played.returncode == 0, played.stderr
    assert played.stdout.count("nothing is tuned for this PaperStatic") == 1
    assert played.stdout.count("vit-l in 24 parts") == 1  # what was played
    assert load_results(out).worlds["PaperStatic"].environment_id is None
