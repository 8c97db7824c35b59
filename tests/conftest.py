"""What every test runs under: one thread, and no verdict that depends on how busy the machine is."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("mekt", deadline=None)
settings.load_profile("mekt")
