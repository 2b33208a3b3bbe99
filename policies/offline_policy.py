"""The policy of an offline algorithm: TD3's networks, acting as its recipe says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor

from offline_eval.errors import AgentFileError, InputError
from offline_eval.policies.actors import Distribution
from offline_eval.policies.devices import torch_device
from offline_eval.policies.networks import Layers
from offline_eval.policies.recipes import Recipe
from offline_eval.policies.values import FittedQ

_ACTION_STREAM, _CANDIDATE_STREAM = 0xAC7, 0xCA2D
"""Keep the noise of actions, and that of the candidates which deterministic actions rank, apart."""


class OfflinePolicy(TD3Policy):
    """TD3's policy whose actor may be stochastic and may rank candidates; an `Actor` of `offline_eval.types` too.

    Its weights have TD3's names and shapes. `deterministic=True` gives, for every extraction that does not rank
    candidates, exactly what a plain TD3 policy with these weights gives.
    """

    recipe: Recipe
    spread: Layers
    seed: int
    generator: np.random.Generator

    def act_by(self, recipe: Recipe, spread: Layers, seed: int) -> None:
        """Say how to act; called once, before the first action.

        Args:
            recipe: its actor and its extraction decide.
            spread: the actor's own parameters, which training changes.
            seed: of the noise.
        """
        self.recipe, self.spread, self.seed = recipe, spread, seed
        self.generator = np.random.default_rng([_ACTION_STREAM, seed])
        action_dim = int(np.prod(self.action_space.shape or ()))
        self._candidate_noise: Tensor | None = None
        self._noise_shape: tuple[int, ...] = ()
        if recipe.extraction is not None:
            self._noise_shape = recipe.extraction.noise_shape(action_dim)
            if recipe.extraction.ranks_candidates:
                drawn = np.random.default_rng([_CANDIDATE_STREAM, seed]).standard_normal(self._noise_shape, np.float32)
                self._candidate_noise = th.as_tensor(drawn, device=self.device)

    def distribution(self, observations: Any) -> Distribution:
        """What the actor does in a batch of the environment's observations."""
        *layers, output, _ = self.actor.mu
        features = self.actor.extract_features(observations, self.actor.features_extractor)
        for layer in layers:
            features = layer(features)
        return self.recipe.actor.distribution(output(features), features, self.spread)

    def mean(self, observations: Any) -> Tensor:
        """The actor's deterministic action (batch, action_dim), scaled, differentiable."""
        return self.distribution(observations).mode

    def sample(self, observations: Any, noise: Tensor) -> Tensor:
        """Actions of the actor for standard normal noise (batch, action_dim)."""
        return self.distribution(observations).sample(noise)

    def log_prob(self, observations: Any, actions: Tensor) -> Tensor:
        """Log-density (batch,) of scaled actions; raises for a deterministic actor."""
        return self.distribution(observations).log_prob(actions)

    def save(self, path: Any) -> None:
        """Write weights and how to act, as Stable-Baselines3's policies do; `TD3Policy.load` opens the file, too."""
        recipe = self.recipe
        if isinstance(recipe.value, FittedQ):
            recipe = replace(recipe, value=replace(recipe.value, policy=None))
        acting = {"recipe": recipe, "spread": [layer.detach() for layer in self.spread], "seed": self.seed}
        th.save({"state_dict": self.state_dict(), "data": self._get_constructor_parameters(), "acting": acting}, path)

    @classmethod
    def load(cls, path: Any, device: th.device | str = "auto") -> Self:
        """Open a file that `save` wrote; its noise begins anew.

        It unpickles, as Stable-Baselines3's does: open files of people whom you trust. `OfflineAlgorithm.load` and
        `load_sb3` open an algorithm's file without that.

        Raises:
            AgentFileError: the file does not say how to act.
        """
        where = torch_device(device)
        saved = th.load(path, map_location=where, weights_only=False)
        if "acting" not in saved:
            raise AgentFileError(
                "path", "must be a file that OfflinePolicy.save wrote", str(path), "TD3Policy.load opens TD3's"
            )
        policy = cls(**saved["data"])
        policy.load_state_dict(saved["state_dict"])
        policy = policy.to(where)
        policy.act_by(**saved["acting"])
        return policy

    def parameters_to_vector(self) -> Any:
        """All weights in one NumPy vector."""
        return th.cat([parameter.detach().reshape(-1) for parameter in self.parameters()]).cpu().numpy()

    @th.no_grad()
    def load_from_vector(self, vector: Any) -> None:
        """Take all weights from a vector, where they are: a trainer may look at the same memory."""
        values, start = th.as_tensor(vector, dtype=th.float32, device=self.device), 0
        for parameter in self.parameters():
            parameter.copy_(values[start : start + parameter.numel()].view(parameter.shape))
            start += parameter.numel()

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        extraction = self.recipe.extraction
        if extraction is None:
            raise InputError(
                "model", "must have learned a policy to act", self.recipe, "this recipe learns a critic alone"
            )
        pi = self.distribution(observation)
        batch = len(pi.mode)
        noise: Tensor | None = None
        if not deterministic:
            drawn = self.generator.standard_normal((batch, *self._noise_shape), np.float32)
            noise = th.as_tensor(drawn, device=self.device)
        elif self._candidate_noise is not None:
            noise = self._candidate_noise.expand(batch, *self._noise_shape)
        assert isinstance(observation, Tensor)
        return extraction.act(pi, observation.flatten(1).float(), noise, self._score)

    def _score(self, observations: Tensor, actions: Tensor) -> Tensor:
        shaped = observations.view(-1, *(self.observation_space.shape or ()))
        return th.cat(self.critic_target(shaped, actions), dim=1).amin(1)
