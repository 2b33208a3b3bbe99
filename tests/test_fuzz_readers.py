"""Damaged data sets of every format end in data or in an error of ours: `benchmarks/fuzz_readers.py` in small."""

import os

import numpy as np
import pytest
from damaged_data import FORMATS, LENGTHS, damaged, read

from offline_eval.datasets.opening import open_dataset

FILES = 12


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_data_set_opens(tmp_path, name):
    assert open_dataset(FORMATS[name](tmp_path)).lengths.tolist() == list(LENGTHS)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_ends_in_one_of_our_errors(tmp_path, monkeypatch, name):
    monkeypatch.setenv("OFFLINE_EVAL_CACHE", os.fspath(tmp_path / "cache"))
    (tmp_path / "made").mkdir()
    made = FORMATS[name](tmp_path / "made")
    for number in range(FILES):
        folder = tmp_path / str(number)
        folder.mkdir()
        path, done = damaged(made, folder, np.random.default_rng([1, number]))
        try:
            read(path)
        except Exception as error:
            pytest.fail(f"{name} {number} ({done}): {error!r}")
