"""Windows as another body, or the same one with the device worn a little differently, would have given them.

Shapes: B windows, T samples, C channels, frames of (Y, X) pixels. Everything is drawn for a window as a whole, so that
its modalities stay those of one movement; each call draws the same for equal generators, whatever modalities are there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mekt.modality import Modality, Scaling
from mekt.plan import Plan, derived_seed

Windows = Mapping[str, Tensor]
# Each at strength 1. A device is worn up to so many degrees off, about any axis ...
ROTATION_DEG = 20.0
# ... its values are so much larger or smaller (deviation of a factor about 1) ...
GAIN = 0.1
# ... the movement is up to exp(0.15) times as slow, and begins later.
WARP = 0.15
# Noise in deviations of the signal; a camera stands up to so much of the frame's sides off.
NOISE = 0.05
SHIFT = 0.1
# What is measured along three axes of space turns with the device. A camera's features and other signals do not.
TURNING_UNITS = frozenset({"g", "m/s2", "rad/s", "deg/s", "uT", "local"})
AXES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How windows of these modalities are changed. `strength` scales every change; 0 is none."""

    modalities: tuple[Modality, ...]
    scaling: Mapping[str, Scaling]
    strength: float

    def __call__(self, windows: Windows, generator: torch.Generator) -> dict[str, Tensor]:
        """Changed copies of normalised windows, (B, T, C) or (B, T, Y, X)."""
        if self.strength == 0:
            return dict(windows)
        count = len(next(iter(windows.values())))
        seed = int(torch.randint(2**62, (1,), generator=generator))
        own = torch.Generator().manual_seed(seed)
        turn_B33 = _rotations(count, ROTATION_DEG * self.strength, own)
        gain_B = 1 + GAIN * self.strength * torch.randn(count, generator=own).clamp(-2, 2)
        length_B = torch.exp(-WARP * self.strength * torch.rand(count, generator=own))
        start_B = (1 - length_B) * torch.rand(count, generator=own)
        shift_B2 = SHIFT * self.strength * (2 * torch.rand(count, 2, generator=own) - 1)
        changed = {}
        for modality in self.modalities:
            if modality.name not in windows:
                continue
            window = windows[modality.name]
            there = window.device
            moved = _stretched(window, start_B.to(there), length_B.to(there))
            if modality.is_frames:
                moved = _shifted(moved, shift_B2)
            else:
                moved = self._worn(modality, moved, turn_B33.to(there), gain_B.to(there))
            noise = torch.Generator().manual_seed(derived_seed(seed, "noise", modality.name))
            changed[modality.name] = moved + NOISE * self.strength * torch.randn(moved.shape, generator=noise).to(there)
        return changed

    def _worn(self, modality: Modality, window_BTC: Tensor, turn_B33: Tensor, gain_B: Tensor) -> Tensor:
        scaling = self.scaling[modality.name]
        mean_C, std_C = (window_BTC.new_tensor(each) for each in (scaling.mean, scaling.std))
        sensed = (window_BTC * std_C + mean_C) * gain_B[:, None, None]
        if modality.unit in TURNING_UNITS and modality.channels % AXES == 0:
            vectors = sensed.reshape(len(sensed), -1, AXES) @ turn_B33.transpose(1, 2)
            sensed = vectors.reshape(sensed.shape)
        return (sensed - mean_C) / std_C


def augmentation_of(plan: Plan) -> Augmentation:
    """As the plan's method asks for it."""
    return Augmentation(modalities=plan.modalities, scaling=plan.scaling, strength=plan.method.augment)


def view(plan: Plan, proxy: Mapping[str, NDArray[np.float32]], round: int) -> dict[str, NDArray[np.float32]]:
    """The normalised proxy set (N, T, ...) as `round` looks at it: equal, but for rounding, wherever it is computed.

    The plan's views of all windows, one after the other. Knowledge of other views says more about an encoder
    than that of the same windows again, at no bytes.
    """
    if plan.method.augment == 0:
        return dict(proxy)
    generator = torch.Generator().manual_seed(derived_seed(plan.seed, "view", round))
    # Torch takes no memory that must not be written.
    windows = {
        name: torch.from_numpy(np.require(array, np.float32, ["C", "W"])).repeat(plan.views, *[1] * (array.ndim - 1))
        for name, array in proxy.items()
    }
    changed = augmentation_of(plan)(windows, generator)
    return {name: each.numpy() for name, each in changed.items()}


def _rotations(count: int, largest_deg: float, generator: torch.Generator) -> Tensor:
    """Rotation matrices (B, 3, 3) about random axes by up to so many degrees (Rodrigues' formula)."""
    axis_B3 = torch.randn(count, AXES, generator=generator)
    x_B, y_B, z_B = (axis_B3 / axis_B3.norm(dim=1, keepdim=True).clamp(min=1e-6)).unbind(1)
    angle_B = torch.rand(count, generator=generator) * math.radians(largest_deg)
    zero_B = torch.zeros(count)
    cross_B33 = torch.stack([zero_B, -z_B, y_B, z_B, zero_B, -x_B, -y_B, x_B, zero_B], dim=1).reshape(-1, AXES, AXES)
    sine_B11, cosine_B11 = torch.sin(angle_B)[:, None, None], torch.cos(angle_B)[:, None, None]
    return torch.eye(AXES) + sine_B11 * cross_B33 + (1 - cosine_B11) * (cross_B33 @ cross_B33)


def _stretched(window: Tensor, start_B: Tensor, length_B: Tensor) -> Tensor:
    """The part of each window from `start` on, of `length` (shares of the whole), stretched to the whole's length."""
    flat_BTF = window.flatten(2)
    last = flat_BTF.shape[1] - 1
    if last == 0:
        return window
    grid_T = torch.linspace(0, 1, last + 1, device=window.device)
    at_BT = last * (start_B[:, None] + length_B[:, None] * grid_T)
    before_BT = at_BT.floor().clamp(0, last - 1)
    share_BT1 = (at_BT - before_BT)[:, :, None]
    index_BTF = before_BT.long()[:, :, None].expand(-1, -1, flat_BTF.shape[2])
    mixed = torch.lerp(flat_BTF.gather(1, index_BTF), flat_BTF.gather(1, index_BTF + 1), share_BT1)
    return mixed.reshape(window.shape)


def _shifted(window_BTYX: Tensor, shift_B2: Tensor) -> Tensor:
    """Each window's frames moved by whole pixels, `shift` in shares of the sides; what leaves comes in opposite."""
    height, width = window_BTYX.shape[2:]
    rows, columns = (shift_B2 * torch.tensor([height, width])).round().long().to(window_BTYX.device).unbind(1)
    row_BY = (torch.arange(height, device=rows.device) - rows[:, None]) % height
    column_BX = (torch.arange(width, device=rows.device) - columns[:, None]) % width
    count = torch.arange(len(window_BTYX), device=rows.device)[:, None, None]
    return (
        window_BTYX.transpose(1, 2)
        .transpose(2, 3)[count, row_BY[:, :, None], column_BX[:, None, :]]
        .permute(0, 3, 1, 2)
    )
