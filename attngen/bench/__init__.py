"""Measuring against PyTorch's attention; the command line prints it, `benchmarks/results/` keeps it."""
