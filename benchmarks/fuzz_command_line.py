"""Calls every command with words that cannot be right, and counts tracebacks, hangs and the memory that was needed.

Each argument of each command is found from the parsers themselves, so that a new one is tried without being named
here. It gets, in turn, every word of a list: a wrong kind, out of range, empty, a folder, garbage, a FIFO, a device, a
name that is too long, escape sequences, NaN, a huge number. The other words of the call are right and the calls small.

    python benchmarks/fuzz_command_line.py --calls 1200 --seed 0

A call runs in a process forked from a warm one, in a folder of its own, with a limit on time and on address space. It
offends where it ends in a traceback or by a signal, is not over in time, needs a gigabyte, sends an escape sequence, or
refuses in other words than one last line that begins with the program's name. Offenders are printed; exit code 1.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120.0
GIGABYTE = 1 << 30
ADDRESS_SPACE = 3 * GIGABYTE
CODES = (0, 1, 2)

ENVIRONMENT = """
import gymnasium as gym, numpy as np
from gymnasium import spaces

class Short(gym.Env):
    observation_space, action_space = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
    def __init__(self, pay=1.0):
        self.pay = pay
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample() * 0, {}
    def step(self, action):
        seen = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return seen, float(self.pay - np.square(action).sum()), False, False, {}

gym.register("Short-v0", "fuzzed:Short", max_episode_steps=5)
"""
PAIRS = """
[[pair]]
name = "one"
agent = "agent.zip"
env = "fuzzed:Short-v0"
episodes = 2
selection_episodes = 2
"""

ENV = ("--env", "fuzzed:Short-v0")
PLAYED = ("--episodes", "2", "--n-envs", "2", "--workers", "1")
LEARNED = ("--gradient-steps", "4", "--batch-size", "4", "--net-arch", "4")
USUAL = {
    "demo": (),
    "evaluate": ("agent.zip", *ENV, *PLAYED),
    "steer": ("agent.zip", *ENV, *PLAYED, "--trap-episodes", "0", "--controls", "random"),
    "compare": ("agent.zip", "other.zip", *ENV, *PLAYED),
    "collect": ("agent.zip", *ENV, "--steps", "10", "--n-envs", "2", "--out", "new"),
    "train": ("bc", "--dataset", "data.hdf5", *LEARNED, *PLAYED, "--checkpoints", "1", "--out", "new"),
    "critic": ("agent.zip", "--dataset", "data.hdf5", *LEARNED, "--out", "new.zip"),
    "measure": ("agent.zip", *ENV, "--quick", "--episodes", "2", "--states", "2", "--rollouts", "1"),
    "diagnose": (
        *("agent.zip", *ENV, "--dataset", "data.hdf5", "--quick", "--episodes", "2", "--selection-episodes", "2"),
        *("--truth-starts", "2", "--rollouts", "1", "--extract", "0", "--workers", "1", "--n-envs", "2"),
    ),
    "study steering": ("pairs.toml", "--out", "new", "--only", "one"),
    "track": ("checkpoints", *ENV, "--dataset", "data.hdf5", "--episodes", "2"),
    "data describe": ("data.hdf5",),
    "data check": ("data.hdf5",),
    "data convert": ("data.hdf5", "--out", "new.hdf5"),
    "report": ("run", "result.json"),
}
"""A call of each command that is right, and over in a moment."""
LONG = {"study steering", "diagnose"}
"""Commands that take long where nothing is wrong: of their words, those that may be right are left out."""

RIGHT = {"1", "auto", "run", "pay=2", "agent.zip", "data.hdf5", "checkpoints"}
NO_FOLDERS = (
    "",
    " ",
    "..",
    "/",
    "/dev/full",
    "/proc/x",
    "agent.zip",
    "agent.zip/x",
    "m/" * 999 + "x",
    "x" * 300,
    "a\0b",
)
"""No names of new folders: with any other, the demonstration runs for minutes, and is right to."""

WORDS = (
    *("", " ", ",", ",,", "=", "abc", "a,b", "x=1", "x=", "=1", "pay=2", "auto", "none", "random", "-", "--", "[[["),
    *("-1", "0", "1", "1.5", "-0.0", "1e300", "-1e300", "nan", "-inf", "1,nan", "1e400", "None"),
    *("9" * 18, "-" + "9" * 18, "9" * 5000),
    *(".", "..", "/", "../..", "~", "/dev/null", "/dev/full", "/proc/x", "/proc/self", "agent.zip/x", "m/" * 999 + "x"),
    *("x" * 300, "x" * 5000, "\N{SNOWMAN}" * 100, "\x1b[2J\x1b]0;title\x07", "two\nlines", "\u202eleft"),
    *(
        "\udcff",
        "a\0b",
        "agent.zip",
        "data.hdf5",
        "run",
        "checkpoints",
        "folder",
        "empty.zip",
        "garbage",
        "garbage.zip",
    ),
    *(
        "garbage.hdf5",
        "garbage.json",
        "garbage.toml",
        "half.zip",
        "half.hdf5",
        "deep.json",
        "list.json",
        "fifo",
        "loop",
    ),
    *("dangling", "gymnasium.wrappers:ClipAction", "gymnasium.wrappers:ClipAction(1)", "os:getcwd", "no.such:Thing"),
    *("fuzzed:Short", "fuzzed:None-v0", "nothing:X-v0", "Short-v0", "CartPole-v1", "value.expectile=nan"),
    *("extraction.bc_coef=1e300",),
)


@dataclass(frozen=True)
class Call:
    """A command with one argument that is wrong."""

    command: str
    argument: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return ascii(" ".join(word if len(word) < 80 else f"{word[:40]}...({len(word)})" for word in self.words))


@dataclass(frozen=True)
class Ending:
    """How a call ended."""

    code: int
    seconds: float
    memory: int
    output: str
    errors: str

    def faults(self) -> list[str]:
        """What is wrong with it."""
        found = []
        if self.code == -signal.SIGKILL:
            found.append("not over in time")
        elif self.code not in CODES:
            found.append(f"exit code {self.code}")
        if "Traceback (most recent call last)" in self.errors or "Exception ignored" in self.errors:
            found.append("traceback")
        if self.code == 2 and not (self.errors.splitlines() or [""])[-1].startswith("offline-eval: "):
            found.append("no last line that says why")
        if any(ord(letter) < 32 and letter not in "\n\t" for letter in self.output + self.errors):
            found.append("control characters")
        if self.memory >= GIGABYTE:
            found.append(f"{self.memory / GIGABYTE:.2f} GB")
        return found


def leaves(parser, path=()):
    """The commands, and the arguments of each."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield " ".join(path), [action for action in parser._actions if action.dest != "help"]
    for action in nested:
        for name, child in action.choices.items():
            yield from leaves(child, (*path, name))


