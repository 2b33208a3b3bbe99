"""What is wrong with an agent, as numbers: arrays in, frozen records out. NumPy and SciPy only, nothing is rolled out.

- `returns`: discounted returns of logged episodes, the labels that a critic is held against.
- `q_rank`: does the critic order states, and actions at a state, as the truth does?
- `q_bias`: does it say the right amount?
- `policy_error`: how far is the policy from an oracle, on training, held-out and visited states?
- `regret`: what does the policy leave on the table, according to the critic and in truth?
- `coverage`: does the policy visit states that the data know?
- `clustered`: numbers that come in episodes, with intervals that resample whole episodes.
"""
