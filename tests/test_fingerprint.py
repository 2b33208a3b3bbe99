"""A fingerprint of weights is equal exactly where every bit is."""

import copy

import numpy as np
import torch as th
from torch import nn

from offline_eval.policies import weights_hash


def test_fingerprints_see_every_bit(tiny_sac):
    model = copy.deepcopy(tiny_sac)
    assert weights_hash(model) == weights_hash(tiny_sac) == weights_hash(tiny_sac.policy)
    with th.no_grad():
        bias = model.critic.qf0[0].bias
        bias[0] = th.nextafter(bias[0], th.tensor(9.0))
    assert weights_hash(model) != weights_hash(tiny_sac)


def test_fingerprints_of_what_has_no_weights():
    class Still:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros(1), state

    assert weights_hash(Still()) is None
    assert weights_hash(nn.ReLU()) is None


def test_fingerprints_take_any_type_of_number():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("steps", th.tensor(3))
            self.halves = nn.Parameter(th.zeros(2, dtype=th.bfloat16))
            self.register_buffer("none", th.zeros(0))

    assert len(weights_hash(Mixed())) == 64
