"""Between an algorithm and its file: which words, arrays and state dicts say everything about it.

`model` is an `OfflineBase` throughout: the class is made of these functions, so that they cannot import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor

from offline_eval.datasets.space_json import space_to_json
from offline_eval.errors import InputError
from offline_eval.policies.building import activation_from_json, activation_to_json
from offline_eval.policies.learner import Learner
from offline_eval.policies.offline_policy import OfflinePolicy
from offline_eval.policies.recipes import recipe_to_json
from offline_eval.policies.saving import TD3_ATTRIBUTES
from offline_eval.policies.td3_layout import Mirror, join_adam, split_adam
from offline_eval.policies.transforms import Standard
from offline_eval.policies.values import ActorCritic
from offline_eval.provenance import versions
from offline_eval.types import Array

_WORDS = (
    "learning_rate", "buffer_size", "learning_starts", "batch_size", "tau", "gamma", "train_freq", "gradient_steps",
    "tensorboard_log", "policy_kwargs", "verbose", "seed",
)  # fmt: skip
_COUNTERS = ("num_timesteps", "_total_timesteps", "_num_timesteps_at_start", "_n_updates", "_episode_num")
_OWN_GROUPS = ("value", "spread")
"""Parameters for which TD3's members have no place."""


def constructor_words(model: Any) -> dict[str, Any]:
    """What the constructor was told, as it would be told again; recipe, environment and device apart."""
    words = {name: getattr(model, name) for name in _WORDS}
    if isinstance(words["train_freq"], TrainFreq):
        words["train_freq"] = (words["train_freq"].frequency, words["train_freq"].unit.value)
    return {**words, "stats_window_size": model._stats_window_size, "action_noise": model.action_noise}


