"""Sensors by Linux's Industrial I/O subsystem."""
