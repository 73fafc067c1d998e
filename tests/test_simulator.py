"""What must hold of a step, whatever the plan: conservation, bounds, causality, independence of the batch."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from conftest import random_plans, simulator, small
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.batch import priced_plans
from baselines.priced import Constants
from sat_env.commands import swap_model
from sat_env.knowledge import residual_outage_s
from sat_env.planning.exact import solve
from sat_env.planning.predict import predict
from sat_env.scenario import load_scenario
from sat_env.simulator import Simulator
from sat_env.world import prepare

HARSH = {
    "faults.link_up_mean_s": 290.0,
    "faults.link_tail_share": 0.1,
    "faults.reset_mtbf_s": 3600.0,
    "energy.battery_wh": 15.0,
    "energy.initial_charge": (0.1, 0.6),
    "energy.panel_w": 60.0,
}


@pytest.fixture(scope="module")
def harsh():
    return prepare(small(load_scenario("WalkerOutage"), **HARSH))


def exact_plan(sim):
    solution = solve(sim.problem().costs)
    return solution.cuts[None], solution.levels[None], solution.objective


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**40), plan_seed=st.integers(0, 2**20))
def test_energy_is_conserved(harsh, seed, plan_seed):
    sim = simulator(harsh, seed=seed)
    rng = np.random.default_rng(plan_seed)
    start_j = sim.state.battery_j[0].copy()
    drawn_j = 0.0
    while not sim.over[0]:
        sim.step(*random_plans(sim, rng))
        drawn_j += sim.outcome.energy_j[0]
        assert sim.outcome.slot_j[0].sum() == pytest.approx(sim.outcome.energy_j[0], rel=1e-9)
        capacity_j = sim.world.power.capacity_j
        assert (sim.state.battery_j >= 0).all() and (sim.state.battery_j <= capacity_j).all()
    stored_j, _, unserved_j, ledger_j = sim.state.energy_j[0]
    valid = sim.world.window_nodes[sim.trace.window[0]] >= 0
    change_j = (sim.state.battery_j[0] - start_j)[valid].sum()
    assert change_j == pytest.approx(stored_j, rel=1e-9, abs=1e-6)
    assert ledger_j == pytest.approx(drawn_j, rel=1e-9)
    assert unserved_j >= 0


def test_energy_balance_by_hand():
    # One satellite's battery over an episode without jobs in its way: eta_c * surplus or deficit / eta_d.
    scenario = small(load_scenario("WalkerOutage"), **HARSH)
    sim = simulator(prepare(scenario), seed=3)
    world = sim.world
    start = int(sim.state.start[0])
    v = int(world.chain[start, 0])
    node = int(world.window_nodes[sim.trace.window[0], v])
    battery_j = float(sim.state.battery_j[0, v])
    everything_elsewhere = np.full((1, sim.slots), 0)
    everything_elsewhere[0, 1:] = [4, 8, 12, 12, 12]
    sim.step(everything_elsewhere, np.zeros((1, sim.slots), np.int64))
    power = world.power
    sent_j = float(sim.state.energy_j[0, 3] * 0) + sim.job.send_s[0, 0] * world.transmit_w
    in_j = world.light[start, node] * power.panel_w * world.epoch_s
    net_j = in_j - power.base_w * world.epoch_s - sent_j
    gain_j = net_j * power.charge_efficiency if net_j > 0 else net_j / power.discharge_efficiency
    expected_j = min(max(battery_j + gain_j, 0.0), power.capacity_j)
    sim.step(everything_elsewhere, np.zeros((1, sim.slots), np.int64))
    simulated = simulator(prepare(scenario), seed=3)
    simulated.step(everything_elsewhere, np.zeros((1, sim.slots), np.int64))
    chain_next = world.chain[start + 1]
    simulated.problem()  # who looks at the next decision finds the batteries up to date
    assert v in chain_next, "the sensing satellite stays for this seed"
    assert simulated.state.battery_j[0, v] == pytest.approx(expected_j, rel=1e-12)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**40), plan_seed=st.integers(0, 2**20))
def test_outcomes_are_bounded_and_bytes_add_up(harsh, seed, plan_seed):
    sim = simulator(harsh, seed=seed)
    rng = np.random.default_rng(plan_seed)
    world = sim.world
    while not sim.over[0]:
        epoch = int(sim.state.epoch[0])
        sim.step(*random_plans(sim, rng))
        out = sim.outcome
        assert 0 < out.latency_s[0] <= world.deadline_s
        assert out.failed[0] == (out.latency_s[0] == world.deadline_s)
        assert 0 <= out.accuracy_drop[0] <= 1
        total = 0.0
        used = [k for k in range(sim.slots) if out.hop_bits[0, k] > 0]
        for place, k in enumerate(used):
            following = [j for j in range(k + 1, sim.slots + 1)]
            holders = [j for j in following if j == sim.slots or sim.cuts[0, j] > sim.cuts[0, j - 1]]
            links = (world.route_links[epoch, 0, k, holders[0]] >= 0).sum()
            total += out.hop_bits[0, k] / 8 * links
            assert place == 0 or holders[0] > k
        assert out.bytes[0] == pytest.approx(total, rel=1e-12)


def test_without_faults_the_prediction_is_what_happens():
    calm = small(
        load_scenario("WalkerOutage"),
        **{"faults.link_up_mean_s": 0.0, "faults.reset_mtbf_s": 0.0, "ground.fade_sigma": 0.0},
    )
    sim = simulator(prepare(calm), seed=5, split="dev")
    compared = 0
    while not sim.over[0]:
        problem = sim.problem()
        solution = solve(problem.costs)
        predicted = predict(problem.costs, solution.cuts, solution.levels)
        steady = np.ptp(sim.world.route_rate_bps[int(sim.state.epoch[0]), :, 0], axis=0).max() == 0
        sim.step(solution.cuts[None], solution.levels[None])
        if steady:
            assert sim.outcome.latency_s[0] == pytest.approx(predicted, rel=1e-9)
            compared += 1
    assert compared >= 10


def reset_of(sim, slot, at_s):
    """Let the satellite of a slot of world 0 reset at `at_s` on the episode's clock; nothing else has been drawn."""
    sim.trace.reset_s[0, sim.world.chain[sim.state.epoch[0], slot], 0] = at_s
    sim.state.first_fault_s[0] = at_s


