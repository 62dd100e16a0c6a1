"""Checks and cost estimates before a run."""
