"""Data sets from any agent, or from chance: whole episodes, each with its own level of noise, which is recorded.

An episode follows the agent's mean action, disturbed by Gaussian noise in the scaled space, and with probability
`epsilon` a step is an action drawn uniformly instead. Levels take turns, so that a data set cut off anywhere has
nearly equal shares of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
from gymnasium import Space, spaces

from offline_eval.batching import WIDTH
from offline_eval.datasets.d4rl import write_d4rl
from offline_eval.datasets.log import Log, ShardWriter, open_log
from offline_eval.datasets.opening import open_dataset
from offline_eval.datasets.recorder import EpisodeRecorder, LoggedEpisode
from offline_eval.datasets.writing import replacing
from offline_eval.environments import EnvironmentLike, environment_factory, environment_id
from offline_eval.episodes import Episode, EpisodePlan
from offline_eval.episodes.acting import Acting, Played
from offline_eval.episodes.env_seats import make_seats
from offline_eval.episodes.evaluation import step_limit_of
from offline_eval.episodes.isolation import one_thread
from offline_eval.episodes.masks import ActionMasks
from offline_eval.episodes.parallelism import AUTO, USUAL_LENGTH, check, choose
from offline_eval.episodes.playing import DEFAULT_STEP_LIMIT
from offline_eval.episodes.records import Invariance
from offline_eval.episodes.rollout import in_order
from offline_eval.episodes.seats import Seats, Start
from offline_eval.episodes.workers import play_in_workers
from offline_eval.errors import InputError, OfflineEvalError, StorageError, bare
from offline_eval.masking import refuse_masked, takes_masks
from offline_eval.policies import opened, spaces_of
from offline_eval.policies.playable import playable
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Predictor

_NOISE_STREAM = 0xC011EC7


@dataclass(frozen=True)
class Level:
    """How far an episode's actions stray from the agent's.

    Attributes:
        noise: standard deviation of Gaussian noise in the scaled space.
        epsilon: probability that a step's action is drawn uniformly instead.
    """

    noise: float = 0.0
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if not self.noise >= 0.0:
            raise InputError("noise", "must be >= 0", self.noise)
        if not 0.0 <= self.epsilon <= 1.0:
            raise InputError("epsilon", "must lie in [0, 1]", self.epsilon)

    def check(self, space: Space[Any]) -> None:
        """Raise an InputError where actions of this space cannot be disturbed so."""
        if self.noise > 0.0 and not isinstance(space, spaces.Box):
            raise InputError("noise", "must be 0 where actions are no numbers", self.noise, "use `epsilon`")
        if not isinstance(space, spaces.Box | spaces.Discrete):
            raise InputError("env", "must have a Box or Discrete of actions to collect from", space)
        if self.epsilon > 0.0 and isinstance(space, spaces.Box) and not space.is_bounded():
            raise InputError("epsilon", "must be 0 where actions have no bounds", self.epsilon, "use `noise`")

    def disturb(self, action: Array, space: Space[Any], generator: np.random.Generator) -> Array:
        """The action that is executed; the action itself at level 0."""
        if generator.random() < self.epsilon:
            if isinstance(space, spaces.Discrete):
                return np.asarray(space.start + generator.integers(space.n), dtype=action.dtype)
            return np.asarray(generator.uniform(space.low, space.high), dtype=action.dtype)  # type: ignore[attr-defined]
        if self.noise == 0.0:
            return action
        scale = ActionScale(space)
        noisy = scale.scale(action) + self.noise * generator.standard_normal(action.shape)
        inside = np.clip(noisy, scale.scaled_low, scale.scaled_high)
        return np.clip(scale.unscale(inside), space.low, space.high).astype(action.dtype)  # type: ignore[attr-defined]


def levels_of(noise: Sequence[float] = (0.0,), epsilon: Sequence[float] = (0.0,)) -> tuple[Level, ...]:
    """Every noise with every epsilon."""
    return tuple(Level(n, e) for n, e in itertools.product(noise or (0.0,), epsilon or (0.0,)))


class RandomAgent:
    """Actions that mean nothing; every one of them is replaced by a uniform draw."""

    def __init__(self, action_space: Space[Any]) -> None:
        self._space = action_space

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, None]:
        """Zeros, or the first action."""
        rows = len(episode_start) if episode_start is not None else 1
        start = int(getattr(self._space, "start", 0))
        return np.full((rows, *(self._space.shape or ())), start, dtype=self._space.dtype), None


def collect(
    model: Predictor | None,
    env: EnvironmentLike,
    num_steps: int,
    folder: str | Path,
    *,
    levels: Sequence[Level] = (Level(),),
    seed: int = 0,
    n_envs: int | str = AUTO,
    workers: int | str = 1,
    on_steps: Callable[[int], None] | None = None,
) -> Log:
    """Collect whole episodes of at least `num_steps` steps in all into a log.

    The data are the same for any number of environments and workers, if the environment forgets at each reset
    (`check_collection`). A log that an interrupted call left behind is completed.

    Args:
        model: anything with SB3's `predict`; None for uniformly random actions, whatever the levels say.
        env: an id, a spec or a factory (a finished environment works with one worker).
        num_steps: collected at least.
        folder: of the log; each episode's metadata hold `noise` and `epsilon`.
        levels: take turns over the episodes.
        seed: of the first episode; the next one has `seed + 1`.
        n_envs: environments side by side in each process, or "auto".
        workers: processes; "auto" takes as many as pay for their start.
        on_steps: told the steps of each episode as it finishes.

    Raises:
        InputError: an argument breaks a rule.
        OfflineEvalError: the environment raises.
    """
    if num_steps < 1:
        raise InputError("steps", "must be >= 1", num_steps)
    check(n_envs, workers)
    if seed < 0:
        raise InputError("seed", "must be >= 0", seed)
    _, action_space = spaces_of(env)
    levels = (Level(epsilon=1.0),) if model is None else tuple(levels)
    for level in levels:
        level.check(action_space)
    policy = _player(model, env, action_space)
    if any(level.epsilon > 0.0 for level in levels):
        refuse_masked(policy, "model", "a random action may be a forbidden one: leave epsilon at 0")
    num_episodes = max(1, num_steps // (step_limit_of(env) or USUAL_LENGTH))
    side_by_side = choose(policy, env, num_episodes, n_envs, workers, limit=step_limit_of(env))
    lengths = _kept(Path(folder))
    for count in lengths.values():
        if on_steps is not None:
            on_steps(count)

    def tell(episode: Episode) -> None:
        if episode.failed is not None:
            raise OfflineEvalError(f"episode {episode.index} of the collection failed: {episode.failed}")
        lengths[episode.index] = episode.length
        if on_steps is not None:
            on_steps(episode.length)

    for wanted in _rounds(lengths, num_steps):
        plan = EpisodePlan.seeded(max(wanted) + 1, seed)
        job = _Job(policy, env, plan, levels, side_by_side.n_envs, Path(folder), environment_id(env))
        if side_by_side.workers > 1:
            play_in_workers(job, wanted, min(side_by_side.workers, len(wanted)), tell, _nothing)
        else:
            job(in_order(wanted), tell, _nothing)
    return open_log(folder)


def check_collection(
    model: Predictor | None,
    env: EnvironmentLike,
    log: Log,
    *,
    levels: Sequence[Level] = (Level(),),
    seed: int = 0,
    replays: int = 3,
) -> Invariance:
    """Collect a few episodes of a log again, in another order and in one new environment, and compare them.

    Args:
        model: as it was collected, as are the arguments left out here.
        env: where.
        log: what `collect` gave.
        levels: of noise.
        seed: of the first episode.
        replays: how many episodes; the last one begins in the new environment, the others where it was played.
    """
    if environment_factory(env) is None:
        return Invariance(None, of=len(log), reason="a finished environment cannot be made anew")
    last = len(log) - 1
    chosen = sorted({round(k * last / max(1, replays - 1)) for k in range(replays)}, reverse=True)
    levels = (Level(epsilon=1.0),) if model is None else tuple(levels)
    found = Invariance(True, len(chosen), len(log))
    with TemporaryDirectory() as folder:
        plan = EpisodePlan.seeded(len(log), seed)
        policy = _player(model, env, log.action_space)
        job = _Job(policy, env, plan, levels, 1, Path(folder), environment_id(env))
        job(in_order(chosen), lambda episode: None, _nothing)
        for again in open_log(folder):
            first = log[log.keys.index(again.key)]
            if not _same(first, again):
                told = f"{first.episode_return:.9g} in {len(first)} steps and, collected again, "
                told += f"{again.episode_return:.9g} in {len(again)} steps"
                return replace(found, holds=False, reason=f"seed {first.seed} gave {told}")
    return found


def _same(one: LoggedEpisode, other: LoggedEpisode) -> bool:
    """Whether two episodes hold the same numbers."""

    def arrays(episode: LoggedEpisode) -> list[Array]:
        seen = episode.observations
        parts = list(seen.values()) if isinstance(seen, dict) else [seen]
        return [*parts, episode.actions, episode.rewards, episode.terminated]

    return all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


def _player(model: Predictor | None, env: EnvironmentLike, action_space: Space[Any]) -> Predictor:
    return RandomAgent(action_space) if model is None else playable(opened(model, env)[0])


def save_flat(log: Log, path: str | Path) -> Path:
    """Write a collection as one flat HDF5 file in D4RL's layout, with `infos/noise`, `epsilon` and `seed` by step.

    Raises:
        DatasetError: dict observations, which the layout cannot hold.
        StorageError: the file could not be written; nothing is left behind.
    """
    path = Path(path)
    dataset = open_dataset(log.folder)
    episodes = [(len(episode), episode.seed, episode.metadata) for episode in log]
    lengths = [length for length, _, _ in episodes]
    if dataset.lengths.tolist() != lengths:
        raise StorageError(f"{log.folder} was written to while it was read: collect again")
    with replacing(path) as temporary:
        write_d4rl(dataset, temporary)
        with h5py.File(temporary, "a") as file:
            for name in ("noise", "epsilon"):
                values = [float(metadata[name] or 0.0) for _, _, metadata in episodes]
                file.create_dataset(f"infos/{name}", data=np.repeat(values, lengths).astype(np.float32))
            seeds = [-1 if seed is None else seed for _, seed, _ in episodes]
            file.create_dataset("infos/seed", data=np.repeat(seeds, lengths))
    return path


def _kept(folder: Path) -> dict[int, int]:
    """Steps by episode of an interrupted collection."""
    if not (folder / "data").exists():
        return {}
    return {entry.key: entry.steps for entry in open_log(folder).entries if entry.key is not None}


_MOST_AT_ONCE = 100_000
"""Episodes of a round: a plan of all that are wanted would fill the memory before the first is played."""


def _rounds(lengths: dict[int, int], num_steps: int) -> Iterator[list[int]]:
    """Episodes to play next, until the first ones, without a gap, have enough steps.

    Which episodes end up in the data depends on the lengths alone, not on who finished first.
    """
    while True:
        gap = next(index for index in itertools.count() if index not in lengths)
        collected = sum(lengths[index] for index in range(gap))
        if collected >= num_steps:
            return
        mean = max(1.0, collected / gap) if gap else float(num_steps)
        count = min(max(1, int((num_steps - collected) / mean)), _MOST_AT_ONCE)
        yield [index for index in range(gap, gap + count) if index not in lengths]


def _nothing() -> None:
    """Nobody waits for the environments to be made."""


@dataclass(frozen=True)
class _Job:
    """One process's share."""

    policy: Predictor
    env: EnvironmentLike
    plan: EpisodePlan
    levels: tuple[Level, ...]
    n_envs: int
    folder: Path
    env_id: str

    def __call__(
        self,
        next_entry: Callable[[], int | None],
        on_episode: Callable[[Episode], None],
        on_ready: Callable[[], None],
        number: int = 0,
    ) -> None:
        seats = make_seats(self.env, self.n_envs)
        on_ready()
        env = seats.env(0)
        writer = ShardWriter(
            self.folder,
            env_id=self.env_id,
            observation_space=seats.observation_space,
            action_space=seats.action_space,
            env_spec=None if env is None else env.spec,
        )
        try:
            with one_thread(), writer:
                self._play(seats, writer, next_entry, on_episode)
        finally:
            seats.close()

    def _play(
        self,
        seats: Seats,
        writer: ShardWriter,
        next_entry: Callable[[], int | None],
        on_episode: Callable[[Episode], None],
    ) -> None:
        if seats.start_together:
            raise InputError("env", "must be an id, a spec, a factory or a single environment", bare("a vector"))
        plain = [Played(None)]
        space, masks = seats.observation_space, ActionMasks(seats) if takes_masks(self.policy) else None
        acting = Acting(self.policy, plain, space, seats.num_seats, WIDTH, deterministic=True, masks=masks)
        recorder = EpisodeRecorder(seats.num_seats)
        limit = DEFAULT_STEP_LIMIT if seats.max_episode_steps is None else None
        playing: dict[int, int] = {}
        lengths: dict[int, int] = {}
        generators: dict[int, np.random.Generator] = {}
        while True:
            for seat in range(seats.num_seats):
                if seat not in playing and (index := next_entry()) is not None:
                    entry = self.plan[index]
                    start = seats.begin({seat: entry})[seat]
                    if not isinstance(start, Start):
                        raise OfflineEvalError(f"episode {index} could not be reset: {start}")
                    acting.begin(seat, start.observation, entry.seed)
                    recorder.reset(seat, start.observation, entry.seed, index, seats.env(seat))
                    playing[seat], lengths[seat] = index, 0
                    generators[seat] = np.random.default_rng([_NOISE_STREAM, entry.seed])
            if not playing:
                return
            live = list(playing)
            chosen, _, errors = acting.act(live)
            for seat, error in errors.items():
                raise OfflineEvalError(f"episode {playing[seat]} failed: {type(error).__name__}: {error}")
            executed = chosen.copy()
            for seat in live:
                executed[seat] = self._level(playing[seat]).disturb(chosen[seat], seats.action_space, generators[seat])
            steps = seats.step(executed, live)
            for seat in live:
                index, step = playing[seat], steps[seat]
                if isinstance(step, Exception):
                    raise OfflineEvalError(f"episode {index} failed: {type(step).__name__}: {step}")
                lengths[seat] += 1
                truncated = step.truncated or (lengths[seat] == limit and not step.terminated)
                seen = step.reward, step.terminated, truncated, step.observation, seats.env(seat)
                recorder.step(seat, chosen[seat], executed[seat], *seen)
                if step.terminated or truncated:
                    del playing[seat]
                    level = self._level(index)
                    episode = recorder.finish(seat, {"noise": level.noise, "epsilon": level.epsilon})
                    writer.write([episode])
                    on_episode(_row(index, episode, step.terminated))
                else:
                    acting.see(seat, step.observation)

    def _level(self, index: int) -> Level:
        return self.levels[index % len(self.levels)]


def _row(index: int, episode: Any, terminated: bool) -> Episode:
    return Episode(index, episode.seed, episode.episode_return, len(episode), terminated, not terminated)
