"""Between the parameters that are trained and the networks of Stable-Baselines3's TD3 policy.

The critics are trained as one stack, and weights lie as (in, out); the policy's modules look at transposed slices of
the same memory, so that it is always up to date. Only where data are transformed do the first and last layers differ:
the policy takes observations as the environment gives them and answers in raw returns, so the transformation is folded
into those layers::

    ((x - mean) / scale) W + b = x (W / scale) + (b - mean (W / scale))
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from offline_eval.policies.adam import Adam
from offline_eval.policies.networks import Layers, Parameters
from offline_eval.policies.transforms import Standard

CRITICS = {"critic": "critic", "target_critic": "critic_target"}
ACTORS = {"actor": "actor", "target_actor": "actor_target"}
"""Our names of the networks, and the policy's."""


def read_networks(policy: TD3Policy) -> Parameters:
    """Copies of the policy's weights, critics stacked: actor, target_actor, critic, target_critic."""
    copies = {ours: [turned(p.detach()) for p in _actor_layers(policy, theirs)] for ours, theirs in ACTORS.items()}
    for ours, theirs in CRITICS.items():
        of_each = _critic_layers(policy, theirs)
        copies[ours] = [th.stack([turned(p.detach()) for p in parts]) for parts in zip(*of_each, strict=True)]
    return {name: [layer.clone(memory_format=th.contiguous_format) for layer in copies[name]] for name in copies}


class Mirror:
    """Keeps a policy equal to the parameters that are trained.

    Args:
        policy: its modules' memory is replaced.
        parameters: as `read_networks` shapes them.
        standard: of observations in training; None where they were left alone.
        reward_factor: of rewards in training.
    """

    def __init__(
        self, policy: TD3Policy, parameters: Parameters, standard: Standard | None, reward_factor: float
    ) -> None:
        self._parameters, self._reward_factor = parameters, reward_factor
        self._shown: dict[str, Layers] = {}
        self._first: dict[str, tuple[Tensor, Tensor]] = {}
        for name in (*ACTORS, *CRITICS):
            shown = list(parameters[name])
            if standard is not None:
                self._first[name] = _factor_and_shift(standard, shown[0])
                shown[:2] = [layer.detach().clone() for layer in shown[:2]]
            if name in CRITICS and reward_factor != 1.0:
                shown[-2:] = [layer.detach().clone() for layer in shown[-2:]]
            self._shown[name] = shown
        self.show_in(policy)
        self.refresh()

    def show_in(self, policy: TD3Policy) -> None:
        """Give a policy of the same networks this memory in place of its own; what was in its own is lost."""
        for name, shown in self._shown.items():
            for theirs, ours in _beside(policy, name, shown):
                theirs.data = ours

    def is_shown_in(self, policy: TD3Policy) -> bool:
        """Whether a policy's weights lie in this memory: nobody gave it others, or copied it."""
        pairs = (pair for name, shown in self._shown.items() for pair in _beside(policy, name, shown))
        return all(theirs.data_ptr() == ours.data_ptr() for theirs, ours in pairs)

    @th.no_grad()
    def refresh(self) -> None:
        """Fold the present first and last layers; everything else needs no copy."""
        for name, (factor, shift) in self._first.items():
            (weight, bias), (shown_weight, shown_bias) = self._parameters[name][:2], self._shown[name][:2]
            th.mul(weight, factor, out=shown_weight)
            th.sub(bias, shift @ weight, out=shown_bias)
        if self._reward_factor != 1.0:
            for name in CRITICS:
                for trained, shown in zip(self._parameters[name][-2:], self._shown[name][-2:], strict=True):
                    th.div(trained, self._reward_factor, out=shown)

    @th.no_grad()
    def adopt(self) -> None:
        """The other way: unfold the layers that the policy shows now, after somebody changed its weights."""
        for name, (factor, shift) in self._first.items():
            (weight, bias), (shown_weight, shown_bias) = self._parameters[name][:2], self._shown[name][:2]
            th.div(shown_weight, factor, out=weight)
            th.add(shown_bias, shift @ weight, out=bias)
        if self._reward_factor != 1.0:
            for name in CRITICS:
                for trained, shown in zip(self._parameters[name][-2:], self._shown[name][-2:], strict=True):
                    th.mul(shown, self._reward_factor, out=trained)

    def unfolded(self) -> dict[str, Tensor]:
        """The trained layers of which the policy shows another form, by name and place: what a file needs beside it."""
        return {
            f"{name}.{place}": trained
            for name, shown in self._shown.items()
            for place, (trained, seen) in enumerate(zip(self._parameters[name], shown, strict=True))
            if trained.data_ptr() != seen.data_ptr()
        }


