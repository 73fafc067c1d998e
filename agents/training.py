"""Training: development episodes, best and last weights, checkpoints that resume exactly, several runs at once."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import pickle
import random
import shlex
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed, parallel_config  # type: ignore[import-untyped]
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents.config import DEFAULTS, PPOConfig, decisions_of, default_config
from agents.interface import Learner
from agents.models import Run, make_worlds, new_learner, new_model
from agents.packages import Backend, check_backend
from agents.planner import BatchPlanner
from agents.saved import Card, load_model, make_interface, predictor, write_policy
from agents.worlds import AgentWorlds
from baselines.batch import Decider, Plans, play, priced_plans
from baselines.priced import load_constants
from sat_env.evaluation.runner import episodes
from sat_env.problem import Problems
from sat_env.world import World, prepare

EVALUATIONS = "evaluations.csv"
CHECKPOINT, STATE = "checkpoint.zip", "state.pkl"  # the second a member of the first
CHECKPOINT_SHARE = 0.05  # of the time: most updates of PPO are saved, rollouts every second or so
DEV_SEED = 1
COMPARE_EVERY = (
    8  # decisions between two of which the planner's plan is asked for too: it costs as much as the agent's
)


def save_checkpoint(folder: Path, model: OnPolicyAlgorithm) -> None:
    """Write all that training goes on from: network, optimiser, worlds, random states."""
    env = model.get_env()
    assert isinstance(env, AgentWorlds)
    state = {
        "worlds": env.snapshot(),
        "last_obs": model._last_obs,
        "last_episode_starts": model._last_episode_starts,
        "episode_infos": model.ep_info_buffer,
        "random": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - stable-baselines3 shuffles with it
        "torch": torch.get_rng_state(),
    }
    replace_checkpoint(folder, model.save, state)


def replace_checkpoint(folder: Path, save: Callable[[Path], None], state: object) -> None:
    """Write the zip that `save` writes with `state` in it, then let it take the place of the last checkpoint.

    Whenever this is interrupted, a whole checkpoint stands: the last one or the new one.
    """
    temporary = folder / f".{CHECKPOINT}"
    save(temporary)
    with zipfile.ZipFile(temporary, "a") as archive:
        archive.writestr(STATE, pickle.dumps(state))
    os.replace(temporary, folder / CHECKPOINT)


def load_checkpoint(folder: Path, run: Run) -> OnPolicyAlgorithm:
    """Return the model of a checkpoint, its worlds and random states where they were.

    Raises
    ------
    ValueError
        As `steps_done`.
    """
    state = read_state(folder)
    env = make_worlds(run)
    model: OnPolicyAlgorithm = load_model(folder / CHECKPOINT, run.algorithm, env=env)
    env.restore(state["worlds"])
    model._last_obs = state["last_obs"]
    model._last_episode_starts = state["last_episode_starts"]
    model.ep_info_buffer = state["episode_infos"]
    random.setstate(state["random"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    return model


def read_state(folder: Path) -> Any:
    """Return the state that `replace_checkpoint` wrote, of a checkpoint that `steps_done` accepts."""
    steps_done(folder)
    with zipfile.ZipFile(folder / CHECKPOINT) as archive:
        return pickle.loads(archive.read(STATE))


def steps_done(folder: Path) -> int:
    """Return the steps of the checkpoint in a run folder; 0 for a run that did not come to its first one.

    Raises
    ------
    ValueError
        The checkpoint is broken, or one of older code.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return 0
    try:
        with zipfile.ZipFile(path) as archive:
            archive.getinfo(STATE)
            return int(json.loads(archive.read("data"))["num_timesteps"])
    except (zipfile.BadZipFile, KeyError):
        raise ValueError(
            f"resume = {str(folder)!r}: must hold a {CHECKPOINT} as this version of train.py writes it"
        ) from None


class Saver:
    """Saves whenever it is called, but takes no more than a share of the time for it.

    Parameters
    ----------
    save : callable
    share : float
        Of the time; 1: every call saves.
    """

    def __init__(self, save: Callable[[], None], share: float) -> None:
        self.save, self.share = save, share
        self.due_s = -np.inf

    def __call__(self) -> None:
        """Save, unless the last time is too near for what it took."""
        start_s = time.monotonic()
        if start_s < self.due_s:
            return
        self.save()
        end_s = time.monotonic()
        self.due_s = end_s + (end_s - start_s) * (1.0 / self.share - 1.0)


