"""Bridge to stable-baselines3: its `VecEnv` over the same engine, without a Python loop over worlds.

stable-baselines3 takes no Gymnasium `VectorEnv`; its own wrappers step one environment at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices

from sat_env import encodings, observation
from sat_env.env import INFO_FIELDS, Flat, ScenarioLike, Worlds, resolve_scenario, window_of
from sat_env.simulator import Simulator, Split, world_seeds
from sat_env.world import prepare

Ints = NDArray[np.int64]


class EngineVecEnv(VecEnv):
    """What stable-baselines3 asks of n worlds of one simulator; what they show and pay is for subclasses to say.

    Parameters
    ----------
    simulator : Simulator
    observation_space, action_space : gymnasium.Space
        Of one world.
    seed : int
        World i takes seed + i.
    """

    def __init__(
        self,
        simulator: Simulator,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        seed: int,
    ) -> None:
        self._new_seeds: NDArray[np.uint64] | None = world_seeds(seed, simulator.worlds)
        self.render_mode = None  # VecEnv asks for it
        super().__init__(simulator.worlds, observation_space, action_space)
        self.simulator = simulator
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._started_s = time.monotonic()
        self._actions: NDArray[Any] = np.zeros(0)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take note of the actions; `step_wait` runs them."""
        self._actions = actions

    def account(
        self, rewards: NDArray[np.float32], last_seen: Callable[[Ints], Sequence[Any]]
    ) -> tuple[NDArray[np.bool_], list[dict[str, Any]]]:
        """Count a step; return which episodes are over (n,), and the infos: of those, as `Monitor` gives them.

        `last_seen` returns the last observation of each world it is given.
        """
        self._returns += rewards
        self._lengths += 1
        dones = self.simulator.over.copy()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(dones)
        if len(ended):
            elapsed_s = round(time.monotonic() - self._started_s, 6)
            for i, seen in zip(ended, last_seen(ended), strict=True):
                infos[i] = {
                    "terminal_observation": seen,
                    "TimeLimit.truncated": True,
                    "episode": {"r": float(self._returns[i]), "l": int(self._lengths[i]), "t": elapsed_s},
                    **{name: float(getattr(self.simulator.outcome, name)[i]) for name in INFO_FIELDS},
                }
            self._returns[ended] = 0.0
            self._lengths[ended] = 0
        return dones, infos

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Give world i the seed `seed` + i, from the next reset on."""
        if seed is None:
            return [None] * self.num_envs
        seeds = world_seeds(seed, self.num_envs)
        self._new_seeds = seeds
        return [int(one) for one in seeds]

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the bridge, once for each world asked for."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the bridge: the worlds share it."""
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the bridge, once for each world asked for, with its index as `index`."""
        method = getattr(self, method_name)
        return [method(*method_args, index=i, **method_kwargs) for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """Say whether the worlds carry a wrapper: only `Monitor`'s statistics are built in."""
        from stable_baselines3.common.monitor import Monitor

        return [issubclass(Monitor, wrapper_class)] * len(list(self._get_indices(indices)))


class SatVecEnv(EngineVecEnv):
    """n worlds as a stable-baselines3 `VecEnv`: SAME_STEP autoreset, episode statistics as `Monitor` gives.

    Parameters
    ----------
    num_envs : int
    scenario, action, split
        As in `sat_env.env.SatEnv`.
    seed : int
        World i takes seed + i.
    flat : bool
        Observations are one vector (D,), the entries in the order of `observation.layout`, instead of a
        dictionary: for ``"MlpPolicy"``, which then learns from the same numbers with a third less to copy.
    """

    def __init__(
        self,
        num_envs: int,
        scenario: ScenarioLike = "WalkerOutage",
        action: encodings.Encoding = "fractions",
        split: Split = "train",
        seed: int = 0,
        flat: bool = False,
    ) -> None:
        self.scenario = resolve_scenario(scenario)
        self.worlds = Worlds(prepare(self.scenario), num_envs, action, split)
        self._flat = flat
        simulator = self.worlds.simulator
        size = observation.vector_size(simulator.slots)
        space = gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32) if flat else self.worlds.observation_space
        super().__init__(simulator, space, self.worlds.action_space, seed)

    def reset(self) -> Any:
        """Start an episode in every world; `set_options` may have picked its window."""
        windows = [window_of(options) for options in self._options]
        given = any(window is not None for window in windows)
        if given and None in windows:
            raise ValueError(f"window = {windows}: must be given for every world, or for none")
        self.simulator.begin(seeds=self._new_seeds, windows=np.array(windows) if given else None)
        self._new_seeds = None
        self._reset_options()
        self._returns[:] = 0.0
        self._lengths[:] = 0
        return self._shown(self.worlds.observe())

    def _shown(self, flat: Flat) -> Any:
        return flat if self._flat else observation.split(flat, self.simulator.slots)

    def step_wait(self) -> Any:
        """Run one job in every world."""
        flat = self.worlds.step(self._actions)
        rewards = self.worlds.terms[:, -1].astype(np.float32)
        dones, infos = self.account(rewards, lambda ended: [self._shown(row) for row in flat[ended]])
        if dones.any():
            ended = np.flatnonzero(dones)
            self.simulator.begin(ended)
            self.simulator.look(ended, flat)
        return self._shown(flat), rewards, dones, infos

    def action_masks(self, index: int = 0) -> NDArray[np.bool_]:
        """Return which choices are legal, for sb3-contrib's `MaskablePPO`: all of them."""
        if not isinstance(self.action_space, gymnasium.spaces.MultiDiscrete):
            raise ValueError(f"action_masks: action = {self.worlds.action!r} has no choices to mask")
        return np.ones(int(self.action_space.nvec.sum()), np.bool_)
