"""Mirrors the packages: one file per module."""
