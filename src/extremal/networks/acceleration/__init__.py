"""Faster evaluation of a frozen network, with the same output up to rounding."""
