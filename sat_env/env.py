"""The environment: one world behind Gymnasium's `Env`, n worlds behind its `VectorEnv`, one engine."""

from __future__ import annotations

import os
import reprlib
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from sat_env import encodings, observation
from sat_env.pipeline import COMPUTE_END, COMPUTE_START, SEND_END, SEND_START
from sat_env.plan import Ints, Plan
from sat_env.problem import PlanningProblem
from sat_env.render import describe, draw_world
from sat_env.reward import TERMS
from sat_env.scenario import Scenario, load_scenario, scenario_from_dict
from sat_env.simulator import Simulator, Split, world_seeds
from sat_env.world import Prepared, prepare

INFO_FIELDS = ("latency_s", "failed", "repaired", "accuracy_drop", "bytes", "energy_j", "reload_bytes")

ScenarioLike = str | os.PathLike[str] | dict[str, Any] | Scenario
Flat = NDArray[np.float32]


def resolve_scenario(scenario: ScenarioLike) -> Scenario:
    """Return a scenario given by name, TOML path, plain data or as itself."""
    if isinstance(scenario, Scenario):
        return scenario
    return scenario_from_dict(scenario) if isinstance(scenario, dict) else load_scenario(scenario)


def windows_of(options: dict[str, Any] | None, worlds: int) -> Ints | None:
    """Return the windows (n,) that the options of `reset` pick, or None; refuse other options."""
    for name, value in (options or {}).items():
        if name != "window":
            raise ValueError(f"options[{name!r}] = {value!r}: must be absent; the one option is 'window'")
    window = (options or {}).get("window")
    if window is None:
        return None
    if np.shape(window) not in ((), (worlds,)):
        raise ValueError(f"window = {window!r}: must be one number, or a list of {worlds}, one a world")
    if np.asarray(window).dtype.kind not in "iu":
        raise ValueError(f"window = {window!r}: must be a whole number")
    return np.broadcast_to(window, (worlds,))


def checked_arrays(plan: Any, simulator: Simulator) -> tuple[Ints, Ints]:
    """Return (cuts, levels) of a plan; refuse what is none, or none of the simulator's worlds."""
    if not isinstance(plan, Plan):
        raise ValueError(f"plan = {reprlib.repr(plan)}: must be a Plan")
    plan.check(simulator.slots, simulator.blocks, simulator.levels)
    return plan.arrays()


class Worlds:
    """n worlds with encoded actions, flat observations and rewards: the engine behind every face.

    Parameters
    ----------
    prepared : Prepared
    worlds : int
    action : {"plan", "fractions", "delta"}
    split : {"train", "dev", "test"}
    """

    def __init__(self, prepared: Prepared, worlds: int, action: encodings.Encoding, split: Split) -> None:
        self.simulator = Simulator(prepared, worlds, split)
        self.action: encodings.Encoding = action
        self.action_space = encodings.action_space(prepared.world, action)
        self.observation_space = observation.observation_space(self.simulator.slots)
        self._size = observation.vector_size(self.simulator.slots)
        self._every = np.ones(worlds, np.bool_)
        self._all = np.arange(worlds)
        self.terms = np.zeros((worlds, len(TERMS) + 1))

    def observe(self) -> Flat:
        """Return fresh flat observations (n, D)."""
        flat = np.empty((self.simulator.worlds, self._size), np.float32)
        self.simulator.look(self._all, flat)
        return flat

    def step(self, actions: NDArray[Any], resting: NDArray[np.bool_] | None = None) -> Flat:
        """Take one action a world, or begin an episode in those that rest; return fresh observations (n, D).

        The reward's terms and their sum are then in `terms` (n, 5).
        """
        simulator = self.simulator
        encodings.decode(
            simulator.world,
            self.action,
            actions,
            simulator.state.previous_cuts,
            simulator.cuts,
            simulator.plan_levels,
        )
        moves = self._every
        if resting is not None and resting.any():
            simulator.begin(np.flatnonzero(resting))
            moves = ~resting
        flat = np.empty((simulator.worlds, self._size), np.float32)
        self.terms = simulator.play(moves, flat)
        return flat


