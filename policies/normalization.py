"""VecNormalize statistics: held still, and applied once to what the policy and the critic see.

An agent trained behind a VecNormalize saw observations minus their mean over their deviation, and its critic learned
rewards divided by the deviation of the return. `Normalized` gives the policy the former, and `critic_of(Normalized)`
undoes the latter, so that its values are in units of the raw return.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import Space, spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from offline_eval.errors import InputError, SpaceError, bare
from offline_eval.masking import takes_masks
from offline_eval.policies.notes import add_notes
from offline_eval.types import Array, FloatArray, Observations, Predictor

if TYPE_CHECKING:
    from torch import Tensor

    from offline_eval.types import TensorObservations


@dataclass(frozen=True)
class Moments:
    """Mean and variance of one array of observations, shape (*observation_shape)."""

    mean: FloatArray
    variance: FloatArray

    @classmethod
    def of(cls, running: Any) -> Moments:
        """A copy of an SB3 `RunningMeanStd`."""
        return cls(np.array(running.mean, dtype=np.float64), np.array(running.var, dtype=np.float64))


@dataclass(frozen=True)
class Statistics:
    """What a VecNormalize had gathered when training ended; held still from then on.

    Attributes:
        observations: of the observations; a dict by key for dict observations; None where they were left alone.
        return_variance: of the discounted return; None where rewards were left alone.
        clip: largest absolute value of a normalised observation.
        epsilon: added to each variance.

    Raises:
        InputError: a mean or a variance is NaN or infinite, or a variance is negative.
    """

    observations: Moments | dict[str, Moments] | None
    return_variance: float | None
    clip: float = 10.0
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        moments = self.observations if isinstance(self.observations, dict) else {"": self.observations}
        for key, part in moments.items():
            if part is not None:
                _check_moments(f"of `{key}`" if key else "of the observations", part.mean, part.variance)
        if self.return_variance is not None:
            _check_moments("of the return", np.zeros(()), np.array(self.return_variance))
        if not self.clip > 0 or not (self.epsilon >= 0 and np.isfinite(self.epsilon)):
            received = bare(f"clip {self.clip:g} and epsilon {self.epsilon:g}")
            raise InputError("normalize", "must clip above 0, and add an epsilon that is finite and >= 0", received)

    @classmethod
    def of(cls, vec_normalize: VecNormalize) -> Statistics:
        """A copy of the present statistics of a live VecNormalize."""
        return cls.from_attributes(vars(vec_normalize))

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Statistics:
        """From the attributes of a VecNormalize, by name."""
        running = attributes["obs_rms"] if attributes["norm_obs"] else None
        observations: Moments | dict[str, Moments] | None = None
        if isinstance(running, Mapping):
            observations = {key: Moments.of(value) for key, value in running.items()}
        elif running is not None:
            observations = Moments.of(running)
        return cls(
            observations,
            return_variance=float(attributes["ret_rms"].var) if attributes["norm_reward"] else None,
            clip=float(attributes["clip_obs"]),
            epsilon=float(attributes["epsilon"]),
        )

    @property
    def digest(self) -> str:
        """A name for these numbers: twelve hex digits."""
        parts = self.observations if isinstance(self.observations, dict) else {"": self.observations}
        numbers = [(key, part and (part.mean.tolist(), part.variance.tolist())) for key, part in sorted(parts.items())]
        text = repr((numbers, self.return_variance, self.clip, self.epsilon))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def changes_nothing(self) -> bool:
        """Whether neither observations nor rewards were normalised."""
        return self.observations is None and self.return_variance is None

    @property
    def return_scale(self) -> float:
        """What a value in training units is multiplied by: sqrt(variance of the return + epsilon), or 1."""
        return 1.0 if self.return_variance is None else float(np.sqrt(self.return_variance + self.epsilon))

    def normalize(self, observations: Observations) -> Observations:
        """Observations (batch, ...) or one (...) as the policy saw them in training, to VecNormalize's last bit."""
        if isinstance(self.observations, dict) and isinstance(observations, dict):
            parts = {key: self._array(observations[key], moments) for key, moments in self.observations.items()}
            return {**observations, **parts}
        if isinstance(self.observations, Moments) and not isinstance(observations, dict):
            return self._array(observations, self.observations)
        return observations

    def _array(self, values: Array, moments: Moments) -> Array:
        scaled = (values - moments.mean) / np.sqrt(moments.variance + self.epsilon)
        clipped: Array = np.clip(scaled, -self.clip, self.clip).astype(np.float32)
        return clipped

    def check(self, space: Space[Any] | None) -> None:
        """Raise a SpaceError where the statistics are of observations of another shape."""
        if self.observations is None or space is None:
            return
        parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        moments = self.observations if isinstance(self.observations, dict) else {"": self.observations}
        ours = {key: value.mean.shape for key, value in moments.items()}
        theirs = {key: part.shape for key, part in parts.items() if key in ours}
        if ours != theirs:
            raise SpaceError(
                "normalize",
                f"must be statistics of the agent's observations, of shape {_words(theirs) or space}",
                bare(f"statistics of shape {_words(ours)}"),
                "take the file that was saved beside this agent",
            )
        if images := [key for key in ours if is_image_space(parts[key])]:
            raise SpaceError(
                "normalize", "must not be statistics of images", bare(f"{parts[images[0]]}"), "set `norm_obs` to False"
            )