def words_from_json(words: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's words from a file, some of them changed."""
    kept = {name: value for name, value in words.items() if name not in changed}
    if "policy_kwargs" in kept:
        kept["policy_kwargs"] = activation_from_json(kept["policy_kwargs"])
    if "train_freq" in kept:
        kept["train_freq"] = tuple(kept["train_freq"])
    return {**kept, **changed}


def words_of(model: Any) -> dict[str, Any]:
    """The JSON of the extra member.

    A learning rate that is a function is kept as its present value, and action noise not at all: give them again when
    loading.
    """
    words = {name: value for name, value in constructor_words(model).items() if name != "action_noise"}
    if callable(words["learning_rate"]):
        words["learning_rate"] = float(model.lr_schedule(model._current_progress_remaining))
    words["policy_kwargs"] = activation_to_json(words["policy_kwargs"])
    return {
        "recipe": recipe_to_json(model.recipe),
        "constructor": words,
        "run_seed": model.run_seed,
        "observation_space": space_to_json(model.observation_space),
        "action_space": space_to_json(model.action_space),
        "assumed_action_space": model.assumed_action_space,
        "counters": {name: int(getattr(model, name)) for name in _COUNTERS},
        "fingerprints": model.fingerprints,
        "last_metrics": model.last_metrics,
        "action_generator": model.policy.generator.bit_generator.state,
        "versions": versions(),
    }


def put_counters(model: Any, words: Mapping[str, Any]) -> None:
    """Put back counters, fingerprints and the generator of action noise."""
    for name in _COUNTERS:
        setattr(model, name, int(words["counters"][name]))
    model.fingerprints, model.last_metrics = dict(words["fingerprints"]), dict(words["last_metrics"])
    model.policy.generator.bit_generator.state = words["action_generator"]


def states_of(policy: OfflinePolicy, learner: Learner) -> dict[str, dict[str, Any]]:
    """State dicts under TD3's names, in memory of their own."""
    rates, weights = learner.learning_rates, policy.state_dict()
    return {
        "policy": {name: value.clone(memory_format=th.contiguous_format) for name, value in weights.items()},
        "actor.optimizer": split_adam(learner.adam, "actor", policy.actor.optimizer, rates["policy"]),
        "critic.optimizer": split_adam(learner.adam, "critic", policy.critic.optimizer, rates["value"]),
    }


def put_states(policy: OfflinePolicy, learner: Learner, states: Mapping[str, Any], exact_match: bool) -> None:
    """Put back what `states_of` gave, or a part of it where the match need not be exact."""
    known = ("policy", "actor.optimizer", "critic.optimizer")
    if not set(states) <= set(known) or (exact_match and len(states) < len(known)):
        raise InputError(
            "load_path_or_dict",
            f"must have {'' if exact_match else 'some of '}{', '.join(known)} and nothing else",
            list(states),
        )
    if "policy" in states:
        policy.load_state_dict(states["policy"], strict=exact_match)
    for group in ("actor", "critic"):
        if f"{group}.optimizer" in states:
            join_adam(learner.adam, group, states[f"{group}.optimizer"])


def arrays_of(model: Any, mirror: Mirror) -> dict[str, Array]:
    """The arrays of the extra member: parameters that TD3 has no place for, their moments, and statistics."""
    learner, found = model.learner, dict[str, Tensor]()
    for name, tensor in mirror.unfolded().items():
        found[f"trained.{name}"] = tensor
    for group in _OWN_GROUPS:
        for place, tensor in enumerate(learner.parameters[group]):
            found[f"trained.{group}.{place}"] = tensor
    for name, tensor in learner.adam.moments().items():
        if name.startswith(_OWN_GROUPS):
            found[f"adam.{name}"] = tensor
    arrays: dict[str, Array] = {name: tensor.detach().cpu().numpy() for name, tensor in found.items()}
    if model.has_transform:
        arrays["reward_factor"] = np.array(model.transform.reward_factor)
        if model.transform.standard is not None:
            arrays["standard.mean"] = model.transform.standard.mean
            arrays["standard.scale"] = model.transform.standard.scale
    return arrays


def put_arrays(model: Any, arrays: Mapping[str, Array]) -> None:
    """Put back what `arrays_of` gave; after `put_states`."""
    moments = model.learner.adam.moments()
    for name, array in arrays.items():
        kind, _, rest = name.partition(".")
        value = th.as_tensor(array, device=model.device)
        if kind == "trained":
            group, place = rest.split(".")
            _put(name, model.learner.parameters[group][int(place)].data, value)
        elif kind == "adam":
            _put(name, moments[rest], value)
    if "reward_factor" in arrays:
        has_standard = "standard.mean" in arrays
        standard = Standard(arrays["standard.mean"], arrays["standard.scale"]) if has_standard else None
        model.set_transform(standard, float(arrays["reward_factor"]))


def _put(name: str, place: Tensor, value: Tensor) -> None:
    if place.shape != value.shape:  # torch would repeat a smaller one
        raise ValueError(f"`{name}` has the shape {tuple(value.shape)}, not {tuple(place.shape)}")
    place.copy_(value)


def td3_data(model: Any, exclude: Iterable[str] | None, include: Iterable[str] | None) -> dict[str, Any]:
    """The attributes that `TD3.save` would write."""
    rule = model.recipe.value
    target = rule if isinstance(rule, ActorCritic) else ActorCritic()
    own = {
        "policy_class": TD3Policy,
        "policy_delay": model.recipe.policy_delay,
        "target_policy_noise": target.target_policy_noise,
        "target_noise_clip": target.target_noise_clip,
        "replay_buffer_class": ReplayBuffer,
        **{name: [] for name in TD3_ATTRIBUTES if "batch_norm_stats" in name},
    }
    present = {name: getattr(model, name) for name in TD3_ATTRIBUTES if name not in own and hasattr(model, name)}
    added = {name: getattr(model, name) for name in include or ()}
    left_out = set(exclude or ()) - set(added)
    return {name: value for name, value in {**present, **own, **added}.items() if name not in left_out}
