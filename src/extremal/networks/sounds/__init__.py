"""Sounds: files of samples, read at the sample rate of a network."""
