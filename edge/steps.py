"""An encoder that goes through a stream in steps: of a window only the samples that the one before had not.

Shapes: T samples of a window, D embedding width.
"""

from typing import Any

import numpy as np

from export.manifest import EncoderEntry, StepForm
from sensors.source import Floats

Place = tuple[int, int]


class Steps:
    """The streaming form of one encoder at work on windows of one stream, the way `export.manifest.StepForm` says.

    A window is `count` steps behind the one before on its grid; one that is not the next there begins the stream anew.
    As windows share samples, there is no gap between two that follow one another.
    """

    def __init__(self, entry: EncoderEntry, form: StepForm, model: Any, count: int) -> None:
        """`model` is the onnxruntime session of the form's file."""
        self._entry, self._form, self._model, self._count = entry, form, model, count
        self._outputs = ["embedding", *(f"next_{name}" for name in form.state)]
        self._next: Place | None = None
        self._seen = 0
        self._state: dict[str, Floats] = {}

    def embed(self, place: Place, window: Floats) -> Floats | None:
        """The embedding (1, D) of a window (1, T, ...) as sensed; None while too little of its stream was seen.

        `place` is the number of its grid, and its own on that.
        """
        form, samples = self._form, window.shape[1]
        steps = self._count
        if place != self._next:
            self._begin()
            steps = (samples - form.takes) // form.samples + 1
        self._next = (place[0], place[1] + 1)
        first = samples - (steps - 1) * form.samples - form.takes
        newest = self._entry.scaling.normalise(window[:, first:])
        embedding: Floats | None = None
        for at in range(0, steps * form.samples, form.samples):
            embedding = self._step(newest[:, at : at + form.takes])
        return embedding if self._seen >= form.history else None

    def try_out(self) -> None:
        """One step, to warm the model up.

        Raises:
            ValueError: when what it gives does not have the shapes that the manifest says.
        """
        self._begin()
        given = self._step(np.zeros((1, self._form.takes, *self._entry.modality.shape), np.float32))
        shapes = [given.shape, *(each.shape for each in self._state.values())]
        expected = [(1, self._entry.embedding), *((1, *shape) for shape in self._form.state.values())]
        if shapes != expected:
            raise ValueError(f"gives {shapes}, its manifest says {expected}")

    def _begin(self) -> None:
        """Before a stream were zeros."""
        self._next, self._seen = None, self._form.takes - self._form.samples
        self._state = {name: np.zeros((1, *shape), np.float32) for name, shape in self._form.state.items()}

    def _step(self, taken: Floats) -> Floats:
        embedding: Floats
        embedding, *state = self._model.run(self._outputs, {self._entry.modality.name: taken, **self._state})
        self._state = dict(zip(self._state, state, strict=True))
        self._seen += self._form.samples
        return embedding