def calm_world(reboot_s=10.0):
    """Return a world without faults or fades that has loaded an even plan, and that plan."""
    calm = {"faults.link_up_mean_s": 0.0, "faults.reset_mtbf_s": 0.0, "faults.reboot_s": reboot_s}
    sim = simulator(
        prepare(small(load_scenario("WalkerOutage"), **calm, **{"ground.fade_sigma": 0.0})), seed=5
    )
    cuts = np.array([[3, 6, 9, 12, 12, 12]])
    levels = np.array([[2, 2, 2, 0, 0, 0]])
    sim.step(cuts, levels)
    sim.step(cuts, levels)
    assert sim.outcome.reload_bytes[0] == 0.0
    return sim, cuts, levels


@pytest.mark.parametrize("first", [3, 0])  # blocks on the sensing satellite
def test_a_plan_waits_for_the_reboot_of_the_sensing_satellite_as_predicted(first):
    sim, cuts, levels = calm_world()
    now = 2 * sim.world.epoch_s
    reset_of(sim, 0, now - 1.0)
    if first == 0:
        cuts, levels = np.array([[0, 3, 6, 9, 12, 12]]), np.array([[0, 2, 2, 2, 0, 0]])
    problem = sim.problem()
    assert problem.problems.reboot_s[0, 0] > 1.0
    predicted = predict(problem.costs, cuts[0], levels[0])
    sim.step(cuts, levels)
    assert sim.outcome.latency_s[0] == pytest.approx(predicted, rel=1e-9)


def test_what_a_reset_makes_a_satellite_load_again_is_counted_and_drawn():
    slot = 1
    undisturbed, cuts, levels = calm_world()
    undisturbed.step(cuts, levels)
    sim, cuts, levels = calm_world()
    reset_of(sim, slot, 2 * sim.world.epoch_s + 1.0)
    power_w = sim.problems.power_w[0, slot]
    sim.step(cuts, levels)
    weights = sim.world.block_bytes[cuts[0, slot - 1] : cuts[0, slot]].sum()
    assert sim.outcome.reload_bytes[0] == pytest.approx(weights)
    reload_j = weights / sim.world.storage_bytes_per_s * power_w
    micro_batch_j = (
        undisturbed.outcome.slot_j[0, slot] / sim.world.micro_batches
    )  # the one that was lost, at most
    more_j = sim.outcome.slot_j[0, slot] - undisturbed.outcome.slot_j[0, slot]
    assert reload_j <= more_j <= reload_j + micro_batch_j
    assert sim.outcome.energy_j[0] == pytest.approx(sim.outcome.slot_j[0].sum())


