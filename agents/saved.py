"""A saved policy: one zip that carries the network, what its actions mean and the world it was trained on."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.choice import LearnedChoice
from agents.config import ALGORITHMS, Algorithm
from agents.interface import Encoded, Flat, Interface, Predict
from agents.prices import LearnedPrices
from agents.residual import Residual
from agents.rollouts import Chooser, LearnedRollouts
from agents.rules import PriceRule, RuledPrices
from agents.slotwise import Slotwise
from agents.tokens import Tokens
from baselines.priced import Constants
from sat_env.plan import Plan
from sat_env.policy import PolicySpec
from sat_env.problem import PlanningProblem
from sat_env.simulator import NO_PLAN
from sat_env.world import World

MEMBER = "sat_env.json"

PICKLED = frozenset(
    (
        "agents.models.Falling",
        "agents.networks.ForesightPolicy",
        "agents.networks.FusedPolicy",
        "agents.networks.SlotTransformerPolicy",
        "collections.deque",
        "gymnasium.spaces.box.Box",
        "gymnasium.spaces.discrete.Discrete",
        "gymnasium.spaces.multi_discrete.MultiDiscrete",
        "numpy._core.multiarray.scalar",
        "numpy._core.numeric._frombuffer",
        "numpy.dtype",
        "numpy.random._pcg64.PCG64",
        "numpy.random._pickle.__bit_generator_ctor",
        "numpy.random._pickle.__generator_ctor",
        "numpy.random.bit_generator.SeedSequence",
        "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
        "sb3_contrib.common.maskable.buffers.MaskableRolloutBuffer",
        "sb3_contrib.common.maskable.policies.MaskableActorCriticPolicy",
        "stable_baselines3.common.buffers.RolloutBuffer",
        "stable_baselines3.common.policies.ActorCriticPolicy",
        "stable_baselines3.common.utils.ConstantSchedule",
        "stable_baselines3.common.utils.FloatSchedule",
    )
)
"""What the pickles in a file of stable-baselines3 may name: none of it runs what a stranger wrote."""


@dataclass(frozen=True)
class Card:
    """What a policy file says of itself."""

    algorithm: Algorithm
    constants: dict[str, float]  # of the planner it acts through
    scenario: str
    scenario_hash: str
    steps: int
    seed: int
    command: str = ""  # that trains it again


INTERFACES: dict[Algorithm, Callable[[World, int, Constants], Interface]] = {
    "prices": LearnedPrices,
    "choice": LearnedChoice,
    "residual": Residual,
    "rollouts": LearnedRollouts,
    "evolution": RuledPrices,
    "maskable": Slotwise,
    "ppo-transformer": Tokens,
    "imitation": lambda world, ahead, constants: Encoded(world, ahead, "plan"),
    "ppo": lambda world, ahead, constants: Encoded(world, ahead, "fractions"),
}

NUMPY_MODELS: dict[Algorithm, Any] = {"rollouts": Chooser, "evolution": PriceRule}
"""Models that are played with numpy alone, and save themselves."""


def make_interface(
    algorithm: Algorithm, world: World, forecast_epochs: int, constants: Constants, model: Any = None
) -> Interface:
    """Return how agents of an algorithm see and act in a world; rollouts act as the rule and margin of `model` say."""
    interface = INTERFACES[algorithm](world, forecast_epochs, constants)
    if model is not None and isinstance(interface, LearnedRollouts):
        interface.rule, interface.departs = model.rule, model.departs
    return interface


def load_model(path: Path, algorithm: Algorithm, **options: Any) -> Any:
    """Load the model of a policy file: of stable-baselines3, or one of `NUMPY_MODELS`."""
    if algorithm in NUMPY_MODELS:
        return NUMPY_MODELS[algorithm].load(path)
    from sb3_contrib import MaskablePPO
    from stable_baselines3 import PPO

    kind = MaskablePPO if algorithm == "maskable" else PPO
    return kind.load(path, device="cpu", custom_objects=unpickled(path), **options)


class _Unpickler(pickle.Unpickler):
    """Refuses to look up what is not in `PICKLED`."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in PICKLED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no network needs")
        return super().find_class(module, name)


def unpickled(path: Path) -> dict[str, Any]:
    """Return the pickled objects of a file of stable-baselines3, which would unpickle whatever it finds there."""
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
    return {
        name: _Unpickler(io.BytesIO(base64.b64decode(value[":serialized:"]))).load()
        for name, value in data.items()
        if isinstance(value, dict) and ":serialized:" in value
    }


def unseen_by_actor(model: Any) -> int:
    """Return how many of the last entries of an observation are for the critic alone."""
    return int(getattr(getattr(model, "policy", None), "unseen", 0))


def predictor(model: Any) -> Predict:
    """Return the most likely actions of a model as a function."""
    unseen = unseen_by_actor(model)

    def predict(flat: Flat, masks: NDArray[np.bool_] | None) -> NDArray[Any]:
        if unseen:  # the critic's part: what stands there is the same to the actor
            flat = np.pad(flat, ((0, 0), (0, unseen)))
        options = {} if masks is None else {"action_masks": masks}
        return np.asarray(model.predict(flat, deterministic=True, **options)[0])

    return predict


