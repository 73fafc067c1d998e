"""Learned choice by rollouts: candidate plans are tried in branched worlds, and a network learns which pay.

At decisions met on training windows, every candidate plan (`agents.candidates`) is run on the same true trace,
the tuned planner follows for a few jobs, and a critic values where that leads. The difference to the tuned
plan, in the same weather, outages and arrivals, is the candidate's advantage; what luck is left averages out over
decisions that look alike. A network learns it from what is known at the decision, and the agent takes the
best candidate where the tuned plan is beaten by more than a margin. The agent's own decisions are where the
next round is tried, with common random numbers; the tuned planner always follows, so every round is one step of
improvement on it (rollout, as in Bertsekas and Tsitsiklis, "Neuro-Dynamic Programming", 1996, section 6.2; learned as
by Lagoudakis and Parr, "Reinforcement Learning as Classification", ICML 2003).

With `rule_steps` a price rule is evolved first (`agents.evolution`), and from then on takes the tuned planner's place:
candidates are plans under prices around its own, and it follows in every branch.
"""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.candidates import DESCRIPTIONS, CandidateMaker, Candidates
from agents.config import EvolutionConfig, RolloutConfig
from agents.evolution import Evolution
from agents.interface import Flat, Ints, Predict
from agents.planner import Array
from agents.prices import FEATURES, features, situation
from agents.regression import FOLDS, Ensemble, fit, nothing
from agents.rules import PriceRule, RuledPrices
from baselines.batch import Plans
from baselines.branches import futures
from baselines.imagination import Imagination
from baselines.priced import Constants
from sat_env.handles import Handle
from sat_env.problem import Problems
from sat_env.simulator import NO_PLAN, Simulator, Snapshot
from sat_env.world import Prepared, World

WEIGHTS = "weights.npz"
RULE_SEEDS = 500_000  # from the first episode that is branched to the first that a rule is evolved on
MARGINS = np.array([0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3])  # reference latencies
IMAGINED = (1, 2, 4, 8)  # jobs of an imagined future over which a candidate's cost is summed
PAIR = len(FEATURES) + 2 * DESCRIPTIONS + len(IMAGINED)
"""Numbers known of a candidate beside the tuned plan."""
SPACES = (
    gymnasium.spaces.Box(-np.inf, np.inf, (PAIR,), np.float32),
    gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32),
)


