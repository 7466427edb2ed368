"""Kernels that were built ahead of time: reading, choosing and launching them, without anything that builds."""
