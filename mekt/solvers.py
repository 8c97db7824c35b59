"""torch's Adam and L-BFGS without torch's compiler.

Only to say that nobody is to compile them, torch's own import the compiler, and sympy with it: as much again as all
else that a device imports. These take the same steps, and what torch wrapped around them is left out.
"""

import inspect

import torch
from torch.optim import Optimizer


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, to the bit."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class LBFGS(torch.optim.LBFGS):
    """`torch.optim.LBFGS`, to the bit."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
