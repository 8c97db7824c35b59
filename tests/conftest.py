"""What every test runs under: one thread, and no verdict that depends on how busy the machine is."""

import gc
import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("mekt", deadline=None)
settings.load_profile("mekt")


def pytest_collection_finish() -> None:
    """Modules, torch's half a million objects above all, are no garbage; collections need not look through them."""
    gc.collect()
    gc.freeze()
