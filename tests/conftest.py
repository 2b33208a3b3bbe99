"""Small agents that many tests share: trained for a handful of steps, once a session, never changed by a test."""

from pathlib import Path

import pytest
import torch as th
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3

SHARED_AGENTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "agents"


def pytest_addoption(parser):
    parser.addoption(
        "--only-skip",
        metavar="REASON",
        help="fail the run if a test is skipped for another reason (.ci/run: nothing may be missing there)",
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    allowed = session.config.getoption("--only-skip")
    terminal = session.config.pluginmanager.getplugin("terminalreporter")
    if allowed is None or terminal is None:
        return
    others = [report for report in terminal.stats.get("skipped", ()) if allowed not in str(report.longrepr)]
    for report in others:
        terminal.write_line(f"skipped, which --only-skip does not allow: {report.nodeid}", red=True)
    if others and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    # The networks are tiny: a second thread only makes the tests that run beside this one wait.
    th.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_agents() -> Path:
    """The folder with agents that others trained; the test is skipped where it is absent."""
    if not SHARED_AGENTS.is_dir():
        pytest.skip(f"the agents of {SHARED_AGENTS.relative_to(SHARED_AGENTS.parents[2])} are not here")
    return SHARED_AGENTS


def off_policy(algorithm, env_id, **arguments):
    """An agent of two layers of 16 units after 40 steps, 10 of them with an update."""
    model = algorithm(
        "MlpPolicy",
        env_id,
        policy_kwargs={"net_arch": [16, 16]},
        learning_starts=30,
        buffer_size=100,
        batch_size=8,
        seed=0,
        device="cpu",
        **arguments,
    )
    return model.learn(40)


@pytest.fixture(scope="session")
def tiny_sac():
    return off_policy(SAC, "Pendulum-v1")


@pytest.fixture(scope="session")
def tiny_td3():
    return off_policy(TD3, "Pendulum-v1")


@pytest.fixture(scope="session")
def tiny_ddpg():
    return off_policy(DDPG, "Pendulum-v1")


@pytest.fixture(scope="session")
def tiny_tqc():
    return off_policy(pytest.importorskip("sb3_contrib").TQC, "Pendulum-v1")


@pytest.fixture(scope="session")
def tiny_crossq():
    return off_policy(pytest.importorskip("sb3_contrib").CrossQ, "Pendulum-v1")


@pytest.fixture(scope="session")
def tiny_dqn():
    return off_policy(DQN, "CartPole-v1")


@pytest.fixture(scope="session")
def tiny_qrdqn():
    return off_policy(pytest.importorskip("sb3_contrib").QRDQN, "CartPole-v1")


def on_policy(algorithm, env_id):
    """An agent of two layers of 16 units after one update."""
    policy_kwargs = {"net_arch": [16, 16]}
    batch = {"batch_size": 16} if algorithm is PPO else {}
    model = algorithm("MlpPolicy", env_id, n_steps=32, policy_kwargs=policy_kwargs, seed=0, device="cpu", **batch)
    return model.learn(32)


@pytest.fixture(scope="session")
def tiny_ppo():
    return on_policy(PPO, "CartPole-v1")


@pytest.fixture(scope="session")
def tiny_ppo_pendulum():
    return on_policy(PPO, "Pendulum-v1")


@pytest.fixture(scope="session")
def tiny_a2c():
    return on_policy(A2C, "CartPole-v1")


@pytest.fixture
def sac_file(tiny_sac, tmp_path) -> Path:
    """The file of `tiny_sac`, for one test to change."""
    tiny_sac.save(tmp_path / "agent.zip")
    return tmp_path / "agent.zip"
