"""Every way of steering on one agent, on selection seeds and on fresh ones, with what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from offline_eval.episodes import EpisodePlan, EpisodeStore, Evaluation, evaluate, evaluate_rules
from offline_eval.errors import CriticError, InputError
from offline_eval.policies import critic_of, spaces_of, with_target
from offline_eval.policies.notes import notes_of
from offline_eval.steering.cost import Cost, CountingCritic, Recorder, cost_of
from offline_eval.steering.pairs import Pair, open_pair
from offline_eval.steering.selection import Choice, Gate, choose
from offline_eval.steering.steering import PLAIN, Variant
from offline_eval.steering.tuning import SELECTION_SEED, trainable, trivial_controls, tuning_candidates
from offline_eval.types import Critic, FloatArray
from offline_eval.wrappers import (
    L2,
    OPEX,
    AgreementGate,
    AllHeadsGain,
    GainOverDisagreement,
    Guarded,
    KeepBest,
    LowerBound,
)
from offline_eval.wrappers.controls import UniformAction

CHANCE = "chance"
_TIMED_STEPS, _TIMED_ENVS = 64, 8


@dataclass(frozen=True)
class Played:
    """A variant's returns on one agent.

    Attributes:
        name: of the variant.
        kind: "plain", "candidate" (may be chosen), "guard" (shown beside), "control" or "chance".
        selection: returns on the selection episodes; empty where it was not played there.
        fresh: returns on the fresh episodes; NaN where one failed.
        cost: of a step.
        steering: what the rule reported, mean over the fresh steps.
    """

    name: str
    kind: str
    selection: tuple[float, ...]
    fresh: tuple[float, ...]
    cost: Cost
    steering: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PairResult:
    """Everything that was played on one agent.

    Attributes:
        pair: the agent and its environment, as plain data.
        strength: with which its actor was weakened; None where it was not.
        played: the variants.
        notes: what a reader should know of the agent and the critic as they were opened.
    """

    pair: Mapping[str, Any]
    strength: float | None
    played: tuple[Played, ...]
    notes: tuple[str, ...] = ()

    def of(self, name: str) -> Played:
        """The variant of this name."""
        for played in self.played:
            if played.name == name:
                return played
        raise InputError("name", "must be the name of a variant that was played", name)

    def fresh(self, name: str) -> FloatArray:
        """Its returns on the fresh episodes."""
        return np.array(self.of(name).fresh, dtype=float)

    def kind(self, kind: str) -> list[Played]:
        """The variants of a kind."""
        return [played for played in self.played if played.kind == kind]

    def choice(self, gate: Gate | None = None) -> Choice:
        """What `auto` chooses: the decision of `tune_steering`, made on the same returns."""

        def returns(kind: str) -> dict[str, FloatArray]:
            return {played.name: np.array(played.selection) for played in self.kind(kind)}

        return choose(np.array(self.of(PLAIN).selection), returns("candidate"), returns("control"), gate)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        played = [asdict(p) for p in self.played]
        return {"pair": dict(self.pair), "strength": self.strength, "played": played, "notes": list(self.notes)}

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> PairResult:
        """From what `to_json` gave."""
        played = tuple(
            Played(
                **{key: row[key] for key in ("name", "kind", "steering")},
                selection=_numbers(row["selection"]),
                fresh=_numbers(row["fresh"]),
                cost=Cost(*_numbers(row["cost"].values())),
            )
            for row in data["played"]
        )
        return cls(data["pair"], data["strength"], played, tuple(data.get("notes", ())))


def guard_variants(critic: Critic, members: Critic) -> list[Variant]:
    """Steps that a guard holds back; what is compared and not chosen from.

    Args:
        critic: is climbed.
        members: two heads or more, which may disagree.
    """

    def step(size: float, **words: Any) -> OPEX:
        return OPEX(critic, size, direction=L2(), **words)

    return [
        Variant("keep best 0.4", Guarded(step(0.4), KeepBest()), 0.4),
        Variant("agreement 0.2", Guarded(step(0.2), AgreementGate(), critic=members), 0.2),
        Variant("all heads 0.2", Guarded(step(0.2), AllHeadsGain(), critic=members), 0.2),
        Variant("gain/disagreement 0.1", Guarded(step(0.1), GainOverDisagreement(), critic=members), 0.1),
        Variant("gain/disagreement 0.4", Guarded(step(0.4), GainOverDisagreement(), critic=members), 0.4),
        Variant("lower bound 0.1", OPEX(members, 0.1, direction=L2(), reduce=LowerBound(1.0)), 0.1),
        Variant("at most 0.2 in 10 x 0.1", step(0.1, num_steps=10, max_distance=0.2), 0.1),
    ]


@dataclass(frozen=True)
class Asked:
    """A pair made ready: its agent, whoever owns the critic, the variants by kind, and the plans."""

    pair: Pair
    agent: Any
    owner: Any
    strength: float | None
    critic: CountingCritic
    variants: Mapping[str, Sequence[Variant]]
    selection: EpisodePlan
    fresh: EpisodePlan


def prepare(pair: Pair, strength: float | None = None) -> Asked:
    """Open a pair and make its variants.

    Args:
        pair: the agent and its environment.
        strength: of "halfway", where it was found before; it is looked for otherwise.
    """
    agent, owner, strength = open_pair(pair, strength)
    critic = CountingCritic(critic_of(owner))
    try:
        members: Critic = CountingMembers(with_target(owner), critic) if _num_heads(critic, pair.env) < 2 else critic
        guards = guard_variants(critic, members)
    except CriticError:  # one head and no target: nothing that could disagree
        guards = []
    variants = {
        "plain": [Variant(PLAIN, None, 0.0)],
        "candidate": tuning_candidates(critic, trainable(agent)),
        "guard": guards,
        "control": trivial_controls(),
        "chance": [Variant(CHANCE, UniformAction())],
    }
    selection = EpisodePlan.seeded(pair.selection_episodes, SELECTION_SEED)
    return Asked(pair, agent, owner, strength, critic, variants, selection, EpisodePlan.seeded(pair.episodes))


class CountingMembers(CountingCritic):
    """A second critic that adds to the first one's count."""

    def __init__(self, critic: Critic, counter: CountingCritic) -> None:
        super().__init__(critic)
        self._counter = counter

    def q(self, observations: Any, actions: Any) -> Any:
        """The critic's values (n_critics, batch)."""
        before = self.forward, self.backward
        values = super().q(observations, actions)
        self._counter.forward += self.forward - before[0]
        self._counter.backward += self.backward - before[1]
        return values


