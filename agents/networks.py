"""Networks beyond stable-baselines3's own: several integers at once without an object each, and a slot transformer.

The transformer looks over the slots of a chain: the same weights serve a chain of any length and any model.
A token a slot, and one for the ground. What belongs to a hop enters twice: every pair of slots has its own
bias on the attention between them, read from the state of the hop, and every slot's token holds its hops to
the next slot and to the ground. The head reads off each slot's token what to change of the planner's share and
level (`agents.tokens`); it starts at nothing. Nothing in it depends on the length of the chain, so `agents.saved`
can put trained weights into a network for another one.
"""

from __future__ import annotations

import math
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.distributions import DiagGaussianDistribution, MultiCategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from torch import Tensor, nn

from agents import tokens
from agents.config import HEADS

SLOT_ENTRIES = (
    "slot_speed",
    "slot_busy",
    "slot_reboot",
    "slot_charge",
    "slot_light",
    "slot_light_ahead",
    "slot_resident_from",
    "slot_resident_to",
    "previous_cuts",
    "previous_levels",
    "slot_job",
    "slot_room",
    "slot_load",
    "slot_share",
    "slot_level",
)
HOP_ENTRIES = (
    "hop_rate",
    "hop_latency",
    "hop_wait",
    "hop_down",
    "hop_age",
    "hop_backup",
    "hop_job",
    "hop_loop",
)
GLOBAL_ENTRIES = ("job", "recent_jobs", "chain_change")
GLOBALS = 6
PLACES = 4  # sensing slot, ground, distance from the start and to the end of the chain


def slots_of(size: int) -> int:
    """Return K of a flat observation of this size.

    Raises
    ------
    ValueError
        No chain has such observations.
    """
    for slots in range(1, 65):
        if tokens.vector_size(slots) == size:
            return slots
    raise ValueError(f"observation = {size} numbers: must be those of a chain of 1 to 64 slots")


