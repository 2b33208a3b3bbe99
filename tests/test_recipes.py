"""Recipes: by name, as JSON, one number changed, and what is refused where it is given."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch as th

from offline_eval.errors import InputError
from offline_eval.policies.actors import FixedGaussian, Gaussian, Point
from offline_eval.policies.extraction import (
    AWRExtraction,
    BCExtraction,
    BestOfNExtraction,
    DDPGBCExtraction,
    TD3BCExtraction,
)
from offline_eval.policies.recipes import (
    PARTS,
    RECIPES,
    Recipe,
    recipe_from_json,
    recipe_of,
    recipe_to_json,
    set_field,
)
from offline_eval.policies.values import ActorCritic, Implicit


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_its_json(name):
    recipe = recipe_of(name)
    assert recipe_from_json(recipe_to_json(recipe)) == recipe


def test_no_number_of_a_recipe_may_be_nan_or_text():
    numbers = [
        (part, f.name) for part in PARTS.values() if part is not Recipe
        for f in fields(part) if isinstance(f.default, int | float) and not isinstance(f.default, bool)
    ]  # fmt: skip
    assert len(numbers) == 17
    for part, name in numbers:
        for value in (math.nan, "0.5", None):
            with pytest.raises(InputError, match=f"`{name}` must "):
                part(**{name: value})


def test_an_unknown_recipe_names_the_closest():
    with pytest.raises(InputError, match="did you mean iql"):
        recipe_of("IQL")
    with pytest.raises(InputError, match="must be a Recipe or the name of one"):
        recipe_of(["iql"])
    with pytest.raises(InputError, match="iql_ddpg_bc"):
        recipe_of("iql-ddpg-bc")
    with pytest.raises(InputError, match="there are bc, awr, iql"):
        recipe_of("zzzzzz")


def test_set_field_changes_one_number_by_its_type():
    recipe = set_field(recipe_of("iql"), "value.expectile", "0.9")
    assert recipe == replace(recipe_of("iql"), value=Implicit(0.9))
    assert set_field(recipe_of("td3_bc"), "policy_delay", "3").policy_delay == 3


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("value.expectle", "0.9", "Implicit has expectile"),
        ("vlue.expectile", "0.9", "Recipe has value, extraction, actor"),
        ("extraction", "awr", "extraction.inverse_temperature, extraction.max_weight"),
        ("value.expectile", "high", "must be given a float"),
        ("value.expectile", "1.5", "`expectile` must lie between 0 and 1"),
    ],
)
def test_set_field_refuses_what_is_not_there(path, value, message):
    with pytest.raises(InputError, match=message):
        set_field(recipe_of("iql"), path, value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Implicit(expectile=1.5), "`expectile` must lie between 0 and 1.*Received 1.5"),
        (lambda: AWRExtraction(inverse_temperature=-1.0), "`inverse_temperature` must be a finite number >= 0"),
        (lambda: AWRExtraction(max_weight=0.0), "`max_weight` must be a finite number > 0"),
        (lambda: DDPGBCExtraction(bc_coef=-0.1), "`bc_coef` must be a finite number >= 0"),
        (lambda: TD3BCExtraction(q_coef=-0.1), "`q_coef` must be a finite number >= 0"),
        (lambda: ActorCritic(target_policy_noise=-0.1), "`target_policy_noise` must be a finite number >= 0"),
        (lambda: BestOfNExtraction(0), "`num_samples` must be a whole number >= 1"),
        (lambda: FixedGaussian(0.0), "`std` must be a finite number > 0"),
        (lambda: Gaussian(2.0, -5.0), "`log_std_min` must be < log_std_max"),
        (lambda: Recipe(None, AWRExtraction()), "`value` must be a value rule"),
        (lambda: Recipe(None, None), "`value` must be a value rule"),
        (lambda: Recipe(ActorCritic(), None), "`extraction` must be given"),
        (lambda: Recipe(Implicit(), BestOfNExtraction(8)), "`actor` must be stochastic"),
        (lambda: Recipe(Implicit(), BCExtraction(), policy_delay=0), "`policy_delay` must be a whole number >= 1"),
        (lambda: Implicit("0.9"), "`expectile` must lie between 0 and 1.*Received '0.9'"),
        (lambda: Recipe("iql", "awr"), "`value` must be an instance of ValueRule. Received 'iql': .*recipe_of"),
        (lambda: Recipe(Implicit(), AWRExtraction), "`extraction` must be an instance of Extraction"),
        (lambda: Recipe(Implicit(), AWRExtraction(), actor="gaussian"), "`actor` must be an instance of ActorRule"),
        (lambda: Recipe(Implicit(), AWRExtraction(), rewards=10.0), "`rewards` must be an instance of RewardTransform"),
        (lambda: Recipe(Implicit(), AWRExtraction(), policy_delay=1.5), "`policy_delay` must be a whole number"),
        (lambda: Point(th.zeros(1, 1)).log_prob(th.zeros(1, 1)), "must be stochastic to have a density"),
    ],
)  # fmt: skip
def test_bad_hyperparameters_are_refused_where_they_are_given(make, message):
    with pytest.raises(InputError, match=message):
        make()
