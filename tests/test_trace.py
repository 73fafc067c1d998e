"""The exogenous future: stated laws, the same bits whatever the place, one stream not touching another."""

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from sat_env.faults import OutageLaw, outage_law
from sat_env.scenario import Faults
from sat_env.trace import Trace, TraceLaw, draw_world, normal, stream_key, uniform

PLANES, PER_PLANE = 3, 4
NODES = PLANES * PER_PLANE
STATIONS = 2
EPOCH_S = 20.0

FAULTS = Faults(link_up_mean_s=900.0, link_down_mean_s=40.0, link_tail_share=0.1)
LAW = TraceLaw(
    epoch_s=EPOCH_S,
    items_mean=200.0,
    burst=0.3,
    burst_mean_s=300.0,
    content_sigma=0.25,
    fade_sigma=0.4,
    reset_mtbf_s=20_000.0,
    anomaly_factor=7.0,
    loss_mtbf_s=0.0,
    plane_loss_mtbf_s=0.0,
    charge_low=0.7,
    charge_high=0.9,
    rain=False,
    rain_log_mean=np.zeros(8),
    rain_log_sigma=np.ones(8),
    rain_keep=0.9,
    logged=np.zeros((0, 3)),
)
# links n -> n + 1 of a ring over all satellites, then one downlink each to a station
ENDS = np.array(
    [(n, (n + 1) % NODES) for n in range(NODES)] + [(n, NODES + n % STATIONS) for n in range(NODES)], np.int64
)
IS_DOWNLINK = np.arange(2 * NODES) >= NODES
PLANE = np.arange(NODES) // PER_PLANE
IN_ANOMALY = np.arange(NODES) % 2 == 1  # for whole episodes: odd satellites


def empty(worlds: int, epochs: int, nodes: int, links: int, *, outages: int = 60, resets: int = 60) -> Trace:
    """Arrays full of 7, so that what is not drawn shows; rain is 0 where none is drawn."""
    return Trace(
        window=np.zeros(worlds, np.int64),
        link_down_s=np.full((worlds, links, outages, 2), 7.0),
        reset_s=np.full((worlds, nodes, resets), 7.0),
        lost_s=np.full((worlds, nodes), 7.0),
        items=np.full((worlds, epochs), 7.0),
        content=np.full((worlds, epochs), 7.0),
        downlink_factor=np.full((worlds, epochs + 3, STATIONS), 7.0),
        rain_db=np.zeros((worlds, epochs + 3, STATIONS)),
        charge=np.full((worlds, nodes), 7.0),
    )


def draw(
    worlds: int,
    epochs: int = 50,
    *,
    law: TraceLaw = LAW,
    outages: OutageLaw | None = None,
    nodes: np.ndarray | None = None,
    links: np.ndarray | None = None,
    seed: int = 1,
    episodes: range | None = None,
) -> Trace:
    """Draw episodes of one seed into the rows of one trace."""
    nodes = np.arange(NODES) if nodes is None else nodes
    links = np.arange(2 * NODES) if links is None else links
    outages = outage_law(FAULTS) if outages is None else outages
    trace = empty(worlds, epochs, len(nodes), len(links))
    anomaly = np.tile(IN_ANOMALY, (epochs, 1))
    for b, episode in enumerate(range(worlds) if episodes is None else episodes):
        found = draw_world(
            np.uint64(seed),
            episode,
            b,
            0,
            trace,
            law,
            outages,
            links,
            ENDS,
            IS_DOWNLINK,
            nodes,
            PLANE,
            anomaly,
            np.ones(trace.downlink_factor.shape[1:], np.bool_),
        )
        assert found[0] <= trace.link_down_s.shape[2]
        assert found[1] <= trace.reset_s.shape[2]
    return trace


@pytest.fixture(scope="module")
def thousand() -> Trace:
    return draw(1000, 300)


HORIZON_S = 303 * EPOCH_S


def assert_mean(sample: np.ndarray, mean: float) -> None:
    assert abs(sample.mean() - mean) < 4 * sample.std() / math.sqrt(sample.size)


def assert_share(hits: np.ndarray, share: float) -> None:
    assert abs(hits.mean() - share) < 4 * math.sqrt(share * (1 - share) / hits.size)


