"""PipeEdge's scheduler cases: the exact planner finds the same bottleneck over all orders of devices."""

import json
import os
from heapq import heapify, heappop, heappush
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import yaml

from sat_env.planning import costs_from_arrays, solve

NEVER = 1e6  # seconds
MANY = 10**9  # micro-batches: the makespan is then the bottleneck, (M - 1) times


def pipeedge_data() -> Path:
    root = Path(__file__).resolve().parents[1]
    places = [os.environ.get("SAT_ENV_SHARED_DATA", root / "../shared/data"), root / "../../shared/data"]
    for place in places:
        if (Path(place) / "pipeedge").is_dir():
            return Path(place) / "pipeedge"
    pytest.skip("PipeEdge's cases are not here (../shared/data/pipeedge, or SAT_ENV_SHARED_DATA)")


def devices_of(types, hosts, model):
    """(seconds per sub-layer, bandwidth in bit/s as PipeEdge counts it, memory in bytes) of every host."""
    devices = []
    for name, members in hosts.items():
        profile = types[name]["model_profiles"][model][0]
        assert profile["batch_size"] == 8
        device = (tuple(profile["time_s"]), types[name]["bw_Mbps"] * 1024**2, types[name]["mem_MB"] * 2**20)
        devices += [device] * len(members)
    return devices


def best_in_order(model, slots):
    """Plan of least bottleneck over a chain of slots, each (place, device, free bytes, ins, outs).

    Returns the bottleneck and the parts (place, device, first block, last block + 1). A slot takes
    activations of the sizes `ins` and sends the sizes `outs` (None: any). Two slots of one place share no
    hop, so that neighbours of one place are alternatives; place None holds nothing.
    """
    n, k = model["layers"], len(slots)
    sent = sent_bytes(model)
    inner = sent.copy()
    inner[[0, n]] = 0.0  # nothing is counted before the first or after the last part
    rate, codec = np.full((k, k + 1), 1e12), np.zeros((2, k + 1, n + 1, 1))
    for i, (place, device, _, ins, outs) in enumerate(slots):
        for side, sizes in enumerate((outs, ins)):
            if sizes is not None:
                codec[side, i, 1:n, 0] = np.where(np.isin(sent[1:n], sizes), 0.0, NEVER)
        for j, (other_place, other, *_) in enumerate(slots):
            if place is not None and other_place is not None:
                rate[i, j] = min(device[1], other[1]) if place != other_place else 0.0
    costs = costs_from_arrays(
        [*([np.inf] * n if place is None else device[0] for place, device, *_ in slots), [np.inf] * n],
        inner,
        rate,
        micro_batches=MANY,
        ground_hosts=0,
        encode_s=codec[0],
        decode_s=codec[1],
        memory_bytes=np.array(model["mem_MB"]) * 2**20,
        memory_free_bytes=[*(max(0.0, np.nextafter(free, 0.0)) for _, _, free, *_ in slots), 0.0],
    )
    plan = solve(costs)
    if not plan.objective < MANY * NEVER / 2:
        return np.inf, []
    starts = [0, *plan.cuts[:-1]]
    parts = [(*slots[i][:2], a, b) for i, (a, b) in enumerate(zip(starts, plan.cuts, strict=True)) if b > a]
    longest = 0.0
    for (_, device, start, end), (_, following, *_) in zip(parts, [*parts[1:], (None, None)], strict=True):
        longest = max(longest, sum(device[0][start:end]))
        if following is not None:
            longest = max(longest, 8 * sent[end] / min(device[1], following[1]))
    return longest, parts


def sent_bytes(model):
    """Bytes at every boundary: batch 8, fp32."""
    return 32.0 * np.array([model["parameters_in"], *model["parameters_out"]])


def least_bottleneck_s(model, devices):
    """Least bottleneck over all orders of the devices by PipeEdge's rules; inf if none fits.

    PipeEdge's memory has buffers that depend on both ends of a part: 2 in (but for the first) + 2 out + in +
    out. Every order is planned without buffers first, which bounds it from below. The order of least bound is
    taken up again and again: if its plan keeps the buffers, it is the optimum; if not, each device that broke
    them becomes several slots, one for each pair of sizes that it may take in and send, with the buffers of
    that pair taken off its memory, and the order is planned anew.
    """
    n, sent = model["layers"], sent_bytes(model)
    block_bytes = np.array(model["mem_MB"]) * 2**20
    sizes = np.unique(sent[1:n])
    pairs = [
        (in_bytes + out_bytes, ins, outs)
        for ins, in_bytes in [([], sent[0]), *(([size], 3 * size) for size in sizes)]
        for outs, out_bytes in [([], 3 * sent[n]), *(([size], 3 * size) for size in sizes)]
    ]

    def fits(device, start, end):
        buffers = (3 if start > 0 else 1) * sent[start] + 3 * sent[end]
        return block_bytes[start:end].sum() + buffers < device[2]

    def planned(order, split):
        """Bound, tie-breaker, order, places planned with their buffers, parts of the plan."""
        slots = [(None, None, 0.0, None, None)] if split else []  # only sends the input to any slot
        for place, device in enumerate(order):
            if place in split:
                slots += [(place, device, device[2] - buffers, ins, outs) for buffers, ins, outs in pairs]
            else:
                slots.append((place, device, device[2], None, None))
        bound, parts = best_in_order(model, slots)
        return bound, len(split), order, split, parts

    queue = [planned(order, ()) for order in set(permutations(devices))]
    heapify(queue)
    while True:
        bound, _, order, split, parts = heappop(queue)
        broken = {place for place, *part in parts if not fits(*part)}
        if not broken:
            return bound
        assert not broken & set(split)
        heappush(queue, planned(order, tuple(sorted({*split, *broken}))))


def load(path):
    with open(path) as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


FAST = (0, 1, 3, 5, 9, 13, 16, 19, 21, 23)  # up to 5 devices, and one of 6; 7 have 5,040 orders


@pytest.mark.parametrize(
    "case", [pytest.param(i, marks=[] if i in FAST else pytest.mark.slow) for i in range(24)]
)
def test_random_cases(case):
    data = pipeedge_data()
    expected = json.loads((data / "outputs/random_results.json").read_text())[case]
    assert expected["case"] == case
    types = load(data / f"inputs/random/device_types.{case:02d}.yml")
    hosts = load(data / f"inputs/random/devices.{case:02d}.yml")
    model = load(data / "inputs/models.yml")[expected["model"]]
    found = least_bottleneck_s(model, devices_of(types, hosts, expected["model"]))
    assert found == pytest.approx(expected["bottleneck_s"], rel=1e-6)


@pytest.mark.parametrize(
    "case", [pytest.param(i, marks=[] if i in (14, 16, 18) else pytest.mark.slow) for i in range(20)]
)
def test_single_cases(case):
    data = pipeedge_data()
    expected = json.loads((data / "outputs/results.json").read_text())[case]
    mb, rcc, speed = expected["n_mb"], expected["n_rcc"], expected["bw_Mbps"]
    name = f"{mb}mb{rcc}rcc.bw{speed}.mem{expected['mem_mb']}_{expected['mem_rcc']}.single.yml"
    types = load(data / f"inputs/device_types.{name}")
    hosts = load(data / f"inputs/devices.{name}")
    model = load(data / "inputs/models.yml")[expected["model"]]
    found = least_bottleneck_s(model, devices_of(types, hosts, expected["model"]))
    known = expected["single"]["bottleneck_s"]
    assert found == (np.inf if known is None else pytest.approx(known, rel=1e-6))
