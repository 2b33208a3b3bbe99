"""A simulator's state as numbers: read beside every logged observation, and put back to branch off from there.

Known are MuJoCo environments, gymnasium's classic control, and whatever offers `get_state()` and `set_state(state)`.
Copying an environment is no way to do it: `copy.deepcopy` of a MuJoCo environment runs its constructor again and
hands back a fresh one. Neither are `qpos` and `qvel` alone: MuJoCo's solver starts from its last accelerations
(`warmstart`), and without them a HalfCheetah in contact leaves its own track by 1e-5 within 60 steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
from gymnasium import Wrapper
from gymnasium.wrappers import TimeLimit

from offline_eval.errors import InputError
from offline_eval.types import Array

Layout = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of the parts of a state, in the order in which they lie in a row."""

SimulatorState = dict[str, Array]
"""A state by the names of its parts: `qpos` (nq,), `qvel` (nv,), ... in float64."""


class Simulator(Protocol):
    """Reads and writes the state of one environment as a row of float64."""

    @property
    def layout(self) -> Layout:
        """What lies in a row."""
        ...

    def read_into(self, row: Array) -> None:
        """Copy the present state into a contiguous row (width,)."""
        ...

    def write(self, row: Array) -> None:
        """Make the row (width,) the present state."""
        ...


def width(layout: Layout) -> int:
    """Numbers in a row."""
    return sum(prod(shape) for _, shape in layout)


def split(layout: Layout, rows: Array) -> SimulatorState:
    """The parts of rows (..., width) by name, each (..., *shape); views where that is possible."""
    parts, start = {}, 0
    for name, shape in layout:
        size = prod(shape)
        parts[name] = rows[..., start : start + size].reshape((*rows.shape[:-1], *shape))
        start += size
    return parts


def simulator_of(env: Any) -> Simulator | None:
    """The simulator under an environment that has been reset; None where its state cannot be read exactly."""
    base = getattr(env, "unwrapped", env)
    if _is_mujoco(base):
        return _MuJoCo(base)
    if _is_classic_control(base):
        return _ClassicControl(base)
    return _own_state(base)


def read_state(env: Any) -> SimulatorState | None:
    """The present state of an environment that has been reset; None where it cannot be read exactly."""
    simulator = simulator_of(env)
    if simulator is None:
        return None
    row = np.empty(width(simulator.layout))
    simulator.read_into(row)
    return split(simulator.layout, row)


def restore(env: Any, state: Mapping[str, Array], elapsed_steps: int | None = None) -> None:
    """Put a state back into an environment that has been reset, and let its steps go on from there.

    States, later observations and rewards then follow bit for bit, as long as the environment draws no random
    numbers while it steps. What lies outside of the state stays as the last reset left it, so reset with the
    episode's own seed where a reset draws more than the state (a goal, a door's place). Quantities that MuJoCo
    derives lag one substep behind in a running episode: the first reward of Ant and Humanoid after a restore can
    differ. `offline_eval.datasets.return_to` steps over that.

    Args:
        env: an environment of the same kind as the state's.
        state: by name, as `read_state` gives it; further names are ignored.
        elapsed_steps: what time limits in the stack shall have counted; None leaves their count.

    Raises:
        InputError: the environment's state cannot be set, or `state` is not one of its states.
    """
    simulator = simulator_of(env)
    if simulator is None:
        raise InputError(
            "env",
            "must have a state that can be set",
            type(getattr(env, "unwrapped", env)).__name__,
            "MuJoCo and classic control have one; another simulator needs get_state() and set_state(state)",
        )
    simulator.write(_as_row(simulator.layout, state))
    if elapsed_steps is not None:
        _set_elapsed_steps(env, elapsed_steps)


def reseed(env: Any, seed: Sequence[int]) -> None:
    """Give new random numbers to every NumPy generator that an environment and its wrappers hold.

    Args:
        env: its `np_random` is among them.
        seed: whole numbers >= 0.
    """
    env.unwrapped.np_random = np.random.default_rng(seed)
    number = 0
    while True:
        for name, part in sorted(vars(env).items()):
            number += 1
            if isinstance(part, np.random.Generator) and part is not env.unwrapped.np_random:
                setattr(env, name, np.random.default_rng([*seed, number]))
            elif isinstance(part, np.random.RandomState):
                setattr(env, name, np.random.RandomState(np.random.default_rng([*seed, number]).integers(2**32)))
        if not isinstance(env, Wrapper):
            return
        env = env.env