@njit
def many(key: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    u, z = np.empty((300, 300)), np.empty(50_000)
    for i in range(300):
        for j in range(300):
            u[i, j] = uniform(key, i, j)
    for i in range(len(z)):
        z[i] = normal(key, 0, i)
    return u, z


def test_uniform_and_normal_are_what_they_are_called() -> None:
    key = stream_key(3, 4, 5)
    # neighbours in subject and in counter, as every stream draws them
    u, z = many(key)
    assert 0.0 < u.min() < u.max() < 1.0
    assert_mean(u, 0.5)
    assert_mean((u - 0.5) ** 2, 1 / 12)
    counts = np.histogram(u, 64, (0, 1))[0]
    assert ((counts - u.size / 64) ** 2).sum() / (u.size / 64) < 63 + 5 * math.sqrt(2 * 63)
    for a, b in ((u[1:], u[:-1]), (u[:, 1:], u[:, :-1])):
        assert_mean((a - 0.5) * (b - 0.5), 0.0)
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert_mean(z**power, moment)


def test_outages_have_the_stated_means(thousand: Trace) -> None:
    law = outage_law(FAULTS)
    down = thousand.link_down_s[:, :NODES]
    start, end = down[..., 0], down[..., 1]
    drawn = np.isfinite(start)
    assert (start[drawn] < HORIZON_S).all()
    assert (end[drawn] > 0.0).all()
    gaps = start[..., 1:] - np.where(drawn, end, 0.0)[..., :-1]
    assert (gaps[drawn[..., 1:]] > 0.0).all()
    fresh = drawn & (start > 0.0)
    lengths = (end - np.where(drawn, start, 0.0))[fresh]
    assert_mean(lengths, law.down_mean_s)
    assert_share(lengths > 100.0, 0.1)
    # an up time, up to a cap that all of these outages leave room for, does not follow from the outage before
    cap_s = 2000.0
    whole = fresh & (end < HORIZON_S - cap_s)
    following = np.append(start[..., 1:], np.full((*start.shape[:2], 1), np.inf), axis=2)
    up_after = np.minimum(following[whole] - end[whole], cap_s)
    before = end[whole] - start[whole]
    assert abs(np.corrcoef(before, up_after)[0, 1]) < 4 / math.sqrt(whole.sum())
    # up times: exposure per break, which a censored sample does not bias
    down_s = np.where(drawn, np.clip(end, 0, HORIZON_S) - np.clip(start, 0, HORIZON_S), 0.0).sum()
    up_s = HORIZON_S * drawn.shape[0] * drawn.shape[1] - down_s
    assert abs(up_s / fresh.sum() / FAULTS.link_up_mean_s - 1) < 4 / math.sqrt(fresh.sum())


def test_outages_are_stationary_from_the_start(thousand: Trace) -> None:
    law = outage_law(FAULTS)
    share = law.down_mean_s / (law.down_mean_s + law.up_mean_s)
    start, end = thousand.link_down_s[:, :NODES, :, 0], thousand.link_down_s[:, :NODES, :, 1]
    u = (np.arange(10_000) + 0.5) / 10_000
    span, rate = law.high_s - law.low_s, law.body_rate_per_s
    body = law.low_s - np.log1p(u * np.expm1(-rate * span)) / rate
    tail = law.tail_low_s + u * (law.tail_high_s - law.tail_low_s)
    rest_mean_s = (0.9 * np.mean(body**2) + 0.1 * np.mean(tail**2)) / (2 * law.down_mean_s)
    for t in (0.0, 1000.0, 0.5 * HORIZON_S, 0.95 * HORIZON_S):
        met = (start <= t) & (t < end)
        assert_share(met.any(axis=2), share)
        assert_mean(t - start[met], rest_mean_s)  # age and rest of one met in progress have the same law
        assert_mean(end[met] - t, rest_mean_s)


def test_resets_come_at_the_stated_rate_in_and_out_of_the_anomaly() -> None:
    # another order than that of the ids: the Anomaly is looked up by satellite, not by place
    nodes = np.array([5, 0, 2, 11, 4, 1])
    resets = draw(1000, 300, nodes=nodes).reset_s
    drawn = np.isfinite(resets)
    later, sooner = resets[..., 1:][drawn[..., 1:]], resets[..., :-1][drawn[..., 1:]]
    assert (later > sooner).all()
    for inside, mtbf_s in ((False, 20_000.0), (True, 20_000.0 / 7)):
        found = drawn[:, IN_ANOMALY[nodes] == inside]
        expected = HORIZON_S / mtbf_s * found.shape[0] * found.shape[1]
        assert abs(found.sum() - expected) < 4 * math.sqrt(expected)
    times = resets[drawn]
    assert_mean(times, HORIZON_S / 2)


def test_items_content_and_fades_have_the_stated_means(thousand: Trace) -> None:
    assert set(np.unique(thousand.items)) == {140.0, 260.0}
    high = thousand.items > LAW.items_mean
    assert_share(high[:, 0], 0.5)
    assert_share(high[:, -1], 0.5)
    # a telegraph signal with mean time m between changes: correlation exp(-2 t / m)
    sign = np.where(high, 1.0, -1.0)
    for lag in (1, 5, 15):
        products = (sign[:, lag:] * sign[:, :-lag]).mean(axis=1)
        assert_mean(products, math.exp(-2 * lag * EPOCH_S / LAW.burst_mean_s))
    for values, sigma in ((thousand.content, 0.25), (thousand.downlink_factor, 0.4)):
        assert_mean(values, 1.0)
        assert_mean((np.log(values) + sigma**2 / 2) ** 2, sigma**2)
    assert thousand.charge.min() >= 0.7
    assert thousand.charge.max() <= 0.9
    assert_mean(thousand.charge, 0.8)


def test_losses_come_at_the_stated_rate_and_take_their_links_down() -> None:
    law = LAW._replace(loss_mtbf_s=10_000.0, plane_loss_mtbf_s=30_000.0)
    trace = draw(1000, 300, law=law)
    for t in (2000.0, 6000.0):
        survived = trace.lost_s[:, ::PER_PLANE] > t  # one satellite a plane: independent
        assert_share(survived, math.exp(-t / 10_000.0 - t / 30_000.0))
    both = (trace.lost_s[:, 0] > 6000.0) & (trace.lost_s[:, 1] > 6000.0)
    assert_share(both, math.exp(-2 * 6000.0 / 10_000.0 - 6000.0 / 30_000.0))  # the plane goes as one
    down = trace.link_down_s
    last_end = np.where(np.isfinite(down[..., 0]), down[..., 1], 0.0).max(axis=2)
    last_start = np.where(np.isfinite(down[..., 0]), down[..., 0], -np.inf).max(axis=2)
    assert np.isinf(last_end).all()
    lost = np.minimum(trace.lost_s[:, ENDS[:NODES, 0]], trace.lost_s[:, ENDS[:NODES, 1]])
    assert (last_start[:, :NODES] <= lost).all()
    assert (last_start[:, NODES:] == trace.lost_s).all()  # a downlink has no outages of its own


def test_a_draw_depends_on_nothing_but_seed_episode_and_id() -> None:
    law = LAW._replace(loss_mtbf_s=50_000.0)
    whole = draw(3, law=law)
    rng = np.random.default_rng(0)
    nodes, links = rng.permutation(NODES)[:7], rng.permutation(2 * NODES)[:9]
    other = draw(1, law=law, nodes=np.append(nodes, -1), links=np.append(links, -1), episodes=range(2, 3))
    assert np.array_equal(other.link_down_s[0, :-1], whole.link_down_s[2, links])
    assert np.isinf(other.link_down_s[0, -1]).all()
    for name in ("reset_s", "lost_s", "charge"):
        assert np.array_equal(getattr(other, name)[0, :-1], getattr(whole, name)[2, nodes]), name
    for name in ("items", "content", "downlink_factor"):
        assert np.array_equal(getattr(other, name)[0], getattr(whole, name)[2]), name


def test_episodes_and_seeds_differ() -> None:
    first, other = draw(2), draw(1, seed=2)
    for name in ("link_down_s", "reset_s", "items", "content", "downlink_factor", "charge"):
        values = getattr(first, name)
        assert not np.array_equal(values[0], values[1]), name
        assert not np.array_equal(values[0], getattr(other, name)[0]), name


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        ({"reset_mtbf_s": 0.0}, {"reset_s"}),
        ({"reset_mtbf_s": 1000.0, "anomaly_factor": 2.0}, {"reset_s"}),
        ({"loss_mtbf_s": 1000.0}, {"lost_s", "link_down_s"}),
        ({"plane_loss_mtbf_s": 1000.0}, {"lost_s", "link_down_s"}),
        ({"burst": 0.0}, {"items"}),
        ({"content_sigma": 0.0}, {"content"}),
        ({"fade_sigma": 0.0}, {"downlink_factor"}),
        ({"charge_low": 0.8}, {"charge"}),
        ({"link_up_mean_s": 0.0}, {"link_down_s"}),
    ],
)
def test_changing_one_stream_leaves_the_others_alone(change: dict[str, float], touched: set[str]) -> None:
    outages = outage_law(FAULTS)
    before = draw(5, outages=outages)
    if "link_up_mean_s" in change:
        after = draw(5, outages=outages._replace(up_mean_s=0.0))
    else:
        after = draw(5, outages=outages, law=LAW._replace(**change))
    for name in Trace._fields:
        assert np.array_equal(getattr(before, name), getattr(after, name)) == (name not in touched), name


def test_what_is_switched_off_does_nothing() -> None:
    law = LAW._replace(reset_mtbf_s=0.0, burst=0.0, content_sigma=0.0, fade_sigma=0.0)
    trace = draw(2, law=law, outages=outage_law(FAULTS)._replace(up_mean_s=0.0))
    for name in ("link_down_s", "reset_s", "lost_s"):
        assert np.isinf(getattr(trace, name)).all(), name
    for name in ("content", "downlink_factor"):
        assert (getattr(trace, name) == 1.0).all(), name
    assert (trace.items == 200.0).all()


def digest() -> str:
    """Of all bits of a few traces."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in draw(4))).hexdigest()


def test_another_process_draws_the_same_bits() -> None:
    here = Path(__file__).parent
    script = "import test_trace; print(test_trace.digest())"
    path = {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    other = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | path, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == digest()