class Checkpoint(BaseCallback):
    """Keep a checkpoint of the last update."""

    def __init__(self, folder: Path, share: float) -> None:
        super().__init__()
        self.saver = Saver(lambda: save_checkpoint(folder, self.model), share)  # type: ignore[arg-type]

    def _on_rollout_start(self) -> None:
        # Between update and rollout nothing is in flight: what is saved here resumes exactly.
        self.saver()

    def _on_step(self) -> bool:
        return True


class DevEvaluation(BaseCallback):
    """Play the development episodes every few updates; keep the weights that did best in ``model.zip``.

    The lines to beat, J of the every-epoch re-planner and of the tuned planner on the same episodes, stand
    beside the agent's in the log and in ``evaluations.csv``; so does ``changed``, the share of its plans that
    cut elsewhere than the tuned planner would there, and ``cpu_s``, the CPU seconds of the training so far, of all
    processes that went on with it.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        super().__init__()
        self.path = folder / EVALUATIONS
        self.folder = folder
        self.run_ = run
        self.best_s = np.inf
        self.last_steps = -1
        self.lines_s: dict[str, float] = {}
        self.began_s = 0.0  # on this process's CPU clock, if it had done all

    def _on_training_start(self) -> None:
        self.began_s = time.process_time()
        prepared = prepare(self.run_.scenario)
        opponents = {
            "replan": load_constants(self.run_.scenario, "replan"),
            "tuned": self.run_.constants,
        }
        for name, constants in opponents.items():
            self.lines_s[name] = float(dev_j(self.run_, priced_plans(constants, prepared)).mean())
        if self.path.is_file():  # resumed: what came after the checkpoint is played again
            rows = [row for row in read_evaluations(self.path) if row["steps"] <= self.num_timesteps]
            self.best_s = min((row["j_s"] for row in rows), default=np.inf)
            self.began_s -= max((row["cpu_s"] for row in rows), default=0.0)
            write_rows(self.path, rows)

    def _on_rollout_start(self) -> None:
        model: Any = self.model
        assert isinstance(self.run_.config, PPOConfig)
        if model.num_timesteps // (model.n_steps * model.n_envs) % self.run_.config.dev_every == 0:
            self.evaluate()

    def _on_step(self) -> bool:
        return True

    def evaluate(self) -> None:
        """Play, log, and keep the weights if they are the best."""
        if self.model.num_timesteps == self.last_steps:
            return
        self.last_steps = self.model.num_timesteps
        planner = BatchPlanner(prepare(self.run_.scenario).world, self.run_.constants)
        decide = decider(self.run_, self.model)
        changed: list[float] = []
        decisions = itertools.count()

        def compared(world: World, problems: Problems) -> Plans:
            cuts, levels = decide(world, problems)
            if next(decisions) % COMPARE_EVERY == 0:
                changed.append(float((cuts != planner.plans(problems)[0]).any(axis=1).mean()))
            return cuts, levels

        j_s = float(dev_j(self.run_, compared).mean())
        self.note(j_s, float(np.mean(changed)))

    def begin(self, j_s: float) -> None:
        """Note J of an agent that does what the tuned planner does, unless the file has it."""
        if not self.path.is_file():
            self.note(j_s, 0.0)

    def note(self, j_s: float, changed: float) -> None:
        """Log an evaluation, and keep the weights if they are the best."""
        row = {
            "steps": float(self.model.num_timesteps),
            "j_s": j_s,
            "replan_j_s": self.lines_s["replan"],
            "tuned_j_s": self.lines_s["tuned"],
            "changed": changed,
            "cpu_s": time.process_time() - self.began_s,
        }
        if (
            j_s < self.best_s
        ):  # before the row that says so: whenever this is interrupted, what it names is there
            self.best_s = j_s
            save_policy(self.folder / "model.zip", self.model, self.run_)  # type: ignore[arg-type]
        rows = read_evaluations(self.path) if self.path.is_file() else []
        if not any(seen["steps"] == row["steps"] for seen in rows):
            write_rows(self.path, [*rows, row])
        for name, value in row.items():
            if name not in ("steps", "cpu_s"):
                self.logger.record(f"dev/{name}", value)


def dev_j(run: Run, decide: Decider) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return J of each development episode in seconds."""
    chosen = episodes(run.scenario, "dev", run.config.dev_episodes, DEV_SEED)
    return play(prepare(run.scenario), chosen, "dev", decide).j_s