def _factor_and_shift(standard: Standard, weight: Tensor) -> tuple[Tensor, Tensor]:
    """1 / scale as a column and mean / scale as a row, for the inputs of a first layer: actions are as they are."""
    padding = weight.shape[-2] - len(standard.mean)
    factor = np.concatenate([1.0 / standard.scale, np.ones(padding, np.float32)])
    shift = np.concatenate([standard.mean / standard.scale, np.zeros(padding, np.float32)])
    return th.as_tensor(factor[:, None], device=weight.device), th.as_tensor(shift, device=weight.device)


def split_adam(adam: Adam, group: str, like: th.optim.Optimizer, learning_rate: float) -> dict[str, Any]:
    """The state dict that a TD3 network's own Adam would have.

    Args:
        adam: the one that trains everything.
        group: `actor` or `critic`; a stack of critics is numbered critic by critic.
        like: the network's own, unused optimiser, for its settings.
        learning_rate: the present one.
    """
    steps, first, second = adam.steps[group], adam.first[group], adam.second[group]
    stacks = range(len(first[0])) if group in CRITICS else [...]
    moments = [
        tuple(turned(moment[i]).clone(memory_format=th.contiguous_format) for moment in pair)
        for i in stacks
        for pair in zip(first, second, strict=True)
    ]
    state = {
        number: {"step": steps.clone(), "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
        for number, (exp_avg, exp_avg_sq) in enumerate(moments)
    }
    groups = [{**settings, "lr": learning_rate} for settings in like.state_dict()["param_groups"]]
    return {"state": state if float(steps.cpu()) > 0 else {}, "param_groups": groups}


def join_adam(adam: Adam, group: str, state_dict: dict[str, Any]) -> None:
    """Put back what `split_adam` took out."""
    state = state_dict["state"]
    adam.steps[group].copy_(state[0]["step"] if state else th.zeros(()))
    for kind, table in (("exp_avg", adam.first[group]), ("exp_avg_sq", adam.second[group])):
        for place, layer in enumerate(table):
            if not state:
                layer.zero_()
            elif group in CRITICS:
                layer.copy_(th.stack([turned(state[i * len(table) + place][kind]) for i in range(len(layer))]))
            else:
                layer.copy_(turned(state[place][kind]))


def _beside(policy: TD3Policy, name: str, layers: Layers) -> list[tuple[nn.Parameter, Tensor]]:
    """Each parameter of one of the policy's networks, and the layer, as it would lie in it."""
    if name in ACTORS:
        modules = [(_actor_layers(policy, ACTORS[name]), layers)]
    else:
        of_each = _critic_layers(policy, CRITICS[name])
        modules = [(theirs, [layer[i] for layer in layers]) for i, theirs in enumerate(of_each)]
    return [
        (parameter, turned(layer.detach()))
        for theirs, ours in modules
        for parameter, layer in zip(theirs, ours, strict=True)
    ]


def turned(layer: Tensor) -> Tensor:
    """A weight the other way round; a bias as it is."""
    return layer.t() if layer.dim() == 2 else layer


def _actor_layers(policy: TD3Policy, name: str) -> list[nn.Parameter]:
    return list(getattr(policy, name).mu.parameters())


def _critic_layers(policy: TD3Policy, name: str) -> list[list[nn.Parameter]]:
    return [list(q_network.parameters()) for q_network in getattr(policy, name).q_networks]
