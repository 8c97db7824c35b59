"""Which of many windows become the proxy set: strategies that look at the windows alone, never at labels.

Shapes: N windows to choose from, K chosen, F features. Every strategy gives K different rows in ascending order, all of
them when there are no more than K; equal windows, count and seed give equal rows.
"""

import heapq
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]
# Windows by modality (N, T, ...) or embeddings (N, D), how many to choose, a seed.
Choice = Callable[[Mapping[str, Floats], int, int], Rows]
# The lowest frequencies of a signal's window that are features; most of what people do is below them.
FREQUENCIES = 8
# Pixels of a frame along each side.
GRID = 4


def even(windows: Mapping[str, Floats], count: int, seed: int = 0) -> Rows:
    """Rows the same distance apart, from the first to the last, as a coordinator chooses them; no seed changes them."""
    size = _size(windows)
    return np.linspace(0, size - 1, min(count, size)).round().astype(np.intp)


def random(windows: Mapping[str, Floats], count: int, seed: int) -> Rows:
    """Rows out of a hat."""
    size = _size(windows)
    chosen = np.random.default_rng(seed).permutation(size)[: min(count, size)]
    return np.sort(chosen).astype(np.intp)


def k_centre(windows: Mapping[str, Floats], count: int, seed: int) -> Rows:
    """Greedily the window farthest from all that are chosen (Gonzalez, 1985): the rare ones come early.

    The seed draws the first one.
    """
    x_NF = features(windows)
    chosen = [int(np.random.default_rng(seed).integers(len(x_NF)))]
    nearest_N = _squares(x_NF, x_NF[chosen]).min(axis=1)
    for _ in range(min(count, len(x_NF)) - 1):
        # What is chosen is never farthest, not even where windows are equal.
        nearest_N[chosen[-1]] = -1.0
        chosen.append(int(nearest_N.argmax()))
        nearest_N = np.minimum(nearest_N, _squares(x_NF, x_NF[chosen[-1:]])[:, 0])
    return np.sort(np.array(chosen, dtype=np.intp))


def coverage(windows: Mapping[str, Floats], count: int, seed: int = 0) -> Rows:
    """Greedily the window that brings all others nearest to a chosen one (k-medoids' aim): the common ones come early.

    The aim is submodular: a window's gain only falls, so old gains are bounds (Minoux, 1978). No seed changes the rows.
    """
    x_NF = features(windows)
    distances_NN = np.sqrt(_squares(x_NF, x_NF))
    nearest_N = distances_NN.max(axis=1)
    bounds = [(-float((nearest_N - distances_NN[row]).sum()), row) for row in range(len(x_NF))]
    heapq.heapify(bounds)
    chosen: list[int] = []
    while len(chosen) < min(count, len(x_NF)):
        _, row = heapq.heappop(bounds)
        gain = float(np.maximum(nearest_N - distances_NN[row], 0).sum())
        if bounds and (-gain, row) > bounds[0]:
            heapq.heappush(bounds, (-gain, row))
        else:
            chosen.append(row)
            nearest_N = np.minimum(nearest_N, distances_NN[row])
    return np.sort(np.array(chosen, dtype=np.intp))


CHOICES: dict[str, Choice] = {"random": random, "even": even, "k-centre": k_centre, "coverage": coverage}


def features(windows: Mapping[str, Floats]) -> NDArray[np.float64]:
    """Simple features (N, F) of windows, each modality of equal weight, each feature of deviation one before that.

    Signals (N, T, C): mean and deviation per channel, and the strength of the lowest frequencies. Frames (N, T, Y, X):
    the mean and the deviation over time of each cell of a coarse grid. Embeddings (N, D) are features as they are.
    """
    parts = []
    for name in sorted(windows):
        part_NF = _features_of(windows[name].astype(np.float64))
        deviation_F = part_NF.std(axis=0)
        moving = deviation_F > 1e-9
        part_NF = (part_NF[:, moving] - part_NF[:, moving].mean(axis=0)) / deviation_F[moving]
        parts.append(part_NF / np.sqrt(max(1, part_NF.shape[1])))
    return np.concatenate(parts, axis=1)


def _features_of(x: NDArray[np.float64]) -> NDArray[np.float64]:
    if x.ndim == 2:
        return x
    if x.ndim == 3:
        strength_NFC = np.log1p(np.abs(np.fft.rfft(x, axis=1)[:, 1 : FREQUENCIES + 1]))
        return np.concatenate([x.mean(axis=1), x.std(axis=1), strength_NFC.reshape(len(x), -1)], axis=1)
    rows, columns = (np.arange(min(GRID, side)) * side // min(GRID, side) for side in x.shape[2:])
    cells = np.add.reduceat(np.add.reduceat(x, rows, axis=2), columns, axis=3)
    return np.concatenate([cells.mean(axis=1), cells.std(axis=1)], axis=1).reshape(len(x), -1)


def _squares(x_NF: NDArray[np.float64], y_MF: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances (N, M)."""
    squares: NDArray[np.float64] = (x_NF**2).sum(axis=1)[:, None] - 2 * x_NF @ y_MF.T + (y_MF**2).sum(axis=1)
    squares[squares < 0] = 0  # Rounding makes it so where windows are equal.
    return squares


def _size(windows: Mapping[str, Floats]) -> int:
    return len(next(iter(windows.values())))