class SatEnv(gymnasium.Env[dict[str, Flat], NDArray[Any]]):
    """Split a large model over satellites, one job at a time.

    ## Description

    A chain of satellites and a ground station run a model too large for one of them. Every epoch releases a
    job (a batch of images, or LLM requests). The action is its plan: where to cut the model, and how hard to
    compress the activation at each cut. The job is executed as a pipeline of micro-batches on the true
    network: satellites move, links break and are acquired again, computers reset, batteries drain in eclipse.
    Stages and links that are still busy make later jobs wait, blocks that move must be loaded.

    ## Action Space

    With ``action="plan"``: ``MultiDiscrete([L + 1] * K + [R] * K)``: K cuts (sorted on entry), then K levels.
    ``"fractions"`` and ``"delta"``: see `sat_env.encodings.action_space`. Every action is legal. A plan that
    does not fit the memories is repaired and reported in ``info["repaired"]``.

    ## Observation Space

    A flat ``Dict`` of 1-D float32 Boxes within [0, 1]; K slots, P = K (K + 1) / 2 hops.

    | entry | size | meaning |
    |---|---|---|
    | slot_speed, slot_busy | K + 1 | speed; expected time until free, relative to the deadline |
    | slot_reboot, slot_charge, slot_light, slot_light_ahead | K | reboot left, battery, sun now and ahead |
    | slot_resident_from, slot_resident_to | K | blocks in memory |
    | hop_rate, hop_latency, hop_wait | P | the route a transfer would take now |
    | hop_down, hop_age, hop_backup | P | state of the primary route, time in it, rate of the backup |
    | job, recent_jobs | 2, 3 | size and content complexity of this job; sizes of the jobs before |
    | previous_cuts, previous_levels | K | the plan before |
    | chain_change | 1 | epochs until the chain changes |

    ## Rewards

    The sum of named terms (`sat_env.reward`), weighted by the scenario: ``-log(latency / reference
    latency)``, and -1 for a job that fails (dropped at its deadline, infeasible, or above the accuracy
    limit), which also counts as the deadline; of weight 0 unless a scenario sets it, bytes and energy.

    ## Starting State

    A window of epochs out of `split` and a trace of faults, weather and arrivals, both drawn from the seed.
    Batteries are charged as the scenario says, nothing is loaded. ``options={"window": w}`` picks the window.

    ## Info

    Of each step, floats: ``latency_s``, ``failed`` and ``repaired`` (0 or 1), ``accuracy_drop`` (a share), ``bytes``
    sent, ``energy_j``, ``reload_bytes``. Of a reset, nothing.

    ## Episode End

    Truncated when the window is used up; never terminated.

    ## Arguments

    ``scenario``: a name, a TOML path, plain data, or a `Scenario`. ``action``: the encoding. ``split``: ``"train"``,
    ``"dev"`` or ``"test"`` windows. ``render_mode``: ``"ansi"`` or ``"rgb_array"``.

    ## Vectorized environment

    ``gymnasium.make_vec(id, num_envs=n, vectorization_mode="vector_entry_point")`` steps n worlds in one
    kernel (`SatVectorEnv`); world i with seed s + i equals the single environment with that seed, to the bit.

    ## Version History

    * v0: initial version
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}

    def __init__(
        self,
        scenario: ScenarioLike = "WalkerOutage",
        action: encodings.Encoding = "plan",
        split: Split = "train",
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode = {render_mode!r}: must be one of {self.metadata['render_modes']}")
        self.scenario = resolve_scenario(scenario)
        self.prepared = prepare(self.scenario)
        self.worlds = Worlds(self.prepared, 1, action, split)
        self.action_space = self.worlds.action_space
        self.observation_space = self.worlds.observation_space  # type: ignore[assignment]
        if render_mode == "rgb_array" and find_spec("matplotlib") is None:
            raise DependencyNotInstalled(
                "render_mode = 'rgb_array': needs matplotlib (pip install matplotlib)"
            )
        self.render_mode = render_mode
        self._seeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Flat], dict[str, Any]]:
        """Start an episode; without a seed, the next episode of the last one."""
        seeds = None if seed is None else world_seeds(seed, 1)
        windows = windows_of(options, 1)
        simulator = self.worlds.simulator
        if seeds is None and not self._seeded:
            seeds = self.np_random.integers(0, 2**63, 1, np.uint64)
        simulator.begin(seeds=seeds, windows=windows)
        super().reset(seed=None if seed is None else int(seed))  # once nothing is refused any more
        self._seeded = True
        return self._observation(), {}

    def step(self, action: NDArray[Any]) -> tuple[dict[str, Flat], float, bool, bool, dict[str, Any]]:
        """Run one job under the plan `action` encodes."""
        self._require_reset()
        simulator = self.worlds.simulator
        if simulator.over[0]:
            raise RuntimeError("step: the episode is over; call reset first")
        seen = observation.split(self.worlds.step(np.asarray(action)[None])[0], simulator.slots)
        outcome = simulator.outcome
        info = {name: float(getattr(outcome, name)[0]) for name in INFO_FIELDS}
        return seen, float(self.worlds.terms[0, -1]), False, bool(simulator.over[0]), info

    def _require_reset(self) -> None:
        if not self._seeded:
            raise RuntimeError("no episode was begun: call reset first")

    def _observation(self) -> dict[str, Flat]:
        return observation.split(self.worlds.observe()[0], self.worlds.simulator.slots)

    def problem(self) -> PlanningProblem:
        """Return what is knowable at the current decision: the input of planners and policies."""
        self._require_reset()
        return self.worlds.simulator.problem()

    def encode(self, plan: Plan) -> NDArray[np.int64]:
        """Return the ``"plan"`` action that stands for `plan`; refuse one that no action stands for."""
        if self.worlds.action != "plan":
            raise ValueError(f"action = {self.worlds.action!r}: plans are encoded with action='plan' only")
        cuts, levels = checked_arrays(plan, self.worlds.simulator)
        hosts, blocks = self.scenario.ground.hosts, self.worlds.simulator.blocks
        allowed = {"none": (blocks,), "all_or_none": (0, blocks)}.get(hosts)
        if allowed is not None and cuts[-1] not in allowed:
            raise ValueError(
                f"plan = {reprlib.repr(plan)}: must have {' or '.join(map(str, allowed))} as its last cut, "
                f"for ground.hosts is {hosts!r}"
            )
        return np.concatenate([cuts, levels])

    def simulate(self, plan: Plan, seed: int) -> dict[str, float]:
        """Return the info of one job under `plan` in an imagined future (see `Simulator.imagine`)."""
        self._require_reset()
        cuts, levels = checked_arrays(plan, self.worlds.simulator)
        imagined = self.worlds.simulator.imagine(seed)
        imagined.step(cuts[None], levels[None])
        return {name: float(getattr(imagined.outcome, name)[0]) for name in INFO_FIELDS}

    def timeline(self) -> dict[str, NDArray[np.float64]]:
        """Return when each stage of the last job computed and sent each micro-batch, in seconds of the episode.

        Arrays (S, M), by stage in use: the sensing slot, the slots with blocks, the ground (which sends nothing). Of a
        language model: its prefill.
        """
        self._require_reset()
        times = self.worlds.simulator.last_times_s()
        return {
            "compute_start_s": times[:, :, COMPUTE_START],
            "compute_end_s": times[:, :, COMPUTE_END],
            "send_start_s": times[:-1, :, SEND_START],
            "send_end_s": times[:-1, :, SEND_END],
        }

    def render(self) -> str | NDArray[np.uint8] | None:
        """Return the current epoch as text (``"ansi"``) or as a map (H, W, 3) uint8 (``"rgb_array"``)."""
        self._require_reset()
        if self.render_mode == "ansi":
            return describe(self.problem(), self.prepared)
        if self.render_mode == "rgb_array":
            return draw_world(self.worlds.simulator)
        return None


class SatVectorEnv(gymnasium.vector.VectorEnv[dict[str, Flat], NDArray[Any], NDArray[Any]]):
    """n worlds of one scenario, stepped by one kernel; see `SatEnv` for spaces, rewards and arguments.

    Parameters
    ----------
    num_envs : int
    autoreset_mode : AutoresetMode or str
        NEXT_STEP (default): the step after an episode's end starts the next one and returns its first
        observation. SAME_STEP: the last step does, with ``final_obs`` and ``final_info`` in the infos.
    """

    metadata: dict[str, Any] = {
        "render_modes": [],
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        scenario: ScenarioLike = "WalkerOutage",
        action: encodings.Encoding = "plan",
        split: Split = "train",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        modes = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]
        if autoreset_mode not in (*modes, *(mode.value for mode in modes)):
            raise ValueError(
                f"autoreset_mode = {autoreset_mode!r}: must be one of {', '.join(repr(m.value) for m in modes)}"
            )
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        if render_mode is not None:
            raise ValueError(f"render_mode = {render_mode!r}: must be None; render single environments")
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.scenario = resolve_scenario(scenario)
        self.prepared = prepare(self.scenario)
        self.worlds = Worlds(self.prepared, num_envs, action, split)
        self.single_action_space = self.worlds.action_space
        self.single_observation_space = self.worlds.observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._seeded = False
        self._never = np.zeros(num_envs, np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Flat], dict[str, Any]]:
        """Start an episode in every world; world i takes seed + i, or its own of a list."""
        windows = windows_of(options, self.num_envs)
        seeds = None
        if isinstance(seed, list | tuple | np.ndarray):
            if len(seed) != self.num_envs:
                raise ValueError(f"seed = {list(seed)}: must be one number, or {self.num_envs}, one a world")
            own = [None if one is None else world_seeds(one, 1)[0] for one in seed]
            drawn = self.np_random.integers(0, 2**63, self.num_envs, np.uint64)
            seeds = np.array([d if s is None else s for s, d in zip(own, drawn, strict=True)], np.uint64)
        elif seed is not None:
            seeds = world_seeds(seed, self.num_envs)
        elif not self._seeded:
            seeds = self.np_random.integers(0, 2**63, self.num_envs, np.uint64)
        self.worlds.simulator.begin(seeds=seeds, windows=windows)
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))  # once nothing is refused any more
        self._seeded = True
        return self._observations(self.worlds.observe()), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[dict[str, Flat], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Run one job in every world."""
        if not self._seeded:
            raise RuntimeError("no episode was begun: call reset first")
        simulator = self.worlds.simulator
        actions = np.asarray(actions)
        infos: dict[str, Any] = {}
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            resting = simulator.over.copy()
            flat = self.worlds.step(actions, resting)
            truncated = simulator.over.copy()
            reward = np.where(resting, 0.0, self.worlds.terms[:, -1])
            self._add_step_info(infos, ~resting)
            return self._observations(flat), reward, self._never.copy(), truncated, infos
        flat = self.worlds.step(actions)
        truncated = simulator.over.copy()
        reward = self.worlds.terms[:, -1].copy()
        self._add_step_info(infos, ~truncated)
        if truncated.any():
            ended = np.flatnonzero(truncated)
            final = flat[ended]
            final_obs = np.full(self.num_envs, None, dtype=object)
            for i, row in zip(ended, final, strict=True):
                final_obs[i] = observation.split(row, simulator.slots)
            infos["final_obs"], infos["_final_obs"] = final_obs, truncated.copy()
            final_info: dict[str, Any] = {}
            self._add_step_info(final_info, truncated)
            infos["final_info"], infos["_final_info"] = final_info, truncated.copy()
            simulator.begin(ended)
            simulator.look(ended, flat)
        return self._observations(flat), reward, self._never.copy(), truncated, infos

    def _add_step_info(self, infos: dict[str, Any], mask: NDArray[np.bool_]) -> None:
        if mask.any():
            for name in INFO_FIELDS:
                infos[name] = np.where(mask, getattr(self.worlds.simulator.outcome, name), 0.0)
                infos[f"_{name}"] = mask.copy()

    def _observations(self, flat: Flat) -> dict[str, Flat]:
        return observation.split(flat, self.worlds.simulator.slots)

    def problem(self, index: int = 0) -> PlanningProblem:
        """Return what is knowable at the current decision of one world."""
        return self.worlds.simulator.problem(index)
