"""A release's models in ORT format, for builds of onnxruntime that hold no more than these models need.

Files are 7 to 40 % larger so than as ONNX and load in half the time; it pays only with such a build, which
`required_operators.config` is the recipe of (onnxruntime's build.py, --minimal_build --include_ops_by_config).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from export.release import Release
from mekt import catalogue
from mekt.errors import ReleaseError

Platform = Literal["arm", "amd64"]
OPERATORS = "required_operators.config"
CONVERTER = "onnxruntime.tools.convert_onnx_models_to_ort"
# What a session here optimises (export/session.py), done once and for all.
LEVEL = "extended"
LEVEL_FROM = "ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL"
LONGEST_S = 300.0


def ort_files(release: Release, platform: Platform = "arm") -> dict[str, bytes]:
    """The models in ORT format by their names, `.ort` for `.onnx`, optimised for a platform, and the operators' list.

    Raises:
        ReleaseError: when a model cannot be converted.
    """
    with tempfile.TemporaryDirectory() as folder:
        models, out = Path(folder) / "models", Path(folder) / "out"
        models.mkdir()
        for name, model in release.models.items():
            (models / name).write_bytes(model)
        # In a process of its own, as it prints, and takes the level from the environment.
        arguments = ["--optimization_style", "Fixed", "--target_platform", platform, "--output_dir", out, models]
        command = [sys.executable, "-m", CONVERTER, *map(str, arguments)]
        environment = os.environ | {LEVEL_FROM: LEVEL}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST_S)
        # The converter puts the level into every name, and where it worked into the list.
        made = {path.name.replace(f".{LEVEL}.", "."): path.read_bytes() for path in out.glob(f"*.{LEVEL}.*")}
        if done.returncode != 0 or set(made) != {OPERATORS, *(f"{Path(name).stem}.ort" for name in release.models)}:
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise ReleaseError(
                f"{release.path}: onnxruntime's converter to ORT format failed ({last}); export the release again",
                catalogue.RELEASE_DOES_NOT_RUN,
            )
        lines = made[OPERATORS].decode("utf-8").splitlines()
        return made | {OPERATORS: "".join(f"{each}\n" for each in lines if not each.startswith("#")).encode("utf-8")}
