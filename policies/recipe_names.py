"""What the recipes are called: as a word of a command, and as the class that users of Stable-Baselines3 type.

The one list of them, and apart from the recipes: help texts must not wait for torch.
"""

from __future__ import annotations

CONSTRUCTORS = {
    "bc": "BC",
    "awr": "AWR",
    "iql": "IQL",
    "iql_ddpg_bc": "IQLDDPGBC",
    "iql_sfbc": "IQLSfBC",
    "onestep": "OneStepAWR",
    "onestep_ddpg_bc": "OneStepDDPGBC",
    "ddpg_bc": "DDPGBC",
    "td3_bc": "TD3BC",
}
"""The recipes that learn a policy, and the class of each in `offline_eval.policies.algorithms`."""

RECIPE_NAMES = (*CONSTRUCTORS, "fqe")
"""Every named recipe; fitted Q evaluation learns no policy, and needs the one that it evaluates."""
