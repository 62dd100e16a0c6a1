"""Evaluation tasks: the questions that a data set is turned into, and how maps are scored."""
