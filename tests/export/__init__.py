"""Tests of the way from a trained model to a release."""
