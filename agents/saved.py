"""A saved policy: one zip that carries the network, its action encoding and the world it was trained on."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from stable_baselines3 import PPO

from sat_env import encodings, observation
from sat_env.plan import Plan
from sat_env.policy import PolicySpec
from sat_env.problem import PlanningProblem

MEMBER = "sat_env.json"


@dataclass(frozen=True)
class Card:
    """What a policy file says of itself."""

    algorithm: str
    action: encodings.Encoding
    scenario: str
    scenario_hash: str
    steps: int
    seed: int


def write_card(path: Path, card: Card) -> None:
    """Put the card into a stable-baselines3 zip."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MEMBER, json.dumps(asdict(card), indent=1))


def read_card(path: Path) -> Card:
    """Read the card of a policy file.

    Raises
    ------
    ValueError
        Missing file, not a zip, or a zip without a card.
    """
    if not path.is_file():
        raise ValueError(f"agent = {str(path)!r}: must be an existing policy file")
    try:
        with zipfile.ZipFile(path) as archive:
            return Card(**json.loads(archive.read(MEMBER)))
    except (zipfile.BadZipFile, KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"agent = {str(path)!r}: must be a policy saved by train.py") from None


class SavedPolicy:
    """A trained PPO behind the policy protocol: it reads the problem, encoded as the environment does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.card = read_card(path)
        self.name = path.stem if path.stem != "model" else f"ppo-{self.card.action}"
        self.model = PPO.load(path, device="cpu")

    def reset(self, spec: PolicySpec, seed: int) -> None:
        """Check that the policy fits the chain and the model of the scenario.

        Raises
        ------
        ValueError
            The observation has another size than the one the policy was trained on.
        """
        trained = self.model.observation_space
        now = observation.observation_space(spec.slots)
        if trained != now:
            raise ValueError(
                f"agent = {self.name!r}: was trained on other observations than {spec.scenario} gives "
                f"({spec.slots} slots)"
            )

    def act(self, problem: PlanningProblem) -> Plan:
        """Return the network's most likely plan."""
        if problem.problems is None or problem.world is None:
            raise ValueError(
                "act: a learned agent needs a problem of an environment, not one built from arrays"
            )
        flat = observation.encode(problem.world, problem.problems, problem.forecast_epochs)
        action, _ = self.model.predict(observation.split(flat, problem.slots), deterministic=True)
        cuts = np.zeros((1, problem.slots), np.int64)
        levels = np.zeros((1, problem.slots), np.int64)
        encodings.decode(
            problem.world, self.card.action, action, problem.problems.previous_cuts, cuts, levels
        )
        return Plan(tuple(cuts[0].tolist()), tuple(levels[0].tolist()))
