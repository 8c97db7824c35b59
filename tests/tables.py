"""Tables of settings files that several tests write."""

# What a federation needs to know of its windows, where acceleration is all that is measured.
WINDOWS_OF_ACC = """
[window]
window_s = 2.56
stride_s = 1.28

[[modalities]]
name = "acc"
shape = [3]
rate_hz = 50
unit = "g"
"""
