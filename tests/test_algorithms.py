"""The recipes as classes: the same algorithm as by name, with its own numbers as keywords."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
from offline_data import algorithm, assert_same, numbers, pendulum_data

import offline_eval.policies as policies
from offline_eval.errors import InputError
from offline_eval.policies import AWR, BC, IQL, TD3BC, OfflineAlgorithm, load_sb3, recipe_of
from offline_eval.policies.actors import Gaussian, StateGaussian
from offline_eval.policies.extraction import AWRExtraction, BestOfNExtraction, DDPGBCExtraction
from offline_eval.policies.recipe_names import CONSTRUCTORS
from offline_eval.policies.recipes import RECIPES, Recipe, recipe_from_json, recipe_to_json
from offline_eval.policies.transforms import ReturnRange
from offline_eval.policies.values import Implicit

WORDS = {"policy_kwargs": {"net_arch": [16, 16]}, "batch_size": 32, "learning_rate": 1e-3, "seed": 0, "device": "cpu"}
CLASSES = {name: getattr(policies, constructor) for name, constructor in CONSTRUCTORS.items()}


@pytest.fixture(scope="module")
def dataset():
    return pendulum_data()


def test_every_recipe_that_learns_a_policy_has_a_class():
    assert set(RECIPES) - set(CONSTRUCTORS) == {"fqe"}
    assert [cls().recipe for cls in CLASSES.values()] == [recipe_of(name) for name in CLASSES]


def test_it_is_the_algorithm_of_that_name(dataset):
    assert_same(numbers(IQL(**WORDS).fit(dataset, 5)), numbers(algorithm("iql").fit(dataset, 5)))


def test_its_numbers_are_keywords():
    model = TD3BC("MlpPolicy", "Pendulum-v1", q_coef=1.0, target_noise_clip=0.1, policy_delay=1, gamma=0.9)
    assert (model.recipe.extraction.q_coef, model.recipe.value.target_noise_clip) == (1.0, 0.1)
    assert (model.recipe.policy_delay, model.recipe.value.target_policy_noise, model.gamma) == (1, 0.2, 0.9)
    assert model.action_space.high == 2.0
    assert IQL(env="Pendulum-v1", rewards=ReturnRange()).recipe.rewards == ReturnRange()


def test_what_help_shows_has_the_recipe_s_values():
    words = inspect.signature(IQL).parameters
    assert list(words)[:5] == ["policy", "env", "expectile", "inverse_temperature", "max_weight"]
    assert (words["expectile"].default, words["batch_size"].default) == (0.7, 256)
    assert "expectile" not in inspect.signature(BC).parameters


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IQL(expectile=1.0), "`expectile` must lie between 0 and 1"),
        (lambda: IQL(expectile="0.7"), "`expectile` must"),
        (lambda: IQL(expectil=0.7), "must be a keyword of IQL. Received 0.7: did you mean expectile"),
        (lambda: TD3BC(alpha=2.5), "its own are target_policy_noise, target_noise_clip, q_coef"),
        (lambda: BC(max_weight=3.0), "`max_weight` must be a keyword of BC"),
        (lambda: AWR(batch_size=0), "`batch_size` must"),
        (lambda: AWR(rewards=10.0), "`rewards` must be an instance of RewardTransform"),
        (lambda: IQL("Pendulum-v1"), r"`policy` must be \"MlpPolicy\".*the environment comes second"),
    ],
)
def test_what_is_wrong_is_refused_in_the_constructor(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_files_are_those_of_the_recipe(dataset, tmp_path):
    model = IQL(expectile=0.9, **WORDS).fit(dataset, 5)
    model.save(tmp_path / "model.zip")
    for loaded in (IQL.load(tmp_path / "model.zip", device="cpu"), OfflineAlgorithm.load(tmp_path / "model.zip")):
        assert loaded.recipe == model.recipe
        assert_same(numbers(loaded), numbers(model))
    assert type(IQL.load(tmp_path / "model.zip")) is IQL
    assert type(load_sb3(tmp_path / "model.zip", "Pendulum-v1")) is OfflineAlgorithm
    assert IQL.load(tmp_path / "model.zip", expectile=0.6).recipe.value == Implicit(0.6)
    with pytest.raises(InputError, match="must hold the recipe of AWR"):  # whose schedule and scale are others
        AWR.load(tmp_path / "model.zip")


def test_a_file_of_another_recipe_is_refused(dataset, tmp_path):
    algorithm("td3_bc").fit(dataset, 3).save(tmp_path / "model.zip")
    assert TD3BC.load(tmp_path / "model.zip").recipe == recipe_of("td3_bc")
    with pytest.raises(InputError, match=r"must hold the recipe of IQL.*TD3BC\.load opens it"):
        IQL.load(tmp_path / "model.zip")
    algorithm(Recipe(Implicit(), AWRExtraction(), actor=StateGaussian())).fit(dataset, 3).save(tmp_path / "model.zip")
    with pytest.raises(InputError, match=r"OfflineAlgorithm\.load opens any recipe"):
        IQL.load(tmp_path / "model.zip")


def test_copies_are_of_the_class_and_learn_alike(dataset):
    model = IQL(expectile=0.8, **WORDS).fit(dataset, 3)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(twin) is IQL
        assert twin.recipe == model.recipe
        assert_same(numbers(twin.fit(dataset, 3)), numbers(copy.deepcopy(model).fit(dataset, 3)))


def test_a_class_of_one_s_own_keeps_the_recipe(dataset):
    class Mine(IQL):
        pass

    assert Mine(expectile=0.9).recipe == IQL(expectile=0.9).recipe


def test_another_extraction_makes_the_general_algorithm(dataset):
    other = IQL(**WORDS).fit_value(dataset, 3).with_extraction(DDPGBCExtraction())
    assert type(other) is OfflineAlgorithm
    assert type(other.recipe.extraction) is DDPGBCExtraction


@pytest.mark.parametrize(
    ("extraction", "former"),
    [(AWRExtraction(2.0), "AWR"), (DDPGBCExtraction(), "DDPGBC"), (BestOfNExtraction(3), "BestOfN")],
)
def test_files_with_the_former_names_of_the_parts_open(extraction, former):
    recipe = Recipe(Implicit(), extraction, actor=Gaussian())
    data = recipe_to_json(recipe)
    assert data["extraction"]["name"] == f"{former}Extraction"
    assert recipe_from_json({**data, "extraction": {**data["extraction"], "name": former}}) == recipe
