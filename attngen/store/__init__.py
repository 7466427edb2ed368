"""Settings and the cache of built kernels."""
