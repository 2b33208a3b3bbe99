"""What is wrong with an agent and its critic, as numbers, each beside its control.

Names are loaded when they are first used (PEP 562).
"""

from typing import TYPE_CHECKING

from offline_eval.lazy import lazy_names

_HOME = {
    "Measurement": "records",
    "MeasurementPlan": "plan",
    "measure": "measurement",
    "track": "checkpoints",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.measurement.checkpoints import track as track
    from offline_eval.measurement.measurement import measure as measure
    from offline_eval.measurement.plan import MeasurementPlan as MeasurementPlan
    from offline_eval.measurement.records import Measurement as Measurement

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
