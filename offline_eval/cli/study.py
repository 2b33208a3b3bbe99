"""Compare over many agents: `study steering` plays every way of steering on each of them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from offline_eval.cli.agents import identity
from offline_eval.cli.arguments import add_parallelism, parallelism_words, print_json, print_text
from offline_eval.cli.words import PAIRS, SHARED_FOLDER
from offline_eval.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from offline_eval.steering.pairs import Pair
    from offline_eval.steering.study import PairResult

HELP = "compare ways of steering over many agents, beside controls"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    studies = parser.add_subparsers(dest="study", metavar="STUDY", required=True)
    steering = studies.add_parser("steering", help=HELP, description=_steering.__doc__)
    steering.add_argument(
        "pairs",
        type=PAIRS,
        nargs="+",
        metavar="PAIR",
        help="a TOML or JSON file of pairs, or AGENT.zip=ENV with words behind it: agent.zip=Pendulum-v1,"
        "weaken=halfway,episodes=50,tuning=true",
    )
    steering.add_argument(
        "--out",
        type=SHARED_FOLDER,
        required=True,
        metavar="DIR",
        help="folder with one run folder for each pair; what is there is kept",
    )
    steering.add_argument(
        "--only", metavar="NAME,NAME", help="play these pairs now; the table shows all that are done (default: all)"
    )
    add_parallelism(steering)
    steering.add_argument("--markdown", action="store_true", help="print the tables for a document")
    steering.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    steering.set_defaults(study_run=_steering)


def run(arguments: argparse.Namespace) -> None:
    """Run the study."""
    arguments.study_run(arguments)


def _steering(arguments: argparse.Namespace) -> None:
    """Play OPEX, best-of-N, guards, test-time training and controls on every pair, and what a gated trial chooses.

    A study may be played in pieces: pairs that are done are not played again, an interrupted one goes on.
    """
    parallelism_words(arguments)
    from pathlib import Path

    from offline_eval.report.study_tables import study_json, study_table
    from offline_eval.steering.pairs import parse_pair, read_pairs, unique

    pairs: list[Pair] = []
    for word in arguments.pairs:
        pairs += read_pairs(word) if word.endswith((".toml", ".json")) else [parse_pair(word)]
    pairs = unique(pairs)
    chosen = [pair.name for pair in pairs]
    if arguments.only:
        chosen = [name.strip() for name in arguments.only.split(",")]
        for name in chosen:
            if name not in [pair.name for pair in pairs]:
                raise InputError("--only", "must name pairs of the study", name, ", ".join(pair.name for pair in pairs))
    results = []
    for pair in pairs:
        result = _result(pair, Path(arguments.out), arguments, play=pair.name in chosen)
        if result is not None:
            results.append(result)
    if arguments.json:
        print_json(study_json(results))
    else:
        print_text(study_table(results, arguments.markdown))


def _result(pair: Pair, out: Path, arguments: argparse.Namespace, play: bool) -> PairResult | None:
    """A pair's result: from its folder where it is finished, else played, or None where it is not its turn."""
    from offline_eval.run_folder import folder_name, read_manifest
    from offline_eval.steering.study import PairResult

    folder = out / folder_name(pair.name)
    manifest, strength = folder / "manifest.json", None
    if manifest.exists():
        found = read_manifest(manifest)
        if found["options"].get("pair") != pair.to_json():
            way_out = "give another --out, or the words of that study"
            raise InputError("--out", f"must hold {pair.name} as it is now", found["options"].get("pair"), way_out)
        strength = found["options"].get("strength")
        if found.get("finished"):
            _check_files(pair, strength, found)
            return PairResult.of_json(found["result"])
    return _played(pair, folder, arguments, strength) if play else None


def _check_files(pair: Pair, strength: float | None, found: dict[str, Any]) -> None:
    """Refuse a finished pair whose files say something else today than when it was played."""
    from offline_eval.steering.pairs import open_pair

    agent, owner, _ = open_pair(pair, strength)
    if (now := _identities(pair, agent, owner)) != found.get("agents"):
        way_out = "give another --out, or the files of that study"
        raise InputError("--out", f"must hold {pair.name} with the weights and statistics of now", now, way_out)


def _identities(pair: Pair, agent: Any, owner: Any) -> dict[str, str | None]:
    """What must be the same where a pair is gone on with: weights, and what normalises for them."""
    beside = {} if pair.critic is None else {f"{pair.name} (critic)": identity(owner)}
    return {pair.name: identity(agent), **beside}


def _played(pair: Pair, folder: Path, arguments: argparse.Namespace, strength: float | None) -> PairResult:
    """Play a pair, or go on with it; `strength` is what an interrupted run found."""
    from offline_eval.cli.progress import Progress
    from offline_eval.episodes.store import CountedEpisodes
    from offline_eval.provenance import recipe
    from offline_eval.run_folder import RunFolder, plan_to_json
    from offline_eval.steering.study import play_pair, prepare

    asked = prepare(pair, strength)
    words: dict[str, Any] = {
        "env": pair.env,
        "agents": _identities(pair, asked.agent, asked.owner),
        "plan": plan_to_json(asked.fresh),
        "variants": {v.name: recipe(v.rule) for variants in asked.variants.values() for v in variants},
        "options": {
            "pair": pair.to_json(),
            "strength": asked.strength,
            "selection": plan_to_json(asked.selection),
        },
    }
    run_folder = RunFolder(folder, words, resume=True, command=arguments.command_line)
    num_fresh = sum(len(variants) for variants in asked.variants.values())
    num_tried = sum(len(asked.variants[kind]) for kind in ("plain", "candidate", "control"))
    total = num_fresh * len(asked.fresh) + num_tried * len(asked.selection)
    with Progress(total, pair.name) as progress:
        result = play_pair(asked, store=CountedEpisodes(run_folder, progress.add), **parallelism_words(arguments))
    run_folder.finish({}, result.to_json())
    return result
