"""What is to be rolled out, what came of it, and files that keep it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from offline_eval.datasets.writing import replacing
from offline_eval.diagnostics.returns import discounted_sums, soft_rewards
from offline_eval.types import Array


@dataclass(frozen=True, eq=False)
class Branch:
    """A rollout to be made.

    Attributes:
        episode: position of the logged episode that it starts in.
        step: from 0 to the episode's length.
        seed: of its noise; branches with the same seed share it.
        num_steps: at most so many.
        action: the first action, in the environment's units; None leaves it to the driver.
        hold: for how many steps `action` is repeated.
        noise_offset: steps of the noise that were passed over: branches at neighbouring steps that share a seed share
            their noise by the clock of the episode.
    """

    episode: int
    step: int
    seed: tuple[int, ...]
    num_steps: int
    action: Array | None = None
    hold: int = 1
    noise_offset: int = 0


@dataclass(frozen=True, eq=False)
class Rollout:
    """What a branch paid.

    Attributes:
        rewards: (num_steps,).
        bonuses: (num_steps,) entropy bonuses of the actions; 0 for an action that was given.
        terminated: whether the environment ended it.
    """

    rewards: Array
    bonuses: Array
    terminated: bool

    def value(self, gamma: float, soft: bool = False) -> float:
        """The discounted return; with later bonuses where `soft`."""
        rewards = soft_rewards(self.rewards, self.bonuses, gamma) if soft else self.rewards
        return float(discounted_sums(rewards, gamma))


def fingerprint(label: str, branches: Sequence[Branch]) -> str:
    """Names branches that are rolled with a driver of this label; the policy's weights are the run's own business."""
    digest = hashlib.sha256(label.encode())
    for branch in branches:
        numbers = (branch.episode, branch.step, branch.seed, branch.num_steps, branch.hold, branch.noise_offset)
        digest.update(repr(numbers).encode())
        digest.update(b"" if branch.action is None else np.ascontiguousarray(branch.action).tobytes())
    return digest.hexdigest()[:24]


def write_rollouts(path: Path, rollouts: Sequence[Rollout]) -> None:
    """Keep rollouts in a file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            lengths=[len(rollout.rewards) for rollout in rollouts],
            rewards=np.concatenate([rollout.rewards for rollout in rollouts]),
            bonuses=np.concatenate([rollout.bonuses for rollout in rollouts]),
            terminated=[rollout.terminated for rollout in rollouts],
        )


def read_rollouts(path: Path) -> list[Rollout]:
    """Rollouts that were kept."""
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])[:-1]
        parts = zip(np.split(file["rewards"], ends), np.split(file["bonuses"], ends), file["terminated"], strict=True)
        return [Rollout(rewards, bonuses, bool(terminated)) for rewards, bonuses, terminated in parts]
