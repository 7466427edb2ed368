"""Building ahead of time: kernels for machines that need not be here, as files that other programs load."""
