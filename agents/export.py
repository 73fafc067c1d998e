"""A policy file as ONNX, checked against the network it was made from.

The graph maps ``observation`` (batch, D), and ``mask`` (batch, A) where an interface has masks, to ``output``, what
the network says (means or logits), and ``action``, the most likely action. Of a choice by rollouts an observation is
a candidate beside the tuned plan and both are its cost in seconds: the least one is chosen, if below zero. Of a price
rule both are the logarithms of factors on prices.
What observations and actions mean is the interface's (`agents.interface`); the policy's card travels in the metadata.
Needs the `export` extra.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.interface import Flat
from agents.networks import SlotTransformerPolicy
from agents.regression import CLIP
from agents.rollouts import Chooser, LearnedRollouts
from agents.rules import BUSY_REACH, CHARGES, PriceRule, slots_of
from agents.saved import MEMBER, NUMPY_MODELS, SavedPolicy, predictor
from baselines.batch import play
from sat_env.evaluation.runner import episodes
from sat_env.scenario import Scenario
from sat_env.world import prepare

LARGEST = 1e-4  # difference of an output that is still the same network in float32
EPISODES = 4  # of training windows, whose observations the networks are compared on
CALLS = 200  # single decisions that are timed


class Seen(NamedTuple):
    """Decisions of a policy in the worlds of its scenario."""

    observations: Flat  # (N, D)
    masks: NDArray[np.bool_] | None  # (N, A)


class Check(NamedTuple):
    """ONNX Runtime beside the network it was exported from."""

    observations: int
    largest: float  # absolute difference of an output
    here_us: float  # one observation as the policy plays, median
    onnx_us: float


class Actor(nn.Module):
    """What a policy says of observations, and its most likely actions."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy
        self.space = policy.action_space

    def forward(self, observation: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return outputs (B, N) and actions."""
        policy = self.policy
        if isinstance(policy, SlotTransformerPolicy):
            output = policy.mean(observation)
        else:
            output = policy.action_net(policy.mlp_extractor.forward_actor(observation))
        if mask is not None:
            output = torch.where(mask, output, torch.full_like(output, -1e8))
        if isinstance(self.space, gymnasium.spaces.Box):
            return output, torch.clamp(output, -1.0, 1.0)
        if isinstance(self.space, gymnasium.spaces.Discrete):
            return output, output.argmax(dim=1)
        parts = torch.split(output, self.space.nvec.tolist(), dim=1)
        return output, torch.stack([part.argmax(dim=1) for part in parts], dim=1)


class Costs(nn.Module):
    """What a choice by rollouts says of candidates (B, D)."""

    def __init__(self, chooser: Chooser) -> None:
        super().__init__()
        for name, value in chooser.ensemble._asdict().items():
            self.register_buffer(name, torch.as_tensor(np.float32(value)))
        self.register_buffer("margin_s", torch.as_tensor(np.float32(chooser.margin_s)))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return costs (B,), twice; see `agents.regression.Ensemble.each`."""
        part: Any = self
        z = torch.clamp((observation - part.mean) * part.scale, -CLIP, CLIP)
        h = torch.tanh(torch.matmul(z, part.first[:, :-1]) + part.first[:, -1:])
        h = torch.tanh(torch.matmul(h, part.second[:, :-1]) + part.second[:, -1:])
        said = torch.matmul(h, part.last[:, :-1, None])[..., 0] + part.last[:, -1:]
        cost_s = (said * part.unit + part.middle).mean(dim=0) + part.margin_s
        return cost_s, cost_s.clone()


class Factors(nn.Module):
    """What a price rule says of decisions (B, D) of a chain of K slots."""

    def __init__(self, rule: PriceRule, slots: int) -> None:
        super().__init__()
        self.slots = slots
        for name, value in (
            ("pull", rule.pull()),
            ("nodes", rule.charge_nodes()),
            ("rest", rule.weights[-3:]),
            ("charges", CHARGES),
        ):
            self.register_buffer(name, torch.as_tensor(np.float32(value)))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions (B, 6 + 2 K), twice; see `agents.rules.PriceRule.predict`."""
        part: Any = self
        k = self.slots
        features, busy, _, charge, light, ahead = torch.split(
            observation, [observation.shape[1] - 4 * k - 1, k, 1, k, k, k], dim=1
        )
        prices = torch.matmul(features, part.pull[:-1]) + part.pull[-1]
        between = (charge[..., None] - part.charges[:-1]) / torch.diff(part.charges)
        energy = part.nodes[0] + (torch.clamp(between, 0.0, 1.0) * torch.diff(part.nodes)).sum(dim=-1)
        energy = energy + part.rest[0] * ahead + part.rest[1] * light
        compute = torch.clamp(BUSY_REACH * part.rest[2], min=0.0) * busy
        actions = torch.cat([prices, energy, compute], dim=1)
        return actions, actions.clone()


def network(policy: SavedPolicy, inputs: int) -> nn.Module:
    """Return what is exported of a policy, for observations of so many numbers."""
    if isinstance(policy.model, Chooser):
        return Costs(policy.model).eval()
    if isinstance(policy.model, PriceRule):
        return Factors(policy.model, slots_of(inputs)).eval()
    return Actor(policy.model.policy).eval()


def export(policy_file: Path, scenario: Scenario, out: Path) -> Check:
    """Write the network of a policy file as ONNX, and check it on decisions in training windows.

    Parameters
    ----------
    policy_file : Path
    scenario : Scenario
        Whose decisions are compared: one that the policy plays.
    out : Path
        File to write; only kept if it says what the network says.

    Raises
    ------
    ValueError
        The policy does not fit the scenario, is more than one network, or the two differ by more than 1e-4.
    """
    policy = SavedPolicy(policy_file)
    if isinstance(policy.model, Chooser) and policy.model.rule is not None:
        raise ValueError(
            f"export = {str(policy_file)!r}: must be one network, and is a choice around an evolved rule "
            "(train it with --rule-steps 0, or the rule alone with --algo evolution)"
        )
    seen = decisions(policy, scenario)
    temporary = out.with_name(f".{out.name}")
    write(policy, seen, temporary)
    try:
        found = compare(policy, seen, temporary)
    except ValueError:
        temporary.unlink()
        raise
    temporary.replace(out)
    return found


def decisions(policy: SavedPolicy, scenario: Scenario) -> Seen:
    """Let the policy play training episodes; return what it saw."""
    prepared = prepare(scenario)
    interface = policy.interface(prepared.world, scenario.forecast_epochs)
    if isinstance(interface, LearnedRollouts):
        interface.departs = True  # what an agent says of candidates is compared even where it takes none
    predict = predictor(policy.model)
    flats: list[Flat] = []
    masks: list[NDArray[np.bool_]] = []

    def noted(flat: Flat, mask: NDArray[np.bool_] | None) -> NDArray[Any]:
        flats.append(flat)
        if mask is not None:
            masks.append(mask)
        return predict(flat, mask)

    chosen = episodes(scenario, "train", EPISODES, 0)
    play(prepared, chosen, "train", lambda world, problems: interface.decide(problems, noted))
    return Seen(np.concatenate(flats), np.concatenate(masks) if masks else None)


def write(policy: SavedPolicy, seen: Seen, out: Path) -> None:
    """Write the network as ONNX, for batches of any size, its card in the metadata."""
    import onnx

    given = tuple(torch.as_tensor(rows[:2]) for rows in seen if rows is not None)
    names = ["observation", "mask"][: len(given)]
    batch = torch.export.Dim("batch")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program: Any = torch.onnx.export(
            network(policy, seen.observations.shape[1]),
            given,
            input_names=names,
            output_names=["output", "action"],
            dynamic_shapes=tuple({0: batch} for _ in given),
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, {MEMBER: json.dumps(asdict(policy.card))})
    onnx.save(model, out)


def compare(policy: SavedPolicy, seen: Seen, path: Path) -> Check:
    """Compare an ONNX file with a policy on the same decisions.

    Raises
    ------
    ValueError
        An output differs by more than 1e-4.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    rows = [part for part in seen if part is not None]
    mine = session.run(["output"], dict(zip(names, rows, strict=True)))[0]
    theirs = said(policy, rows)
    with np.errstate(invalid="ignore"):  # costs are infinite where the tuned plan is always taken
        largest = float(np.where(mine == theirs, 0.0, np.abs(mine - theirs)).max())
    if not largest <= LARGEST:
        raise ValueError(
            f"export: outputs differ by {largest:.1e} on {len(mine)} decisions; must be at most {LARGEST}"
        )
    one = dict(zip(names, (part[:1] for part in rows), strict=True))
    predict = predictor(policy.model)
    first_mask = None if seen.masks is None else seen.masks[:1]
    return Check(
        len(mine),
        largest,
        _median_us(lambda: predict(seen.observations[:1], first_mask)),
        _median_us(lambda: session.run(["action"], one)),
    )


def said(policy: SavedPolicy, rows: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the outputs of the policy as it plays: with numpy or torch."""
    if policy.card.algorithm in NUMPY_MODELS:
        outputs: NDArray[Any] = policy.model.predict(rows[0])[0]
        return outputs
    with torch.no_grad():
        outputs = Actor(policy.model.policy).eval()(*map(torch.as_tensor, rows))[0].numpy()
    return outputs


def _median_us(call: Callable[[], Any]) -> float:
    """Return the median of a call in microseconds."""
    taken = []
    for _ in range(CALLS):
        started = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - started)
    return float(np.median(taken)) * 1e-3