def _as_row(layout: Layout, state: Mapping[str, Array]) -> Array:
    expected = dict(layout)
    received = {name: np.shape(state[name]) for name in expected if name in state}
    if received != expected:
        raise InputError("state", f"must hold {expected}", {name: np.shape(part) for name, part in state.items()})
    row = np.concatenate([np.asarray(state[name], np.float64).reshape(-1) for name in expected])
    if np.isnan(row).any():
        raise InputError("state", "must be known (a vector that resets by itself hides an episode's last one)", state)
    return row


def _set_elapsed_steps(env: Any, elapsed_steps: int) -> None:
    while isinstance(env, Wrapper):
        if isinstance(env, TimeLimit):
            env._elapsed_steps = elapsed_steps  # type: ignore[assignment]  # declared as None
        env = env.env


def _is_mujoco(base: Any) -> bool:
    parts = (getattr(base, "model", None), getattr(base, "data", None))
    return all(type(part).__module__.split(".")[0] == "mujoco" for part in parts)


class _MuJoCo:
    """Time, positions, velocities, activations and the solver's warm start; not the controls, which a step sets."""

    _LEFT_OUT = ("CTRL", "QFRC_APPLIED", "XFRC_APPLIED")

    def __init__(self, base: Any) -> None:
        import mujoco

        self._model, self._data, self._mujoco = base.model, base.data, mujoco
        self._get = mujoco.mj_getState
        members = {name.removeprefix("mjSTATE_"): int(bit) for name, bit in mujoco.mjtState.__members__.items()}
        everything = members["INTEGRATION"]
        bits = {
            name: bit
            for name, bit in members.items()
            if bit.bit_count() == 1 and bit & everything and name not in self._LEFT_OUT
        }
        self._signature = sum(bits.values())
        sizes = {name: mujoco.mj_stateSize(self._model, bits[name]) for name in sorted(bits, key=bits.__getitem__)}
        self.layout: Layout = tuple(
            (name.lower(), () if name == "TIME" else (size,)) for name, size in sizes.items() if size
        )

    def read_into(self, row: Array) -> None:
        self._get(self._model, self._data, row, self._signature)

    def write(self, row: Array) -> None:
        self._mujoco.mj_setState(self._model, self._data, row, self._signature)
        self._mujoco.mj_forward(self._model, self._data)
        # The forward pass has moved the warm start.
        self._mujoco.mj_setState(self._model, self._data, row, self._signature)


def _is_classic_control(base: Any) -> bool:
    known = type(base).__module__.startswith("gymnasium.envs.classic_control.")
    return known and getattr(base, "state", None) is not None


class _ClassicControl:
    """Pendulum, CartPole, Acrobot and the MountainCars keep all they are in `state`."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self.layout: Layout = (("state", (len(base.state),)),)

    def read_into(self, row: Array) -> None:
        row[:] = self._base.state

    def write(self, row: Array) -> None:
        state = row.copy()
        if type(self._base).__name__ == "Continuous_MountainCarEnv":
            # It goes on in float32 after its first step, and rounds otherwise in float64.
            single = state.astype(np.float32)
            state = single if np.array_equal(single, state) else state
        self._base.state = state
        if hasattr(self._base, "steps_beyond_terminated"):
            self._base.steps_beyond_terminated = None


def _own_state(base: Any) -> Simulator | None:
    if not (callable(getattr(base, "get_state", None)) and callable(getattr(base, "set_state", None))):
        return None
    try:
        template = base.get_state()
    except Exception:  # a foreign method of the same name that wants arguments, or is not ready
        return None
    parts = template if isinstance(template, Mapping) else {"state": template}
    if not parts or not all(isinstance(name, str) and _fits_float64(part) for name, part in parts.items()):
        return None
    return _OwnState(base, {name: np.asarray(part) for name, part in parts.items()}, isinstance(template, Mapping))


def _fits_float64(part: Any) -> bool:
    if not isinstance(part, np.ndarray | np.generic | float | bool):
        return False
    dtype = np.asarray(part).dtype
    return (
        dtype.kind == "b" or (dtype.kind == "f" and dtype.itemsize <= 8) or (dtype.kind in "iu" and dtype.itemsize < 8)
    )


class _OwnState:
    """An environment with `get_state()` and `set_state(state)`; the state an array, or a flat dict of arrays."""

    def __init__(self, base: Any, template: dict[str, Array], is_mapping: bool) -> None:
        self._base, self._template, self._is_mapping = base, template, is_mapping
        self.layout: Layout = tuple((name, part.shape) for name, part in template.items())

    def read_into(self, row: Array) -> None:
        state = self._base.get_state()
        parts = [state[name] for name in self._template] if self._is_mapping else [state]
        np.concatenate([np.ravel(part) for part in parts], out=row)

    def write(self, row: Array) -> None:
        parts = split(self.layout, row)
        state = {name: parts[name].astype(part.dtype) for name, part in self._template.items()}
        self._base.set_state(state if self._is_mapping else state["state"])