def play_pair(
    asked: Asked,
    *,
    store: EpisodeStore | None = None,
    **options: Any,
) -> PairResult:
    """Play every variant of a pair: candidates and controls on the selection episodes, all of them on the fresh ones.

    Args:
        asked: from `prepare`.
        store: keeps the episodes of each variant under "selection: NAME" or "fresh: NAME", as in `evaluate`.
        options: further keywords of `evaluate_rules`.
    """

    def play(part: str, kinds: Iterable[str], plan: EpisodePlan) -> dict[str, Evaluation]:
        variants = [variant for kind in kinds for variant in asked.variants[kind]]
        return evaluate_rules(
            asked.agent,
            asked.pair.env,
            plan,
            {variant.name: variant.rule for variant in variants},
            store=None if store is None else store.of(part),
            **options,
        )

    tried = play("selection", ("plain", "candidate", "control"), asked.selection)
    fresh = play("fresh", asked.variants, asked.fresh)
    cost = _costs(asked)
    played = tuple(
        Played(
            variant.name,
            kind,
            tuple(tried[variant.name].returns.tolist()) if variant.name in tried else (),
            tuple(fresh[variant.name].returns.tolist()),
            cost(variant),
            fresh[variant.name].steering,
        )
        for kind, variants in asked.variants.items()
        for variant in variants
    )
    return PairResult(asked.pair.to_json(), asked.strength, played, _notes(asked))


def _notes(asked: Asked) -> tuple[str, ...]:
    of_agent, of_owner = notes_of(asked.agent), notes_of(asked.owner)
    return (*of_agent, *(f"critic: {note}" for note in of_owner if note not in of_agent))


def _costs(asked: Asked) -> Callable[[Variant], Cost]:
    """Costs on the first steps of the agent's own episodes, in as many environments as Gymnasium users have."""
    recorder = Recorder(asked.agent, _TIMED_ENVS, _TIMED_STEPS)
    evaluate(
        recorder,
        asked.pair.env,
        EpisodePlan.seeded(_TIMED_ENVS),
        n_envs=_TIMED_ENVS,
        step_limit=_TIMED_STEPS,
        replays=0,
    )
    spaces = spaces_of(asked.pair.env)
    return lambda variant: cost_of(variant.rule, asked.critic, recorder.steps, spaces)


def _num_heads(critic: CountingCritic, env: str) -> int:
    import torch as th

    observation_space, action_space = spaces_of(env)
    observations = th.zeros((1, *(observation_space.shape or ())))
    return len(critic.q(observations, th.zeros((1, int(np.prod(action_space.shape or (1,)))))))


def _numbers(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(float("nan") if value is None else float(value) for value in values)
