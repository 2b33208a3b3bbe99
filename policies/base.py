"""What an offline algorithm is, before and after it learns: spaces, an environment, networks, and a file."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import torch as th
from gymnasium import Space, spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import get_system_info
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from offline_eval.datasets.space_json import space_from_json
from offline_eval.datasets.trajectories import Dataset
from offline_eval.environments import check_registered
from offline_eval.errors import InputError, NonFiniteLoss, SpaceError, bare, printable
from offline_eval.policies.allocation import AllocationLimit
from offline_eval.policies.archive import refused_in_one_line
from offline_eval.policies.building import activation_of, build, check_policy_kwargs, check_spaces, check_words
from offline_eval.policies.devices import torch_device
from offline_eval.policies.learner import Learner, Part
from offline_eval.policies.offline_policy import OfflinePolicy
from offline_eval.policies.online import stub_environment
from offline_eval.policies.recipes import Recipe, recipe_from_json, recipe_of
from offline_eval.policies.sampling import Sampler, Transform
from offline_eval.policies.saving import ASSUMED_ACTION_SPACE, SavedAlgorithm, read_algorithm, write_algorithm
from offline_eval.policies.snapshot import (
    arrays_of,
    put_arrays,
    put_counters,
    put_states,
    states_of,
    td3_data,
    words_from_json,
    words_of,
)
from offline_eval.policies.td3_layout import Mirror
from offline_eval.policies.transforms import Standard
from offline_eval.policies.watch import Watch


class OfflineBase(OffPolicyAlgorithm):
    """Everything of `OfflineAlgorithm` but learning; its constructor is described there."""

    policy: OfflinePolicy

    def __init__(
        self,
        recipe: str | Recipe,
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 0,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
    ) -> None:
        self.recipe = recipe_of(recipe)
        check_words(learning_rate, buffer_size, learning_starts, batch_size, tau, gamma, gradient_steps, seed)
        # The class below says that it needs an environment; the one below that takes None.
        checked: Any = None if env is None else self._checked_environment(env)
        super().__init__(
            OfflinePolicy, checked, learning_rate, buffer_size, learning_starts, batch_size, tau, gamma, train_freq,
            gradient_steps, action_noise, policy_kwargs=check_policy_kwargs(policy_kwargs),
            stats_window_size=stats_window_size, tensorboard_log=tensorboard_log, verbose=verbose, seed=seed,
            device=torch_device(device), support_multi_env=True, sde_support=False,
        )  # fmt: skip
        self.run_seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self.assumed_action_space = False
        self.fingerprints: dict[str, str] = {}
        self.last_metrics: dict[str, float] = {}
        self._dataset: Dataset | None = None
        self._transform: Transform | None = None
        self._watch: Watch | None = None
        self._is_built = False
        if env is not None:
            self._setup_model()

    # ------------------------------------------------------------------------------------------------ setting up

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self._convert_train_freq()
        assert isinstance(self.observation_space, spaces.Box)
        assert isinstance(self.action_space, spaces.Box)
        self.policy, parameters = build(
            self.recipe, self.observation_space, self.action_space, self.policy_kwargs, self.lr_schedule,
            self.run_seed, self.device,
        )  # fmt: skip
        self.learner = Learner(
            self.recipe, parameters, activation_of(self.policy.activation_fn), self.gamma, self.tau,
            self.policy_kwargs.get("optimizer_kwargs"),
        )  # fmt: skip
        self.policy.spread = parameters["spread"]
        self.actor, self.actor_target = self.policy.actor, self.policy.actor_target
        self.critic, self.critic_target = self.policy.critic, self.policy.critic_target
        self._mirror = Mirror(self.policy, parameters, None, 1.0)
        self._is_built = True

    def _take_spaces(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        """Build for the spaces of a data set or a file, with a stub where an environment would be."""
        check_spaces(self.recipe, observation_space, action_space)
        self.observation_space, self.action_space = observation_space, action_space
        self.env, self.n_envs = stub_environment(observation_space, action_space), 1
        self._setup_model()

    def set_transform(self, standard: Standard | None, reward_factor: float) -> None:
        """Fix what observations and rewards are turned into; called once, with the first data set's statistics."""
        self._transform = Transform(standard, reward_factor, self.device)
        self._mirror = Mirror(self.policy, self.learner.parameters, standard, reward_factor)

    def _checked_environment(self, env: GymEnv | str) -> GymEnv:
        if isinstance(env, str):
            check_registered(env)
        made = maybe_make_env(env, 0)
        check_spaces(self.recipe, made.observation_space, made.action_space)
        if isinstance(made, VecEnv) and unwrap_vec_normalize(made) is not None:
            raise InputError(
                "env", "must not be a VecNormalize: its statistics move, and the data do not know them", made,
                "give the environment itself, and Recipe(..., observations=Standardize())",
            )  # fmt: skip
        return made

    def set_env(self, env: GymEnv | str, force_reset: bool = True) -> None:
        """Give an environment to learn online in; its spaces must be those of the data.

        A replay buffer of as many environments is kept; one with the data alone is filled anew for others.

        Raises:
            SpaceError: they are not.
            InputError: the replay buffer holds steps of another number of environments.
        """
        wrapped = self._wrap_env(self._checked_environment(env), self.verbose)
        if not self._is_built:
            self.observation_space, self.action_space = wrapped.observation_space, wrapped.action_space
            self.env, self.n_envs = wrapped, wrapped.num_envs
            self._setup_model()
            return
        way_out = "give the environment that the data were collected in"
        if wrapped.observation_space.shape != self.observation_space.shape:
            rule = f"must have observations of {self.observation_space}"
            raise SpaceError("env", rule, wrapped.observation_space, way_out)
        if not _same_bounds(wrapped.action_space, self.action_space):
            rule = f"must have actions of {self.action_space}"
            raise SpaceError(
                "env", rule, wrapped.action_space, ASSUMED_ACTION_SPACE if self.assumed_action_space else way_out
            )
        # The space of a data set is inferred, without bounds or with rounded ones: the environment's own is better.
        for name in ("observation_space", "action_space"):
            setattr(self, name, getattr(wrapped, name))
            for module in self.policy.modules():
                if hasattr(module, name):
                    vars(module)[name] = getattr(wrapped, name)
        self.assumed_action_space = False
        self._keep_buffer_for(wrapped.num_envs)
        self.n_envs = wrapped.num_envs
        super().set_env(wrapped, force_reset)

    def _keep_buffer_for(self, n_envs: int) -> None:
        buffer, dataset = self.replay_buffer, self._dataset
        if buffer is None or buffer.n_envs == n_envs:
            return
        if dataset is None or buffer.size() * buffer.n_envs > dataset.num_transitions:
            raise InputError(
                "env", f"must have as many environments as the replay buffer ({buffer.n_envs}), not to lose its steps",
                n_envs, "set replay_buffer = None to begin without them",
            )  # fmt: skip
        self.replay_buffer = None

    # ------------------------------------------------------------------------------------------------ copies

    def __getstate__(self) -> dict[str, Any]:
        # What watches a run holds the run's data in its own form, and has been asked before the run ended.
        state = vars(self) | {"_watch": None}
        state["_is_mirrored"] = self._is_built and self._mirror.is_shown_in(self.policy)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        is_mirrored = state.pop("_is_mirrored")
        vars(self).update(state)
        # Copying parts the policy from the parameters that are trained: torch copies each `Parameter` by itself.
        if is_mirrored:
            self._mirror.show_in(self.policy)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        for name in ("_dataset", "_logger"):  # one never changes, the other writes to one place
            if (shared := vars(self).get(name)) is not None:
                memo[id(shared)] = shared
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made

    @property
    def has_transform(self) -> bool:
        """Whether a data set has been seen."""
        return self._transform is not None

    @property
    def transform(self) -> Transform:
        """What happens to observations and rewards; known once a data set has been seen."""
        if self._transform is None:
            raise InputError("model", "must have seen a data set", bare("an untrained one"), "call fit first")
        return self._transform

    def predict(self, *arguments: Any, **keywords: Any) -> tuple[Any, Any]:
        """Actions in the environment's units; arguments and result as everywhere in Stable-Baselines3.

        Raises:
            InputError: nothing has been learned that acts.
        """
        if not self._is_built:
            raise InputError("model", "must have networks to act", bare("an untrained one"), "call fit first")
        return super().predict(*arguments, **keywords)

    def advance(self, sampler: Sampler, watch: Watch, parts: tuple[Part, ...], actor_factor: float) -> None:
        """One gradient step; `actor_factor` scales the actor's learning rate."""
        number = self._n_updates
        rate = self.lr_schedule(self._current_progress_remaining)
        self.learner.learning_rates = {"value": rate, "policy": rate * actor_factor}
        batch, noise = sampler.batch(number)
        self._n_updates += 1
        loss, metrics = self.learner.update(batch, noise, self._n_updates, parts)
        self._mirror.refresh()
        self._watch = watch
        watch.add(number, loss, metrics)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Standard normal numbers a transition that the value rule wants."""
        rule = self.recipe.value
        return () if rule is None else rule.noise_shape(int(np.prod(self.action_space.shape or ())))

    # ------------------------------------------------------------------------------------------------ files

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """State dicts of the policy and of the two optimisers that TD3 has."""
        return states_of(self.policy, self.learner)

    def set_parameters(
        self, load_path_or_dict: Any, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """Take weights from a file of any TD3 algorithm, or from a dict as `get_parameters` gives it."""
        states = load_path_or_dict
        if not isinstance(states, dict):
            _, states, _ = load_from_zip_file(load_path_or_dict, load_data=False, device=device)
        put_states(self.policy, self.learner, states, exact_match)
        self._mirror.adopt()

    def save(
        self,
        path: str | os.PathLike[str] | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write a zip that plain `TD3.load` opens, and that `load` goes on from bit for bit.

        Args:
            path: `.zip` is added where there is no suffix. The former file stays until the new one is complete.
            exclude: attributes of TD3 and constructor words to leave out; loading gives the words their defaults.
            include: attributes to add to them, and what is not left out after all.

        Raises:
            NonFiniteLoss: the weights are not worth keeping.
            StorageError: the file cannot be written.
        """
        if not self._is_built:
            raise InputError("model", "must have networks to save", bare("an untrained one"), "call fit first")
        if self._watch is not None:
            self._watch.check()
        if not self.learner.is_finite:
            raise NonFiniteLoss(self._n_updates, (), ())
        left_out, words = set(exclude or ()) - set(include or ()), words_of(self)
        words["constructor"] = {name: word for name, word in words["constructor"].items() if name not in left_out}
        data = td3_data(self, exclude, include)
        write_algorithm(path, data, self.get_parameters(), words, arrays_of(self, self._mirror))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | io.BufferedIOBase,
        env: GymEnv | str | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        *,
        recipe: Recipe | None = None,
        **kwargs: Any,
    ) -> Self:
        """Open a file that `save` wrote, without unpickling anything.

        Args:
            path: of the file.
            env: to learn online in.
            device: "cpu", "cuda" or "auto".
            custom_objects: constructor words to take instead of the file's; other names have nothing to do here.
            print_system_info: print the versions of this machine, and those that the file was written with.
            force_reset: reset the environment before learning goes on.
            recipe: for a file whose recipe has parts that this package does not know, or a policy to evaluate.
            kwargs: constructor words to change.

        Raises:
            AgentFileError: not such a file, or a damaged one.
        """
        where = torch_device(device)
        saved = read_algorithm(path, th.device("cpu") if device == "auto" else where)
        if print_system_info:
            print("== CURRENT SYSTEM INFO ==")
            get_system_info()
            print("== SAVED MODEL SYSTEM INFO ==")
            for name, version in dict(saved.words.get("versions") or {}).items():
                print(printable(f"- {name}: {version}"))
        known = saved.words.get("constructor") or {}
        replaced = {word: value for word, value in (custom_objects or {}).items() if word in (*known, "action_noise")}
        with refused_in_one_line(path, "must hold what OfflineAlgorithm.save wrote"):
            model = cls._of(saved, device, recipe, replaced | kwargs)
        if env is not None:
            model.set_env(env, force_reset)
        return model

    @classmethod
    def _of_recipe(cls, recipe: Recipe, device: th.device | str, words: Mapping[str, Any]) -> Self:
        """An untrained one, told again what the constructor of a saved one was told."""
        return cls(recipe, None, **words, device=device)

    @classmethod
    def _of(
        cls, saved: SavedAlgorithm, device: th.device | str, recipe: Recipe | None, changed: dict[str, Any]
    ) -> Self:
        words = saved.words
        chosen = recipe_from_json(words["recipe"]) if recipe is None else recipe
        model = cls._of_recipe(chosen, device, words_from_json(words["constructor"], changed))
        model.run_seed = int(words["run_seed"])
        spaces_of_file = space_from_json(words["observation_space"]), space_from_json(words["action_space"])
        with AllocationLimit(saved.states["policy"].values()):
            model._take_spaces(*spaces_of_file)
        put_states(model.policy, model.learner, saved.states, exact_match=True)
        put_arrays(model, saved.arrays)
        put_counters(model, words)
        model.assumed_action_space = bool(words.get("assumed_action_space", False))
        return model


def _same_bounds(one: Space[Any], other: Space[Any]) -> bool:
    assert isinstance(one, spaces.Box)
    assert isinstance(other, spaces.Box)
    return one.shape == other.shape and np.allclose(one.low, other.low) and np.allclose(one.high, other.high)
