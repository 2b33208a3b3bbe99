"""What older files call otherwise: the layouts of Stable-Baselines3 0.8 to 1.7, in the words of today.

Until 1.7, the actor and the value function of A2C and PPO could share their first layers (`shared_net`). Today each has
its own: the shared ones are given to both, which computes the same function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

_SHARED = "mlp_extractor.shared_net."
_OWN = ("mlp_extractor.policy_net.", "mlp_extractor.value_net.")
_EXTRACTORS = ("pi_features_extractor.", "vf_features_extractor.")


def modern_net_arch(net_arch: Any, shares_layers: bool) -> Any:
    """`net_arch` as a list of widths or a dict of such lists.

    Args:
        net_arch: as the file has it; before 1.8, shared widths and then perhaps a dict of the widths of `pi` and `vf`.
        shares_layers: whether the file's weights have shared layers.
    """
    if not isinstance(net_arch, list) or not net_arch:
        return net_arch
    own = net_arch[-1] if isinstance(net_arch[-1], dict) else None
    if own is None and not shares_layers:
        return net_arch
    shared = [width for width in net_arch if isinstance(width, int)]
    return {branch: shared + list((own or {}).get(branch, [])) for branch in ("pi", "vf")}


def shares_layers(weights: Mapping[str, Tensor]) -> bool:
    """Whether actor and value function share layers of the old kind."""
    return any(name.startswith(_SHARED) for name in weights)


def modern_weights(weights: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """The weights under today's names.

    Args:
        weights: of the file's policy.
        expected: the names that the policy has today.
    """
    modern = dict(weights)
    if shares_layers(weights):
        modern = _give_to_both(weights)
    for name in expected:
        for prefix in _EXTRACTORS:
            # Before 1.7 there was one features extractor and one name for it; today it has three.
            older = name.removeprefix(prefix[:3])
            if name.startswith(prefix) and name not in modern and older in modern:
                modern[name] = modern[older]
        # The linear policy of ARS was its one layer; today it is a Sequential of one layer.
        older = name.replace("action_net.0.", "action_net.", 1)
        if older != name and name not in modern and older in modern:
            modern[name] = modern.pop(older)
    return modern


def _give_to_both(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    modern: dict[str, Tensor] = {}
    # Layer and activation alternate in a Sequential: 0, 2, 4, ... are layers.
    num_shared = len({_position(name, _SHARED) for name in weights if name.startswith(_SHARED)})
    for name, value in weights.items():
        own = next((prefix for prefix in _OWN if name.startswith(prefix)), None)
        if name.startswith(_SHARED):
            for prefix in _OWN:
                modern[prefix + name.removeprefix(_SHARED)] = value
        elif own is not None:
            position = _position(name, own)
            modern[f"{own}{position + 2 * num_shared}.{name.rpartition('.')[2]}"] = value
        else:
            modern[name] = value
    return modern


def _position(name: str, prefix: str) -> int:
    return int(name.removeprefix(prefix).partition(".")[0])
