"""The agent under test, under a short name."""

from offline_eval.testing.fixtures import agent

__all__ = ["agent"]