class LearnedRollouts:
    """The interface of an agent that chooses among candidates by their predicted advantage.

    Parameters
    ----------
    world : World
    forecast_epochs : int
    constants : Constants
        Of the tuned planner.
    rule : PriceRule, optional
        Under whose prices the first candidate is planned; default: the constants themselves.

    Attributes
    ----------
    departs : bool
        Off: the first candidate is taken whatever is predicted, so that no other is made or imagined.
    """

    first_output: NDArray[np.float32] | None = None

    def __init__(
        self, world: World, forecast_epochs: int, constants: Constants, rule: PriceRule | None = None
    ) -> None:
        self.world, self.forecast_epochs, self.rule, self.departs = world, forecast_epochs, rule, True
        self.maker = CandidateMaker(world, constants)
        self.ruled = RuledPrices(world, forecast_epochs, constants)
        self.imagination = Imagination(world)
        self.observation_space: gymnasium.Space[Any] = SPACES[0]
        self.action_space: gymnasium.Space[Any] = SPACES[1]

    def candidates(self, problems: Problems) -> Candidates:
        """Return the candidates of N decisions."""
        if self.rule is None:
            return self.maker.make(problems)
        return self.maker.make(problems, *self.ruled.prices_of(self.rule, problems))

    def follow(self, world: World, problems: Problems) -> Plans:
        """Return the plans (N, K) of who follows in every future: the tuned planner, or the rule."""
        if self.rule is None:
            return self.maker.planner.plans(problems)
        return self.ruled.plans_of(self.rule, problems)

    def pairs(self, problems: Problems, candidates: Candidates) -> Flat:
        """Return what is known of each candidate beside the first one: (N, C, D)."""
        known = features(self.world, problems, self.forecast_epochs)[:, None]
        described = candidates.described
        repeated = np.broadcast_to(known, (*described.shape[:2], known.shape[2]))
        imagined = self.imagined(problems, candidates)
        return np.concatenate([repeated, described, described - described[:, :1], imagined], axis=2)

    def imagined(self, problems: Problems, candidates: Candidates) -> Flat:
        """Return what candidates cost beyond the first one in a future without surprises: (N, C, len(IMAGINED)).

        In epochs, over the first jobs of it; what was not offered costs nothing.
        """
        jobs = min(IMAGINED[-1], self.forecast_epochs)
        compared = candidates.offered & candidates.offered[:, 1:].any(axis=1, keepdims=True)
        rows, columns = np.nonzero(compared)
        plans = candidates.cuts[rows, columns], candidates.levels[rows, columns]
        latency_s = self.imagination.latencies_s(problems, rows, plans, jobs, self.follow)
        cost_s = np.zeros((*compared.shape, len(IMAGINED)))
        cost_s[rows, columns] = np.cumsum(latency_s, axis=1)[:, np.minimum(IMAGINED, jobs) - 1]
        beyond = np.where(compared[:, :, None], cost_s - cost_s[:, :1], 0.0) / self.world.epoch_s
        return np.clip(beyond, -8.0, 8.0).astype(np.float32)

    def decide(self, problems: Problems, predict: Predict) -> tuple[Ints, Ints]:
        """Return the plans (N, K) of the candidates with the least predicted cost."""
        if not self.departs:
            return self.follow(self.world, problems)
        candidates = self.candidates(problems)
        rows, columns = np.nonzero(candidates.offered[:, 1:])
        cost_s = np.full(candidates.offered.shape, np.inf)
        cost_s[:, 0] = 0.0
        if len(rows):
            pairs = self.pairs(problems, candidates)
            cost_s[rows, columns + 1] = predict(pairs[rows, columns + 1], None)
        chosen = cost_s.argmin(axis=1)
        each = np.arange(len(chosen))
        return candidates.cuts[each, chosen], candidates.levels[each, chosen]