def decider(run: Run, model: Any) -> Decider:
    """Return the model as a function from a batch of problems to its most likely plans."""
    interface = make_interface(
        run.algorithm, prepare(run.scenario).world, run.scenario.forecast_epochs, run.constants, model
    )
    predict = predictor(model)
    return lambda world, problems: interface.decide(problems, predict)


def read_evaluations(path: Path) -> list[dict[str, float]]:
    """Return the rows of an ``evaluations.csv``."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows as CSV, atomically; no rows, no file."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def train(
    model: OnPolicyAlgorithm,
    run: Run,
    folder: Path,
    callbacks: list[BaseCallback] | None = None,
    checkpoint_share: float = CHECKPOINT_SHARE,
    progress_bar: bool = True,
) -> None:
    """Train up to `run.config.steps` steps in all, logging to CSV and TensorBoard under `folder`.

    Leaves ``model.zip`` (best on development episodes), ``last.zip``, a checkpoint and ``evaluations.csv``.
    """
    logs = folder / "logs" if model.num_timesteps == 0 else folder / f"logs-{model.num_timesteps}"
    model.set_logger(configure(str(logs), ["csv", "tensorboard"]))
    evaluation = DevEvaluation(folder, run)
    left = run.config.steps - model.num_timesteps
    try:
        if left > 0:
            model.learn(
                left,
                callback=[evaluation, Checkpoint(folder, checkpoint_share), *(callbacks or [])],
                reset_num_timesteps=False,
                progress_bar=progress_bar,
            )
            evaluation.evaluate()
            save_checkpoint(folder, model)
    finally:
        save_policy(folder / "last.zip", model, run)
        model.logger.close()


def train_learner(
    learner: Learner,
    run: Run,
    folder: Path,
    after: Callable[[Learner], None] = lambda learner: None,
    checkpoint_share: float = CHECKPOINT_SHARE,
    progress_bar: bool = True,
) -> None:
    """Train what learns without PPO as `train` does by it: the same logs, evaluations, policies and checkpoint.

    Parameters
    ----------
    after
        Called each time the learner advanced.
    """
    logs = folder / "logs" if learner.num_timesteps == 0 else folder / f"logs-{learner.num_timesteps}"
    learner.logger = configure(str(logs), ["csv", "tensorboard"])
    evaluation: Any = DevEvaluation(folder, run)
    evaluation.model, evaluation.num_timesteps = learner, learner.num_timesteps
    evaluation._on_training_start()
    if learner.num_timesteps == 0:  # untrained it is the tuned planner: no need to play it
        evaluation.begin(evaluation.lines_s["tuned"])
    saver = Saver(lambda: save_learner(folder, learner), checkpoint_share)
    columns = (TextColumn(run.algorithm), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, transient=True, disable=not progress_bar) as bar:
            task = bar.add_task("", total=decisions_of(run.config), completed=learner.num_timesteps)
            while not learner.over:
                saver()
                if learner.advance():
                    evaluation.evaluate()
                    learner.logger.record("time/total_timesteps", learner.num_timesteps)
                    learner.logger.dump(learner.num_timesteps)
                bar.update(task, completed=learner.num_timesteps)
                after(learner)
        save_learner(folder, learner)
    finally:
        save_policy(folder / "last.zip", learner, run)
        learner.logger.close()


def save_learner(folder: Path, learner: Learner) -> None:
    """Write all that `train_learner` goes on from."""

    def save(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data", json.dumps({"num_timesteps": learner.num_timesteps}))

    replace_checkpoint(folder, save, learner)


def load_learner(folder: Path) -> Learner:
    """Return the learner of a checkpoint.

    Raises
    ------
    ValueError
        As `steps_done`.
    """
    learner: Learner = read_state(folder)
    return learner


def train_all(
    runs: Sequence[Run],
    folders: Sequence[Path],
    jobs: int,
    backend: Backend = "loky",
    console: Console | None = None,
) -> None:
    """Train every run in its folder as `train_in`, `jobs` at once, by joblib; with a console, a progress bar each.

    Parameters
    ----------
    backend : {"loky", "ray", "dask"}
        Processes of this machine, or a Ray or Dask cluster that shares the folders.
    """
    if len(runs) == 1:
        train_in(runs[0], folders[0], progress_bar=console is not None)
        return
    start_backend(backend, jobs)
    try:
        with parallel_config(backend=backend, n_jobs=jobs), progress_of(runs, folders, console):
            Parallel()(
                delayed(train_in)(run, folder, progress_bar=False)
                for run, folder in zip(runs, folders, strict=True)
            )
    except KeyboardInterrupt:  # it ended the other processes before they could write their last weights
        for run, folder in zip(runs, folders, strict=True):
            keep_last(run, folder)
        raise


def keep_last(run: Run, folder: Path) -> None:
    """Write the weights of the checkpoint, if there is one, as ``last.zip``."""
    if not (folder / CHECKPOINT).is_file():
        return
    if isinstance(run.config, PPOConfig):
        save_policy(folder / "last.zip", load_model(folder / CHECKPOINT, run.algorithm), run)
    else:
        save_policy(folder / "last.zip", load_learner(folder), run)


def start_backend(backend: Backend, jobs: int) -> None:
    """Connect joblib to the cluster that RAY_ADDRESS or DASK_SCHEDULER_ADDRESS names, or to a local one."""
    check_backend(backend)
    if backend == "ray":
        from ray.util.joblib import register_ray  # type: ignore[import-not-found]

        register_ray()
    elif backend == "dask":
        from dask.distributed import Client  # type: ignore[import-not-found]

        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        Client(address) if address else Client(n_workers=jobs, threads_per_worker=1)


@contextlib.contextmanager
def progress_of(runs: Sequence[Run], folders: Sequence[Path], console: Console | None) -> Iterator[None]:
    """Show how far runs in other processes are, from the logs they write, while the block runs."""
    if console is None:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    over = threading.Event()
    with Progress(*columns, console=console, transient=True) as progress:
        tasks = [progress.add_task(f"seed {run.seed}", total=decisions_of(run.config)) for run in runs]

        def follow() -> None:
            while not over.wait(1.0):
                for task, folder in zip(tasks, folders, strict=True):
                    progress.update(task, completed=steps_logged(folder))

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def steps_logged(folder: Path) -> int:
    """Return the training steps the logs of a run folder tell of, 0 where there are none yet."""
    most = 0
    for path in folder.glob("logs*/progress.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                steps = row.get("time/total_timesteps")
                most = max(most, int(float(steps)) if steps else 0)
    return most


def train_in(run: Run, folder: Path, progress_bar: bool) -> None:
    """Train one run in its folder, which is new or of this very run: from its checkpoint, or from the start."""
    torch.set_num_threads(1)  # these networks are too small for more
    begun = (folder / CHECKPOINT).is_file()
    if not isinstance(run.config, PPOConfig):
        learner = load_learner(folder) if begun else new_learner(run)
        train_learner(learner, run, folder, progress_bar=progress_bar)
        return
    model = load_checkpoint(folder, run) if begun else new_model(run)
    train(model, run, folder, progress_bar=progress_bar)


def draw_curve(folder: Path) -> None:
    """Draw J on development episodes over training steps into ``curve.png``, if anything was evaluated."""
    if not (folder / EVALUATIONS).is_file():
        return
    from matplotlib.figure import Figure

    rows = read_evaluations(folder / EVALUATIONS)
    steps = [row["steps"] for row in rows]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, [row["j_s"] for row in rows], marker="o", label="agent")
    axes.axhline(rows[0]["replan_j_s"], color="tab:red", linestyle="--", label="replan-astar")
    axes.axhline(rows[0]["tuned_j_s"], color="tab:green", linestyle=":", label="tuned prices")
    axes.set(xlabel="training steps", ylabel="J on development windows (s)")
    axes.legend()
    figure.savefig(folder / "curve.png", dpi=120)


def save_policy(path: Path, model: OnPolicyAlgorithm | Learner, run: Run) -> None:
    """Save the policy with its card: everything another machine needs to play it, or to train it again."""
    temporary = path.with_name(f".{path.name}")
    card = Card(
        algorithm=run.algorithm,
        constants=asdict(run.constants),
        scenario=run.scenario.name,
        scenario_hash=run.scenario.hash(),
        steps=model.num_timesteps,
        seed=run.seed,
        command=train_command(run),
    )
    write_policy(temporary, model, card)
    os.replace(temporary, path)


def train_command(run: Run) -> str:
    """Return the command that trains a run again, given its scenario by name."""
    words = ["python", "train.py", "--algo", run.algorithm, "--scenario", run.scenario.name]
    words += ["--seed", str(run.seed)]
    usual = (DEFAULTS[run.algorithm], default_config(run.algorithm, run.scenario))
    for name, value in asdict(run.config).items():
        if all(getattr(config, name) == value for config in usual):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)
