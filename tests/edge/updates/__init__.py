"""Tests of updates over the air."""
