"""What stands around training: several runs, tuning, export, the zoo, the study."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from conftest import ROOT, small
from test_agents import CONSTANTS, tiny
from test_commands import run as command

pytest.importorskip("stable_baselines3")

import matplotlib.colors
import matplotlib.image
import torch

from agents import packages, study, training, tuning, zoo
from agents.config import DEFAULTS, PPO_ALGORITHMS, default_config
from agents.export import compare as compare_onnx
from agents.export import decisions, export
from agents.models import new_model
from agents.regression import nothing
from agents.rollouts import PAIR, Chooser
from agents.rules import NAMES, PriceRule
from agents.saved import SavedPolicy, load_model, read_card
from agents.training import read_evaluations, save_policy, steps_logged, train, train_all, train_command
from sat_env.scenario import load_scenario

# --- ONNX -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", PPO_ALGORITHMS)
def test_an_exported_network_says_what_the_policy_says(outage, tmp_path, algorithm):
    import onnxruntime

    run = tiny(outage, algorithm)
    model = new_model(run)
    with torch.no_grad():  # no weight is 0, so that every one counts
        for weights in model.policy.parameters():
            weights.add_(0.05 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)))
    save_policy(tmp_path / "model.zip", model, run)
    found = export(tmp_path / "model.zip", run.scenario, tmp_path / "model.onnx")
    assert found.largest <= 1e-4 and found.observations >= 80
    policy = SavedPolicy(tmp_path / "model.zip")
    seen = decisions(policy, run.scenario)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    rows = [part[:7] for part in seen if part is not None]
    names = [node.name for node in session.get_inputs()]
    (actions,) = session.run(["action"], dict(zip(names, rows, strict=True)))
    masks = {} if seen.masks is None else {"action_masks": rows[1]}
    expected, _ = policy.model.predict(rows[0], deterministic=True, **masks)
    np.testing.assert_allclose(actions, expected, atol=1e-4)
    card = json.loads(session.get_modelmeta().custom_metadata_map["sat_env.json"])
    assert card["algorithm"] == algorithm and card["command"] == train_command(run)

    with torch.no_grad():
        policy.model.policy.action_net.bias.add_(2e-4)
    with pytest.raises(ValueError, match="differ by"):
        compare_onnx(policy, seen, tmp_path / "model.onnx")


def test_a_choice_around_a_rule_is_no_single_network(outage, tmp_path):
    rule = PriceRule(np.zeros(len(NAMES)))
    run = tiny(outage)._replace(algorithm="rollouts", config=DEFAULTS["rollouts"])
    chooser = Chooser.untrained(rule)
    chooser.num_timesteps = 0
    save_policy(tmp_path / "model.zip", chooser, run)
    with pytest.raises(ValueError, match="must be one network, and is a choice around an evolved rule"):
        export(tmp_path / "model.zip", run.scenario, tmp_path / "model.onnx")


# --- policy files and the zoo ---------------------------------------------------------------------


def test_a_policy_file_holds_no_optimiser_state_and_a_checkpoint_does(outage, tmp_path):
    run = tiny(outage)
    model = new_model(run)
    train(model, run, tmp_path, progress_bar=False)
    assert load_model(tmp_path / "last.zip", "prices").policy.optimizer.state_dict()["state"] == {}
    assert load_model(tmp_path / "checkpoint.zip", "prices").policy.optimizer.state_dict()["state"]
    assert (tmp_path / "last.zip").stat().st_size < 60_000


def test_the_command_of_a_run_names_what_differs_from_the_defaults(outage):
    run = tiny(outage, seed=3)
    run = run._replace(config=dataclasses.replace(DEFAULTS["prices"], gamma=0.0, hidden=(8, 9), versus=False))
    assert train_command(run) == (
        "python train.py --algo prices --scenario WalkerOutage --seed 3 --gamma 0.0 --hidden 8 9 --no-versus"
    )


class Stranger:
    """What runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def rewrite(path, member, change):
    """Replace a member of a zip by what `change` makes of it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts[member] = change(parts[member])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("field", ["lr_schedule", "something"])
def test_a_policy_file_runs_nothing_that_a_stranger_wrote(outage, tmp_path, field):
    run = tiny(outage)
    save_policy(tmp_path / "model.zip", new_model(run), run)
    mark = tmp_path / "mark"
    code = base64.b64encode(pickle.dumps(Stranger(mark))).decode()
    rewrite(
        tmp_path / "model.zip",
        "data",
        lambda data: json.dumps({**json.loads(data), field: {":serialized:": code}}).encode(),
    )
    with pytest.raises(
        ValueError, match=r"^agent = '.*model.zip': must be .* \(it names posix.mkdir, which no"
    ):
        SavedPolicy(tmp_path / "model.zip")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("algorithm", "member", "change"),
    [
        ("prices", "policy.pth", lambda part: part[: len(part) // 2]),
        ("prices", "policy.pth", lambda part: b""),
        ("prices", "data", lambda part: b"{}"),
        ("prices", "data", lambda part: b"no JSON"),
        ("prices", "sat_env.json", lambda part: part[:-9]),
        ("prices", "sat_env.json", lambda part: b"[]"),
        ("prices", "sat_env.json", lambda part: part.replace(b'"prices"', b'"rollouts"')),
        ("evolution", "weights.npz", lambda part: part[: len(part) // 2]),
        ("evolution", "weights.npz", lambda part: arrays(weights=np.zeros(5))),
        ("evolution", "weights.npz", lambda part: arrays(weights=np.full(len(NAMES), np.nan))),
        ("evolution", "weights.npz", lambda part: arrays(weights=np.array([{}] * len(NAMES)))),
        ("rollouts", "weights.npz", lambda part: arrays(margin_s=0.0)),
        ("rollouts", "weights.npz", lambda part: arrays(**nothing(PAIR)._asdict())),
        (
            "rollouts",
            "weights.npz",
            lambda part: arrays(**nothing(PAIR)._replace(last=np.zeros(3))._asdict(), margin_s=0.0),
        ),
    ],
)
def test_a_broken_policy_file_is_refused_in_one_line(outage, tmp_path, algorithm, member, change):
    run = tiny(outage)
    models = {"evolution": PriceRule.untrained(), "rollouts": Chooser.untrained()}
    model = models.get(algorithm) or new_model(run)
    model.num_timesteps = 0
    run = run._replace(algorithm=algorithm, config=DEFAULTS[algorithm])
    save_policy(tmp_path / "model.zip", model, run)
    SavedPolicy(tmp_path / "model.zip")
    rewrite(tmp_path / "model.zip", member, change)
    with pytest.raises(ValueError, match=r"^agent = '.*model.zip': must be a policy saved by train.py"):
        SavedPolicy(tmp_path / "model.zip")


def arrays(**parts):
    file = io.BytesIO()
    np.savez(file, **parts)
    return file.getvalue()


@pytest.mark.parametrize("algorithm", ["prices", "maskable", "ppo"])
def test_a_row_of_a_table_bears_the_name_of_the_algorithm(outage, tmp_path, algorithm):
    run = tiny(outage, algorithm)
    save_policy(tmp_path / "model.zip", new_model(run), run)
    assert SavedPolicy(tmp_path / "model.zip").name == algorithm


@pytest.fixture
def trained(tmp_path):
    """Two run folders of a scenario that ships, the second better on development windows."""
    folders = []
    for seed, dev_j_s in ((0, 9.0), (1, 8.0)):
        config = dataclasses.replace(
            DEFAULTS["prices"], steps=32, num_envs=4, rollout_epochs=8, batch_size=16, dev_episodes=1
        )
        run = training.Run("prices", load_scenario("PaperStatic"), config, CONSTANTS, seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        save_policy(folder / "model.zip", new_model(run), run)
        training.write_rows(folder / "evaluations.csv", [{"steps": 0.0, "j_s": dev_j_s}])
        folders.append(folder)
    return folders


def test_the_zoo_takes_the_best_run_and_eval_finds_it(trained, tmp_path, monkeypatch, capsys):
    import eval as board

    monkeypatch.setattr(zoo, "ZOO_DIR", tmp_path / "zoo")
    zoo.main(zoo.Args(tuple(map(str, trained)), str(tmp_path / "zoo")))
    assert zoo.listed() == ["PaperStatic-prices"]
    card = read_card(zoo.find("prices", "PaperStatic"))
    assert card.seed == 1 and card.command in capsys.readouterr().out
    assert board.load("zoo:prices", load_scenario("PaperStatic")).name == "zoo:prices"
    with pytest.raises(ValueError, match="none for WalkerRush; the zoo holds PaperStatic-prices"):
        board.load("zoo:prices", load_scenario("WalkerRush"))


def test_the_zoo_refuses_what_is_too_large_or_of_another_world(trained, outage, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 1000"):
        zoo.main(zoo.Args((str(trained[0]),), str(tmp_path / "zoo")))
    run = tiny(outage)  # a shortened WalkerOutage
    save_policy(trained[0] / "model.zip", new_model(run), run)
    with pytest.raises(ValueError, match="must be a scenario that ships"):
        zoo.main(zoo.Args((str(trained[0]),), str(tmp_path / "zoo")))
    assert not (tmp_path / "zoo").exists()


def test_what_the_zoo_holds_fits_its_worlds_and_its_size():
    paths = sorted(zoo.ZOO_DIR.glob("*.zip"))
    assert sum(path.stat().st_size for path in paths) <= zoo.MOST_BYTES
    for path in paths:
        card = read_card(path)
        assert path.name == zoo.file_name(card.scenario, card.algorithm) and card.command
        assert load_scenario(card.scenario).hash() == card.scenario_hash


# --- several runs ---------------------------------------------------------------------------------


def test_a_backend_whose_package_is_missing_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    packages.check_backend("loky")
    with pytest.raises(ValueError, match=r"'ray': needs the package ray, .* pip install ray"):
        packages.check_backend("ray")
    with pytest.raises(ValueError, match=r"'dask': needs the package dask"):
        packages.check_backend("dask")


def test_runs_in_other_processes_end_as_they_would_alone(outage, tmp_path):
    runs = [tiny(outage, seed=seed) for seed in range(2)]
    folders = [tmp_path / str(seed) for seed in range(2)]
    for folder in folders:
        folder.mkdir()
    train_all(runs, folders, 2)
    (tmp_path / "alone").mkdir()
    training.train_in(runs[1], tmp_path / "alone", progress_bar=False)
    alone = load_model(tmp_path / "alone" / "last.zip", "prices").policy.state_dict()
    theirs = load_model(folders[1] / "last.zip", "prices").policy.state_dict()
    for name, mine in alone.items():
        np.testing.assert_array_equal(mine.numpy(), theirs[name].numpy())
    assert [steps_logged(folder) for folder in folders] == [192, 192]
    assert steps_logged(tmp_path) == 0


def test_an_interruption_of_several_runs_keeps_the_weights_of_their_checkpoints(
    outage, tmp_path, monkeypatch
):
    runs = [tiny(outage, seed=seed) for seed in range(2)]
    folders = [tmp_path / str(seed) for seed in range(2)]
    for folder in folders:
        folder.mkdir()
    training.train_in(runs[0], folders[0], progress_bar=False)
    last = load_model(folders[0] / "last.zip", "prices").policy.state_dict()
    (folders[0] / "last.zip").unlink()

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Parallel, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_all(runs, folders, 2)
    kept = load_model(folders[0] / "last.zip", "prices").policy.state_dict()
    for name, mine in last.items():
        np.testing.assert_array_equal(mine.numpy(), kept[name].numpy())
    assert not list(folders[1].iterdir())  # had not begun


def test_two_seeds_are_trained_evaluated_and_resumed_by_command(tmp_path):
    arguments = ("--algo", "prices", "--scenario", "PaperStatic", "--episodes", "1", "--jobs", "2")
    trained = command("train.py", *arguments, "--seeds", "2", "--steps", "2048", "--out", str(tmp_path / "r"))
    assert trained.returncode == 0, trained.stderr
    assert " prices-0 " in trained.stdout and " prices-1 " in trained.stdout
    folders = [tmp_path / "r-0", tmp_path / "r-1"]
    (
        folders[1] / "checkpoint.zip"
    ).unlink()  # as if this one had not begun when the other one was interrupted
    for folder in folders:
        text = (folder / "config.json").read_text().replace('"steps": 2048', '"steps": 4096')
        (folder / "config.json").write_text(text)
    resumed = command("train.py", "--resume", *map(str, folders), "--episodes", "1")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step 2048, 0" in resumed.stdout
    assert [steps_logged(folder) for folder in folders] == [4096, 4096]


# --- tuning ---------------------------------------------------------------------------------------


def test_an_interrupted_search_tries_what_an_uninterrupted_one_does(outage, tmp_path):
    run = tiny(outage, steps=96, dev_every=1)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = tuning.tune(run, 3, tmp_path / "whole")
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.tune(run, 3, tmp_path / "parts", stop)
    parts = tuning.tune(run, 3, tmp_path / "parts", lines.append)
    assert parts == whole and parts.trials == len(lines) == 3
    assert lines[0].startswith("1/3 J ") and f"'gamma': {run.config.gamma}" in lines[0]
    assert len(set(lines)) == 3 and whole.j_s <= whole.default_j_s
    with pytest.raises(ValueError, match="study of this very run"):
        tuning.tune(run._replace(seed=9), 3, tmp_path / "parts")


def test_what_was_found_becomes_the_default_of_the_scenario(outage, tmp_path, monkeypatch):
    monkeypatch.setattr("agents.config.CONFIGS_DIR", tmp_path)
    run = tiny(outage)._replace(config=DEFAULTS["prices"])
    better = dataclasses.replace(run.config, gamma=0.5)
    path = tuning.write_config(run, tuning.Found(better, 1.0, 2.0, 7, 3), "python train.py --tune 7")
    assert default_config("prices", run.scenario) == better
    assert default_config("choice", run.scenario) == DEFAULTS["choice"]
    another = run.scenario.replace(epoch_s=21.0)  # of the same name
    assert default_config("prices", another) == DEFAULTS["prices"]
    saved = json.loads(path.read_text())
    assert saved["prices"] == {"gamma": 0.5}
    assert saved["found"]["prices"]["command"] == "python train.py --tune 7"
    # What a second search found is what it tried, not that and what the first one found; one in vain is on record too.
    found = tuning.Found(dataclasses.replace(run.config, update_epochs=3), 0.5, 1.0, 9, 0)
    tuning.write_config(run, found, "python train.py --tune 9")
    assert default_config("prices", run.scenario) == found.config
    vain = run._replace(algorithm="choice", config=DEFAULTS["choice"])
    tuning.write_config(
        vain, tuning.Found(vain.config, 2.0, 2.0, 7, 3), "python train.py --tune 7 --algo choice"
    )
    assert default_config("choice", run.scenario) == DEFAULTS["choice"]
    tuning.write_config(
        run,
        found._replace(config=run.config, j_s=0.5, default_j_s=0.5),
        "python train.py --tune 11",
    )
    assert json.loads(path.read_text())["found"]["prices"]["command"] == "python train.py --tune 9"


def test_configs_that_ship_are_hyper_parameters_with_their_command():
    for path in (ROOT / "agents" / "configs").glob("*.json"):
        saved = json.loads(path.read_text())
        assert set(saved) - {"found"} == set(saved["found"])
        for algorithm, found in saved["found"].items():
            better = default_config(algorithm, load_scenario(path.stem)) != DEFAULTS[algorithm]
            assert better == (found["j_s"] < found["default_j_s"] * (1 - tuning.MIN_GAIN))
            assert found["command"].startswith(("python train.py ", "python -m agents.study "))
            assert found["scenario_hash"] == load_scenario(path.stem).hash()


# --- the study ------------------------------------------------------------------------------------


def test_a_window_is_won_by_who_beats_every_opponent_there():
    mine, one = np.array([1.0, 3.0, 2.0, 3.0]), np.array([2.0, 4.0, 2.0, 4.0])
    windows = np.array([5, 7, 5, 7])
    assert study.won(mine, [one], windows) == "2 of 2"
    assert study.won(mine, [one, one - 1.0], windows) == "0 of 2"
    assert study.won(mine, [one, np.full(4, 1.75)], windows) == "1 of 2"
    assert study.won(one + 1e-13, [one + 2e-13], windows) == "0 of 2"


def test_a_study_prints_a_row_a_variant_and_trains_each_once(outage, tmp_path, monkeypatch, capsys):
    scenario = small(outage.scenario)
    monkeypatch.setattr(study, "resolve", lambda name: scenario)
    monkeypatch.setattr(study, "default_config", lambda algorithm, name: tiny(outage).config)
    figure = tmp_path / "curves.png"
    args = study.Args("Mine", "prices", 1, 3, 1, '[{}, {"gamma": 0.0}]', str(tmp_path), str(figure))
    study.main(args)
    drawn = matplotlib.image.imread(figure)[:, :, :3]
    for color in ("C0", "C1"):  # each variant's curve
        assert (np.abs(drawn - matplotlib.colors.to_rgb(color)) < 0.01).all(axis=2).sum() > 20
    printed = capsys.readouterr().out
    assert "| prices gamma=0.0 |" in printed and "to prices |" in printed and "| replan-astar |" in printed
    folder = tmp_path / f"{scenario.name}-prices-gamma=0.0-0"
    before = (folder / "model.zip").stat().st_mtime_ns
    rows = read_evaluations(folder / "evaluations.csv")
    (folder / "done.json").rename(folder / "begun.json")  # as an interruption leaves it
    study.main(args)
    assert capsys.readouterr().out.split("CPU s")[0] == printed.split("CPU s")[0]
    assert (folder / "model.zip").stat().st_mtime_ns == before and (folder / "done.json").is_file()
    assert read_evaluations(folder / "evaluations.csv")[: len(rows)] == rows
    monkeypatch.setattr(study, "default_config", lambda algorithm, name: tiny(outage, steps=160).config)
    with pytest.raises(ValueError, match="prices-0 is of another configuration; must be"):
        study.main(args)
    assert (folder / "model.zip").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="gama"):
        study.main(dataclasses.replace(args, options='{"gama": 1}'))
    for options, message in (
        ('{"steps": "many"}', "steps = 'many': must be a whole number"),
        ('{"gamma": "x"}', "gamma = 'x': must be a number"),
        ('{"versus": 1}', "versus = 1: must be true or false"),
        ('{"hidden": [64, 8.5]}', "hidden = .*: must be a list of whole numbers"),
        ('{"hidden": 64}', "hidden = 64: must be a list of whole numbers"),
        ('{"steps": [64]}', "steps = .*: must be a whole number"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            study.main(dataclasses.replace(args, options=options))
    with pytest.raises(ValueError, match=r"^jobs = 0: must be at least 1"):
        study.main(dataclasses.replace(args, jobs=0))
    with pytest.raises(ValueError, match="must be JSON"):
        study.main(dataclasses.replace(args, options="gamma"))
    with pytest.raises(
        ValueError, match=r"^scenarios = \['WalkerOutage', 'WalkerOutage'\]: must be of different names"
    ):
        study.main(dataclasses.replace(args, scenarios="Mine,Yours"))
    for nowhere in ("curves.txt", str(tmp_path / "not-there" / "curves.png")):
        with pytest.raises(
            ValueError, match=r"^figure = .*: must be a \.png, \.svg, \.pdf in a folder that is there"
        ):
            study.main(dataclasses.replace(args, figure=nowhere))
