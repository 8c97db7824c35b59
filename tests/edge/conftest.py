"""A small federation for the tests of a device: its plan, its proxy set and its global knowledge, made of noise."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mekt.arrays import pack_knowledge, pack_windows
from mekt.blobs import blob_ref
from mekt.modality import Modality, Scaling, WindowSpec
from mekt.plan import BlobRef, Method, Plan
from sensors.source import Floats

torch.set_num_threads(1)

ACC = Modality(name="acc", shape=(3,), rate_hz=10.0, unit="g")
GYRO = Modality(name="gyro", shape=(2,), rate_hz=10.0, unit="rad/s")
DEPTH = Modality(name="depth", shape=(6, 8), rate_hz=5.0, unit="m")
SPEC = WindowSpec(window_s=2.0, stride_s=1.0)
PROXY = 12
METHOD: dict[str, Any] = {"embedding": 4, "hidden": 6, "batch": 8, "local_epochs": 1}


def noise(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def proxy_blob(modality: Modality, spec: WindowSpec = SPEC, count: int = PROXY) -> bytes:
    return pack_windows(noise(count, *spec.shape(modality), seed=1))


def plan_of(*modalities: Modality, method: Mapping[str, Any] | None = None, **changes: Any) -> Plan:
    """A plan of these modalities; `method` and `changes` say what is otherwise than usual."""
    spec: WindowSpec = changes.get("window", SPEC)
    usual: dict[str, Any] = {
        "run": "0a",
        "seed": 7,
        "rounds": 3,
        "window": spec,
        "modalities": modalities,
        "scaling": {each.name: Scaling(mean=(0,) * each.channels, std=(1,) * each.channels) for each in modalities},
        "proxy_windows": PROXY,
        "method": Method(**{**METHOD, **(method or {})}),
    }
    if "proxy" not in changes:
        changes["proxy"] = {each.name: blob_ref(proxy_blob(each, spec)) for each in modalities}
    return Plan(**{**usual, **changes})


def knowledge_blobs(plan: Plan, seed: int = 2) -> dict[str, bytes]:
    """Global knowledge of every modality."""
    method = plan.method
    return {
        each.name: pack_knowledge(
            noise(plan.proxy_windows, method.embedding, seed=seed),
            noise(plan.proxy_windows, method.hidden, seed=seed) if method.sends_hidden else None,
            method.encoding,
        )
        for each in plan.modalities
    }


def refs_of(blobs: Mapping[str, bytes]) -> dict[str, BlobRef]:
    return {name: blob_ref(data) for name, data in blobs.items()}
