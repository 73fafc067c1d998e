"""Look-ahead: candidate plans tried on the forecast, this job and the next ones, before one is chosen.

Every epoch the exact plans under a menu of prices, the plan before, the best static one and declining the
job are simulated through this job and the next ``epochs - 1``, later jobs under the priced planner, in a world as
`baselines.imagination` has it: without surprises. Reloads, backlog, batteries and coming chain changes are thereby
accounted for; luck is not. What became of satellites that left the chain is remembered from this policy's own
plans.
"""

from __future__ import annotations

from collections.abc import Sequence

from baselines.branches import Branches, best, menu
from baselines.imagination import imagined_traces, know, unseen_states
from baselines.priced import Constants
from sat_env.plan import Plan
from sat_env.policy import PolicySpec
from sat_env.problem import PlanningProblem
from sat_env.state import State


class LookAhead:
    """See the module.

    Parameters
    ----------
    tuned : sequence of Constants
        Prices the candidates are made under, the first also for the jobs that follow.
    also : sequence of Plan
        Further candidates of every epoch.
    epochs : int
        How many jobs are simulated, this one included; at most what the problem forecasts is used.
    """

    def __init__(self, name: str, tuned: Sequence[Constants], also: Sequence[Plan] = (), epochs: int = 8):
        if epochs < 1:
            raise ValueError(f"epochs = {epochs}: must be at least 1")
        self.name = name
        self.epochs = epochs
        self._menu = menu(tuned)
        self._also = tuple(also)
        self.settings = (self._menu, self._also, epochs)
        self._branches: Branches | None = None
        self._state: State | None = None

    def reset(self, spec: PolicySpec, seed: int) -> None:
        """Forget the episode before."""
        self._state = None
        self._branches = None

    def act(self, problem: PlanningProblem) -> Plan | None:
        """Return the candidate with the least mean latency on the forecast."""
        world, now = problem.world, problem.problems
        assert world is not None and now is not None, "look-ahead needs the orbits behind a problem"
        if self._state is None:
            self._state = unseen_states(world, now)
        know(world, now, self._state)
        if self._branches is None:
            self._branches = Branches(world, self._menu[0])
        plans = self._branches.plans(problem.costs, now, self._menu)
        previous = Plan(tuple(now.previous_cuts[0].tolist()), tuple(now.previous_levels[0].tolist()))
        candidates: list[Plan | None] = list(dict.fromkeys((*plans, previous, *self._also, None)))
        epochs = min(self.epochs, problem.forecast_epochs)
        rolled = self._branches.roll(imagined_traces(world, now), self._state, now, candidates, epochs)
        chosen = best(rolled)
        self._state = State._make(field[chosen : chosen + 1].copy() for field in rolled.after)
        return candidates[chosen]
