"""Tests of a wearable at work."""