class SlotEncoder(nn.Module):
    """Observations (B, D) to tokens (B, K + 1, width): slots, then the ground.

    Parameters
    ----------
    slots : int
        K.
    width, heads, layers : int
    """

    def __init__(self, slots: int, width: int = 32, heads: int = HEADS, layers: int = 2) -> None:
        super().__init__()
        self.slots, self.heads, self.layers = slots, heads, layers
        features = len(SLOT_ENTRIES) + 2 * len(HOP_ENTRIES) + GLOBALS + PLACES
        self.embed = nn.Linear(features, width)
        self.edge_bias = nn.ModuleList(
            nn.Sequential(nn.Linear(len(HOP_ENTRIES) + 3, 16), nn.Tanh(), nn.Linear(16, heads))
            for _ in range(layers)
        )
        self.queries = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.mixes = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers + 1))
        rows, columns = np.triu_indices(slots + 1, 1)
        rows, columns = rows[rows < slots], columns[rows < slots]
        self.register_buffer("rows", torch.as_tensor(rows), persistent=False)
        self.register_buffer("columns", torch.as_tensor(columns), persistent=False)
        place = np.zeros((slots + 1, PLACES), np.float32)
        place[0, 0] = place[slots, 1] = 1.0
        place[:, 2] = np.arange(slots + 1) / 8.0
        place[:, 3] = np.arange(slots, -1, -1) / 8.0
        self.register_buffer("place", torch.as_tensor(place), persistent=False)
        direction = np.zeros((slots + 1, slots + 1, 3), np.float32)
        direction[rows, columns, 0] = direction[columns, rows, 1] = 1.0
        direction[np.arange(slots), np.arange(1, slots + 1), 2] = 1.0  # neighbours
        self.register_buffer("direction", torch.as_tensor(direction), persistent=False)

    def forward(self, flat: Tensor, filled: Tensor | None = None) -> Tensor:
        """Return the tokens; `filled` (B, K + 1) masks padding out of the attention where given."""
        nodes, edges = self.read(flat)
        x = self.embed(nodes)
        batch, count, width = x.shape
        for i in range(self.layers):
            bias = self.edge_bias[i](edges).permute(0, 3, 1, 2)  # (B, heads, K+1, K+1)
            if filled is not None:
                bias = bias.masked_fill(~filled[:, None, None, :], -1e9)
            q, k, v = (
                part.reshape(batch, count, self.heads, -1).transpose(1, 2)
                for part in self.queries[i](self.norms[2 * i](x)).chunk(3, dim=-1)
            )
            mixed = torch.softmax(q @ k.transpose(-1, -2) / (width / self.heads) ** 0.5 + bias, dim=-1) @ v
            x = x + self.mixes[i](mixed.transpose(1, 2).reshape(batch, count, width))
            x = x + self.mlps[i](self.norms[2 * i + 1](x))
        out: Tensor = self.norms[-1](x)
        return out

    def read(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of tokens (B, K+1, F) and of pairs (B, K+1, K+1, E)."""
        seen = {name: flat[:, place] for name, place in tokens.places(self.slots).items()}
        batch, count = flat.shape[0], self.slots + 1
        nodes = flat.new_zeros(batch, count, len(SLOT_ENTRIES))
        for i, name in enumerate(SLOT_ENTRIES):
            nodes[:, : seen[name].shape[1], i] = seen[name]
        edges = flat.new_zeros(batch, count, count, len(HOP_ENTRIES) + 3)
        hops = torch.stack([seen[name] for name in HOP_ENTRIES], dim=-1)
        rows: Any = self.rows
        columns: Any = self.columns
        edges[:, rows, columns, : len(HOP_ENTRIES)] = hops
        edges[:, columns, rows, : len(HOP_ENTRIES)] = hops
        edges[..., len(HOP_ENTRIES) :] = self.direction  # type: ignore[assignment]
        onward = flat.new_zeros(batch, count, 2 * len(HOP_ENTRIES))
        first = torch.arange(self.slots)
        onward[:, :-1, : len(HOP_ENTRIES)] = edges[:, first, first + 1, : len(HOP_ENTRIES)]
        onward[:, :-1, len(HOP_ENTRIES) :] = edges[:, first, self.slots, : len(HOP_ENTRIES)]
        shared = torch.cat([seen[name] for name in GLOBAL_ENTRIES], dim=1)
        shared = shared[:, None].expand(batch, count, GLOBALS)
        place: Any = self.place
        return torch.cat([nodes, onward, shared, place.expand(batch, count, PLACES)], dim=-1), edges


class SlotTransformerPolicy(ActorCriticPolicy):
    """Actor and critic over one `SlotEncoder` each, for the interface `agents.tokens.Tokens`."""

    def __init__(
        self,
        observation_space: gymnasium.spaces.Box,
        action_space: gymnasium.spaces.Box,
        lr_schedule: Any,
        width: int = 32,
        log_std_init: float = -2.0,
        **kwargs: Any,
    ) -> None:
        self.width = width
        super().__init__(
            observation_space, action_space, lr_schedule, net_arch=[], log_std_init=log_std_init, **kwargs
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "width": self.width}

    def _build(self, lr_schedule: Any) -> None:
        space: Any = self.observation_space
        self.slots = slots_of(space.shape[0])
        self.action_dist = DiagGaussianDistribution(2 * self.slots + 1)
        self.actor = SlotEncoder(self.slots, self.width)
        self.critic = SlotEncoder(self.slots, self.width)
        self.action_net = nn.Linear(self.width, 2)  # what to add to share and level of each token
        self.value_net = nn.Linear(self.width, 1)
        self.log_std = nn.Parameter(torch.full((2,), self.log_std_init))
        with torch.no_grad():
            self.action_net.weight.zero_()
            self.action_net.bias.zero_()
        optimizer: Any = self.optimizer_class
        self.optimizer = optimizer(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def mean(self, flat: Tensor) -> Tensor:
        """Return the most likely actions (B, 2 K + 1), not yet clipped."""
        flat = flat.float()
        out = self.action_net(self.actor(flat))
        place = tokens.places(self.slots)
        planned = 2.0 * torch.cat([flat[:, place["slot_share"]], flat[:, place["slot_level"]]], dim=1) - 1.0
        return planned + torch.cat([out[:, :, 0], out[:, :-1, 1]], dim=1)

    def _distribution(self, flat: Tensor) -> DiagGaussianDistribution:
        log_std = torch.cat([self.log_std[:1].expand(self.slots + 1), self.log_std[1:].expand(self.slots)])
        distribution = cast(DiagGaussianDistribution, self.action_dist)
        return distribution.proba_distribution(self.mean(flat), log_std)

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions, values and log probabilities."""
        distribution = self._distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values, log probabilities and entropy."""
        distribution = self._distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: Any) -> DiagGaussianDistribution:
        """Return the distribution of actions."""
        return self._distribution(obs)

    def predict_values(self, obs: Any) -> Tensor:
        """Return the values (B, 1): of the mean token."""
        values: Tensor = self.value_net(self.critic(obs.float()).mean(dim=1))
        return values


class FusedCategoricals(MultiCategoricalDistribution):
    """Several categorical actions as one table of logarithms, short rows padded with -inf.

    stable-baselines3 makes, checks and asks an object for each action: a quarter of an update of twelve actions.
    """

    log_p: Tensor  # (B, N, most choices)

    def __init__(self, choices: list[int]) -> None:
        super().__init__(choices)
        self.allowed = torch.arange(max(choices)) < torch.tensor(choices)[:, None]  # (N, most choices)

    def proba_distribution(self, action_logits: Tensor) -> FusedCategoricals:
        """Take the logits (B, sum of choices) of all actions."""
        logits = action_logits.new_full((len(action_logits), *self.allowed.shape), -torch.inf)
        logits[:, self.allowed] = action_logits
        self.log_p = torch.log_softmax(logits, dim=-1)
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log probabilities (B,) of actions (B, N)."""
        return self.log_p.gather(2, actions.long()[:, :, None]).sum(dim=(1, 2))

    def entropy(self) -> Tensor:
        """Return the entropies (B,)."""
        return -(self.log_p.exp() * self.log_p.masked_fill(~self.allowed, 0.0)).sum(dim=(1, 2))

    def sample(self) -> Tensor:
        """Draw actions (B, N)."""
        drawn = torch.multinomial(self.log_p.exp().flatten(0, 1), 1)
        return drawn.reshape(self.log_p.shape[:2])

    def mode(self) -> Tensor:
        """Return the most likely actions (B, N)."""
        return self.log_p.argmax(dim=2)


class FusedGaussian(DiagGaussianDistribution):
    """A diagonal Gaussian by its formulas: stable-baselines3 goes through an object of torch's at every minibatch."""

    mean: Tensor  # (B, N)
    log_std: Tensor  # (N,)

    def proba_distribution(self, mean_actions: Tensor, log_std: Tensor) -> FusedGaussian:  # type: ignore[override]
        """Take the means (B, N) and the logarithms of the spreads (N,)."""
        self.mean, self.log_std = mean_actions, log_std
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log densities (B,) of actions (B, N)."""
        away = (actions - self.mean) * torch.exp(-self.log_std)
        constant = self.log_std.sum() + 0.5 * self.action_dim * math.log(2.0 * math.pi)
        return -0.5 * (away * away).sum(dim=1) - constant

    def entropy(self) -> Tensor:
        """Return the entropies (B,)."""
        entropy = self.log_std.sum() + 0.5 * self.action_dim * (1.0 + math.log(2.0 * math.pi))
        return entropy.expand(len(self.mean))

    def sample(self) -> Tensor:
        """Draw actions (B, N)."""
        return self.mean + torch.exp(self.log_std) * torch.randn_like(self.mean)

    def mode(self) -> Tensor:
        """Return the most likely actions (B, N)."""
        return self.mean


class FusedPolicy(ActorCriticPolicy):
    """stable-baselines3's policy and weights, over `FusedCategoricals` or `FusedGaussian`."""

    def _build(self, lr_schedule: Any) -> None:
        space: Any = self.action_space
        if isinstance(space, gymnasium.spaces.Box):
            self.action_dist = FusedGaussian(space.shape[0])
        else:
            self.action_dist = FusedCategoricals(space.nvec.tolist())
        super()._build(lr_schedule)


class QuickTanh(nn.Module):
    """The hyperbolic tangent by numpy's code, several times as fast as torch's; both round to within 2 units.

    For ``policy_kwargs={"activation_fn": QuickTanh}`` on a CPU. It has no weights, so those of a network with
    ``torch.nn.Tanh`` fit. Torch's own stands in on other devices and where a graph is traced.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the tangents, of the shape of `x`."""
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return torch.tanh(x)
        return cast(Tensor, _NumpyTanh.apply(x))


class _NumpyTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.from_numpy(np.tanh(x.numpy()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return cast(Tensor, torch.ops.aten.tanh_backward(grad, y))


class ForesightPolicy(ActorCriticPolicy):
    """An asymmetric actor and critic: the last entries of an observation are for the critic alone.

    What the critic knows of luck to come drops out of the advantages (Pinto et al., arXiv 1710.06542); the actor
    plays without it.

    Parameters
    ----------
    unseen : int
        How many entries the actor does not see.
    """

    def __init__(self, *args: Any, unseen: int, **kwargs: Any) -> None:
        self.unseen = unseen
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "unseen": self.unseen}

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor: Any = ForesightExtractor(
            self.features_dim, self.unseen, self.net_arch, self.activation_fn
        )


class ForesightExtractor(nn.Module):
    """Hidden layers of actor and critic, which see different shares of an observation."""

    def __init__(self, size: int, unseen: int, net_arch: Any, activation: type[nn.Module]) -> None:
        super().__init__()
        self.seen = size - unseen
        self.actor = MlpExtractor(self.seen, net_arch, activation)
        self.critic = MlpExtractor(size, net_arch, activation)
        del self.actor.value_net, self.critic.policy_net
        self.latent_dim_pi, self.latent_dim_vf = self.actor.latent_dim_pi, self.critic.latent_dim_vf

    def forward(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the actor's and the critic's last layers read."""
        return self.forward_actor(flat), self.forward_critic(flat)

    def forward_actor(self, flat: Tensor) -> Tensor:
        """Return what the actor's last layer reads; entries it does not see may be missing."""
        return self.actor.forward_actor(flat[:, : self.seen])

    def forward_critic(self, flat: Tensor) -> Tensor:
        """Return what the critic's last layer reads."""
        return self.critic.forward_critic(flat)
