"""Whether something can be learned from data, and what makes it difficult: looked at before the first step."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import InputError, bare
from offline_eval.policies.recipes import Recipe
from offline_eval.policies.transforms import Raw, Standardize

_LARGE_REWARD = 1e4
_LARGE_SPREAD = 1e3
_ROUNDING = 1e-4


def check_learnable(dataset: Dataset, learns_value: bool, gamma: float) -> None:
    """Refuse data from which nothing can be learned, or values that would say nothing.

    Args:
        dataset: what is learned from.
        learns_value: whether values are learned from its rewards, or a policy alone.
        gamma: discount a step.

    Raises:
        InputError: there are no transitions; all rewards are 0; or nothing ends and nothing is discounted.
    """
    rows = dataset.transition_rows
    if not len(rows):
        raise InputError(
            "dataset",
            "must have transitions that can be learned from",
            bare(f"{dataset.num_steps} steps, none of which terminated or has a next observation"),
            "give next_observations",
        )
    if learns_value and not np.any(dataset.store.rewards[rows]):
        raise InputError(
            "dataset",
            "must have rewards for what learns a value",
            bare(f"no rewards: all of its {len(rows)} transitions have 0"),
            "store the rewards of a task, or clone: `bc` needs none",
        )
    if learns_value and gamma == 1.0 and not np.any(dataset.store.terminated[rows]):
        raise InputError(
            "gamma",
            "must be < 1 for data in which nothing terminates, where values would grow without bound",
            gamma,
            "0.99 is usual",
        )


def training_notes(dataset: Dataset, recipe: Recipe) -> tuple[str, ...]:
    """What makes it difficult to learn from data that `check_learnable` lets pass, a sentence each."""
    notes = []
    if recipe.value is not None:
        rewards = dataset.rewards
        largest = float(np.abs(rewards).max()) * recipe.rewards.factor(dataset)
        if largest > _LARGE_REWARD:
            notes.append(
                f"rewards reach {largest:.3g}, which a network that begins at 0 needs very long for: scale them"
            )
        if np.ptp(rewards) == 0.0 and not dataset.terminated.any():
            notes.append(f"every reward is {rewards[0]:g} and nothing terminates: every action is worth the same")
    if isinstance(recipe.observations, Raw):
        scale = Standardize(0.0).statistics(dataset).scale
        worst = int(scale.argmax())
        if scale[worst] > _LARGE_SPREAD:
            spread = f"observations[{worst}] has a standard deviation of {scale[worst]:.3g}"
            notes.append(f"{spread}, which saturates a network: store it in other units, or standardise observations")
    box = dataset.action_space
    if isinstance(box, spaces.Box):
        slack = _ROUNDING * (box.high.astype(np.float64) - box.low)
        outside = np.mean((dataset.actions < box.low - slack) | (dataset.actions > box.high + slack))
        if outside > 0.0:
            notes.append(
                f"{100 * outside:.2g} % of the actions' numbers lie outside of their box, and count as its ends"
            )
    return tuple(notes)
