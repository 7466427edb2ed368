"""Kernel text for GPUs: a tile program printed as a Triton module."""
