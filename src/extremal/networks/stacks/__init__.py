"""Clips and volumes: files of frames or slices, read as inputs of three dimensions."""
