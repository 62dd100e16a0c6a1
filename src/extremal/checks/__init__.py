"""Checks that `doctor.examine` makes, one illness each."""
