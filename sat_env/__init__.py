"""Running large models on satellites: a Gymnasium environment with planners and agents.

>>> import gymnasium
>>> env = gymnasium.make("sat_env:sat_env/WalkerOutage-v0")
"""

import gymnasium

from sat_env.env import SatEnv, SatVectorEnv
from sat_env.plan import Plan
from sat_env.problem import PlanningProblem
from sat_env.scenario import Scenario, ScenarioError, load_scenario, scenario_names

__all__ = [
    "Plan",
    "PlanningProblem",
    "SatEnv",
    "SatVectorEnv",
    "Scenario",
    "ScenarioError",
    "load_scenario",
    "scenario_names",
]
__version__ = "0.1.0"

for _name in scenario_names():
    gymnasium.register(
        id=f"sat_env/{_name}-v0",
        entry_point="sat_env.env:SatEnv",
        vector_entry_point="sat_env.env:SatVectorEnv",
        kwargs={"scenario": _name},
    )
