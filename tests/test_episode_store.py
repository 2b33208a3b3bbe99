"""Stores of episodes: names of parts, counting, states, and a call that goes on."""

from __future__ import annotations

import pytest
from environments import Counter, Zero
from episode_stores import MemoryStore

from offline_eval.datasets.log import open_log
from offline_eval.episodes import EpisodePlan, EpisodeStore, StateLog, evaluate, evaluate_rules
from offline_eval.episodes.store import CountedEpisodes
from offline_eval.errors import InputError
from offline_eval.run_folder import RunFolder

PLAN = EpisodePlan.seeded(3)


def test_a_part_of_a_part_joins_its_names():
    store = MemoryStore()
    evaluate(Zero(), lambda: Counter(3), 1, store=store.of("selection").of("plain"))
    evaluate_rules(Zero(), lambda: Counter(3), 1, {"plain": None}, store=store.of("fresh"))
    assert [name for name, _ in store.told] == ["selection: plain", "fresh: plain"]


def test_what_finishes_is_counted_and_what_is_there_is_not():
    counts, whole = [], evaluate(Zero(), lambda: Counter(3), PLAN).episodes
    store = MemoryStore({"": whole[:1]})
    again = evaluate(Zero(), lambda: Counter(3), PLAN, store=CountedEpisodes(store, counts.append))
    assert again.episodes == whole
    assert counts == [1, 1]
    assert [episode.index for _, episode in store.told] == [1, 2]


def test_a_log_of_states_has_no_gaps(tmp_path):
    whole = evaluate(Zero(), lambda: Counter(3), PLAN).episodes
    store = MemoryStore({"": whole[:2]})
    evaluate(Zero(), lambda: Counter(3), PLAN, store=StateLog(tmp_path, store))
    assert sorted(episode.key for episode in open_log(tmp_path)) == [0, 1, 2]
    assert len(store.told) == 3
    with pytest.raises(InputError, match="a place for each variant"):
        evaluate(Zero(), lambda: Counter(3), PLAN, store=StateLog(tmp_path).of("plain"))


@pytest.mark.parametrize("log_states", [False, True])
def test_a_run_folder_keeps_states_where_they_are_asked_for(tmp_path, log_states):
    asked = {"env": "Counter", "agents": {}, "plan": [], "variants": {"plain": None}, "options": {}}
    folder = RunFolder(tmp_path, asked, log_states=log_states)
    evaluate(Zero(), lambda: Counter(3), PLAN, store=folder.of("plain"))
    assert [episode.index for episode in folder.done("plain")] == [0, 1, 2]
    assert (tmp_path / "states" / "plain").exists() == log_states
    assert folder.of("plain").directory == tmp_path


def test_a_path_is_no_store(tmp_path):
    assert EpisodeStore().done("") == ()
    with pytest.raises(InputError, match="`store` must be a EpisodeStore"):
        evaluate(Zero(), lambda: Counter(3), PLAN, store=tmp_path)
