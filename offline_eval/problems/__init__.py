"""Problems with known answers: environments whose best values and actions are computed, and faults planted in them.

Importing this package makes `offline_eval/TwoModeMaze-v0` and `offline_eval/LinearQuadratic-v0` known to gymnasium.
"""

from typing import TYPE_CHECKING

from offline_eval.environments import register_own
from offline_eval.lazy import lazy_names

register_own()

_HOME = {
    "Case": "faults",
    "FAULTS": "faults",
    "Fault": "faults",
    "LinearQuadratic": "linear_quadratic_answer",
    "LinearQuadraticProblem": "linear_quadratic_answer",
    "MazeProblem": "maze_answer",
    "TwoModeMaze": "maze",
    "plant": "faults",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.problems.faults import FAULTS as FAULTS
    from offline_eval.problems.faults import Case as Case
    from offline_eval.problems.faults import Fault as Fault
    from offline_eval.problems.faults import plant as plant
    from offline_eval.problems.linear_quadratic_answer import LinearQuadratic as LinearQuadratic
    from offline_eval.problems.linear_quadratic_answer import LinearQuadraticProblem as LinearQuadraticProblem
    from offline_eval.problems.maze import TwoModeMaze as TwoModeMaze
    from offline_eval.problems.maze_answer import MazeProblem as MazeProblem

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
