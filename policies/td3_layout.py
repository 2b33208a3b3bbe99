"""Between the parameters that are trained and the networks of Stable-Baselines3's TD3 policy.

The critics are trained as one stack; the policy's modules look at slices of the same memory, so that it is always up to
date. Only where data are transformed do the first and last layers differ: the policy takes observations as the
environment gives them and answers in raw returns, so the transformation is folded into those layers::

    W ((x - mean) / scale) + b = (W / scale) x + (b - W (mean / scale))
"""

from __future__ import annotations

from typing import Any, cast

import torch as th
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from offline_eval.policies.networks import Layers, Parameters
from offline_eval.policies.transforms import Standard

CRITICS = {"critic": "critic", "target_critic": "critic_target"}
ACTORS = {"actor": "actor", "target_actor": "actor_target"}
"""Our names of the networks, and the policy's."""


def read_networks(policy: TD3Policy) -> Parameters:
    """Copies of the policy's weights, critics stacked: actor, target_actor, critic, target_critic."""
    actors = {ours: [p.detach().clone() for p in _actor_layers(policy, theirs)] for ours, theirs in ACTORS.items()}
    critics = {
        ours: [th.stack(list(parts)).detach().clone() for parts in zip(*_critic_layers(policy, theirs), strict=True)]
        for ours, theirs in CRITICS.items()
    }
    return {**actors, **critics}


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
        self._mean = None if standard is None else th.as_tensor(standard.mean, device=policy.device)
        self._scale = None if standard is None else th.as_tensor(standard.scale, device=policy.device)
        self._folded: dict[str, Layers] = {}
        for name in (*ACTORS, *CRITICS):
            # `target_actor` may be the same list as `actor`; then it has the same memory.
            shown = list(parameters[name])
            if self._mean is not None:
                shown[:2] = [layer.detach().clone() for layer in shown[:2]]
            if name in CRITICS and reward_factor != 1.0:
                shown[-2:] = [layer.detach().clone() for layer in shown[-2:]]
            self._folded[name] = shown
            _show(policy, name, shown)
        self.refresh()

    @th.no_grad()
    def refresh(self) -> None:
        """Fold the present first and last layers; everything else needs no copy."""
        for name, shown in self._folded.items():
            trained = self._parameters[name]
            if self._mean is not None and self._scale is not None:
                weight, bias = trained[:2]
                observed = weight[..., : len(self._mean)] / self._scale
                shown[0].copy_(weight)
                shown[0][..., : len(self._mean)] = observed
                shown[1].copy_(bias - observed @ self._mean)
            if name in CRITICS and self._reward_factor != 1.0:
                for ours, theirs in zip(trained[-2:], shown[-2:], strict=True):
                    theirs.copy_(ours / self._reward_factor)

    @th.no_grad()
    def adopt(self) -> None:
        """The other way: unfold the layers that the policy shows now, after somebody changed its weights."""
        for name, shown in self._folded.items():
            trained = self._parameters[name]
            if self._mean is not None and self._scale is not None:
                trained[1].copy_(shown[1] + shown[0][..., : len(self._mean)] @ self._mean)
                trained[0].copy_(shown[0])
                trained[0][..., : len(self._mean)] *= self._scale
            if name in CRITICS and self._reward_factor != 1.0:
                for ours, theirs in zip(trained[-2:], shown[-2:], strict=True):
                    ours.copy_(theirs * self._reward_factor)

    def unfolded(self) -> dict[str, Tensor]:
        """The trained layers of which the policy shows another form, by name and place: what a file needs beside it."""
        return {
            f"{name}.{place}": trained
            for name, shown in self._folded.items()
            for place, (trained, seen) in enumerate(zip(self._parameters[name], shown, strict=True))
            if trained.data_ptr() != seen.data_ptr()
        }


def split_adam(optimizer: th.optim.Adam, layers: Layers, stacked: bool, like: th.optim.Optimizer) -> dict[str, Any]:
    """The state dict that a TD3 network's own Adam would have.

    Args:
        optimizer: the one that trains everything.
        layers: the network's part of the parameters.
        stacked: whether they are a stack of critics, whose optimiser numbers them critic by critic.
        like: the network's own, unused optimiser, for its settings.
    """
    state = [{key: value.clone() for key, value in optimizer.state[layer].items()} for layer in layers]
    if stacked:
        count = len(layers[0])
        state = [
            {key: value if key == "step" else value[i].clone() for key, value in moments.items()}
            for i in range(count)
            for moments in state
        ]
    groups = cast("list[dict[str, Any]]", like.state_dict()["param_groups"])
    groups[0] = {**groups[0], "lr": optimizer.param_groups[0]["lr"]}
    return {"state": {i: moments for i, moments in enumerate(state) if moments}, "param_groups": groups}


def join_adam(optimizer: th.optim.Adam, layers: Layers, stacked: bool, state_dict: dict[str, Any]) -> None:
    """Put back what `split_adam` took out."""
    state = state_dict["state"]
    optimizer_state = optimizer.state
    for place, layer in enumerate(layers):
        numbers = [i * len(layers) + place for i in range(len(layer))] if stacked else [place]
        parts = [state[i] for i in numbers if i in state]
        if not parts:
            optimizer_state.pop(layer, None)
            continue
        optimizer_state[layer] = {
            key: th.stack([part[key] for part in parts]) if stacked and key != "step" else parts[0][key].clone()
            for key in parts[0]
        }


def _show(policy: TD3Policy, name: str, layers: Layers) -> None:
    if name in ACTORS:
        modules = [(_actor_layers(policy, ACTORS[name]), layers)]
    else:
        of_each = _critic_layers(policy, CRITICS[name])
        modules = [(theirs, [layer[i] for layer in layers]) for i, theirs in enumerate(of_each)]
    for theirs, ours in modules:
        for parameter, layer in zip(theirs, ours, strict=True):
            parameter.data = layer.detach()


def _actor_layers(policy: TD3Policy, name: str) -> list[nn.Parameter]:
    return list(getattr(policy, name).mu.parameters())


def _critic_layers(policy: TD3Policy, name: str) -> list[list[nn.Parameter]]:
    return [list(q_network.parameters()) for q_network in getattr(policy, name).q_networks]