def all_calls():
    """Every argument of every command with every word."""
    from offline_eval.cli import build_parser

    for command, actions in leaves(build_parser()):
        usual = USUAL[command]
        for action in actions:
            flag = max(action.option_strings, key=len, default="")
            for word in WORDS if action.nargs != 0 else ("",):
                if command in LONG and (word in RIGHT or action.nargs == 0):
                    continue
                if command == "demo" and word not in NO_FOLDERS:
                    continue
                yield Call(
                    command, flag or action.dest, (*command.split(), *with_word(usual, action, actions, flag, word))
                )


def with_word(usual, action, actions, flag, word):
    """The usual words, with another one for an argument."""
    if action.nargs == 0:
        return (*usual, flag)
    if flag in usual:
        place = usual.index(flag) + 1
        return (*usual[:place], word, *usual[place + 1 :])
    if flag:
        return (*usual, f"{flag}={word}")
    place = [other.dest for other in actions if not other.option_strings].index(action.dest)
    return (*usual[:place], word, *usual[place + 1 :])


def make_files(folder):
    """What the calls name: small agents, data and runs, and what looks like them."""
    (folder / "fuzzed.py").write_text(textwrap.dedent(ENVIRONMENT))
    sys.path.insert(0, str(folder))
    import fuzzed  # noqa: F401
    import gymnasium as gym
    from stable_baselines3 import SAC

    from offline_eval.cli import main

    for name, seed in (("agent", 0), ("other", 1), ("checkpoints/model_10", 2), ("checkpoints/model_20", 3)):
        (folder / name).parent.mkdir(exist_ok=True)
        SAC("MlpPolicy", gym.make("Short-v0"), policy_kwargs={"net_arch": [4]}, seed=seed, device="cpu").save(
            folder / name
        )
    os.chdir(folder)
    for words in (
        ("collect", "agent.zip", *ENV, "--steps", "60", "--noise", "0.3", "--out", "data.hdf5"),
        ("evaluate", "agent.zip", *ENV, *PLAYED, "--out", "run"),
    ):
        assert main(words) == 0, words
    shutil.copy("run/manifest.json", "manifest.json")
    import json

    Path("result.json").write_text(json.dumps(json.loads(Path("run/manifest.json").read_text())["result"]))
    Path("manifest.json").unlink()
    Path("pairs.toml").write_text(PAIRS)
    rng = random.Random(0)
    Path("folder").mkdir()
    Path("empty.zip").touch()
    for name in ("garbage", "garbage.zip", "garbage.hdf5", "garbage.json", "garbage.toml"):
        Path(name).write_bytes(rng.randbytes(2000))
    for name in ("agent.zip", "data.hdf5"):
        content = Path(name).read_bytes()
        Path(f"half{Path(name).suffix}").write_bytes(content[: len(content) // 2])
    Path("deep.json").write_text("[" * 100_000)
    Path("list.json").write_text("[1, 2]")


def play(call, files, place):
    """Run a call in a process of its own."""
    shutil.copytree(files, place, symlinks=True)
    os.mkfifo(place / "fifo")
    (place / "loop").symlink_to("loop")
    (place / "dangling").symlink_to("nowhere")
    beside = place.with_suffix(".out"), place.with_suffix(".err")
    child = os.fork()
    if child == 0:
        run_child(call, place, beside)
    begun, limit = time.monotonic(), SECONDS
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() - begun > limit:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    texts = [path.read_bytes().decode(errors="backslashreplace") for path in beside]
    return Ending(os.waitstatus_to_exitcode(status), time.monotonic() - begun, usage.ru_maxrss * 1024, *texts)


def run_child(call, place, beside):
    """The life of a call."""
    code = 70
    try:
        os.chdir(place)
        sys.path[0] = str(place)
        for number, path in enumerate(beside, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from offline_eval.cli import main

        try:
            code = main(call.words)
        except SystemExit as stop:  # argparse
            code = stop.code or 0
        sys.stdout.flush()
    except BaseException:  # this is what is looked for
        import traceback

        with suppress(BaseException):
            traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def warm_up():
    """Import what the commands import, once."""
    from importlib import import_module
    from pkgutil import walk_packages

    import offline_eval

    for module in walk_packages(offline_eval.__path__, "offline_eval."):
        if "pytest" not in module.name and "testing" not in module.name and "__main__" not in module.name:
            import_module(module.name)
    import torch as th

    th.set_num_threads(1)


def main():
    """Make the calls and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1200, help="drawn from all that there are; 0 for all of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", default="", help="this command alone")
    arguments = parser.parse_args()
    warm_up()
    calls = [call for call in all_calls() if call.command.startswith(arguments.command)]
    total = len(calls)
    if 0 < arguments.calls < total:
        calls = random.Random(arguments.seed).sample(calls, arguments.calls)
    codes, faults, most, slowest = Counter(), Counter(), 0, 0.0
    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary).resolve() / "files"
        files.mkdir()
        make_files(files)
        for number, call in enumerate(calls):
            place = files.with_name(f"call{number}")
            ending = play(call, files, place)
            shutil.rmtree(place, ignore_errors=True)
            codes[ending.code] += 1
            most, slowest = max(most, ending.memory), max(slowest, ending.seconds)
            for fault in ending.faults():
                faults[fault] += 1
            if ending.faults():
                print(f"{', '.join(ending.faults())}: {call}", textwrap.indent(ending.errors[-2000:], "    "), sep="\n")
        os.chdir("/")
    tracebacks, hangs = faults["traceback"], faults["not over in time"]
    print(
        f"{len(calls)} calls of {total}: {len({(call.command, call.argument) for call in calls})} arguments of "
        f"{len({call.command for call in calls})} commands, exit codes {dict(sorted(codes.items()))}; "
        f"tracebacks {tracebacks}, hangs {hangs}, other faults {faults.total() - tracebacks - hangs}; "
        f"most memory {most / GIGABYTE:.2f} GB, slowest {slowest:.1f} s"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
