"""The stable-baselines3 bridge under the algorithms and callbacks it is for, and Gymnasium's vector wrappers."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from sat_env.env import SatEnv, SatVectorEnv
from sat_env.scenario import load_scenario

stable_baselines3 = pytest.importorskip("stable_baselines3")
sb3_contrib = pytest.importorskip("sb3_contrib")

from stable_baselines3.common.callbacks import EvalCallback  # noqa: E402

from sat_env import observation  # noqa: E402
from sat_env.sb3 import SatVecEnv  # noqa: E402

SHORT = load_scenario("WalkerOutage").replace(episode_epochs=20, windows=5)
ALGORITHMS = {
    "PPO": (stable_baselines3.PPO, "fractions", {"batch_size": 80}),
    "A2C": (stable_baselines3.A2C, "delta", {}),
    "MaskablePPO": (sb3_contrib.MaskablePPO, "plan", {"batch_size": 80}),
}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_envs": 2.5}, "worlds = 2.5: must be an integer"),
        ({"split": ["dev"]}, r"split = \['dev'\]: must be one of"),
    ],
)
def test_what_is_no_number_of_worlds_or_split_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        SatVecEnv(**{"num_envs": 2, "scenario": SHORT, **given})


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms_learn_through_the_bridge(name, flat):
    kind, action, options = ALGORITHMS[name]
    worlds = SatVecEnv(4, SHORT, action, flat=flat)
    model = kind("MlpPolicy" if flat else "MultiInputPolicy", worlds, n_steps=40, seed=0, **options)
    before = model.policy.state_dict()["action_net.weight"].clone()
    model.learn(320)
    assert not before.equal(model.policy.state_dict()["action_net.weight"])
    # Monitor's statistics: every episode ended after its 20 epochs.
    assert len(model.ep_info_buffer) == 320 // 20
    assert all(episode["l"] == 20 and np.isfinite(episode["r"]) for episode in model.ep_info_buffer)
    actions, _ = model.predict(worlds.reset(), deterministic=True)
    assert all(worlds.action_space.contains(one) for one in actions)


def test_evaluation_callback_counts_whole_episodes(tmp_path):
    model = stable_baselines3.PPO("MultiInputPolicy", SatVecEnv(4, SHORT), n_steps=20, batch_size=80, seed=0)
    seen = EvalCallback(
        SatVecEnv(2, SHORT, split="dev", seed=9),
        n_eval_episodes=4,
        eval_freq=20,
        log_path=str(tmp_path),
        verbose=0,
    )
    model.learn(160, callback=seen)
    saved = np.load(tmp_path / "evaluations.npz")
    assert saved["ep_lengths"].tolist() == [[20] * 4] * 2 and np.isfinite(saved["results"]).all()


def test_options_pick_the_windows_of_the_next_reset():
    worlds = SatVecEnv(3, SHORT, seed=5)
    worlds.reset()
    drawn = worlds.simulator.trace.window.copy()
    worlds.set_options({"window": 2})
    worlds.seed(5)
    worlds.reset()
    assert worlds.simulator.trace.window.tolist() == [2, 2, 2]
    worlds.seed(5)
    worlds.reset()
    assert np.array_equal(worlds.simulator.trace.window, drawn)
    worlds.set_options([{"window": 1}, {}, {"window": 0}])
    worlds.seed(5)
    seen = worlds.reset()
    assert worlds.simulator.trace.window.tolist() == [1, drawn[1], 0]
    single = SatEnv(SHORT, "fractions")
    its_seen, _ = single.reset(seed=5, options={"window": 1})
    assert all(np.array_equal(its_seen[key], seen[key][0]) for key in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widow": 1}, r"^options\['widow'\] = 1: must be absent"),
        ({"window": 3}, r"^window = 3: must be in 0\.\.2, the train windows"),
        ([{"window": 1}], r"^options = \[\{'window': 1\}\]: must be one for all, or a list of 3"),
        ([{"window": [0, 1]}, {}, {}], r"^window = \[0, 1\]: must be one number, or a list of 1"),
    ],
)
def test_bad_options_are_refused_and_nothing_begins(options, message):
    worlds = SatVecEnv(3, SHORT)
    worlds.set_options(options)
    with pytest.raises(ValueError, match=message):
        worlds.reset()
    assert worlds.simulator.episodes.tolist() == [0, 0, 0]


def test_an_attribute_is_set_for_all_worlds_or_none():
    worlds = SatVecEnv(2, SHORT)
    worlds.set_attr("mark", 3)
    assert worlds.get_attr("mark") == [3, 3]
    with pytest.raises(ValueError, match=r"^indices = 1: must be all worlds"):
        worlds.set_attr("mark", 4, indices=1)
    assert worlds.get_attr("mark") == [3, 3]


def test_a_step_before_the_first_reset_is_refused():
    worlds = SatVecEnv(2, SHORT)
    with pytest.raises(RuntimeError, match="call reset first"):
        worlds.step(np.zeros((2, *worlds.action_space.shape), np.float32))


def test_a_flat_bridge_shows_the_same():
    one, other = (SatVecEnv(3, SHORT, "plan", seed=5, flat=flat) for flat in (False, True))
    named, vector = one.reset(), other.reset()
    one.action_space.seed(1)
    for _ in range(45):
        assert other.observation_space.contains(vector[0])
        parts = observation.split(vector, one.worlds.simulator.slots)
        assert parts.keys() == named.keys()
        assert all(np.array_equal(parts[key], named[key]) for key in named)
        actions = np.array([one.action_space.sample() for _ in range(3)])
        named, reward, done, infos = one.step(actions)
        vector, its_reward, its_done, its_infos = other.step(actions)
        assert np.array_equal(reward, its_reward) and np.array_equal(done, its_done)
        for mine, its in zip(infos, its_infos, strict=True):
            assert mine.keys() == its.keys()
            if "terminal_observation" in its:
                parts = observation.split(its["terminal_observation"], one.worlds.simulator.slots)
                assert all(np.array_equal(parts[key], mine["terminal_observation"][key]) for key in parts)


def test_what_learned_from_the_flat_bridge_plays_behind_gymnasiums_flatten_observation():
    vector = SatVecEnv(1, SHORT, seed=5, flat=True).reset()
    flattened, _ = gymnasium.wrappers.FlattenObservation(SatEnv(SHORT)).reset(seed=5)
    assert np.array_equal(vector[0], flattened)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_gymnasiums_vector_wrappers(mode):
    wrappers = gymnasium.wrappers.vector
    plain = SatVectorEnv(3, SHORT, autoreset_mode=mode)
    wrapped = wrappers.TransformReward(
        wrappers.RecordEpisodeStatistics(SatVectorEnv(3, SHORT, autoreset_mode=mode)),
        lambda reward: 2.0 * reward,
    )
    if mode == "NextStep":  # Gymnasium's wrappers of observations take no other
        wrapped = wrappers.FlattenObservation(wrapped)
    plain.reset(seed=3)
    wrapped.reset(seed=3)
    wrapped.action_space.seed(0)
    total = np.zeros(3)
    ended = 0
    for _ in range(45):
        actions = wrapped.action_space.sample()
        seen, reward, _, truncated, _ = plain.step(actions)
        its_seen, doubled, _, its_truncated, infos = wrapped.step(actions)
        if mode == "NextStep":
            rows = [{key: seen[key][i] for key in seen} for i in range(3)]
            flat = [gymnasium.spaces.flatten(plain.single_observation_space, row) for row in rows]
            assert (
                np.array_equal(its_seen, np.array(flat)) and its_seen.shape == wrapped.observation_space.shape
            )
        else:
            assert all(np.array_equal(its_seen[key], seen[key]) for key in seen)
        assert np.array_equal(doubled, 2.0 * reward) and np.array_equal(truncated, its_truncated)
        total += reward
        for i in np.flatnonzero(truncated):
            assert infos["episode"]["l"][i] == 20
            assert infos["episode"]["r"][i] == pytest.approx(total[i], rel=1e-6)
            total[i] = 0.0
            ended += 1
    assert ended == 6


def test_worlds_in_another_order_are_the_same_worlds():
    seeds = [11, 12, 13, 14, 15]
    order = np.array([3, 0, 4, 1, 2])
    one, other = SatVectorEnv(5, SHORT), SatVectorEnv(5, SHORT)
    one.reset(seed=seeds)
    other.reset(seed=[seeds[i] for i in order])
    one.action_space.seed(2)
    for _ in range(200):
        actions = one.action_space.sample()
        seen, reward, _, truncated, _ = one.step(actions)
        its_seen, its_reward, _, its_truncated, _ = other.step(actions[order])
        assert np.array_equal(reward[order], its_reward) and np.array_equal(truncated[order], its_truncated)
        assert all(np.array_equal(seen[key][order], its_seen[key]) for key in seen)


THREADS = """
import numpy as np
from sat_env.env import SatEnv, SatVectorEnv
envs = SatVectorEnv(16, "WalkerOutage")
envs.reset(seed=1)
envs.action_space.seed(0)
print(np.array([envs.step(envs.action_space.sample())[1] for _ in range(70)]).tobytes().hex())
"""


def test_the_number_of_threads_does_not_matter():
    # Kernels run on the thread that calls them; numba's and OpenMP's thread counts change nothing.
    runs = [
        subprocess.run(
            [sys.executable, "-c", THREADS],
            env={**os.environ, "NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert runs[0] == runs[1] and len(runs[0]) > 10_000
