"""What holds an agent back: its value function, the extraction of its policy, or generalisation?

Names are loaded when they are first used (PEP 562).
"""

from typing import TYPE_CHECKING

from offline_eval.lazy import lazy_names

_HOME = {
    "Diagnosis": "records",
    "DiagnosisPlan": "plan",
    "diagnose": "diagnosis",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.diagnosis.diagnosis import diagnose as diagnose
    from offline_eval.diagnosis.plan import DiagnosisPlan as DiagnosisPlan
    from offline_eval.diagnosis.records import Diagnosis as Diagnosis

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
