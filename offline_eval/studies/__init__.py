"""Whatever rolls out to answer a question: what does steering do, which of two agents is better, what holds one back?

Names are loaded when they are first used (PEP 562).
"""

from typing import TYPE_CHECKING

from offline_eval.lazy import lazy_names

_HOME = {
    "Diagnosis": "diagnosis_records",
    "DiagnosisPlan": "diagnosis_plan",
    "Gate": "choosing",
    "Tuning": "tuning",
    "diagnose": "diagnosis",
    "tune_steering": "tuning",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.studies.choosing import Gate as Gate
    from offline_eval.studies.diagnosis import diagnose as diagnose
    from offline_eval.studies.diagnosis_plan import DiagnosisPlan as DiagnosisPlan
    from offline_eval.studies.diagnosis_records import Diagnosis as Diagnosis
    from offline_eval.studies.tuning import Tuning as Tuning
    from offline_eval.studies.tuning import tune_steering as tune_steering

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
