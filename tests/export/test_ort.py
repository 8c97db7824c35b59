"""Models in ORT format compute what the release's models compute."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.int8 import int8_of
from export.ort import OPERATORS, ort_files
from export.release import Release, read_release
from export.session import session
from mekt.errors import ReleaseError
from tests.export.small import ACC, parts_of, random_windows


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    out = tmp_path_factory.mktemp("releases") / "release"
    parts = parts_of(ACC)
    parts.write(out)
    made = read_release(out)
    _, int8 = int8_of(made.models["encoder-acc.onnx"], "acc", random_windows(parts.plan, 8)["acc"])
    return replace(made, models={**made.models, "encoder-acc-int8.onnx": int8})


def test_every_model_runs_as_before_and_the_operators_are_listed(release: Release) -> None:
    files = ort_files(release, "amd64")
    assert set(files) == {f"{Path(name).stem}.ort" for name in release.models} | {OPERATORS}
    x = {"acc": np.random.default_rng(0).normal(0, 1, (3, 50, 3)).astype(np.float32)}
    for name in ("encoder-acc", "encoder-acc-int8"):
        [before] = session(release.models[f"{name}.onnx"], name).run(None, x)
        [after] = session(files[f"{name}.ort"], name).run(None, x)
        np.testing.assert_allclose(after, before, atol=1e-5)
    operators = files[OPERATORS].decode()
    assert "FusedConv" in operators and "QLinearConv" in operators and "tmp" not in operators


def test_what_is_no_model_is_named(release: Release) -> None:
    broken = replace(release, models={"encoder-acc.onnx": b"no model"})
    with pytest.raises(ReleaseError, match="converter to ORT format failed"):
        ort_files(broken)
