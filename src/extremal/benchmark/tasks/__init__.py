"""Benchmark tasks: the items that a data set yields, and the measurement of maps on them."""