def test_a_load_that_may_yet_be_interrupted_does_not_show_in_the_charge():
    charges = []
    for second_s in (np.inf, 0.05):
        sim, cuts, levels = calm_world(reboot_s=18.95)
        satellite = sim.world.chain[sim.state.epoch[0], 1]
        decision_s = 3 * sim.world.epoch_s
        sim._grow_trace(4, 2)
        reset_of(sim, 1, decision_s - 19.0)  # the load begins just before the next decision
        sim.trace.reset_s[0, satellite, 1] = decision_s + second_s
        sim.step(cuts, levels)
        assert sim.job.reload_s[1] > 0.1
        slot = sim.world.chain[sim.state.epoch[0]].tolist().index(satellite)
        charges.append(sim.problems.charge[0, slot])
    assert charges[0] == charges[1]


def llm_world(**changes):
    """Return a calm world that runs a small language model over two satellites, and that plan."""
    calm = {"faults.link_up_mean_s": 0.0, "faults.reset_mtbf_s": 0.0, "ground.fade_sigma": 0.0}
    size = {
        "jobs.items": 16.0, "jobs.prompt_tokens": 2048, "jobs.generated_tokens": 400, "jobs.deadline_s": 130.0,
        "payload.memory_bytes": 4e9, "faults.reboot_s": 5.0,
    }  # fmt: skip
    llm = swap_model(load_scenario("WalkerOutage"), "llama-3.2-1b").replace(**calm, **size | changes)
    sim = simulator(prepare(small(llm)), seed=5)
    blocks = len(sim.world.block_flops)
    cuts = np.array([[blocks // 2, *[blocks] * (sim.slots - 1)]])
    return sim, cuts, np.zeros_like(cuts)


@pytest.mark.parametrize("generated", [1, 2, 64])
def test_the_first_token_comes_of_the_prefill(generated):
    sim, cuts, levels = llm_world(**{"jobs.generated_tokens": generated, "jobs.burst": 0.0})
    sim.step(cuts, levels)
    assert sim.outcome.hop_bits[0, 1] == pytest.approx(16 * generated * 32.0)  # ids of 4 bytes to the ground


def test_an_outage_to_come_does_not_show_in_the_charge_while_tokens_are_generated():
    charges = []
    for down_s in (np.inf, 25.0):
        sim, cuts, levels = llm_world()
        sim._grow_trace(4, 2)
        link = sim.world.route_links[sim.state.epoch[0], 0, 0, 1, 0]
        sim.trace.link_down_s[0, link, 0] = (down_s, down_s + 100.0)
        sim.state.link_next_s[...] = -1.0
        sim.step(cuts, levels)
        charges.append(sim.problems.charge[0].copy())
        assert (sim.outcome.latency_s[0] > 100.0) == np.isfinite(down_s)
    np.testing.assert_array_equal(charges[0], charges[1])


def test_a_reset_while_tokens_are_generated_costs_the_keys_and_values():
    ends_s, drawn_j = [], []
    for reset_s in (np.inf, 20.5):
        sim, cuts, levels = llm_world()
        sim._grow_trace(4, 2)
        reset_of(sim, 1, reset_s)
        sim.step(cuts, levels)
        ends_s.append(sim.outcome.latency_s[0])
        drawn_j.append(sim.outcome.slot_j[0, 1] / sim.problems.power_w[0, 1])
    again_s = sim.job.reload_s[1] + sim.world.micro_batches * sim.job.compute_s[1]
    assert ends_s[1] - ends_s[0] == pytest.approx(sim.world.reboot_s + again_s)
    assert drawn_j[1] - drawn_j[0] == pytest.approx(again_s)


def test_a_block_without_weights_does_not_stay_where_nothing_is_computed(tmp_path):
    rows = "\n".join(f"{n},{0.002 * (n > 1)},{1e8 * (n > 1)},6e5" for n in range(1, 7))
    model = tmp_path / "measured.csv"
    model.write_text(
        f"# flops_per_s = 10.68e12\nblock,seconds,weight_bytes,output_bytes\n0,0,0,6e5\n{rows}\n"
    )
    scenario = load_scenario("PaperStatic").replace(**{"model.profile": str(model), "model.units": 0})
    sim = simulator(prepare(scenario))
    assert sim.problems.flops_per_s[0, 0] == 0.0  # the sensing satellite only senses
    sim.step(np.array([[1, 2, 3, 6, 6]]), np.zeros((1, 5), np.int64))
    assert sim.outcome.repaired[0] == 1.0 and sim.outcome.failed[0] == 0.0


def test_the_future_does_not_reach_the_problem(harsh):
    # Two traces equal up to a time: the problems up to that time must be equal too.
    sim = simulator(harsh, seed=11)
    for _ in range(6):
        cuts, levels, _ = exact_plan(sim)
        sim.step(cuts, levels)
    other = copy.deepcopy(sim)
    now = 6 * sim.world.epoch_s
    for twin in (sim, other):
        # What comes after the next decision: at first it may differ only after `now + epoch_s`.
        twin.trace.link_down_s[...] = np.where(
            twin.trace.link_down_s > now + sim.world.epoch_s, np.inf, twin.trace.link_down_s
        )
    following = now + sim.world.epoch_s
    free = np.isinf(other.trace.link_down_s[0, :, -1, 0])
    for w in np.flatnonzero(free):
        n = int(np.isfinite(other.trace.link_down_s[0, w, :, 0]).sum())
        if n == 0 or np.isfinite(other.trace.link_down_s[0, w, n - 1, 1]):
            other.trace.link_down_s[0, w, n] = (following + 1.0, following + 50.0)
    other.trace.reset_s[0, :, -1] = np.where(
        np.isinf(other.trace.reset_s[0, :, -1]), following + 2.0, other.trace.reset_s[0, :, -1]
    )
    other.trace.items[0, 8:] += 50
    cuts, levels, _ = exact_plan(sim)
    sim.step(cuts, levels)
    other.step(cuts, levels)
    for name, mine, theirs in zip(sim.problems._fields, sim.problems, other.problems, strict=True):
        assert np.array_equal(mine, theirs), name
    # The twin does differ later, so the comparison above could have failed.
    cuts, levels, _ = exact_plan(sim)
    sim.step(cuts, levels)
    other.step(cuts, levels)
    assert not all(np.array_equal(a, b) for a, b in zip(sim.problems, other.problems, strict=True))


def test_a_world_does_not_depend_on_its_batch(harsh):
    rng = np.random.default_rng(0)
    batch = simulator(harsh, worlds=5, seed=20)
    singles = [simulator(harsh, seed=20 + b) for b in range(5)]
    while not batch.over.all():
        cuts, levels = random_plans(batch, rng)
        batch.step(cuts, levels)
        for b, single in enumerate(singles):
            single.step(cuts[b : b + 1], levels[b : b + 1])
            assert single.outcome.latency_s[0] == batch.outcome.latency_s[b]
            for name, mine, theirs in zip(
                batch.problems._fields, batch.problems, single.problems, strict=True
            ):
                assert np.array_equal(mine[b], theirs[0]), name


def test_snapshot_and_pickle_go_on_exactly(harsh):
    rng = np.random.default_rng(1)
    sim = simulator(harsh, worlds=3, seed=9)
    for _ in range(5):
        sim.step(*random_plans(sim, rng))
    saved = sim.snapshot()
    pickled = pickle.loads(pickle.dumps(sim))
    plans = [random_plans(sim, rng) for _ in range(10)]

    def play(one):
        return [(one.step(*plan), one.outcome.latency_s.copy())[1] for plan in plans]

    first = play(sim)
    sim.restore(saved)
    assert np.array_equal(first, play(sim))
    assert np.array_equal(first, play(pickled))


def test_windows_of_splits_never_overlap(outage):
    from sat_env.simulator import SPLITS, split_windows

    seen = [w for split in SPLITS for w in split_windows(outage.scenario.windows, split)]
    assert sorted(seen) == list(range(outage.scenario.windows))
    sim = simulator(outage, split="test")
    with pytest.raises(ValueError, match="window = 0"):
        sim.begin(windows=np.array([0]))


def test_imagination_starts_from_what_is_known_and_tells_nothing_of_the_trace(harsh):
    rng = np.random.default_rng(2)
    sim = simulator(harsh, seed=77)
    for _ in range(8):
        sim.step(*random_plans(sim, rng))
    before = sim.snapshot()
    imagined = sim.imagine(5)
    # A twin whose true future differs imagines the same.
    twin = copy.deepcopy(sim)
    now = 8 * sim.world.epoch_s
    later = twin.trace.link_down_s > now
    twin.trace.link_down_s[later] = np.inf
    open_ends = np.isinf(twin.trace.link_down_s[..., 1]) & np.isfinite(twin.trace.link_down_s[..., 0])
    twin.trace.link_down_s[..., 1][open_ends] = now + 500.0  # outages in progress: another end
    twin.trace.items[0, 9:] += 30
    twin.trace.lost_s[twin.trace.lost_s > now] = np.inf
    state, span = twin.state, twin.state.draw_j.shape[2]
    for v, booked in enumerate(state.battery_epoch[0]):
        ahead = np.arange(max(booked, state.epoch[0]), booked + span)
        state.draw_j[0, v, ahead % span] += 1000.0  # what running jobs will still draw
    other = twin.imagine(5)
    plans = [random_plans(sim, rng) for _ in range(8)]
    for plan in plans:
        imagined.step(*plan)
        other.step(*plan)
        assert imagined.outcome.latency_s[0] == other.outcome.latency_s[0]
        for name, mine, theirs in zip(
            imagined.problems._fields, imagined.problems, other.problems, strict=True
        ):
            assert np.array_equal(mine, theirs), name
    # The simulator itself was not touched, and another seed imagines another future.
    for mine, theirs in zip(before.state, sim.state, strict=True):
        assert np.array_equal(mine, theirs)
    futures = [sim.imagine(seed) for seed in range(8)]
    assert len({future.trace.link_down_s.tobytes() for future in futures}) == 8


def test_imagination_by_the_seed_of_the_episode_is_not_the_episode(harsh):
    sim = simulator(harsh, seed=5)
    sim.step(*random_plans(sim, np.random.default_rng(0)))
    imagined = sim.imagine(5).trace
    for name in ("items", "content", "reset_s", "link_down_s", "downlink_factor"):
        assert not np.array_equal(getattr(sim.trace, name), getattr(imagined, name)), name


def test_imagined_satellites_are_lost_as_often_as_true_ones_and_take_their_links_along():
    prepared = prepare(
        small(load_scenario("WalkerHarsh"), **{"faults.loss_mtbf_s": 4000.0, "faults.link_up_mean_s": 60.0})
    )
    sim = Simulator(prepared, 64, "train")
    sim.begin(seeds=np.arange(64, dtype=np.uint64))
    for _ in range(8):
        sim.step(*random_plans(sim, np.random.default_rng(0)))
    now_s, horizon_s = 8 * sim.world.epoch_s, 24 * sim.world.epoch_s
    imagined = sim.imagine(1000).trace
    gone = sim.trace.lost_s <= now_s
    assert gone.any()
    np.testing.assert_array_equal(imagined.lost_s[gone], sim.trace.lost_s[gone])
    seen = sim.world.window_nodes[sim.trace.window] >= 0
    lost = ((imagined.lost_s > now_s) & (imagined.lost_s < horizon_s))[seen & ~gone]
    expected = -np.expm1(-(horizon_s - now_s) / 4000.0)
    assert abs(lost.mean() - expected) < 4 * np.sqrt(expected / lost.size)
    ends = prepared.contacts.link_ends[sim.world.window_links[sim.trace.window]]
    for trace in (sim.trace, imagined):
        for b, w in np.ndindex(trace.link_down_s.shape[:2]):
            link_s = min(
                (
                    trace.lost_s[b, list(sim.world.window_nodes[sim.trace.window[b]]).index(node)]
                    for node in ends[b, w]
                    if sim.world.window_links[sim.trace.window[b], w] >= 0
                    and node in sim.world.window_nodes[sim.trace.window[b]]
                ),
                default=np.inf,
            )
            if link_s < horizon_s:
                down = trace.link_down_s[b, w]
                last = down[np.isfinite(down[:, 0])][-1]
                assert last[0] <= link_s and last[1] == np.inf


@pytest.mark.parametrize("name", ["WalkerOutage", "WalkerRush"])
def test_how_long_an_overdue_slot_stays_busy_is_expected_rightly(name):
    """Of all that are busy beyond what was expected of them, on average; and none beyond its job's deadline."""
    scenario = load_scenario(name)
    if scenario.faults.link_up_mean_s > 0.0:
        scenario = scenario.replace(**{"faults.link_up_mean_s": 1_000.0})
    prepared = prepare(scenario)
    planner, sim = priced_plans(Constants(), prepared), Simulator(prepared, 160)
    sim.begin(seeds=np.arange(160, dtype=np.uint64))
    each, true_s, said_s = np.arange(160)[:, None], [], []
    for t in range(scenario.episode_epochs):
        chain, now_s = sim.world.chain[sim.problems.epoch], t * sim.world.epoch_s
        busy_s = sim.state.busy_s[each, chain] - now_s
        overdue = (busy_s > 0) & (sim.state.expected_busy_s[each, chain] <= now_s)
        true_s.append(busy_s[overdue])
        said_s.append(sim.problems.busy_s[:, :-1][overdue])
        sim.step(*planner(sim.world, sim.problems))
    true, said = np.concatenate(true_s), np.concatenate(said_s)
    longest_s = sim.world.deadline_s - sim.world.epoch_s
    assert (said >= 0).all() and max(true.max(), said.max()) <= longest_s
    assert 0.5 * true.mean() < said.mean() < 1.5 * true.mean()


def test_imagined_resets_come_until_the_end_however_few_came_so_far():
    """A future is drawn from the start of the episode on: what it holds before now takes no room from the rest."""
    prepared = prepare(
        small(load_scenario("WalkerOutage"), **{"faults.reset_mtbf_s": 20.0, "faults.anomaly_factor": 1.0})
    )
    sim = simulator(prepared, seed=1)
    for _ in range(14):
        sim.step(*random_plans(sim, np.random.default_rng(0)))
    sim.trace = sim.trace._replace(reset_s=np.full((1, sim.trace.reset_s.shape[1], 1), np.inf))
    sim._point()
    now_s, horizon_s = 14 * sim.world.epoch_s, sim.trace.downlink_factor.shape[1] * sim.world.epoch_s
    resets_s = sim.imagine(1).trace.reset_s[0, sim.world.window_nodes[sim.trace.window[0]] >= 0]
    late = (resets_s > 0.5 * (now_s + horizon_s)) & (resets_s < horizon_s)
    early = (resets_s > now_s) & (resets_s <= 0.5 * (now_s + horizon_s))
    assert 0.8 < late.sum() / early.sum() < 1.25


def test_recorded_outages_are_played_back(tmp_path):
    base = small(load_scenario("WalkerOutage"), **{"faults.link_up_mean_s": 0.0})
    contacts = prepare(base).contacts
    link = int(prepare(base).world.window_links[0, 0])
    a, b = (contacts.names[node] for node in contacts.link_ends[link])
    log = tmp_path / "log.csv"
    log.write_text(
        f"subject,a,b,start_s,end_s\nlink,{a},{b},30,50\nlink,{b},{a},45,70\nsatellite,{a},,200,300\n",
        encoding="utf-8-sig",  # as spreadsheets do
    )
    sim = Simulator(prepare(base.replace(**{"faults.outage_log": str(log)})), 1, "train")
    sim.begin(seeds=np.array([0], np.uint64), windows=np.array([0]))
    assert sim.trace.link_down_s[0, 0, 0].tolist() == [30.0, 70.0]
    links = sim.world.window_links[0]
    of_a = [
        w for w, this in enumerate(links) if this >= 0 and contacts.names.index(a) in contacts.link_ends[this]
    ]
    assert any(contacts.link_is_downlink[links[w]] for w in of_a)
    for w in of_a:
        down = sim.trace.link_down_s[0, w].tolist()
        assert down[:2] == ([[30.0, 70.0], [200.0, 300.0]] if w == 0 else [[200.0, 300.0], [np.inf, np.inf]])
    log.write_text(f"subject,a,b,start_s,end_s\nlink,{a},nobody,30,50\n")
    with pytest.raises(ValueError, match="line 2 = 'nobody'"):
        prepare(base.replace(**{"faults.outage_log": str(log)}))
    header = "subject,a,b,start_s,end_s\n"
    seen = {frozenset(ends) for ends in contacts.link_ends.tolist()}
    first = contacts.names.index(a)
    apart = next(n for n, _ in enumerate(contacts.names) if n != first and frozenset((n, first)) not in seen)
    for text, message in (
        (f"{header}link,{a},{a},30,50\n", "must be two satellites that can hold a link"),
        (f"{header}link,{a},{contacts.names[apart]},30,50\n", "must be two satellites that can hold a link"),
        (f"{header}link,{a},{b},-inf,50\n", "must be finite numbers, start_s below end_s"),
        ("", r"line 1 = \[\]: must be the columns subject"),
        ("a,b\n", "line 1"),
        ("x\n", "line 1"),
    ):
        log.write_text(text)
        with pytest.raises(ValueError, match=message):
            prepare(base.replace(**{"faults.outage_log": str(log)}))


def test_an_outage_from_before_the_episode_is_as_old_as_it_is():
    """To an observer and in imagination alike: who runs the network knows its log."""
    law = {"faults.link_tail_share": 0.05, "episode_epochs": 20, "windows": 5, "faults.link_up_mean_s": 500.0}
    prepared = prepare(load_scenario("WalkerOutage").replace(**law))
    sim = simulator(prepared, worlds=64)
    starts = sim.trace.link_down_s[:, :, 0, 0]
    world, link = np.nonzero(starts < 0.0)
    assert len(world) > 30
    down = sim.problems.primary_up == 0.0
    seen = set(np.round(sim.problems.state_age_s[down & (sim.problems.route_hops > 0)], 6))
    assert len(seen) > 10 and seen <= set(np.round(-starts[world, link], 6))
    outages = prepared.world.outages
    expected_s = [
        residual_outage_s(outages.residual_s, outages.residual_step_s, age) for age in -starts[world, link]
    ]
    ends_s = [sim.imagine(seed).trace.link_down_s[world, link, 0, 1] for seed in range(12)]
    assert np.mean(ends_s) == pytest.approx(np.mean(expected_s), rel=0.1)


def test_a_recorded_outage_older_than_any_drawn_one_goes_on_in_imagination(tmp_path):
    """What is seen as down must not be imagined as up at once: the problem says how long it is expected to last."""
    base = small(
        load_scenario("WalkerOutage"), **{"faults.link_up_mean_s": 0.0, "faults.link_tail_share": 0.0}
    )
    contacts = prepare(base).contacts
    a, b = (contacts.names[n] for n in contacts.link_ends[prepare(base).world.window_links[0, 0]])
    (tmp_path / "log.csv").write_text(f"subject,a,b,start_s,end_s\nlink,{a},{b},0,9999\n")
    sim = Simulator(prepare(base.replace(**{"faults.outage_log": str(tmp_path / "log.csv")})), 1, "train")
    sim.begin(seeds=np.array([0], np.uint64), windows=np.array([0]))
    for _ in range(10):
        sim.step(*random_plans(sim, np.random.default_rng(0)))
    longest_s = base.faults.link_down_max_s
    assert sim.imagine(0).trace.link_down_s[0, 0, 0].tolist() == [0.0, 10 * base.epoch_s + longest_s]
    # One that is a rounding short of the longest cannot be drawn longer: it ends.
    short = base.replace(
        **{"faults.outage_log": str(tmp_path / "log.csv"), "faults.link_down_max_s": 5 * base.epoch_s + 1e-12}
    )
    sim = Simulator(prepare(short), 1, "train")
    sim.begin(seeds=np.array([0], np.uint64), windows=np.array([0]))
    for _ in range(5):
        sim.step(*random_plans(sim, np.random.default_rng(0)))
    end_s = sim.imagine(0).trace.link_down_s[0, 0, 0, 1]
    assert end_s == pytest.approx(5 * base.epoch_s)


def test_rain_slows_the_downlink_and_nothing_else():
    dry = small(load_scenario("WalkerOutage"), **{"ground.downlink": "ka", "ground.share": 0.05})
    wet = dry.replace(**{"faults.rain": True})
    mine, theirs = (simulator(prepare(scenario), seed=4) for scenario in (dry, wet))
    for name in ("link_down_s", "reset_s", "items", "content", "downlink_factor", "charge"):
        assert np.array_equal(getattr(mine.trace, name), getattr(theirs.trace, name)), name
    assert (theirs.trace.rain_db > 0).all() and not mine.trace.rain_db.any()
    slots = mine.slots
    ground_dry, ground_wet = mine.problems.rate_bps[0, :, slots], theirs.problems.rate_bps[0, :, slots]
    assert (ground_wet <= ground_dry).all()
    theirs.trace.rain_db[...] = 20.0
    rng = np.random.default_rng(0)
    plan = random_plans(mine, rng)
    mine.step(*plan)
    theirs.step(*plan)
    assert (theirs.problems.rate_bps[0, :, slots] < mine.problems.rate_bps[0, :, slots]).any()
    between = np.triu_indices(slots, 1)
    assert np.array_equal(mine.problems.rate_bps[0][between], theirs.problems.rate_bps[0][between])


def test_rain_opens_no_contact_that_carries_nothing_under_a_clear_sky():
    """Near the horizon the gas alone stops the carrier: there is no clear-sky rate to take a share of."""
    low = {"ground.downlink": "ka", "ground.elevation_mask_deg": 0.0, "faults.rain": True}
    sim = simulator(prepare(small(load_scenario("WalkerOutage"), **low)), worlds=16)
    dark = 0
    while not sim.over.all():
        here = sim.problems.epoch
        clear_bps = sim.world.downlink_bps[here, 0, 0]
        seen = sim.problems.rate_bps[:, :, sim.slots]
        shut = (sim.world.route_station[here, 0, :, sim.slots] >= 0) & (clear_bps == 0.0)
        dark += shut.sum()
        assert (seen[shut] == 0.0).all() and np.isfinite(seen).all()
        sim.step(*random_plans(sim, np.random.default_rng(0)))
    assert dark > 0


def test_a_good_downlink_does_not_speed_up_the_links_before_it():
    scenario = small(
        load_scenario("WalkerOutage"),
        **{"ground.fade_sigma": 0.8, "links.rate_bps": 1e5, "ground.rate_bps": 2e5, "ground.share": 1.0},
    )
    sim = Simulator(prepare(scenario), 32, "train")
    sim.begin(seeds=np.arange(32, dtype=np.uint64))
    shares = sim.trace.downlink_factor[np.arange(32), 0]
    here = sim.state.epoch
    relay_bps, downlink_bps = sim.world.relay_bps[here, 0, 0], sim.world.downlink_bps[here, 0, 0]
    station = sim.world.route_station[here, 0, :, sim.slots]
    share = np.take_along_axis(shares, np.maximum(station, 0).astype(np.int64), axis=1)
    expected = np.where(station >= 0, np.minimum(relay_bps, downlink_bps * share), 0.0)
    limited = (station >= 0) & (relay_bps < downlink_bps * share)
    assert limited.any() and (limited & (relay_bps < np.inf)).any() and not limited.all()
    up = sim.problems.primary_up[:, :, sim.slots] > 0
    np.testing.assert_array_equal(sim.problems.rate_bps[:, :, sim.slots][up], expected[up])


def test_the_ground_is_expected_to_decode_as_long_as_it_does():
    """On a calm world the nominal pipeline is what happens: also where the ground holds the last blocks."""
    calm = {"faults.link_up_mean_s": 0.0, "faults.reset_mtbf_s": 0.0, "ground.fade_sigma": 0.0}
    light = {"jobs.items": 20.0, "jobs.generated_tokens": 400, "ground.rate_bps": 1e9, "ground.share": 1.0}
    llm = swap_model(load_scenario("WalkerRush"), "llama-3.2-1b")
    sim = simulator(prepare(small(llm, **calm, **light)), seed=3)
    cuts = np.full((1, sim.slots), len(sim.world.block_flops) // 2, np.int64)
    sim.step(cuts, np.zeros_like(cuts))
    assert sim.outcome.failed[0] == 0.0
    assert sim.state.ground_busy_s[0] == pytest.approx(sim.outcome.latency_s[0])
    assert sim.state.expected_ground_busy_s[0] == pytest.approx(sim.state.ground_busy_s[0])


def test_a_snapshot_goes_back_to_its_own_scenario_only(harsh):
    taken = simulator(harsh).snapshot()
    other = Simulator(prepare(harsh.scenario.replace(epoch_s=harsh.scenario.epoch_s + 1.0)), 1, "train")
    with pytest.raises(ValueError, match=r"snapshot = of WalkerOutage \(.*\): must be of WalkerOutage \("):
        other.restore(taken)
    with pytest.raises(ValueError, match="snapshot = 1 worlds: must be 2"):
        Simulator(harsh, 2, "train").restore(taken)
