"""`OfflineAlgorithm`: a Stable-Baselines3 algorithm that fits a data set, and goes on learning online."""

from __future__ import annotations

import io
import pathlib
import warnings
from dataclasses import replace
from typing import Self, TypedDict, Unpack

from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import set_random_seed

from offline_eval.checks import check_whole
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import InputError, bare
from offline_eval.policies.actors import ActorRule
from offline_eval.policies.base import OfflineBase
from offline_eval.policies.extraction import Extraction
from offline_eval.policies.fitting import Fitting, check_dataset
from offline_eval.policies.learnable import check_learnable
from offline_eval.policies.learner import Part, policy_parts, value_parts
from offline_eval.policies.online import filled_buffer, is_stub
from offline_eval.policies.sampling import BufferRows, Sampler
from offline_eval.policies.snapshot import (
    constructor_words,
)
from offline_eval.policies.watch import Watch


class FitOptions(TypedDict, total=False):
    """The rarer arguments of `fit`, `fit_value` and `extract`."""

    log_interval: int
    reset_num_timesteps: bool
    tb_log_name: str


class OfflineAlgorithm(OfflineBase):
    """Learns from a data set what its recipe says, and then, if wanted, online.

    It is a Stable-Baselines3 algorithm: `predict`, `save`, `load`, callbacks, loggers and `evaluate_policy` work as
    there. Its file is one that plain `TD3.load` opens, too::

        model = OfflineAlgorithm("iql", seed=0).fit(dataset, gradient_steps=20_000)
        model.save("model")
        model.set_env("Pendulum-v1")
        model.learn(5_000)

    Args:
        recipe: its name (`offline_eval.policies.recipes.RECIPES`), or a `Recipe`.
        env: to learn online in, or its id; without it the spaces come from the data.
        learning_rate: of Adam; a number, or a function of the remaining share of the run (1 to 0).
        buffer_size: transitions that are kept while learning online, data included.
        learning_starts: random steps before learning online begins.
        batch_size: transitions a gradient step.
        tau: share of the new parameters that targets take over a step.
        gamma: discount a step.
        train_freq: steps (or episodes) in the environment between updates, online.
        gradient_steps: gradient steps an update, online; -1 for as many as steps were made.
        action_noise: exploration of a deterministic actor, online.
        stats_window_size: episodes that online statistics are averaged over.
        tensorboard_log: folder for TensorBoard; None for no log.
        policy_kwargs: `net_arch`, `activation_fn` (without parameters; `LayerNormReLU` normalises), `n_critics`,
            `optimizer_kwargs`.
        verbose: 1 prints what is logged.
        seed: of initial weights, batches and noise; None draws one, which a file keeps.
        device: "cpu", "cuda" or "auto".

    Raises:
        InputError: a word that is out of range, dict or image observations, discrete or unbounded actions.
    """

    # ------------------------------------------------------------------------------------------------ offline

    def fit(
        self,
        dataset: Dataset,
        gradient_steps: int,
        callback: MaybeCallback = None,
        progress_bar: bool = False,
        validation: Dataset | None = None,
        **options: Unpack[FitOptions],
    ) -> Self:
        """Learn value and policy from a data set.

        Statistics that the recipe wants (of observations, of rewards) are taken from the first data set and kept.

        Args:
            dataset: trajectories of one environment.
            gradient_steps: how many; `num_timesteps` counts them here.
            callback: as for `learn`, called after every gradient step.
            progress_bar: show one (needs tqdm).
            validation: trajectories that are kept apart; their losses are logged as `validation/...`.
            options: `log_interval` (1000): gradient steps between two entries in the log. `reset_num_timesteps`
                (True): False goes on with the run that a loaded file comes from, on the same data; schedules then see
                the same total as if it had never stopped. `tb_log_name` ("fit"): of the run in TensorBoard.

        Returns:
            The algorithm itself.

        Raises:
            InputError: the data set does not fit the algorithm, or has fewer transitions than a batch.
            NonFiniteLoss: a loss became NaN or infinite; its batch is named.
        """
        parts = (*value_parts(self.recipe), *policy_parts(self.recipe))
        return self._fit(parts, dataset, gradient_steps, callback, progress_bar, validation, options)

    def fit_value(
        self,
        dataset: Dataset,
        gradient_steps: int,
        callback: MaybeCallback = None,
        progress_bar: bool = False,
        validation: Dataset | None = None,
        **options: Unpack[FitOptions],
    ) -> Self:
        """Learn the value alone; arguments as for `fit`.

        Raises:
            InputError: the recipe trains no value, or one that follows the policy.
        """
        rule = self.recipe.value
        if rule is None or rule.follows_policy:
            way_out = "" if rule is None else "its value follows the policy: call fit, which learns both"
            raise InputError("recipe", "must have a value that is learned by itself", rule, way_out)
        parts = value_parts(self.recipe)
        return self._fit(parts, dataset, gradient_steps, callback, progress_bar, validation, options)

    def extract(
        self,
        dataset: Dataset,
        gradient_steps: int,
        callback: MaybeCallback = None,
        progress_bar: bool = False,
        validation: Dataset | None = None,
        **options: Unpack[FitOptions],
    ) -> Self:
        """Learn the policy alone, from the value as it is, on any data set; arguments as for `fit`.

        Raises:
            InputError: the recipe trains no policy, or there is no value yet.
        """
        extraction = self.recipe.extraction
        if extraction is None:
            way_out = "with_extraction(AWRExtraction()) gives it one"
            raise InputError("recipe", "must have an extraction", self.recipe, way_out)
        if extraction.needs_value and "value" not in self.fingerprints:
            raise InputError("model", "must have learned a value", bare("an untrained one"), "call fit_value first")
        parts = policy_parts(self.recipe)
        return self._fit(parts, dataset, gradient_steps, callback, progress_bar, validation, options)

    def with_extraction(
        self, extraction: Extraction, actor: ActorRule | None = None, seed: int | None = None
    ) -> OfflineAlgorithm:
        """The same value under a new, untrained policy.

        `model.with_extraction(DDPGBCExtraction()).extract(dataset, 1000)` then trains it.

        Args:
            extraction: how the policy is read out.
            actor: of the new policy; None for the present one's kind.
            seed: of the new policy; None for the present one's.
        """
        recipe = replace(self.recipe, extraction=extraction, actor=self.recipe.actor if actor is None else actor)
        words = {**constructor_words(self), "seed": self.run_seed if seed is None else seed}
        other = OfflineAlgorithm(recipe, None, **words, device=self.device)
        other._take_spaces(self.observation_space, self.action_space)
        other.assumed_action_space = self.assumed_action_space
        for name in ("critic", "target_critic", "value"):
            for theirs, ours in zip(other.learner.parameters[name], self.learner.parameters[name], strict=True):
                theirs.data.copy_(ours.data)
        other.fingerprints = {part: digest for part, digest in self.fingerprints.items() if part == "value"}
        if self._transform is not None:
            other.set_transform(self._transform.standard, self._transform.reward_factor)
        return other

    def _fit(
        self,
        parts: tuple[Part, ...],
        dataset: Dataset,
        gradient_steps: int,
        callback: MaybeCallback,
        progress_bar: bool,
        validation: Dataset | None,
        options: FitOptions,
    ) -> Self:
        check_dataset("dataset", dataset)
        if validation is not None:
            check_dataset("validation", validation)
        check_whole("gradient_steps", gradient_steps, 1)
        check_whole("log_interval", options.get("log_interval", 1), 1, "one longer than the run logs its end alone")
        if not self._is_built:
            self._take_spaces(dataset.observation_space, dataset.action_space)
            self.assumed_action_space = dataset.source.assumed_action_space
        digest = dataset.fingerprint
        dataset = dataset.for_spaces(self.observation_space, self.action_space)
        check_learnable(dataset, any(part.name == "value" for part in parts), self.gamma)
        if self._transform is None:
            self.set_transform(self.recipe.observations.statistics(dataset), self.recipe.rewards.factor(dataset))
        Fitting(self, parts, dataset, digest, validation).run(gradient_steps, callback, progress_bar, **options)
        self._dataset, self.replay_buffer = dataset, None
        return self

    # ------------------------------------------------------------------------------------------------ online

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "learn",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Go on learning in the environment; the replay buffer begins with the data that were fitted.

        Timeouts bootstrap. Statistics of observations and rewards stay those of the data, and the actor's learning rate
        its full one. A file holds no data: after loading one the buffer begins empty, with a warning, unless
        `fill_buffer`, `fit` or `load_replay_buffer` gave it some.

        Raises:
            InputError: no environment, no data seen yet, or a value rule that cannot learn online.
        """
        rule = self.recipe.value
        if self.recipe.extraction is None or rule is None or rule.needs_next_actions:
            raise InputError(
                "recipe", "must learn a policy from a value that new steps improve", self.recipe,
                "Recipe(Implicit(), AWRExtraction()) does, for example; fit learns this one from data",
            )  # fmt: skip
        if is_stub(self.env):
            raise InputError("env", "must be given to learn online", None, "OfflineAlgorithm(recipe, env) or set_env")
        assert self.env is not None
        assert self.transform is not None
        if self.replay_buffer is None and self._dataset is None and self.fingerprints:
            way_out = "a file holds no data: call fill_buffer(dataset), fit or load_replay_buffer first"
            warnings.warn(f"the replay buffer begins empty, without the data that were fitted; {way_out}", stacklevel=2)
        self._fill_replay_buffer()
        # Action noise and random actions draw from global generators, which Stable-Baselines3 seeds when it builds.
        if self.seed is not None and reset_num_timesteps:
            set_random_seed(self.seed)
            self.action_space.seed(self.seed)
            self.env.seed(self.seed)
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def save_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase) -> None:
        """Save the replay buffer as a pickle, as Stable-Baselines3 does; after `fit` it holds the data.

        Raises:
            InputError: there are no data, as after loading a file.
        """
        if self.replay_buffer is None and self._dataset is None:
            raise InputError("model", "must have data to save", bare("one without"), "call fit, fill_buffer or learn")
        self._fill_replay_buffer()
        super().save_replay_buffer(path)

    def _fill_replay_buffer(self) -> None:
        if self.replay_buffer is None:
            assert self.env is not None
            self.replay_buffer = filled_buffer(self._dataset, self.buffer_size, self.env, self.device)

    def fill_buffer(self, dataset: Dataset) -> None:
        """Give the replay buffer a data set to begin with, as `fit` does; for a model that was loaded from a file."""
        check_dataset("dataset", dataset)
        self._dataset, self.replay_buffer = dataset.for_spaces(self.observation_space, self.action_space), None

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Make gradient steps on the replay buffer; `learn` calls this."""
        assert self.replay_buffer is not None
        rows = BufferRows(self.replay_buffer, self.transform, self.device)
        sampler = Sampler(rows, self.run_seed, batch_size, self.noise_shape, self.device)
        watch = Watch(sampler, rows)
        parts = (*value_parts(self.recipe), *policy_parts(self.recipe))
        for _ in range(gradient_steps):
            self.advance(sampler, watch, parts, actor_factor=1.0)
        watch.check()
        for name, value in watch.means().items():
            self.logger.record(name, value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
