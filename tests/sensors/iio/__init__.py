"""Tests of Linux IIO devices as sources."""
