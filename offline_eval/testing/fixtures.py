"""The plugin's fixtures under short names, for those who import them into their `conftest.py`.

::

    from offline_eval.testing.fixtures import agent, plan

Nothing is called `agent` or `dataset` in a project that does not.
"""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["agent", "critic", "dataset", "plan"]


@pytest.fixture
def agent(offline_eval_agent: Any) -> Any:
    """The agent under test: `--offline-eval-agent`."""
    return offline_eval_agent


@pytest.fixture
def critic(offline_eval_critic: Any) -> Any:
    """Its critic."""
    return offline_eval_critic


@pytest.fixture
def dataset(offline_eval_dataset: Any) -> Any:
    """The data set: `--offline-eval-dataset`."""
    return offline_eval_dataset


@pytest.fixture
def plan(offline_eval_plan: Any) -> Any:
    """The episodes to play: `--offline-eval-episodes`."""
    return offline_eval_plan
