"""A measurement on a terminal, 80 columns wide: each number beside its control, and what was not measured."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from math import inf, nan
from typing import Any

from offline_eval.report.tables import MARK, columns, number

_WIDTH = 80
_SETS = {"train": "training", "validation": "validation", "evaluation": "visited"}

Record = Mapping[str, Any]


def measurement_table(found: Record) -> str:
    """The object of `measure --json` as text."""
    manifest = found["manifest"]
    parts = {
        "performance": ("performance", _performance),
        "policy_error": ("policy error", _policy_error),
        "q_rank": ("rank of Q", _q_rank),
        "q_bias": ("bias of Q", _q_bias),
        "regret": ("extraction regret", _regret),
        "coverage": ("coverage", _coverage),
    }
    lines = _wrapped(f"{manifest['agent']} ({manifest['algorithm']}) on {manifest['env']}", "")
    lines += _wrapped(f"data: {manifest['dataset'] or 'none'}", "")
    for key, (title, describe) in parts.items():
        lines += ["", title]
        record = found[key]
        lines += _skipped(record["skipped"]) if "skipped" in record else describe(record)
    caveats = fewest(_caveats(found))
    lines += ["", *(line for caveat in caveats for line in _wrapped(f"{MARK} {caveat}", ""))] if caveats else []
    notes = [*found["performance"].get("notes", ()), *manifest.get("notes", ())]
    lines += [line for note in notes for line in _wrapped(f"note: {note}", "")]
    return "\n".join(lines)


def _performance(record: Record) -> list[str]:
    summary = record["summary"]
    low, high = _ends(summary["ci95"])
    mark = MARK if summary["caveats"].get("ci95") else ""
    text = f"mean return {_number(summary['mean'])} [{number(low)}, {number(high)}]{mark}"
    lengths = record["lengths"]
    mean_length = sum(lengths) / len(lengths)
    return _wrapped(
        f"{text}, IQM {_number(summary['iqm'])}; {len(lengths)} episodes of {mean_length:.0f} steps on average, "
        f"{record['share_truncated']:.0%} cut by a limit{_invariance(record)}"
    )


def _invariance(record: Record) -> str:
    """Whether what played could matter; nothing in records that were made before it was checked."""
    return f"; {record['invariance']['words']}" if "invariance" in record else ""


def _policy_error(record: Record) -> list[str]:
    cells = [("states", "mean squared error", "n")]
    skipped = []
    for key, name in _SETS.items():
        part = record[key]
        if "skipped" in part:
            skipped += _skipped(part["skipped"], f"{name}: ")
        else:
            cells.append((name, _interval(part["mse"], part), f"{part['n']}"))
    lines = _wrapped(f"oracle: {record['oracle']}")
    lines += [f"  {line}" for line in columns(cells, "<>>")] if len(cells) > 1 else []
    ratio = record["generalisation"]
    return lines + skipped + ([f"  visited / training  {_estimate(ratio)}"] if ratio else [])


def _q_rank(record: Record) -> list[str]:
    shuffled, ceiling, labels = record["shuffled"], record["ceiling"], record["labels"]
    cells = [
        (f"tau over windows of {record['window']}", _interval(record["window_tau"], record)),
        ("  labels shuffled", _range(shuffled)),
        ("  a clock", _number(record["clock"])),
        ("  ceiling", "not known" if "skipped" in ceiling else _estimate(ceiling)),
    ]
    if record["plain"]:
        cells.append(("  without entropy", _interval(record["plain"]["window_tau"], record["plain"])))
    actions, skipped = record["action_rank"], []
    if "skipped" in actions:
        skipped = _skipped(actions["skipped"], "actions: ")
    else:
        rollouts = actions["num_rollouts"]
        cells += [
            (f"tau over actions at {actions['num_used']} states", _interval(actions["tau"], actions)),
            ("  critic shuffled", _range(actions["shuffled"])),
            (f"  ceiling ({rollouts} rollout{'s' if rollouts > 1 else ''})", _estimate(actions["ceiling"])),
            ("  tau / what is reachable", _estimate(actions["relative"]) if actions["relative"] else "silent"),
        ]
        skipped = _wrapped(f"silent: {actions['silence']}") if actions["silence"] else []
        skipped += _wrapped(f"caveat: {actions['truth_caveat']}") if actions["truth_caveat"] else []
    lines = [f"  {line}" for line in columns(cells, "<>")]
    return lines + skipped + _labels(labels, record["num_used"], record["num_windows"])


def _labels(labels: Record, num_used: int, num_windows: int) -> list[str]:
    text = f"truth: {labels['target']}; gamma {labels['gamma']:g}; {labels['tail']}; "
    text += f"{labels['share_labelled']:.0%} of the steps labelled; {num_used} of {num_windows} windows used"
    return _wrapped(text) + (_wrapped(f"caveat: {labels['caveat']}") if labels["caveat"] else [])


def _q_bias(record: Record) -> list[str]:
    plain = record["plain"]
    names = {"normalised": "(Q - truth) / |truth|", "difference": "Q - truth", "per_state": "the ratio, per state"}
    cells = [("", "Q", "without entropy" if plain else "")]
    cells += [(text, _estimate(record[key]), _estimate(plain[key]) if plain else "") for key, text in names.items()]
    if record["excess"]:
        cells.append(("minus the reference's", _estimate(record["excess"]), ""))
    return [f"  {line}" for line in columns(cells, "<>>")]


def _regret(record: Record) -> list[str]:
    cells: list[tuple[str, ...]] = [("states", "claimed", "corrected")]
    skipped: list[str] = []
    for key, name in _SETS.items():
        part = record[key]
        if "skipped" in part:
            skipped += _skipped(part["skipped"], f"{name}: ")
        else:
            cells.append((name, *_gains(part, ("claimed", "corrected"))))
    lines = [f"  {line}" for line in columns(cells, "<>>")] if len(cells) > 1 else []
    lines += _wrapped(f"in spreads of Q within a state, among {record['candidates']}") if lines else []
    truth = record["truth"]
    if "skipped" in truth:
        return lines + skipped + _skipped(truth["skipped"], "restored states: ")
    names = ("claimed", "corrected", "realised", "attainable")
    rows = [(f"{truth['num_states']} restored states", ""), *zip(names, _gains(truth, names), strict=True)]
    return lines + skipped + [f"  {line}" for line in columns(rows, "<>")]


def _gains(record: Record, names: tuple[str, ...]) -> list[str]:
    return ["-" if record[name] is None else _estimate(record[name]) for name in names]


def _coverage(record: Record) -> list[str]:
    cells = [
        ("distance to the data, visited / held out", _estimate(record["ratio"])),
        ("share of the visited states outside", _estimate(record["share_outside"])),
    ]
    return [f"  {line}" for line in columns(cells, "<>")]


def _skipped(reason: str, prefix: str = "") -> list[str]:
    return _wrapped(f"{prefix}not measured: {reason}")


def _estimate(record: Record | None) -> str:
    if record is None:
        return "not known"
    return _interval(record["value"], record)


def _interval(value: float | None, record: Record) -> str:
    low, high = _ends(record["ci95"])
    return f"{_number(value)} [{number(low)}, {number(high)}]{MARK if record.get('caveat') else ''}"


def _range(control: Record) -> str:
    low, high = _ends(control["range"])
    return f"{_number(control['value'])} [{number(low)}, {number(high)}]"


def _ends(interval: list[float | None]) -> tuple[float, float]:
    low, high = interval
    return (-inf if low is None else low), (inf if high is None else high)


def _number(value: float | None) -> str:
    return number(nan if value is None else value)


def _caveats(record: Any) -> list[str]:
    """Every sentence that stands behind a mark in the table."""
    if not isinstance(record, Mapping):
        return []
    own = [record["caveat"]] if record.get("caveat") and "ci95" in record else []
    own += list(record.get("caveats", {}).values())
    parts = [part for key, part in record.items() if key not in ("labels", "plain", "manifest")]
    return own + [caveat for part in parts for caveat in _caveats(part)]


def fewest(caveats: Iterable[str]) -> list[str]:
    """One caveat of a kind: that of the smallest sample, as "5 episodes: ..." says worse than "10 episodes: ..."."""
    worst: dict[str, tuple[float, str]] = {}
    for caveat in caveats:
        first, _, rest = caveat.partition(" ")
        count = float(first) if first.isdigit() else 0.0
        kind = rest if first.isdigit() else caveat
        worst[kind] = min(worst.get(kind, (inf, "")), (count, caveat))
    return [caveat for _, caveat in worst.values()]


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ") or [indent]


def track_table(found: Record) -> str:
    """The object of `track --json` as text."""
    manifest = found["manifest"]
    cells = [("step", "mean return", *_SETS.values())]
    for row in found["checkpoints"]:
        summary = row["summary"]
        low, high = _ends(summary["ci95"])
        errors = [row["policy_error"][name] for name in _SETS]
        cells.append(
            (
                f"{row['step']}",
                f"{_number(summary['mean'])} [{number(low)}, {number(high)}]",
                *("-" if "skipped" in part else _number(part["mse"]) for part in errors),
            )
        )
    told = [found["correlations"][name] for name in _SETS]
    correlations = ["-" if isinstance(value, Mapping) else f"{value:+.2f}" for value in told]
    lines = _wrapped(f"{manifest['run']} on {manifest['env']}: mean squared errors", "")
    lines += _wrapped(f"oracle: {manifest['oracle']}", "")
    lines += ["", *columns([*cells, ("", "correlation with the return", *correlations)], "<>>>>")]
    lines += [line for note in manifest.get("notes", ()) for line in _wrapped(f"note: {note}", "")]
    return "\n".join(lines)
