"""A rule recorded once and replayed: a steering step is a hundred small kernels, and a GPU waits for their launch.

`CudaGraph(rule)` records the rule's kernels for each shape of batch (a CUDA graph) and replays them with a single
launch. On any other device it is the rule itself.

**Shapes must come again**: a graph is recorded when its shape comes for the third time, for at most four shapes. Hosts
around a fixed number of environments have one; `evaluate` runs out of episodes at its end and meets smaller ones, which
are not recorded.

**Weights may change, in place**: optimisers and `load_state_dict` write where the graph reads. Moving the critic to
other memory does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch as th
from torch import Tensor

from offline_eval.errors import CriticError, InputError, bare
from offline_eval.types import Rule, Startable, Steered
from offline_eval.wrappers.rule_wrapper import RuleWrapper
from offline_eval.wrappers.seen_states import leaves, map_record

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = ["CudaGraph"]

_CALLS_BEFORE = 2
_MOST_GRAPHS = 4
_WARM_UPS = 3
"""Calls on a side stream before recording, so that libraries have made their workspaces (PyTorch's own advice)."""


@dataclass(frozen=True, eq=False)
class CudaGraph(RuleWrapper):
    """A rule whose kernels are recorded and replayed.

    Example:
        >>> env = SteerAction(venv, CudaGraph(OPEX(critic, 0.1, num_steps=10)))  # doctest: +SKIP

    Args:
        rule: the same numbers for every row, without a memory: OPEX, BestOfN, the controls, any of them `Guarded` or
            `Fused` with an actor. It must not wait for the GPU, as `.item()` and indexing by a mask do.
    """

    rule: Rule

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise InputError("rule", "must be a steering rule", bare(type(self.rule).__name__))
        if self.rule.num_rows is not None:
            raise InputError(
                "rule", "must have one number for all rows", bare(f"{self.rule.num_rows} entries"), "a graph per number"
            )
        if _learns(self.rule):
            raise InputError(
                "rule", "must not learn while it acts", bare(type(self.rule).__name__), "leave the graph away"
            )

    def start(self) -> Rule:
        """The rule for one host, with graphs of its own; on a device without them the rule itself."""
        return Recorded(self.rule) if self.device.type == "cuda" else self.rule

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None = None) -> Steered:
        """The rule, not recorded: a host has its own graphs from `start`."""
        return self.rule(observations, actions, noise)


@dataclass(frozen=True, eq=False)
class Recorded(RuleWrapper):
    """A rule with its graphs, for one host; what `CudaGraph.start` makes.

    Args:
        rule: to be recorded.
        record: from a function of tensors and examples of them to what replays it; `torch.cuda` if left out.
    """

    rule: Rule
    record: Callable[[Callable[..., Tensor], list[Tensor]], Callable[[list[Tensor]], Tensor]] = field(
        default=lambda function, examples: _Graph(function, examples), repr=False
    )
    _seen: Counter[Any] = field(default_factory=Counter, repr=False)
    _graphs: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None = None) -> Steered:
        """Replay, where this shape has been recorded."""
        tensors = [*leaves(observations), actions, *([] if noise is None else [noise])]
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
        found = self._graphs.get(key)
        if found is None:
            self._seen[key] += 1
            if self._seen[key] <= _CALLS_BEFORE or len(self._graphs) == _MOST_GRAPHS:
                return self.rule(observations, actions, noise)
            found = self._recorded(observations, actions, noise, tensors)
            self._graphs[key] = found
        replay, names, kinds = found
        table = replay(tensors)
        columns = table[:, actions.shape[1] :].unbind(dim=1)
        metrics = {name: column.to(kind) for name, kind, column in zip(names, kinds, columns, strict=True)}
        return Steered(table[:, : actions.shape[1]], metrics)

    def _recorded(self, observations: Any, actions: Tensor, noise: Tensor | None, tensors: list[Tensor]) -> Any:
        names: list[str] = []
        kinds: list[th.dtype] = []

        def table(*given: Tensor) -> Tensor:
            rest = iter(given)
            seen = map_record(lambda _: next(rest), observations)
            steered = self.rule(seen, next(rest), None if noise is None else next(rest))
            names[:], kinds[:] = list(steered.metrics), [values.dtype for values in steered.metrics.values()]
            columns = [values[:, None].to(steered.actions.dtype) for values in steered.metrics.values()]
            return th.cat([steered.actions, *columns], dim=1)

        try:
            replay = self.record(table, tensors)
        except RuntimeError as error:
            raise CriticError(
                "critic",
                "must not wait for the GPU to be recorded in a CUDA graph",
                bare(str(error).splitlines()[0]),
                "`.item()`, `if tensor:` and indexing by a mask wait; or leave the graph away",
            ) from error
        return replay, names, kinds


class _Graph:
    """A function of tensors as a CUDA graph."""

    def __init__(self, function: Callable[..., Tensor], examples: list[Tensor]) -> None:
        self._inputs = [example.clone() for example in examples]
        side = th.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(th.cuda.current_stream())
        with th.cuda.stream(side):
            for _ in range(_WARM_UPS):
                function(*self._inputs)
        th.cuda.current_stream().wait_stream(side)
        self._graph = th.cuda.CUDAGraph()
        with th.cuda.graph(self._graph):
            self._output = function(*self._inputs)

    def __call__(self, tensors: list[Tensor]) -> Tensor:
        """Replay; the result is a copy, since the next call writes where this one's lies."""
        for kept, given in zip(self._inputs, tensors, strict=True):
            kept.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._output.clone()


def _learns(rule: Any) -> bool:
    """Whether a rule, or the rule inside it, keeps a memory of its rows."""
    if isinstance(rule, RuleWrapper):
        return _learns(rule.inner)
    return isinstance(rule, Startable) and rule.start() is not rule
