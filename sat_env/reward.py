"""The reward of one job: a sum of named terms, consistent with J (lower latency and no failures are better)."""

from __future__ import annotations

import math

from sat_env.kernels import part

TERMS = ("latency", "drop", "bytes", "energy")


@part
def reward_terms(world, outcome, b, terms):  # type: ignore[no-untyped-def]
    """Write the terms of the last job of world `b` into ``terms`` (5,): in the order of `TERMS`, then their sum.

    latency: -w * log(latency / reference latency), a failed job counting as the deadline.
    drop: -w for a failed job. bytes: -w per mean raw batch over one link. energy: -w per kilojoule.
    """
    weights = world.reward
    terms[0] = -weights[0] * math.log(outcome.latency_s[b] / world.reference_latency_s)
    terms[1] = -weights[1] * outcome.failed[b]
    terms[2] = -weights[2] * outcome.bytes[b] / world.reference_bytes
    terms[3] = -weights[3] * outcome.energy_j[b] * 1e-3
    terms[4] = terms[0] + terms[1] + terms[2] + terms[3]
