"""Tests of what runs on a device."""
