"""Hyper-parameters by Optuna (Akiba et al., arXiv 1907.10902), on training windows only.

    python train.py --tune 20 --algo prices --scenario WalkerRush

A trial trains one agent and is worth the best J it reached on held-out traces of training windows; development
and test windows are never played. The first trial is the defaults, so what is found is at least as good on these
traces. A tree-structured Parzen estimator, seeded anew for every trial, proposes; the median pruner ends a trial
that is worse than half of those before it at the same step. One trial after another, in a SQLite study: the same
command gives the same trials, also when it was interrupted in between.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import optuna
import torch
from optuna.samplers import TPESampler
from stable_baselines3.common.callbacks import BaseCallback

import agents.config
from agents.config import Config, EvolutionConfig, PPOConfig, RolloutConfig, decisions_of, is_found
from agents.models import Run, new_learner, new_model
from agents.training import decider
from baselines.batch import play
from sat_env.evaluation.runner import episodes
from sat_env.world import prepare

HELD_OUT_SEED = 2  # of the traces that judge a trial; no training run meets them
STARTUP_TRIALS = 6  # drawn at random, and none of them pruned
MIN_GAIN = 1e-3  # relative: less than this leaves the defaults


class Found(NamedTuple):
    """What a study found."""

    config: Config
    j_s: float  # best on the held-out traces
    default_j_s: float  # of the defaults
    trials: int
    pruned: int


def tune(run: Run, trials: int, folder: Path, progress: Callable[[str], None] = lambda line: None) -> Found:
    """Try hyper-parameters until the study in `folder` holds `trials` trials; return the best.

    Parameters
    ----------
    run : Run
        Its config holds the defaults: the first trial, and what is not tuned.
    trials : int
    folder : Path
        Holds ``study.db``; a study of the same run goes on.
    progress : callable
        Called with a line after each trial.

    Raises
    ------
    ValueError
        The study in `folder` is one of another run.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'study.db'}",
        study_name="tune",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=decisions_of(run.config) // 3),
    )
    settled = run.settled()
    if study.user_attrs.setdefault("run", settled) != settled:
        raise ValueError(f"tune = {str(folder)!r}: must be a new folder, or one of a study of this very run")
    study.set_user_attr("run", settled)
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # was interrupted
    while (done := len(finished(study))) < trials:
        study.sampler = TPESampler(n_startup_trials=STARTUP_TRIALS, seed=1000 * run.seed + done)
        if done == 0:
            study.enqueue_trial(defaults(run))
        study.optimize(lambda trial: objective(trial, run), n_trials=1)
        last = finished(study)[-1]
        j = "pruned" if last.state == optuna.trial.TrialState.PRUNED else f"J {last.value:.3f} s"
        progress(f"{done + 1}/{trials} {j}: {last.params}")
    ended = finished(study)[:trials]
    complete = [trial for trial in ended if trial.state == optuna.trial.TrialState.COMPLETE]
    best = min(complete, key=lambda trial: (trial.value, trial.number))
    first_s = float(ended[0].value)  # type: ignore[arg-type]
    best_s = float(best.value)  # type: ignore[arg-type]
    found = replace(run.config, **best.params) if best_s < first_s * (1 - MIN_GAIN) else run.config
    return Found(found, best_s, first_s, len(ended), len(ended) - len(complete))


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that ran to their end or were pruned, in order."""
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return study.get_trials(deepcopy=False, states=states)


def objective(trial: optuna.Trial, run: Run) -> float:
    """Train under what the trial suggests; return the best J on the held-out traces."""
    torch.set_num_threads(1)  # as `training.train_in`
    tried = run._replace(config=replace(run.config, **suggest(trial, run)))
    judge = Judge(tried, trial)
    if not isinstance(tried.config, PPOConfig):
        learner = new_learner(tried)
        while not learner.over:
            if learner.advance():
                judge.report(learner)
        return judge.best_s
    model = new_model(tried)
    model.learn(tried.config.steps, callback=judge)
    judge.judge(model)
    return judge.best_s


def suggest(trial: optuna.Trial, run: Run) -> dict[str, Any]:
    """Return the hyper-parameters to try: where and how they are searched."""
    config: Any = run.config

    def between(low: float, high: float, name: str) -> tuple[Any, Any]:
        """Return the range to search, widened to hold what the config says."""
        return min(low, getattr(config, name)), max(high, getattr(config, name))

    if isinstance(config, RolloutConfig):
        return {
            "candidates": trial.suggest_int("candidates", *between(2, 12, "candidates")),
            "branch_epochs": trial.suggest_int("branch_epochs", *between(2, 16, "branch_epochs")),
            "value_epochs": trial.suggest_int("value_epochs", *between(4, 40, "value_epochs"), log=True),
            "explore": trial.suggest_float("explore", *between(0.0, 0.3, "explore")),
            "width": trial.suggest_int("width", *between(32, 128, "width"), log=True),
            "passes": trial.suggest_int("passes", *between(5, 30, "passes")),
        }
    if isinstance(config, EvolutionConfig):
        return {
            "population": trial.suggest_int("population", *between(8, 32, "population")),
            "worlds": trial.suggest_int("worlds", *between(8, 64, "worlds"), log=True),
            "sigma": trial.suggest_float("sigma", *between(0.05, 0.6, "sigma"), log=True),
        }
    tried: dict[str, Any] = {
        "learning_rate": trial.suggest_float(
            "learning_rate", *between(1e-4, 3e-3, "learning_rate"), log=True
        ),
        "gamma": trial.suggest_categorical("gamma", _with((0.0, 0.5, 0.8, 0.9, 0.95, 0.98), config.gamma)),
        "gae_lambda": trial.suggest_categorical(
            "gae_lambda", _with((0.8, 0.9, 0.95, 1.0), config.gae_lambda)
        ),
        "update_epochs": trial.suggest_int("update_epochs", *between(2, 10, "update_epochs")),
    }
    if explores(run):
        tried["log_std_init"] = trial.suggest_float("log_std_init", *between(-2.5, 0.0, "log_std_init"))
    else:
        tried["entropy"] = trial.suggest_categorical("entropy", _with((0.0, 1e-3, 1e-2), config.entropy))
    return tried


def defaults(run: Run) -> dict[str, Any]:
    """Return what `suggest` searches as it stands in the config."""
    names: tuple[str, ...]
    if isinstance(run.config, RolloutConfig):
        names = ("candidates", "branch_epochs", "value_epochs", "explore", "width", "passes")
    elif isinstance(run.config, EvolutionConfig):
        names = ("population", "worlds", "sigma")
    else:
        names = ("learning_rate", "gamma", "gae_lambda", "update_epochs")
        names += ("log_std_init",) if explores(run) else ("entropy",)
    return {name: getattr(run.config, name) for name in names}


def explores(run: Run) -> bool:
    """Say whether actions are continuous, so that a standard deviation is learned."""
    from agents.saved import make_interface

    world = prepare(run.scenario).world
    space = make_interface(run.algorithm, world, run.scenario.forecast_epochs, run.constants).action_space
    return isinstance(space, gymnasium.spaces.Box)


def _with(choices: tuple[float, ...], default: float) -> tuple[float, ...]:
    return tuple(sorted({*choices, default}))


class Judge(BaseCallback):
    """Play held-out traces of training windows every few updates; the pruner may end the trial there."""

    def __init__(self, run: Run, trial: optuna.Trial) -> None:
        super().__init__()
        self.run_, self.trial = run, trial
        self.best_s = float("inf")

    def _on_rollout_start(self) -> None:
        model: Any = self.model
        updates = model.num_timesteps // (model.n_steps * model.n_envs)
        if updates > 0 and updates % self.run_.config.dev_every == 0:
            self.report(model)

    def _on_step(self) -> bool:
        return True

    def report(self, model: Any) -> None:
        """Judge the weights as they are; the pruner may end the trial."""
        self.trial.report(self.judge(model), model.num_timesteps)
        if self.trial.should_prune():
            raise optuna.TrialPruned

    def judge(self, model: Any) -> float:
        """Return J of the weights as they are, in seconds."""
        run = self.run_
        held_out = episodes(run.scenario, "train", run.config.dev_episodes, HELD_OUT_SEED)
        j_s = float(play(prepare(run.scenario), held_out, "train", decider(run, model)).j_s.mean())
        self.best_s = min(self.best_s, j_s)
        return j_s


def write_config(run: Run, found: Found, command: str, folder: Path | None = None) -> Path:
    """Write what differs from the defaults to ``configs/SCENARIO.json``, with the command that found it.

    What an earlier search found is replaced, with its record; where this one finds nothing better than the defaults it
    stays, or else the file says that they were searched.
    """
    path = (folder or agents.config.CONFIGS_DIR) / f"{run.scenario.name}.json"
    saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    changes = {
        name: value for name, value in asdict(found.config).items() if value != getattr(run.config, name)
    }
    if not changes and is_found(saved, run.algorithm, run.scenario):
        return path
    saved[run.algorithm] = changes
    saved.setdefault("found", {})[run.algorithm] = {
        "command": command,
        "scenario_hash": run.scenario.hash(),
        "seed": run.seed,
        "trials": found.trials,
        "pruned": found.pruned,
        "j_s": round(found.j_s, 4),
        "default_j_s": round(found.default_j_s, 4),
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    return path