class TensorNormalization:
    """The same normalisation on tensors, for critics; in the precision that they come in.

    Args:
        statistics: held still.
    """

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics
        self._cache: dict[tuple[str | None, th.device], tuple[Tensor, Tensor]] = {}

    def __call__(self, observations: TensorObservations) -> TensorObservations:
        """Observations (batch, ...) as the critic saw them in training."""
        moments = self.statistics.observations
        if isinstance(moments, dict) and isinstance(observations, Mapping):
            parts = {key: self._tensor(observations[key], key, value) for key, value in moments.items()}
            return {**observations, **parts}
        if isinstance(moments, Moments) and not isinstance(observations, Mapping):
            return self._tensor(observations, None, moments)
        return observations

    def _tensor(self, values: Tensor, key: str | None, moments: Moments) -> Tensor:
        if (key, values.device) not in self._cache:
            deviation = np.sqrt(moments.variance + self.statistics.epsilon)
            self._cache[key, values.device] = (
                th.as_tensor(moments.mean, dtype=th.float32, device=values.device),
                th.as_tensor(deviation, dtype=th.float32, device=values.device),
            )
        mean, deviation = self._cache[key, values.device]
        return ((values.float() - mean) / deviation).clamp(-self.statistics.clip, self.statistics.clip)

    def __getstate__(self) -> dict[str, Any]:
        return {"statistics": self.statistics, "_cache": {}}  # another process may lack the device


class Normalized:
    """A policy that sees its observations normalised by frozen statistics, exactly once.

    Has Stable-Baselines3's `predict`; pass raw observations, from an environment without a VecNormalize.

    Args:
        model: anything with SB3's `predict` that was trained behind a VecNormalize.
        statistics: what that VecNormalize had gathered (`read_vecnormalize`, `Statistics.of`).
        source: where they come from, in words, where a reader of results should know it.

    Raises:
        InputError: the model is normalised already.
        SpaceError: the statistics are of observations of another shape.
    """

    def __init__(self, model: Predictor, statistics: Statistics, source: str = "") -> None:
        if isinstance(model, Normalized):
            raise InputError("model", "must not be normalised already", bare("a `Normalized`"), "wrap `model.model`")
        statistics.check(getattr(model, "observation_space", None))
        self.model, self.statistics = model, statistics
        if source:
            scaled = statistics.observations is None
            what = "values are brought to units of the raw return" if scaled else "observations are normalised"
            add_notes(self, [f"{what} by {source}"])

    def predict(
        self,
        observation: Observations,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        **masks: Any,
    ) -> tuple[Array, Any]:
        """Actions in the environment's units for raw observations, one or a batch; `masks` go to the model."""
        return self.model.predict(self.statistics.normalize(observation), state, episode_start, deterministic, **masks)

    @property
    def takes_masks(self) -> bool:
        """Whether the model asks which actions are allowed."""
        return takes_masks(self.model)

    def get_distribution(self, observations: TensorObservations) -> Any:
        """SB3's distribution of the model's actions, for raw observations as tensors."""
        policy: Any = getattr(self.model, "policy", self.model)
        return policy.get_distribution(TensorNormalization(self.statistics)(observations))

    @property
    def observation_space(self) -> Space[Any] | None:
        """The space of the raw observations."""
        return getattr(self.model, "observation_space", None)

    @property
    def action_space(self) -> Space[Any] | None:
        """The model's action space, in the environment's units."""
        return getattr(self.model, "action_space", None)

    @property
    def device(self) -> th.device:
        """Where the model computes; the CPU where it does not say."""
        return th.device(getattr(self.model, "device", "cpu"))


def find_vecnormalize(env: object) -> VecNormalize | None:
    """The VecNormalize in the stack of an SB3 VecEnv; None for anything else.

    Where there is one, observations come normalised already: a `Normalized` policy on top would do it twice.
    """
    return unwrap_vec_normalize(env) if isinstance(env, VecEnv) else None


def _check_moments(whose: str, mean: FloatArray, variance: FloatArray) -> None:
    way_out = "training had diverged, or met a NaN observation: take statistics that were saved before"
    if mean.shape != variance.shape:
        raise InputError(
            "normalize",
            f"must have a mean and a variance {whose} of one shape",
            bare(f"{mean.shape}, {variance.shape}"),
        )
    for name, values, valid in (
        ("mean", mean, np.isfinite(mean)),
        ("variance", variance, np.isfinite(variance) & (variance >= 0)),
    ):
        if not valid.all():
            rule = f"must have a {name} {whose} that is finite" + (" and not negative" if name == "variance" else "")
            raise InputError("normalize", rule, bare(f"{values[~valid].flat[0]:g}"), way_out)


def normalizes(thing: Any, depth: int = 6) -> bool:
    """Whether something of this package (a policy, a critic, a rule) normalises observations somewhere inside."""
    if isinstance(thing, Normalized | TensorNormalization):
        return thing.statistics.observations is not None
    if isinstance(thing, list | tuple | Mapping):
        parts = list(thing.values()) if isinstance(thing, Mapping) else list(thing)
    elif type(thing).__module__.startswith("offline_eval."):
        parts = list(getattr(thing, "__dict__", {}).values())
    else:
        return False
    return depth > 0 and any(normalizes(part, depth - 1) for part in parts)


def as_trained(model: Any) -> Any:
    """A live algorithm behind the statistics of the VecNormalize that it learns with, as they are now.

    Anything else, and an algorithm without one, comes back as it is.
    """
    held = model.get_vec_normalize_env() if isinstance(model, BaseAlgorithm) else None
    if held is None or not (held.norm_obs or held.norm_reward):
        return model
    return Normalized(
        model, Statistics.of(held), 'the VecNormalize of the model, as it is now (normalize="none" declines)'
    )


def _words(shapes: Mapping[str, tuple[int, ...] | None]) -> str:
    return ", ".join(f"{key} {shape}".strip() for key, shape in shapes.items())