TRAINING_ONLY = (
    *("_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer"),
    *("start_time", "lr_schedule", "_num_timesteps_at_start"),
)
"""What stable-baselines3 saves of a model that playing does not need, the clock of its training among it."""


def write_policy(path: Path, model: Any, card: Card) -> None:
    """Write what playing needs: the network and the card. A policy file is never trained on: no optimiser state."""
    if card.algorithm in NUMPY_MODELS:
        model.save(path)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(MEMBER), json.dumps(asdict(card), indent=1))
        return
    saved = io.BytesIO()
    model.save(saved, exclude=TRAINING_ONLY)
    optimizer = io.BytesIO()
    groups = model.policy.optimizer.state_dict()["param_groups"]
    torch.save({"state": {}, "param_groups": groups}, optimizer)
    with zipfile.ZipFile(saved) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as light:
        for name in whole.namelist():
            kept = optimizer.getvalue() if name == "policy.optimizer.pth" else whole.read(name)
            light.writestr(zipfile.ZipInfo(name), kept, zipfile.ZIP_DEFLATED)
        light.writestr(zipfile.ZipInfo(MEMBER), json.dumps(asdict(card), indent=1))


def read_card(path: Path) -> Card:
    """Read the card of a policy file.

    Raises
    ------
    ValueError
        Missing file, not a zip, or a zip without a card, whole and as `write_policy` writes it.
    """
    if not path.is_file():
        raise ValueError(f"agent = {str(path)!r}: must be an existing policy file")
    try:
        with zipfile.ZipFile(path) as archive:
            card = Card(**json.loads(archive.read(MEMBER)))
            Constants(**card.constants)
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"agent = {str(path)!r}: must be a policy saved by train.py ({error})") from None
    if card.algorithm not in ALGORITHMS:
        raise ValueError(f"agent = {str(path)!r}: algorithm {card.algorithm!r} must be one of {ALGORITHMS}")
    return card


def resized(policy: Any, interface: Interface) -> Any:
    """Return a slot transformer with the same weights for the chain of `interface`."""
    if policy.observation_space == interface.observation_space:
        return policy
    from agents.networks import SlotTransformerPolicy

    size: Any = interface.observation_space
    action: Any = interface.action_space
    other = SlotTransformerPolicy(size, action, lambda _: 0.0, width=policy.width)
    other.load_state_dict(policy.state_dict())
    other.set_training_mode(False)
    return other


class SavedPolicy:
    """A trained network behind the policy protocol: it reads the problem as it did in training.

    Parameters
    ----------
    path : Path
    name : str, optional
        Of its row in a table; default: the algorithm for ``model.zip``, else the name of the file.

    Raises
    ------
    ValueError
        The file is no whole policy, or holds something else. Nothing that a stranger wrote into it is run.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.card = read_card(path)
        self.name = name or (self.card.algorithm if path.stem == "model" else path.stem)
        try:
            self.model = load_model(path, self.card.algorithm)
        except (
            Exception
        ) as error:  # torch, numpy, zipfile and pickle each have errors of their own for a bad file
            raise ValueError(
                f"agent = {str(path)!r}: must be a policy saved by train.py ({error})"
            ) from error
        self._world: World | None = None
        self._interface: Interface | None = None

    def reset(self, spec: PolicySpec, seed: int) -> None:
        """Nothing is carried over: the network reads one decision at a time."""

    def interface(self, world: World, forecast_epochs: int) -> Interface:
        """Return how the policy sees and acts in a world.

        Raises
        ------
        ValueError
            Observations or actions have another size than the policy was trained on.
        """
        if self._interface is None or self._world is not world:
            constants = Constants(**self.card.constants)
            made = make_interface(self.card.algorithm, world, forecast_epochs, constants, self.model)
            trained = self.model
            if self.card.algorithm == "ppo-transformer":
                trained.policy = resized(trained.policy, made)
            if self.card.algorithm in ("ppo-transformer", "evolution"):  # at home on any chain
                trained.observation_space, trained.action_space = made.observation_space, made.action_space
            unseen = unseen_by_actor(trained)
            size = trained.observation_space.shape[0] - unseen
            if made.observation_space.shape != (size,) or made.action_space != trained.action_space:
                raise ValueError(
                    f"agent = {self.name!r}: was trained on {self.card.scenario}, with other observations or "
                    f"actions than this scenario's {world.chain.shape[1]} slots and {len(world.block_flops)} "
                    "blocks; must be played on a scenario of the same sizes"
                )
            self._world, self._interface = world, made
        return self._interface

    def act(self, problem: PlanningProblem) -> Plan | None:
        """Return the network's most likely plan; None where its planner finds none."""
        if problem.problems is None or problem.world is None:
            raise ValueError(
                "act: a learned agent needs a problem of an environment, not one built from arrays"
            )
        interface = self.interface(problem.world, problem.forecast_epochs)
        cuts, levels = interface.decide(problem.problems, predictor(self.model))
        if cuts[0, 0] == NO_PLAN:
            return None
        return Plan(tuple(cuts[0].tolist()), tuple(levels[0].tolist()))
