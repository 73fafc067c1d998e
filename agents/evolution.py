"""Price rules by evolution: what changes J is tried on whole episodes, and nothing else is learned from.

Every generation draws rules (`agents.rules`) around a mean and lets each play the same new episodes of training
windows, side by side; the better ones move the mean and shape the search (CMA-ES: Hansen, arXiv 1604.00772, by the
package cmaes). Weather, outages and arrivals are common to all, so that their luck drops out of the order. A
rule's effect on batteries, backlogs and loads counts however late it shows: there is no discount and no critic.

The mean itself plays those episodes beside the tuned planner, before it has seen them. What it gained in the last
generations says whether it is offered at all: where nothing is gained for sure, the agent is the tuned planner.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from cmaes import CMA  # type: ignore[import-untyped]
from numpy.typing import NDArray

from agents.config import EvolutionConfig
from agents.interface import Flat, Ints
from agents.planner import Array
from agents.rules import NAMES, PriceRule, RuledPrices
from baselines.priced import Constants
from sat_env.simulator import Simulator
from sat_env.world import Prepared, prepare

SURE = 2.0  # standard errors by which the mean must have gained


class Evolution:
    """A search for the rule with the least J on training windows, one generation at a time.

    All it depends on is in its attributes, so that a pickle of it goes on exactly.

    Parameters
    ----------
    prepared : Prepared
    constants : Constants
        Of the tuned planner.
    config : EvolutionConfig
    seed : int
        Of everything random here.
    first_seed : int
        Episode i of generation g is the trace of seed first_seed + g * worlds + i.
    """

    def __init__(
        self, prepared: Prepared, constants: Constants, config: EvolutionConfig, seed: int, first_seed: int
    ) -> None:
        self.prepared, self.constants, self.config, self.first_seed = prepared, constants, config, first_seed
        self.search = CMA(
            mean=np.zeros(len(NAMES)), sigma=config.sigma, seed=seed, population_size=config.population
        )
        self.generation = 0
        self.gains_s: list[Array] = []  # (worlds,) J of the mean less the tuned planner's, by generation
        self.offered: PriceRule | None = None  # None: the tuned planner
        self.logger: Any = None  # of stable-baselines3, while training

    def __getstate__(self) -> dict[str, Any]:
        # A pickled CMA loses its random state and half of its matrix: its attributes are pickled instead.
        scenario = self.prepared.scenario
        return {**vars(self), "search": vars(self.search), "prepared": scenario, "logger": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        search = CMA.__new__(CMA)
        vars(search).update(state["search"])
        vars(self).update(state, search=search, prepared=prepare(state["prepared"]))

    @property
    def num_timesteps(self) -> int:
        """Decisions played so far; named as in stable-baselines3."""
        played = (self.config.population + 2) * self.config.worlds
        return self.generation * played * self.prepared.scenario.episode_epochs

    @property
    def over(self) -> bool:
        """As many decisions as were asked for are played, in whole generations."""
        return self.num_timesteps >= self.config.steps

    @property
    def rule(self) -> PriceRule:
        """The rule so far."""
        return self.offered or PriceRule.untrained()

    def predict(self, flat: Flat, deterministic: bool = True) -> tuple[NDArray[np.float32], None]:
        """Return what the rule so far says, as `PriceRule.predict`."""
        return self.rule.predict(flat)

    def save(self, path: Path) -> None:
        """Write the rule so far, as `PriceRule.save`."""
        self.rule.save(path)

    def advance(self) -> bool:
        """Play one generation; return whether the rule is to be evaluated."""
        mean = self.search.mean.copy()
        drawn = [self.search.ask() for _ in range(self.config.population)]
        j_s = self.j_s([np.zeros(len(NAMES)), mean, *drawn])
        self.search.tell(
            [(rule, float(worth)) for rule, worth in zip(drawn, j_s[2:].mean(axis=1), strict=True)]
        )
        self.gains_s.append(j_s[1] - j_s[0])
        self.generation += 1
        if self.generation % self.config.dev_every and not self.over:
            return False
        recent = np.concatenate(self.gains_s[-self.config.dev_every :])
        gain_s, error_s = float(recent.mean()), float(recent.std(ddof=1)) / math.sqrt(len(recent))
        surely = gain_s + SURE * error_s < 0.0
        self.offered = PriceRule(self.search.mean.copy()) if surely else None
        if self.logger is not None:
            self.logger.record("train/unseen_gain_s", gain_s)
            self.logger.record("train/unseen_gain_error_s", error_s)
        return True

    def j_s(self, rules: list[Array]) -> Array:
        """Return J (R, worlds) of R rules on this generation's episodes, in seconds."""
        count = self.config.worlds
        seeds = self.first_seed + self.generation * count + np.arange(count)
        simulator = Simulator(self.prepared, len(rules) * count, "train")
        simulator.begin(seeds=np.tile(seeds.astype(np.uint64), len(rules)))
        interface = RuledPrices(self.prepared.world, self.prepared.scenario.forecast_epochs, self.constants)
        played = [PriceRule(weights) for weights in rules]
        total_s = np.zeros(len(rules) * count)
        for _ in range(self.prepared.scenario.episode_epochs):
            flats = np.split(interface.observe(simulator.problems), len(rules))
            actions = [rule.predict(flat)[0] for rule, flat in zip(played, flats, strict=True)]
            plans: tuple[Ints, Ints] = interface.plans(simulator.problems, np.concatenate(actions))
            simulator.step(*plans)
            total_s += simulator.outcome.latency_s
        j_s: Array = total_s.reshape(len(rules), count) / self.prepared.scenario.episode_epochs
        return j_s
