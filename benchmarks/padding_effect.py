"""How far padding moves single episodes, and whether it moves the mean: every agent padded and as SB3 plays it.

    python benchmarks/padding_effect.py sac-HalfCheetah-v3.zip=HalfCheetah-v5 [AGENT=ENV ...] [--episodes 20]

Both runs have the same seeds. "as SB3" is one environment and no padding, which equals `evaluate_policy` seeded in the
same way. z is the mean difference in standard errors: without a bias it is a draw of unit spread, over many agents.
"""

from __future__ import annotations

import argparse

import numpy as np

from offline_eval import EpisodePlan, evaluate, load_sb3
from offline_eval.stats import paired_difference


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="AGENT=ENV")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1000)
    arguments = parser.parse_args()
    plan = EpisodePlan.seeded(arguments.episodes, arguments.seed)
    moved, scores = 0, []
    print(f"{'agent':32}{'as SB3':>10}{'padded':>10}{'largest':>10}{'of mean':>9}  mean difference")
    for pair in arguments.pairs:
        agent, _, env = pair.rpartition("=")
        model = load_sb3(agent, env, device="cpu")
        exact = evaluate(model, env, plan, n_envs=1, width=None).returns
        padded = evaluate(model, env, plan, replays=0).returns
        difference = paired_difference(padded, exact)
        largest = float(np.abs(padded - exact).max())
        share = largest / max(abs(exact.mean()), 1e-9)
        moved += share > 0.01
        spread = float(np.std(padded - exact, ddof=1))
        if spread > 0:
            scores.append(difference.mean_difference / (spread / np.sqrt(len(exact))))
        interval = f"[{difference.ci95.low:.3g}, {difference.ci95.high:.3g}]"
        name = agent.rpartition("/")[2]
        print(
            f"{name:32}{exact.mean():10.1f}{padded.mean():10.1f}{largest:10.3g}{share:9.1%}  "
            f"{difference.mean_difference:+.3g} {interval}",
            flush=True,
        )
    print(f"{moved} of {len(arguments.pairs)} agents have an episode that moved by more than 1 % of the mean return")
    if scores:
        print(f"z over {len(scores)} agents: mean {np.mean(scores):+.2f}, root of the mean square {_rms(scores):.2f}")


def _rms(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


if __name__ == "__main__":
    main()