class Chooser:
    """A trained choice, played as a stable-baselines3 model is.

    Parameters
    ----------
    ensemble : Ensemble
        Predicts what a candidate costs beyond the first one, in seconds.
    margin_s : float
        By which it must look better.
    rule : PriceRule, optional
        That plans the first candidate; default: the tuned planner does.
    """

    def __init__(self, ensemble: Ensemble, margin_s: float, rule: PriceRule | None = None) -> None:
        self.ensemble, self.margin_s, self.rule = ensemble, margin_s, rule
        self.observation_space, self.action_space = SPACES

    @property
    def departs(self) -> bool:
        """Whether any prediction makes it leave the first candidate."""
        return math.isfinite(self.margin_s)

    def predict(self, flat: Flat, deterministic: bool = True) -> tuple[NDArray[np.float32], None]:
        """Return the predicted cost (n,) of candidates (n, D), the margin added."""
        return self.ensemble.predict(flat) + np.float32(self.margin_s), None

    @classmethod
    def untrained(cls, rule: PriceRule | None = None) -> Chooser:
        """Return the choice that always takes the first candidate."""
        return cls(nothing(PAIR), math.inf, rule)

    def save(self, path: Path) -> None:
        """Write weights, margin and rule as a zip that needs nothing beside it."""
        parts: dict[str, Any] = {"margin_s": self.margin_s, **self.ensemble._asdict()}
        if self.rule is not None:
            parts["rule"] = self.rule.weights
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(WEIGHTS, "w") as file:
            np.savez(file, **parts)

    @classmethod
    def load(cls, path: Path) -> Chooser:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            An older version wrote it, whose candidates were described by other numbers.
        """
        with zipfile.ZipFile(path) as archive, archive.open(WEIGHTS) as file:
            found = np.load(io.BytesIO(file.read()), allow_pickle=False)
            weights = {name: found[name] for name in Ensemble._fields}
            if len(weights["mean"]) != PAIR:
                raise ValueError(
                    f"it knows {len(weights['mean'])} numbers of a candidate, must know {PAIR}; train it again"
                )
            weights |= {name: float(weights[name]) for name in ("unit", "middle")}
            rule = PriceRule(found["rule"]) if "rule" in found else None
            chooser = cls(Ensemble(**weights), float(found["margin_s"]), rule)
        chooser.predict(
            np.zeros((1, PAIR), np.float32)
        )  # weights of other shapes fail here, not in an episode
        return chooser


class Rollouts:
    """Policy iteration on training windows, one epoch of all its worlds at a time.

    A rule is evolved first, if one was asked for. The first episode is the planner's (tuned or ruled) and teaches the
    critic; in each of the following ones every decision is branched, and in the end critic and choice are fitted
    anew. All it depends on is in its attributes, so that a pickle of it goes on exactly.

    Parameters
    ----------
    prepared : Prepared
    constants : Constants
        Of the tuned planner.
    config : RolloutConfig
    seed : int
        Of everything random here.
    first_seed : int
        World i of episode r plays the trace of seed first_seed + r * num_envs + i.

    Raises
    ------
    ValueError
        Episodes are too short for ``value_epochs``.
    """

    def __init__(
        self, prepared: Prepared, constants: Constants, config: RolloutConfig, seed: int, first_seed: int
    ) -> None:
        epochs = prepared.scenario.episode_epochs
        if config.value_epochs >= 2 * epochs:
            raise ValueError(
                f"value_epochs = {config.value_epochs}: must be below {2 * epochs}, twice the epochs of an episode"
            )
        self.constants, self.config, self.seed, self.first_seed = constants, config, seed, first_seed
        self.round, self.t = -1, 0
        self.rng = np.random.default_rng(seed)
        self.simulator = Simulator(prepared, config.num_envs, "train")
        self.latency_s = np.zeros((config.num_envs, epochs))
        self.seen: list[Flat] = []  # situations (n, D) of this episode, by epoch
        self.critic_data: list[tuple[Flat, Array]] = []  # situations and what followed, by episode
        self.tried: list[tuple[Flat, Array, Ints, Ints]] = []  # pairs, advantages, worlds, decisions
        self.critic: Ensemble | None = None
        self.evolution: Evolution | None = None
        if config.rule_steps:
            self.evolution = Evolution(
                prepared, constants, EvolutionConfig(config.rule_steps), seed, first_seed + RULE_SEEDS
            )
        self.chooser = Chooser.untrained()
        self.logger: Any = None  # of stable-baselines3, while training
        self.wire(prepared)

    def wire(self, prepared: Prepared) -> None:
        """Make what is not part of the state."""
        self.prepared = prepared
        self.ahead = prepared.scenario.forecast_epochs
        self.handle = Handle(prepared.world)
        self.interface = LearnedRollouts(prepared.world, self.ahead, self.constants, self.rule)
        self.folds = np.arange(self.config.num_envs) % FOLDS

    def __getstate__(self) -> dict[str, Any]:
        made = ("prepared", "handle", "interface", "logger")
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.logger = None
        self.wire(self.simulator.prepared)

    @property
    def rule(self) -> PriceRule | None:
        """The rule in the tuned planner's place."""
        return self.chooser.rule

    @property
    def departs(self) -> bool:
        """As of `Chooser`."""
        return self.chooser.departs

    @property
    def branched(self) -> int:
        """Decisions branched so far."""
        epochs = self.latency_s.shape[1]
        return self.config.num_envs * (max(self.round, 0) * epochs + (self.t if self.round >= 0 else 0))

    @property
    def num_timesteps(self) -> int:
        """Decisions played for the rule, and branched, so far; named as in stable-baselines3."""
        return self.branched + (self.evolution.num_timesteps if self.evolution is not None else 0)

    @property
    def over(self) -> bool:
        """As many decisions as were asked for are branched, in whole rounds."""
        return self.t == 0 and self.branched >= self.config.steps

    def predict(self, flat: Flat, deterministic: bool = True) -> tuple[NDArray[np.float32], None]:
        """Return what the choice so far says, as `Chooser.predict`."""
        return self.chooser.predict(flat)

    def save(self, path: Path) -> None:
        """Write the choice so far, as `Chooser.save`."""
        self.chooser.save(path)

    def advance(self) -> bool:
        """Advance the rule, or play one epoch of every world; return whether there is a new rule or chooser."""
        if self.evolution is not None and not self.evolution.over:
            return self.evolve(self.evolution)
        sim = self.simulator
        if self.t == 0:
            seeds = (
                self.first_seed + (self.round + 1) * self.config.num_envs + np.arange(self.config.num_envs)
            )
            sim.begin(seeds=seeds.astype(np.uint64))
            self.seen = []
        self.seen.append(situation(sim.world, sim.problems, self.ahead))
        plans = self.interface.follow(sim.world, sim.problems) if self.round < 0 else self.branch()
        sim.step(*plans)
        self.latency_s[:, self.t] = sim.outcome.latency_s
        self.t += 1
        if self.t < self.latency_s.shape[1]:
            return False
        self.learn()
        self.round, self.t = self.round + 1, 0
        return self.round > 0

    def evolve(self, evolution: Evolution) -> bool:
        """Play a generation of the rule; return whether it was judged. The last one that gained for sure stays."""
        evolution.logger = self.logger
        judged = evolution.advance()
        if judged and evolution.offered is not None:
            self.chooser = Chooser.untrained(evolution.offered)
            self.interface.rule = self.rule
        return judged

    def branch(self) -> Plans:
        """Try candidates of every world's decision; return the plans the walk goes on with."""
        sim, config = self.simulator, self.config
        candidates = self.interface.candidates(sim.problems)
        pairs = self.interface.pairs(sim.problems, candidates)
        count = len(pairs)
        cost_s = np.where(candidates.offered, 0.0, np.inf)
        rows, columns = np.nonzero(candidates.offered[:, 1:])
        cost_s[rows, columns + 1] = self.predict(pairs[rows, columns + 1])[0]
        chosen = cost_s.argmin(axis=1)
        # Candidates that look best are tried more often than others; exponential races draw without repetition.
        likely = np.where(candidates.offered, np.exp(-np.clip(cost_s, -50.0, 200.0) / self.near_s), 0.0) + (
            0.05 * candidates.offered
        )
        likely[:, 0] = 0.0
        with np.errstate(divide="ignore"):
            race = self.rng.exponential(size=likely.shape) / likely
        order = race.argsort(axis=1)[:, : config.candidates]
        tried = np.isfinite(np.take_along_axis(race, order, 1))
        world, place = np.nonzero(tried)
        column = order[world, place]
        which = np.concatenate([np.arange(count), world])
        column_all = np.concatenate([np.zeros(count, np.int64), column])
        cost = self.futures_s(which, candidates.cuts[which, column_all], candidates.levels[which, column_all])
        advantage_s = cost[count:] - cost[world]
        decision = self.branched + world
        self.tried.append((pairs[world, column], advantage_s, world, decision))
        each = np.arange(count)
        other = order[:, 0]
        explores = (self.rng.random(count) < config.explore) & tried[:, 0]
        explores &= candidates.cuts[each, other, 0] != NO_PLAN
        chosen = np.where(explores, other, chosen)
        return candidates.cuts[each, chosen], candidates.levels[each, chosen]

    @property
    def near_s(self) -> float:
        """Predicted costs within this are not told apart when candidates are drawn to be tried."""
        return 0.15 * self.prepared.scenario.reference_latency_s

    def futures_s(self, which: Ints, cuts: Ints, levels: Ints) -> Array:
        """Return (F,) what a plan costs on the true trace: its job, those that follow, and what the critic says."""
        assert self.critic is not None
        world, config = self.prepared.world, self.config
        start = rows_of(self.simulator.snapshot(), which)
        beyond = start.problems.epochs_left - config.branch_epochs  # jobs that no branch reaches
        jobs = futures(
            world,
            self.handle,
            start.trace,
            start.state,
            start.problems,
            (cuts, levels),
            config.branch_epochs,
            self.interface.follow,
        )
        total: Array = sum(jobs, start=np.zeros(len(which)))
        if beyond.any():
            seen = situation(world, start.problems, self.ahead)
            total += self.critic.predict(seen) * np.clip(beyond / config.value_epochs, 0.0, 1.0)
        return total

    def learn(self) -> None:
        """Fit the critic to what followed, and the choice to the advantages."""
        config = self.config
        horizon = config.value_epochs
        cumulated = np.concatenate(
            [np.zeros((config.num_envs, 1)), np.cumsum(self.latency_s, axis=1)], axis=1
        )
        epochs = self.latency_s.shape[1] - horizon // 2  # later ones see too little of what follows
        ends = np.minimum(np.arange(epochs) + horizon, self.latency_s.shape[1])
        followed = (cumulated[:, ends] - cumulated[:, :epochs]) * horizon / (ends - np.arange(epochs))
        self.critic_data.append((np.concatenate(self.seen[:epochs]), followed.T.reshape(-1)))
        recent = self.critic_data[-3:]
        x, y = (np.concatenate(part) for part in zip(*recent, strict=True))
        fold = np.tile(self.folds, len(x) // config.num_envs)
        fit_seed = 1000 * self.seed + self.round + 1
        self.critic = fit(x, y, fold, config.width, config.passes, fit_seed)
        if not self.tried:
            return
        pairs, advantage_s, world, decision = (np.concatenate(part) for part in zip(*self.tried, strict=True))
        fold = self.folds[world]
        bound_s = 2.0 * self.prepared.scenario.jobs.deadline_s
        ensemble = fit(
            pairs, np.clip(advantage_s, -bound_s, bound_s), fold, config.width, config.passes, fit_seed
        )
        unseen_s = ensemble.each(pairs)[fold, np.arange(len(fold))]  # by the member that did not learn it
        margin_s, gain_s = best_margin(
            unseen_s, advantage_s, decision, world, self.prepared.scenario.reference_latency_s * MARGINS
        )
        self.chooser = Chooser(ensemble, margin_s, self.rule)
        if self.logger is not None:
            self.logger.record("train/samples", len(advantage_s))
            self.logger.record("train/margin_s", margin_s)
            self.logger.record("train/unseen_advantage_s", gain_s)


def best_margin(
    cost_s: NDArray[np.floating[Any]], advantage_s: Array, decision: Ints, world: Ints, margins_s: Array
) -> tuple[float, float]:
    """Return the margin under which unseen decisions gain most for sure, and what they gain on average.

    For sure: the mean advantage plus its standard error, worlds being the independent draws. Where no margin
    gains, it is infinite: the tuned plan is always taken.

    Parameters
    ----------
    cost_s : (n,)
        Predicted for candidates by who did not learn from them.
    advantage_s : (n,)
        What they cost beyond the tuned plan.
    decision, world : (n,)
        Of which decision and world each is a candidate.
    margins_s : (M,)
        To choose from.
    """
    best_s, margin_s, gain_s = 0.0, math.inf, 0.0
    for tried_s in margins_s.tolist():
        each = chosen_gains_s(cost_s + tried_s, advantage_s, decision, world)
        mean_s = float(each.mean())
        sure_s = mean_s + float(each.std(ddof=1)) / math.sqrt(len(each))
        if sure_s < best_s:
            best_s, margin_s, gain_s = sure_s, tried_s, mean_s
    return margin_s, gain_s


def chosen_gains_s(
    cost_s: NDArray[np.floating[Any]], advantage_s: Array, decision: Ints, world: Ints
) -> Array:
    """Return, for each world, the mean advantage of the candidates with the least cost below zero.

    Every decision that was tried counts; one without such a candidate as 0.
    """
    order = np.lexsort((cost_s, decision))
    first = order[np.unique(decision[order], return_index=True)[1]]
    gain_s = np.where(cost_s[first] < 0.0, advantage_s[first], 0.0)
    worlds, place = np.unique(world[first], return_inverse=True)
    return np.bincount(place, gain_s, len(worlds)) / np.bincount(place, minlength=len(worlds))


def rows_of(snapshot: Snapshot, which: Ints) -> Snapshot:
    """Return the snapshot of some of its worlds, repetitions allowed."""
    arrays = (snapshot.trace, snapshot.state, snapshot.problems)
    trace, state, problems = (type(part)._make(field[which] for field in part) for part in arrays)
    seeds, episodes, over = snapshot.seeds[which], snapshot.episodes[which], snapshot.over[which]
    return Snapshot(snapshot.scenario, trace, state, problems, seeds, episodes, over)
