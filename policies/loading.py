"""Agents that Stable-Baselines3 or sb3-contrib saved, opened without running what is pickled in them.

`SAC.load` unpickles a dozen values of the file, and a pickle runs what its author likes. Old files do not even get
that far: their spaces are pickled from `gym`. Here the spaces come from the environment, the numbers from the readable
JSON, the networks from readable names, the weights from torch's weights-only reader, and every other attribute is the
algorithm's own default.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch as th
from gymnasium import Space
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from offline_eval.environments import EnvironmentLike
from offline_eval.errors import InputError, SpaceError, bare
from offline_eval.policies.agent_file import AgentFile, Pickled, read_agent_file
from offline_eval.policies.allocation import AllocationLimit, TooLarge
from offline_eval.policies.archive import is_plain, reason_of, refused_in_one_line
from offline_eval.policies.beside import NONE, with_statistics
from offline_eval.policies.devices import torch_device
from offline_eval.policies.finite import check_finite
from offline_eval.policies.identity import Trust, algorithm_of, policy_of
from offline_eval.policies.legacy import modern_weights
from offline_eval.policies.normalization import Normalized, find_vecnormalize
from offline_eval.policies.printed_space import printed_outline
from offline_eval.policies.saving import is_offline_algorithm
from offline_eval.policies.setting import quiet, spaces_as_trained, spaces_of


def load_sb3(
    path: str | os.PathLike[str],
    env: EnvironmentLike,
    device: str | th.device = "auto",
    *,
    normalize: str | os.PathLike[str] | None = None,
    trust: Trust = False,
) -> BaseAlgorithm | Normalized:
    """Open a Stable-Baselines3 or sb3-contrib agent to evaluate it; nothing that is pickled in the file is run.

    SAC, TD3, DDPG, TQC, CrossQ, DQN, QRDQN, PPO, A2C, TRPO, RecurrentPPO, MaskablePPO, ARS, saved by 0.8 or later, or
    an `OfflineAlgorithm`; the file says which. The agent has its weights, critics included, and the file's numbers
    (`gamma`, `learning_rate`, ...). It has no environment, no replay buffer to speak of and, unless this package wrote
    the file, fresh optimisers: to go on training, use SB3's own `load`.
    The global random generators stay as they were.

    Args:
        path: of the zip; `.zip` may be left out.
        env: where the agent's spaces come from: an id, a spec, a factory, an Env, VectorEnv or VecEnv, or any object
            with `observation_space` and `action_space`.
        device: "auto" takes a GPU where there is one.
        normalize: the file of the VecNormalize behind which the agent was trained. Left out, one beside the agent is
            taken that plainly belongs to it: named after it, or the only one beside the only agent. "none" declines.
        trust: also run the code in the file where the policy is made of someone's own classes. Only the pickles of
            `policy_class` and `policy_kwargs` are run, and only where they cannot be read. A function is told the file
            and what is about to run.

    Returns:
        The agent; a `Normalized` around it where there are statistics.

    Raises:
        AgentFileError: the file is missing, is none of these agents, or needs code of its own.
        SpaceError: the agent was trained on other observations or actions.
        InputError: the environment is not known, or normalises already; weights are not finite; statistics lie beside
            the agent that may be its own or not.
        MissingExtra: the agent needs sb3-contrib.
    """
    torch_device(device)
    observation_space, action_space = spaces_of(env)
    if normalize not in (None, NONE) and find_vecnormalize(env) is not None:
        raise InputError(
            "normalize",
            "must be left out where the environment has a VecNormalize",
            os.fspath(normalize),
            "once is enough",
        )
    file = read_agent_file(path)
    with quiet(), refused_in_one_line(file.path, "must be readable as an agent"):
        observation_space, action_space = spaces_as_trained(file, env, observation_space, action_space)
        model: BaseAlgorithm
        if is_offline_algorithm(path):
            model = _offline_algorithm(path, device)
        else:
            algorithm = algorithm_of(file)
            policy_class, policy_kwargs = policy_of(file, algorithm, trust)
            model = _build(file, algorithm, policy_class, policy_kwargs, observation_space, action_space, device)
            _give_weights(file, model)
        check_finite(model, "path", file.path.name)
    return with_statistics(model, file.path, env, normalize)


def _offline_algorithm(path: str | os.PathLike[str], device: str | th.device) -> BaseAlgorithm:
    """What this package trained: it is a TD3 to others, but may act otherwise (noise, the best of N candidates)."""
    from offline_eval.policies.algorithm import OfflineAlgorithm

    with th.random.fork_rng(devices=[]):
        model = OfflineAlgorithm.load(path, device=device, verbose=0, tensorboard_log=None)
    model.policy.set_training_mode(False)
    return model


# Ours to decide, whatever the file says: evaluation is silent, and buffers would only be carried about.
_OURS = {
    "policy",
    "policy_class",
    "policy_kwargs",
    "device",
    "env",
    "verbose",
    "tensorboard_log",
    "n_envs",
    "observation_space",
    "action_space",
    "replay_buffer_class",
    "replay_buffer_kwargs",
    "rollout_buffer_class",
    "rollout_buffer_kwargs",
    "train_freq",
    "action_noise",
    "ep_info_buffer",
    "ep_success_buffer",
}
_WHILE_BUILDING: dict[str, Any] = {"buffer_size": 1, "n_steps": 1, "optimize_memory_usage": False, "seed": None}


def _build(
    file: AgentFile,
    algorithm: type[BaseAlgorithm],
    policy_class: type[BasePolicy],
    policy_kwargs: dict[str, Any],
    observation_space: Space[Any],
    action_space: Space[Any],
    device: str | th.device,
) -> BaseAlgorithm:
    """The algorithm as the file describes it, with networks of random weights and buffers of one row."""
    try:
        # SB3 seeds the global generators and draws weights from them; here the caller's stay as they were.
        with th.random.fork_rng(devices=[]):
            th.manual_seed(0)
            model: Any = algorithm(policy_class, env=None, device=device, _init_setup_model=False)  # type: ignore[call-arg]
            numbers = {
                key: value
                for key, value in file.data.items()
                if key in vars(model) and key not in _OURS and not isinstance(value, Pickled)
            }
            vars(model).update(numbers)
            model.policy_kwargs = policy_kwargs
            model.observation_space, model.action_space, model.n_envs = observation_space, action_space, 1
            if isinstance(getattr(model, "target_entropy", None), str):
                # SB3's default asks the environment, and there is none.
                model.target_entropy = -float(np.prod(action_space.shape or ()))
            kept = {key: vars(model)[key] for key in _WHILE_BUILDING if key in vars(model)}
            vars(model).update({key: _WHILE_BUILDING[key] for key in kept})
            with AllocationLimit(file.weights.values()):
                model._setup_model()
            vars(model).update(kept)
            if model.use_sde:
                model.policy.reset_noise()
    except InputError:
        raise
    except TooLarge as error:
        rule = "must have weights of the size of the networks that its `policy_kwargs` describe"
        raise file.refusal(rule, str(error)) from error
    except Exception as error:  # the numbers come from a file: they can be anything
        rule = f"must describe a {algorithm.__name__} that Stable-Baselines3 can build"
        raise file.refusal(rule, reason_of(error)) from error
    return model  # type: ignore[no-any-return]


def _give_weights(file: AgentFile, model: BaseAlgorithm) -> None:
    expected = model.policy.state_dict()
    weights = modern_weights(file.weights, expected)
    for name in sorted(expected.keys() & weights.keys()):
        if expected[name].shape != weights[name].shape:
            raise _misfit(file, f"`{name}` of shape {tuple(weights[name].shape)}", tuple(expected[name].shape))
    if lacking := sorted(expected.keys() ^ weights.keys()):
        side = "lacks" if lacking[0] in expected else "has"
        raise file.refusal(
            f"must hold the weights of a {type(model).__name__} as Stable-Baselines3 builds it today",
            f"written by {file.version}, it {side} `{lacking[0]}`",
        )
    model.policy.load_state_dict(weights)
    model.policy.set_training_mode(False)
    for name in model._get_torch_save_params()[1]:
        value, ours = file.variables.get(name), getattr(model, name, None)
        if is_plain(value) and isinstance(ours, th.Tensor) and value.shape == ours.shape:
            ours.data.copy_(value)


def _misfit(file: AgentFile, found: str, expected: tuple[int, ...]) -> InputError:
    told = [printed_outline(file, "observation"), printed_outline(file, "action")]
    if all(outline is not None and outline.is_sized for outline in told):
        return file.refusal(
            "must hold weights of the shapes that its `policy_kwargs` describe", f"{found}, not {expected}"
        )
    return SpaceError(
        "env",
        "must have the spaces that the agent was trained with",
        bare(f"spaces for which {found} in the file would be {expected}"),
        "name the environment it was trained in, with the same wrappers",
    )
