"""Behaviour cloning: a network learns the tuned planner's plans before PPO goes on from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agents.interface import OneStep
from agents.planner import BatchPlanner
from sat_env.simulator import NO_PLAN, Simulator
from sat_env.world import Prepared

WORLDS = 64
PASSES = 12
BATCH = 512


def clone_planner(
    model: Any, prepared: Prepared, interface: OneStep, planner: BatchPlanner, seed: int
) -> float:
    """Fit the policy of a model with MultiDiscrete plans to a planner's, on its own training episodes.

    Parameters
    ----------
    model : PPO
        Of the encoding ``"plan"``.
    seed : int
        World i plays seed + i.

    Returns
    -------
    float
        Share of cuts and levels the network gets right on the episodes it learned from.
    """
    simulator = Simulator(prepared, WORLDS, "train")
    simulator.begin(seeds=np.arange(seed, seed + WORLDS, dtype=np.uint64))
    seen, done = [], []
    for _ in range(prepared.scenario.episode_epochs):
        cuts, levels = planner.plans(simulator.problems)
        planned = cuts[:, 0] != NO_PLAN
        seen.append(interface.observe(simulator.problems)[planned])
        done.append(np.concatenate([cuts, levels], axis=1)[planned])
        simulator.step(cuts, levels)
    observations, plans = torch.as_tensor(np.concatenate(seen)), torch.as_tensor(np.concatenate(done))
    policy = model.policy
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(PASSES):
        order = torch.randperm(len(plans), generator=generator)
        for rows in torch.split(order, BATCH):
            _, log_prob, _ = policy.evaluate_actions(observations[rows], plans[rows])
            loss = -log_prob.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        likely = policy.get_distribution(observations).mode()
    return float((likely == plans).float().mean())
