"""What stands between a policy and an environment."""
