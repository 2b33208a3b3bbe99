"""What of a model is played: its own `predict`, told what it wants to be told, and light enough for another process."""

from __future__ import annotations

import copy
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from offline_eval.masking import takes_masks
from offline_eval.policies.normalization import Normalized
from offline_eval.types import Array, Predictor

# Methods that ask the policy, and nothing else. A subclass whose `predict` is another one is played by that.
_ASKS_THE_POLICY = {
    "stable_baselines3.common.base_class.BaseAlgorithm.predict",
    "sb3_contrib.ppo_mask.ppo_mask.MaskablePPO.predict",
    "offline_eval.policies.base.OfflineBase.predict",
}
# Those that explore now and then, where they are not to be deterministic.
_ASKS_WHERE_DETERMINISTIC = {
    "stable_baselines3.dqn.dqn.DQN.predict",
    "sb3_contrib.qrdqn.qrdqn.QRDQN.predict",
}


def playable(model: Any, deterministic: bool = True) -> Predictor:
    """What chooses a model's actions: its policy where that is all that its `predict` asks, else the model itself.

    Args:
        model: anything with `predict`.
        deterministic: what `predict` will be told.
    """
    if isinstance(model, Normalized):
        inner = copy.copy(model)
        inner.model = playable(model.model, deterministic)
        return inner
    if not isinstance(model, BaseAlgorithm):
        return model  # type: ignore[no-any-return]
    method = type(model).predict
    name = f"{method.__module__}.{method.__qualname__}"
    asks_the_policy = name in _ASKS_THE_POLICY or (deterministic and name in _ASKS_WHERE_DETERMINISTIC)
    if asks_the_policy and "predict" not in vars(model) and model.policy is not None:
        return model.policy
    return OwnPredict(model)


def explores(policy: Predictor) -> bool:
    """Whether it may draw once for a whole batch, as the exploration of DQN does: rows would not be independent."""
    return isinstance(getattr(policy, "model", None) if isinstance(policy, Normalized) else policy, OwnPredict)


def seeded(policy: Predictor, seed: int) -> Predictor:
    """The same policy; where it draws from the generator of its action space, that is another one, with this seed."""
    if isinstance(policy, OwnPredict):
        return policy.seeded(seed)
    if not explores(policy):
        return policy
    wrapped = copy.copy(policy)
    wrapped.model = seeded(wrapped.model, seed)  # type: ignore[attr-defined]
    return wrapped


class OwnPredict:
    """An algorithm that is played by its own `predict`; another process gets it without environment and buffers.

    Args:
        model: an SB3 algorithm.
    """

    def __init__(self, model: BaseAlgorithm) -> None:
        self.model = model

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False, **masks: Any
    ) -> tuple[Array, Any]:
        """The model's own answer."""
        return self.model.predict(
            observation, state=state, episode_start=episode_start, deterministic=deterministic, **masks
        )

    @property
    def takes_masks(self) -> bool:
        """Whether it asks which actions are allowed."""
        return takes_masks(self.model)

    def seeded(self, seed: int) -> OwnPredict:
        """The same, with a generator of its own for the random actions that it takes from its action space."""
        model = copy.copy(self.model)
        model.action_space = copy.deepcopy(model.action_space)
        model.action_space.seed(seed)
        return OwnPredict(model)

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # while it is unpickled there is none
            raise AttributeError(name)
        return getattr(self.model, name)

    def __getstate__(self) -> dict[str, Any]:
        light = copy.copy(self.model)
        for name in set(light._excluded_save_params()) - {"policy", "device"}:
            if name in vars(light):
                setattr(light, name, None)
        return {"model": light}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
