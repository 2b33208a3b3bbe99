"""What yields an action or a value: agents opened from files, critics, normalisation."""

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {
    "load_sb3": "offline_eval.policies.loading",
    "spaces_of": "offline_eval.policies.loading",
    "critic_of": "offline_eval.policies.critics",
    "QCritic": "offline_eval.policies.critics",
    "Normalized": "offline_eval.policies.normalization",
    "Statistics": "offline_eval.policies.normalization",
    "find_vecnormalize": "offline_eval.policies.normalization",
    "read_vecnormalize": "offline_eval.policies.vecnormalize_file",
    "weights_hash": "offline_eval.policies.fingerprint",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.policies.critics import QCritic as QCritic
    from offline_eval.policies.critics import critic_of as critic_of
    from offline_eval.policies.fingerprint import weights_hash as weights_hash
    from offline_eval.policies.loading import load_sb3 as load_sb3
    from offline_eval.policies.loading import spaces_of as spaces_of
    from offline_eval.policies.normalization import Normalized as Normalized
    from offline_eval.policies.normalization import Statistics as Statistics
    from offline_eval.policies.normalization import find_vecnormalize as find_vecnormalize
    from offline_eval.policies.vecnormalize_file import read_vecnormalize as read_vecnormalize


def __getattr__(name: str) -> object:
    # torch and SB3 take seconds to import: only what is used is loaded (PEP 562).
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
