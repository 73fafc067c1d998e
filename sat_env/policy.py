"""The one protocol of everything that decides: planners, schedules and learned agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sat_env.plan import Plan
from sat_env.problem import PlanningProblem


@dataclass(frozen=True)
class PolicySpec:
    """What a policy is told before an episode.

    Attributes
    ----------
    scenario : str
        Name of the scenario.
    slots, blocks, levels : int
        K, L and R.
    epochs : int
        Decisions of an episode.
    """

    scenario: str
    slots: int
    blocks: int
    levels: int
    epochs: int


class Policy(Protocol):
    """Decides one plan a problem. It sees PlanningProblems and nothing else.

    Results files tell policies of one name apart by a hash: of the file at `path` where there is one, of the class
    and the repr of `settings` where there are some, else of the file of the class.
    """

    name: str  # of its row in tables and results files; not empty

    def reset(self, spec: PolicySpec, seed: int) -> None:
        """Begin an episode. `seed` is the policy's own; it tells nothing of the episode's."""

    def act(self, problem: PlanningProblem) -> Plan | None:
        """Return the plan of this epoch's job; None declines the job, which then counts as its deadline."""
