"""Numbers as `--json` has them, read back with their intervals and marks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Any

from offline_eval.report.tables import interval, number
from offline_eval.stats import Interval


@dataclass(frozen=True)
class Reading:
    """A number and its interval.

    Attributes:
        value: NaN where it is not known.
        interval: None where none was worked out.
    """

    value: float = nan
    interval: Interval | None = None

    @classmethod
    def of(cls, record: Any, name: str = "value") -> Reading:
        """From {name: number, "ci95": [low, high], "caveat": sentence}, a bare number, or None."""
        if isinstance(record, Mapping):
            return cls(_number(record.get(name)), bounds(record.get("ci95"), record.get("caveat") or ""))
        return cls(_number(record))

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return isfinite(self.value)

    @property
    def low(self) -> float:
        """Lower end; the number itself where there is no interval."""
        return self.value if self.interval is None else self.interval.low

    @property
    def high(self) -> float:
        """Upper end."""
        return self.value if self.interval is None else self.interval.high

    def text(self, signed: bool = False) -> str:
        """The number, with its interval where it has one, marked where that may cover less than it says."""
        shown = number(self.value, signed)
        return shown if self.interval is None else f"{shown} {interval(self.interval)}"


def bounds(ends: Any, caveat: str = "") -> Interval | None:
    """An interval from [low, high], None for an infinite end; None from None."""
    if ends is None:
        return None
    low, high = ends
    return Interval(-inf if low is None else float(low), inf if high is None else float(high), "", caveat)


def summary_reading(summary: Mapping[str, Any], name: str = "mean", ends: str = "ci95") -> Reading:
    """The mean, or the IQM, of the object of `Summary.to_json`."""
    caveat = summary.get("caveats", {}).get(ends, "")
    return Reading(_number(summary.get(name)), bounds(summary.get(ends), caveat))


def _number(value: Any) -> float:
    return nan if value is None else float(value)
