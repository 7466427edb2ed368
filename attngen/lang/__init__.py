"""The language: expressions, Einsums, programs, their text form and tracing. No torch, no sympy."""
