"""The worlds an agent trains in: n worlds behind stable-baselines3's `VecEnv`, rewarded against an opponent."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.interface import Flat, Ints
from agents.planner import BatchPlanner
from sat_env.sb3 import EngineVecEnv
from sat_env.simulator import Simulator, Snapshot, Split
from sat_env.world import Prepared


class WorldsSnapshot(NamedTuple):
    """Everything the worlds of a training will ever depend on."""

    simulator: Snapshot
    theirs_s: NDArray[np.float64]
    played: dict[int, NDArray[np.float64]]
    returns: NDArray[np.float64]
    lengths: Ints
    extra: Any  # of worlds of another kind


class AgentWorlds(EngineVecEnv):
    """n worlds, each rewarded against an opponent that played the same trace.

    The reward is the opponent's latency minus the agent's, over the scenario's reference latency: how much
    better the agent fared in the same weather, outages and arrivals. The exogenous noise, common to both,
    drops out, and the sum of rewards is what the agent gains in J. Where it is not the measure its latency
    counts as the reference: the reward is then 1 - latency / reference.

    Parameters
    ----------
    prepared : Prepared
    interface : Interface
        `OneStep`; `agents.slotwise` has worlds for the other kind.
    num_envs : int
    opponent : BatchPlanner, optional
        Needed if `versus` or `foresight`.
    versus : bool
        The opponent is the measure of the reward.
    foresight : int
        Observations end with what that many jobs, this one first, took the opponent (shares of the deadline):
        for a critic that sees the trace.
    traces : int
        Episodes each world plays before they come again; 0: always new ones. The opponent, whose plans cost
        as much as the agent's, plays each only once.
    split : {"train", "dev", "test"}
    seed : int
        World i takes seed + i.
    """

    def __init__(
        self,
        prepared: Prepared,
        interface: Any,
        num_envs: int,
        opponent: BatchPlanner | None = None,
        versus: bool = True,
        foresight: int = 0,
        traces: int = 0,
        split: Split = "train",
        seed: int = 0,
    ) -> None:
        space = interface.observation_space
        if foresight:
            low, high = (
                np.append(end, np.repeat(np.float32(far), foresight))
                for end, far in ((space.low, 0.0), (space.high, 1.0))
            )
            space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        super().__init__(Simulator(prepared, num_envs, split), space, interface.action_space, seed)
        self.interface: Any = interface
        self.opponent, self.versus, self.foresight = opponent, versus, foresight
        self.traces = traces
        self._reference_s = prepared.scenario.reference_latency_s
        # What the opponent's jobs took in this episode, and in those that come again (n, T).
        self._theirs_s = np.full((num_envs, prepared.scenario.episode_epochs), self._reference_s)
        self._played: dict[int, NDArray[np.float64]] = {}

    def reset(self) -> Flat:  # type: ignore[override]
        """Start an episode in every world."""
        if self._new_seeds is not None:
            self.simulator.seeds[:] = self._new_seeds
            self.simulator.episodes[:] = 0
            self._played.clear()
        self._new_seeds = None
        self._returns[:] = 0.0
        self._lengths[:] = 0
        self._begin()
        return self.observe()

    def _begin(self) -> None:
        """Start the next episode in every world (all are equally long), the opponent's first."""
        simulator = self.simulator
        if self.traces:
            simulator.episodes %= self.traces
        episode = int(simulator.episodes[0])
        if self.opponent is not None:
            if episode not in self._played:
                if not self.traces:
                    self._played.clear()
                self._played[episode] = self._opponent_latency_s(self.opponent, episode)
            self._theirs_s = self._played[episode]
        simulator.begin()

    def _opponent_latency_s(self, opponent: BatchPlanner, episode: int) -> NDArray[np.float64]:
        """Let the opponent play an episode of every world; return the latencies (n, T)."""
        twin = Simulator(self.simulator.prepared, self.num_envs, self.simulator.split)
        twin.seeds[:] = self.simulator.seeds
        twin.episodes[:] = episode
        twin.begin()
        latency_s = np.empty_like(self._theirs_s)
        for t in range(latency_s.shape[1]):
            twin.step(*opponent.plans(twin.problems))
            latency_s[:, t] = twin.outcome.latency_s
        return latency_s

    def observe(self) -> Flat:
        """Return what the agent sees of every world."""
        flat: Flat = self.interface.observe(self.simulator.problems)
        if not self.foresight:
            return flat
        t = int(self._lengths[0])
        ahead = np.zeros((self.num_envs, self.foresight), np.float32)
        known_s = self._theirs_s[:, t : t + self.foresight]
        ahead[:, : known_s.shape[1]] = known_s / self.simulator.world.deadline_s
        return np.concatenate([flat, ahead], axis=1)

    def step_wait(self) -> Any:
        """Run one job in every world."""
        return self.run_jobs(*self.interface.plans(self.simulator.problems, self._actions))

    def run_jobs(self, cuts: Ints, levels: Ints) -> Any:
        """Run a job in every world under the agent's plans (n, K)."""
        simulator = self.simulator
        simulator.step(cuts, levels)
        theirs_s = self._theirs_s[:, self._lengths[0]] if self.versus else self._reference_s
        rewards = ((theirs_s - simulator.outcome.latency_s) / self._reference_s).astype(np.float32)
        dones, infos = self.account(rewards, lambda ended: self.observe()[ended])
        for i in np.flatnonzero(dones):  # no job after the last counts in J: nothing to bootstrap from
            infos[i]["TimeLimit.truncated"] = False
        if dones.any():
            self._begin()
        return self.observe(), rewards, dones, infos

    def snapshot(self) -> WorldsSnapshot:
        """Return a copy of everything training goes on from."""
        return WorldsSnapshot(
            self.simulator.snapshot(),
            self._theirs_s.copy(),
            dict(self._played),
            self._returns.copy(),
            self._lengths.copy(),
            self.extra_state(),
        )

    def restore(self, snapshot: WorldsSnapshot) -> None:
        """Put the worlds back where `snapshot` was taken."""
        self.simulator.restore(snapshot.simulator)
        self._theirs_s, self._played = snapshot.theirs_s.copy(), dict(snapshot.played)
        self._returns[:], self._lengths[:] = snapshot.returns, snapshot.lengths
        self._new_seeds = None
        self.set_extra_state(snapshot.extra)

    def extra_state(self) -> Any:
        """Return what worlds of another kind remember on top; nothing here."""
        return None

    def set_extra_state(self, state: Any) -> None:
        """Go on from what `extra_state` returned."""
