"""The data doctor on files that have nothing, and on files with a planted fault: how often it errs in either way.

    python benchmarks/doctor_false_alarms.py [--seeds 6] [--first-seed 0] [--only WORDS]

An error in a clean file is a false alarm; a warning is counted beside it, with its code. A planted fault counts as
found where its code is among the findings, and as found alone where no other error is.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from doctor_files import CLEAN, FAULTS, PLANTED_IN, Arrays
from gymnasium import spaces

from offline_eval.datasets.doctor import check
from offline_eval.datasets.faults import Finding
from offline_eval.datasets.rows import Rows

KNOWN = {"Pendulum": 2.0}
"""Actions reach so far, where that is not 1."""


def findings_of(kind: str, arrays: Arrays) -> tuple[Finding, ...]:
    """What the doctor says of the rows, where their action box is known."""
    box = None
    if arrays["actions"].dtype.kind == "f":
        reach = KNOWN.get(kind.split(",")[0], 1.0)
        box = spaces.Box(-reach, reach, arrays["actions"].shape[1:])
    return check(Rows(**arrays), action_space=box)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose names hold these words")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)

    wrong, files = 0, 0
    print("clean files")
    for kind, make in CLEAN.items():
        if options.only in kind:
            said = Counter(
                f"{finding.severity} {finding.code}"
                for seed in seeds
                for finding in findings_of(kind, make(np.random.default_rng([seed, 0])))
            )
            files += len(seeds)
            wrong += sum(count for words, count in said.items() if words.startswith("error"))
            print(f"  {kind:<46} {', '.join(f'{words} x {count}' for words, count in said.items()) or '-'}")
    print(f"errors in {files} clean files: {wrong}\n")

    print("planted faults, found (and alone) of those planted")
    for fault, (code, plant) in FAULTS.items():
        found, alone, planted, missed = 0, 0, 0, Counter[str]()
        for kind in PLANTED_IN:
            if options.only in kind:
                for seed in seeds:
                    said = findings_of(
                        kind, plant(CLEAN[kind](np.random.default_rng([seed, 1])), np.random.default_rng(seed))
                    )
                    planted += 1
                    found += any(finding.code == code for finding in said)
                    alone += {finding.code for finding in said if finding.severity == "error"} <= {code}
                    missed[kind] += all(finding.code != code for finding in said)
        rest = ", ".join(f"{kind} {count}" for kind, count in missed.items() if count)
        print(f"  {fault:<26} {found:>3} ({alone:>3}) of {planted}{'; missed in: ' + rest if rest else ''}")


if __name__ == "__main__":
    main()
