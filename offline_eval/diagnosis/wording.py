"""The sentences of a verdict: each names its numbers, and the last one what to do next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from offline_eval.diagnosis.findings import Reading, Thresholds
from offline_eval.diagnosis.records import (
    BEST_OF_N,
    CONTROL,
    EXTRACTION,
    GENERALISATION,
    INSIDE,
    NONE,
    OPEX_STEP,
    OUTSIDE,
    POLICY,
    TRUTH,
    VALUE,
    Ladder,
    Recommendation,
    Rung,
)
from offline_eval.measurement.records import ActionTrialRank, Errors, Measurement, Ranks, Regrets, Skipped
from offline_eval.stats import PairedDifference

_MUCH_OUTSIDE = 0.1
_OPEX_STEPS = 4


@dataclass(frozen=True)
class Asked:
    """Words for the commands that a recommendation names.

    Attributes:
        agent: the agent's file.
        env: the environment's id.
        dataset: the data set.
        num_steps: OPEX steps that a step size was cut into.
        critic: the critic's file, where it is not the agent's own; likewise the next two.
        critic_dataset: what it was trained on.
        oracle: the oracle's file.
        env_options: what was said of the environment beside its id, and of the files that are opened for it:
            `--env-kwargs`, `--wrapper`, `--normalize`, `--trust`.
        data_options: how the data are opened: `--transitions`.
    """

    agent: str = "AGENT"
    env: str = "ID"
    dataset: str = "D"
    num_steps: int = _OPEX_STEPS
    critic: str | None = None
    critic_dataset: str | None = None
    oracle: str | None = None
    env_options: tuple[str, ...] = ()
    data_options: tuple[str, ...] = ()

    @property
    def where(self) -> tuple[str, ...]:
        """The words that name the environment."""
        return ("--env", self.env, *self.env_options)

    @property
    def data(self) -> tuple[str, ...]:
        """The words that name the data set."""
        return ("--dataset", self.dataset, *self.data_options)

    @property
    def diagnose(self) -> tuple[str, ...]:
        """The words of the same call again."""
        words = ("diagnose", self.agent, *self.where, *self.data)
        return (*words, *_options(critic=self.critic, critic_dataset=self.critic_dataset, oracle=self.oracle))

    @property
    def steer(self) -> tuple[str, ...]:
        """The words that steer this agent by this critic."""
        return ("steer", self.agent, *self.where, *_options(critic=self.critic))

    def command(self, *words: str) -> str:
        """A command as it is typed."""
        return shlex.join(["offline-eval", *words])


def _options(**files: str | None) -> tuple[str, ...]:
    return tuple(word for name, file in files.items() if file for word in (f"--{name.replace('_', '-')}", file))


def sentence_of(
    bottleneck: str,
    reason: str,
    needs: str,
    worth: float,
    ladder: Ladder,
    reading: Reading,
    thresholds: Thresholds,
) -> str:
    """The verdict in one sentence."""
    if bottleneck == NONE:
        bounds = [f"Q gains at most {max(reading.by_q.high, 0.0):.2f} of the ladder's range"]
        if reading.remaining is not None:
            bounds.append(f"the truth at most {max(reading.remaining.high, 0.0):.2f}")
        elif reading.oracle is not None:
            bounds.append(f"the oracle at most {max(reading.oracle.high, 0.0):.2f}")
        return f"No bottleneck: nothing better within reach of these candidates ({', '.join(bounds)})."
    if bottleneck not in (VALUE, EXTRACTION, GENERALISATION):
        return f"Cannot tell: {reason}. It takes {needs}."
    is_segment = bottleneck == VALUE and reading.remaining is not None and ladder.segment_range is not None
    unit = ladder.segment_range if is_segment else ladder.range
    of = "segments' range" if is_segment else "ladder's range"
    size = f"{worth:.2f} of the {of}" + ("" if unit is None else f", {_amount(worth * unit)} in return")
    mild = "mildly, " if worth < thresholds.mild else ""
    what = {
        VALUE: "Value: the critic does not know better actions that are within reach",
        EXTRACTION: "Extraction: the policy does not do what its critic knows, on the data's own ground",
        GENERALISATION: "Generalisation: the policy fails where the data do not reach, and its critic knows better",
    }[bottleneck]
    return f"{what} ({mild}{size})."


def evidence_of(ladder: Ladder, reading: Reading, measurement: Measurement) -> tuple[str, ...]:
    """What speaks for the verdict, and what was measured beside it."""
    sentences = [_span(ladder), *_by_q(ladder, reading), *_parts(ladder, reading), _truth(ladder, reading)]
    if reading.oracle is not None:
        sentences.append(f"The oracle gains {reading.oracle.share} of the range over the policy.")
    return (*sentences, *_beside(measurement))


def _span(ladder: Ladder) -> str:
    policy, control = ladder[POLICY], ladder[CONTROL]
    return (
        f"The ladder spans {_amount(ladder.range)} in return; the policy earns {_amount(policy.summary.mean)}, "
        f"{control.title} {_amount(control.summary.mean)}."
    )


def _by_q(ladder: Ladder, reading: Reading) -> list[str]:
    if not reading.has_critic:
        return [f"Nothing was steered: {ladder.missing.get(BEST_OF_N, 'there is no critic')}."]
    if ladder.best == POLICY:
        found = [_gain(rung) for name in (BEST_OF_N, OPEX_STEP) if (rung := ladder.get(name)) is not None]
        return [
            f"No rung by Q gains anything, each as it did best on {ladder.num_selection} other seeds: on fresh ones "
            f"{', '.join(found)}."
        ]
    best = ladder[ladder.best]
    beats = ""
    if best.against_control is not None:
        beats = f"; over a random pick from the data's actions {_difference(best.against_control)} in return"
    return [f"{_capital(_gain(best))} of the range over the policy{_rank(best)}{beats}."]


def _parts(ladder: Ladder, reading: Reading) -> list[str]:
    inside, outside = ladder.get(INSIDE), ladder.get(OUTSIDE)
    where = "" if ladder.share_outside is None else f"{ladder.share_outside:.0%} of the policy's steps lie outside"
    if inside is None or outside is None or reading.outside is None:
        return [f"{_capital(where)} of the data's region."] if where else []
    return [
        f"Acting inside of the data's region alone gains {inside.gain}, outside alone {outside.gain}: a share of "
        f"{reading.outside} outside; {where}."
    ]


def _truth(ladder: Ladder, reading: Reading) -> str:
    truth = ladder.get(TRUTH)
    if truth is None or reading.remaining is None:
        return f"Truth was not sought: {ladder.missing.get(TRUTH, 'it was not asked for')}."
    base = "the policy" if ladder.best == POLICY else ladder[ladder.best].title
    inside = ""
    if reading.truth_inside is not None and reading.share_inside is not None:
        inside = (
            f" Inside of the data's region alone it gains {reading.truth_inside.share} over the policy, a share of "
            f"{reading.share_inside:.2f} of what it gains everywhere."
        )
    return (
        f"Guided by the truth among candidates that include Q's own choices, {base} gains {reading.remaining.share} "
        f"more ({truth.note}).{inside}"
    )


def _beside(measurement: Measurement) -> list[str]:
    """Measured, without a vote."""
    sentences = []
    ranks, regret, errors = measurement.q_rank, measurement.regret, measurement.policy_error
    if isinstance(ranks, Ranks) and isinstance(ranks.actions, ActionTrialRank):
        ceiling = ranks.actions.rank.ceiling
        limit = "" if ceiling is None else f" (two halves of the truth agree to {ceiling.value:.2f})"
        sentences.append(f"Beside it: at restored states Q ranks actions with tau {ranks.actions.rank.tau}{limit}.")
    if isinstance(regret, Regrets) and not isinstance(regret.evaluation, Skipped):
        realised = None if isinstance(regret.truth, Skipped) else regret.truth.realised
        brought = "" if realised is None else f", and following it for one action brings {realised}"
        sentences.append(
            f"Beside it: Q claims {regret.evaluation.claimed} spreads for the data's actions where it goes{brought}."
        )
    if isinstance(errors, Errors) and errors.generalisation is not None:
        sentences.append(
            f"Beside it: the policy's squared error against {errors.oracle} is {errors.generalisation} times as large "
            "at visited states as at training states."
        )
    return sentences


def recommendation_for(bottleneck: str, ladder: Ladder, asked: Asked) -> Recommendation:
    """One thing to do next, and the command that does it."""
    train = ("train", "iql_ddpg_bc", *asked.data)
    if bottleneck == VALUE:
        if (ladder.share_outside or 0.0) > _MUCH_OUTSIDE:
            return Recommendation(
                f"Hold the policy nearer to the data first ({ladder.share_outside:.0%} of its steps lie outside, where "
                "it may exploit the critic): a larger `bc_coef`; then relearn the value with more steps or more data.",
                asked.command(*train, "--set", "extraction.bc_coef=1"),
            )
        return Recommendation(
            "Relearn the value: more gradient steps, normalised layers, or data that tell good actions from bad ones.",
            asked.command(*train, "--gradient-steps", "200000"),
        )
    if bottleneck == EXTRACTION:
        steer = _steering(ladder, asked)
        return Recommendation(
            f"{steer.sentence} To mend the policy itself, extract it anew with DDPG+BC: `{asked.command(*train)}`.",
            steer.command,
        )
    if bottleneck == GENERALISATION:
        steer = _steering(ladder, asked)
        return Recommendation(
            f"Collect data where the policy goes: more diverse, not better. Until then: {steer.sentence}",
            asked.command(
                "collect", asked.agent, *asked.where, "--steps", "100000", "--noise", "0.1,0.5", "--out", "wider"
            ),
        )
    return Recommendation("Leave the agent as it is; what else could be had lies beyond these candidates and data.")


def recommendation_for_unknown(needs: str, lacks: str, wanted: int, ladder: Ladder, asked: Asked) -> Recommendation:
    """What would tell, and the command that gets it; none where no command does."""
    again = asked.diagnose
    played = ladder[POLICY].summary.n
    if lacks == "episodes":
        return Recommendation(f"Play {needs}.", asked.command(*again, "--episodes", str(wanted or 2 * played)))
    if lacks == "starts":
        tried = 0 if (truth := ladder.get(TRUTH)) is None else len(truth.returns)
        starts = wanted or 2 * tried
        more = ("--episodes", str(starts)) if starts > played else ()
        return Recommendation(f"Play {needs}.", asked.command(*again, "--truth-starts", str(starts), *more))
    if lacks == "rollouts":
        return Recommendation(f"Give the truth {needs}.", asked.command(*again, "--rollouts", "8"))
    return Recommendation(f"Get {needs}.", asked.command(*again, "--oracle", "ORACLE") if lacks == "oracle" else "")


def _steering(ladder: Ladder, asked: Asked) -> Recommendation:
    best = ladder[ladder.best]
    if best.name == OPEX_STEP:
        size = float(best.choice["step_size"]) / asked.num_steps
        return Recommendation(
            f"Steer with OPEX, {asked.num_steps} steps of {size:g}.",
            asked.command(*asked.steer, "--step-sizes", f"{size:g}", "--num-steps", str(asked.num_steps)),
        )
    number = str(best.choice.get("num_samples", 32))
    return Recommendation(
        f"Steer with the best of {number} candidates by Q (the command draws them around the policy's action; the rule "
        "`BestNear` has the data's actions among them).",
        asked.command(*asked.steer, "--step-sizes", "0", "--best-of", number),
    )


def _gain(rung: Rung) -> str:
    return f"{rung.title} gains {rung.gain}"


def _rank(rung: Rung) -> str:
    p_value = rung.rank_p_value
    n = 0 if rung.paired is None else rung.paired.n
    return "" if p_value is None else f" ({n} pairs, rank test p = {p_value:.2g})"


def _difference(difference: PairedDifference) -> str:
    interval = difference.ci95
    return f"{_amount(difference.mean_difference)} [{_amount(interval.low)}, {_amount(interval.high)}]"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _amount(value: float) -> str:
    """Three digits, or all before the point: 1695 and not 1.69e+03."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
