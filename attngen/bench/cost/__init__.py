"""Measure kernels of many programs, shapes and configurations; fit the cost model's prices; judge its predictions."""
