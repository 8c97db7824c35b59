"""UR Fall Detection: 30 falls and 40 sequences of daily life, an accelerometer at the waist and a depth camera.

Three postures are told apart: not lying, lying, and the transition between, of which a fall is one. The set does not
say who was recorded, so it is split by sequence, and the same person may well be a client and tested: scores are of new
sequences, not of new people. Sequences k, k + 10, k + 20 and k + 30 of each kind are in one of ten groups; neighbours
in number are often alike, so every group has some of everything. In rotation r groups 2r and 2r + 1 are tested, the
next one gives labels, the next two the proxy set, and the other five are clients, two devices of each. Every sequence
is tested in one rotation. Devices in turn have acc, the camera, or both.

A window is one second, and the next one starts a quarter later: a fall takes about a second, most sequences three to
ten. The eight features of a figure have units of their own, which the scaling per channel settles. Frames without a
figure are holes, and no window reaches over one.
"""

from pathlib import Path

from bench.protocol import ProtocolSpec, Roles
from mekt.modality import WindowSpec
from sensors.layouts import ACC, URFALL_CAMERA

GROUPS = 10
ROTATIONS = 5
FALLS, DAILY = 30, 40


def sequences(group: int, first: int = 0, step: int = 1) -> tuple[str, ...]:
    """The sequences of a group, counted from 0 and on from the last; of each kind every `step`-th from `first` on."""
    kinds = (("fall", FALLS), ("adl", DAILY))
    return tuple(
        f"{kind}-{number:02d}"
        for kind, count in kinds
        for number in range(group % GROUPS + 1 + first * GROUPS, count + 1, step * GROUPS)
    )


def rotated(rotation: int) -> Roles:
    """The roles in this rotation."""
    start = 2 * rotation
    return Roles(
        clients=tuple(sequences(start + group, half, 2) for group in range(5, GROUPS) for half in range(2)),
        labelled=sequences(start + 2),
        proxy=sequences(start + 3) + sequences(start + 4),
        test=sequences(start) + sequences(start + 1),
    )


def locate(data: Path, name: str) -> Path:
    """The file of a sequence below the folder of all data."""
    return data / "urfall" / f"{name}.npz"


PROTOCOL = ProtocolSpec(
    name="urfall",
    modalities=(ACC, URFALL_CAMERA),
    window=WindowSpec(window_s=1.0, stride_s=0.25),
    classes=("not lying", "transition", "lying"),
    rotations=tuple(rotated(rotation) for rotation in range(ROTATIONS)),
    sets=(("acc",), ("camera",), ("acc", "camera")),
    share=1 / 2,
    # A device has a few dozen windows: with batches of 64 an epoch would be a single step. Of windows that overlap by
    # three quarters there are always some in a batch that are all but the same: contrast would tell these apart.
    method={"batch": 16, "contrast": 0},
    locate=locate,
    page="http://fenix.ur.edu.pl/~mkepski/ds/uf.html, a file for each sequence as sensors/recording.py describes it",
)
