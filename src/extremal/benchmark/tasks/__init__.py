"""Benchmark tasks: the items that a data set yields, and the measurement of maps on them."""

from extremal.errors import check_installed

check_installed("pyarrow", "filelock", purpose="the evaluation", extra="benchmark")
