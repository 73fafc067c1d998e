"""The clairvoyant: look-ahead on the true future. A reference for what could be won, not a competitor.

Every epoch it tries a stated set of plans on the true trace, each followed by the priced planner for
``epochs - 1`` more jobs, and takes the best. The set: what every competitor it was given would do in its
place, the exact plans under a menu of prices (`baselines.branches.menu`), the plan before, and declining the job. With
``epochs = 1`` it knows the fate of the current job only: what is left between the two lies across epochs.
"""

from __future__ import annotations

from collections.abc import Sequence

from baselines.branches import Branches, best, menu
from baselines.priced import Constants
from sat_env.plan import Plan
from sat_env.policy import Policy, PolicySpec
from sat_env.problem import Problems
from sat_env.simulator import Simulator
from sat_env.state import State
from sat_env.trace import Trace


class Clairvoyant:
    """See the module. It is a `sat_env.evaluation.runner.Reference`: it is handed the simulator itself.

    Parameters
    ----------
    tuned : sequence of Constants
        Prices the candidates are made under, the first also for the jobs that follow.
    competitors : sequence of Policy
        Policies that are asked every epoch, on the way this reference takes.
    epochs : int
        How many jobs are simulated, the current one included.
    """

    def __init__(
        self, name: str, tuned: Sequence[Constants], competitors: Sequence[Policy] = (), epochs: int = 8
    ) -> None:
        if epochs < 1:
            raise ValueError(f"epochs = {epochs}: must be at least 1")
        self.name = name
        self.epochs = epochs
        self._menu = menu(tuned)
        self._competitors = tuple(competitors)
        self.settings = (
            self._menu,
            [(policy.name, getattr(policy, "settings", None)) for policy in competitors],
            epochs,
        )
        self._branches: Branches | None = None

    def reset(self, spec: PolicySpec, seed: int) -> None:
        """Begin an episode, with all competitors."""
        self._branches = None
        for policy in self._competitors:
            policy.reset(spec, seed)

    def act_knowing(self, simulator: Simulator) -> Plan | None:
        """Return the best candidate on the true trace; the simulator (B = 1) is not changed."""
        state = State(*simulator.state)
        now = Problems(*simulator.problems)
        problem = simulator.problem()
        if self._branches is None:
            self._branches = Branches(simulator.world, self._menu[0])
        plans = self._branches.plans(problem.costs, now, self._menu)
        previous = Plan(tuple(now.previous_cuts[0].tolist()), tuple(now.previous_levels[0].tolist()))
        asked = [policy.act(problem) for policy in self._competitors]
        candidates: list[Plan | None] = list(dict.fromkeys((*plans, previous, *asked, None)))
        rolled = self._branches.roll(Trace(*simulator.trace), state, now, candidates, self.epochs)
        return candidates[best(rolled)]
