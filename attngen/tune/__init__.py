"""The tuner: measured configurations of kernels, found by search, kept in journals, taken by later calls."""
