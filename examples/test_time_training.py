"""Let an agent go on learning from its own critic while it acts.  Arguments: AGENT.zip ENV_ID."""

import sys

from offline_eval import EpisodePlan, critic_of, evaluate, load_sb3
from offline_eval.policies import actor_of
from offline_eval.wrappers import RandomDirection, TestTimeTraining

agent = load_sb3(sys.argv[1], sys.argv[2])
training = TestTimeTraining(actor_of(agent), critic_of(agent), learning_rate=3e-4)
rules = {"adapted": training, "as far at random": RandomDirection(like=training), "plain": None}
for name, rule in rules.items():
    evaluation = evaluate(agent, sys.argv[2], EpisodePlan.seeded(4, seed=100), rule=rule)
    print(f"return {evaluation.returns.mean():.1f}, {name}")
