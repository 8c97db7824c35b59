"""An encoder that goes through a stream in steps: of a window only the samples that the one before had not.

Shapes: T samples of a window, D embedding width.
"""

from typing import Any

import numpy as np

from export.manifest import EncoderEntry, StepForm
from sensors.source import Floats

# Starts of windows are rounded.
SLACK_S = 1e-6


class Steps:
    """The streaming form of one encoder at work on windows of one stream, the way `export.manifest.StepForm` says.

    A window is `count` steps behind the one before; one that is not begins the stream anew.
    """

    def __init__(self, entry: EncoderEntry, form: StepForm, model: Any, count: int) -> None:
        """`model` is the onnxruntime session of the form's file."""
        self._entry, self._form, self._model, self._count = entry, form, model, count
        self._stride_s = count * form.samples / entry.modality.rate_hz
        self._outputs = ["embedding", *(f"next_{name}" for name in form.state)]
        self._next_s = np.nan
        self._seen = 0
        self._state: dict[str, Floats] = {}

    def embed(self, start_s: float, window: Floats) -> Floats | None:
        """The embedding (1, D) of a window (1, T, ...) as sensed; None while too little of its stream was seen."""
        form, samples = self._form, window.shape[1]
        steps = self._count
        if not abs(start_s - self._next_s) < SLACK_S:
            self._seen, steps = form.takes - form.samples, (samples - form.takes) // form.samples + 1
            self._state = {name: np.zeros((1, *shape), np.float32) for name, shape in form.state.items()}
        self._next_s = start_s + self._stride_s
        first = samples - (steps - 1) * form.samples - form.takes
        newest = self._entry.scaling.normalise(window[:, first:])
        embedding: Floats | None = None
        for at in range(0, steps * form.samples, form.samples):
            taken = newest[:, at : at + form.takes].astype(np.float32, copy=False)
            embedding, *state = self._model.run(self._outputs, {self._entry.modality.name: taken, **self._state})
            self._state = dict(zip(self._state, state, strict=True))
        self._seen += steps * form.samples
        return embedding if self._seen >= form.history else None
