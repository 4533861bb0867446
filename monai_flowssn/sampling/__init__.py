"""How a draw is computed: time grids, velocities and solvers of ordinary differential equations."""

from monai_flowssn.sampling.compiling import compile_steps
from monai_flowssn.sampling.grid import time_grid
from monai_flowssn.sampling.solvers import SOLVERS, dopri5, euler, heun, midpoint, solver_grid
from monai_flowssn.sampling.velocities import VELOCITIES, markov, path

__all__ = [
    "SOLVERS",
    "VELOCITIES",
    "compile_steps",
    "dopri5",
    "euler",
    "heun",
    "markov",
    "midpoint",
    "path",
    "solver_grid",
    "time_grid",
]
