"""Steer a Gymnasium environment; whoever acts in it need not know.  Arguments: AGENT.zip ENV_ID."""

import sys

import gymnasium as gym

from offline_eval import OPEX, SteerAction, critic_of, load_sb3

agent = load_sb3(sys.argv[1], sys.argv[2])
env = SteerAction(gym.make(sys.argv[2]), OPEX(critic_of(agent), step_size=0.05))
(observation, _), done, episode_return = env.reset(seed=0), False, 0.0
while not done:
    observation, reward, terminated, truncated, _ = env.step(agent.predict(observation, deterministic=True)[0])
    episode_return, done = episode_return + float(reward), terminated or truncated
print(f"return {episode_return:.1f}")
