"""Tests of what a device senses."""
