"""Predict how long a launch takes: what work there is, what of a machine it keeps busy, and what takes longest."""
