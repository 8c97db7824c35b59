import subprocess
import sys

import pytest
import torch

from mekt.solvers import LBFGS, Adam
from tests.federation import ROOT

# A round of a device and of the coordinator, as small as can be; then what of torch's compiler was imported.
PROBE = """
import sys
import numpy as np
from coordinator.classifier import fit_classifier
from coordinator.distil import Distiller
from edge.stock import InMemory
from edge.trainer import LocalTrainer
from mekt.modality import Modality
from mekt.plan import Method
from tests.export.small import plan_of, random_windows

acc = Modality(name="acc", shape=(3,), rate_hz=12.0, unit="g")
method = Method(embedding=4, hidden=5, local_epochs=1, distil_epochs=1, knowledge_rows=8)
plan = plan_of(acc, method=method, proxy_windows=8)
windows, distiller = random_windows(plan, 8, seed=1), Distiller(plan, {"acc": "conv"})
known = distiller.knowledge(windows)
LocalTrainer(plan, {"acc": "conv"}).learn(InMemory(windows), windows, known, 0, 0)
distiller.distil(windows, known, 0)
fit_classifier(known["acc"].embedding, np.arange(8) % 2, 2)
print("torch" in sys.modules, sorted({"sympy", "torch._dynamo", "torch._inductor"} & set(sys.modules)))
"""


def fit(solver: torch.optim.Optimizer, weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    def loss() -> float:
        solver.zero_grad()
        value = (x @ weight - y).square().mean()
        torch.autograd.backward(value)
        return float(value.detach())

    for _ in range(9):
        solver.step(loss)
    return weight.detach()


@pytest.mark.parametrize(
    ("ours", "theirs", "how"),
    [
        (Adam, torch.optim.Adam, {"lr": 0.1, "fused": True}),
        (LBFGS, torch.optim.LBFGS, {"max_iter": 3, "line_search_fn": "strong_wolfe"}),
    ],
)
def test_steps_are_torchs_own_to_the_bit(ours: type, theirs: type, how: dict[str, object]) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y, start = (torch.randn(shape, generator=generator) for shape in ((50, 7), (50, 3), (7, 3)))
    weights = [start.clone().requires_grad_() for _ in range(2)]
    one, other = (fit(kind([w], **how), w, x, y) for kind, w in zip((ours, theirs), weights, strict=True))
    assert not torch.equal(one, start) and torch.equal(one, other)


def test_neither_a_device_nor_the_coordinator_imports_torchs_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "True []\n", done.stdout + done.stderr
