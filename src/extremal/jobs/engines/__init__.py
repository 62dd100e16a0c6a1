"""Engines that work through the units of a run: processes of this machine, or a Ray cluster."""
