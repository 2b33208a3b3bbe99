"""Pictures, drawn with matplotlib (the extra `report`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offline_eval.errors import MissingExtra
from offline_eval.report.tables import number
from offline_eval.stats import PairedDifference
from offline_eval.steering.steering import SteeringRow

# Okabe and Ito's colours: told apart with any colour vision.
_STEERED, _CONTROL, _PLAIN, _INK = "#0072B2", "#E69F00", "#555555", "#222222"


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtra("a picture", "report") from error
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def draw_steering(rows: Sequence[SteeringRow], path: str | Path, title: str) -> None:
    """What steering did, each row beside its control: the paired difference to the plain policy with its interval.

    Args:
        rows: of a steering study.
        path: of the picture; the ending decides the format.
        title: above it.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    plt = _pyplot()
    shown = [row for row in rows if row.paired is not None]
    steered = {row.variant.name for row in shown if row.credit is not None}
    plain = next(row for row in rows if row.paired is None).evaluation.summary
    figure, axis = plt.subplots(figsize=(8, 1.6 + 0.42 * len(shown)), layout="constrained")
    for place, row in enumerate(reversed(shown)):
        colour = _STEERED if row.variant.name in steered else _CONTROL
        _bar(axis, place, row.paired, colour)
    axis.axvline(0.0, color=_PLAIN, linewidth=1)
    axis.set_yticks(range(len(shown)), [row.variant.name for row in reversed(shown)])
    axis.set_ylim(-0.6, len(shown) - 0.4)
    axis.margins(x=0.18)
    axis.set_xlabel(f"return minus the plain policy's ({number(plain.mean)}), same {plain.n} episodes, 95 % interval")
    axis.set_title(title, loc="left", fontsize=11, color=_INK)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    handles = [
        plt.Line2D([], [], color=_STEERED, marker="o", label="steered by the critic"),
        plt.Line2D([], [], color=_CONTROL, marker="s", label="control"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _bar(axis: Any, place: int, paired: PairedDifference | None, colour: str) -> None:
    if paired is None:
        return
    marker = "o" if colour == _STEERED else "s"
    axis.plot([paired.ci95.low, paired.ci95.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
    axis.plot([paired.mean_difference], [place], color=colour, marker=marker, markersize=6)
    axis.annotate(
        number(paired.mean_difference, signed=True),
        (paired.mean_difference, place),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=colour,
    )
