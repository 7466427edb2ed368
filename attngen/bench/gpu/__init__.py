"""The GPU suite, `attngen bench gpu`: one command that says within minutes what a GPU shows of attngen.

cases.py, masks*.py                 the workloads as data: a mask, extents, what is to be reached
catalogue.py                        a small call of every program of `ir/`
workers.py, tasks.py                child processes, and what they do: check, compile ahead, compile for a target
stopwatch.py, peers.py, measure.py  times of one workload, and of what else computes it
special.py                          goals that are no single call: planning, lists, a cold start
steps.py, suite.py, report.py       what is done in which order; the results so far are on disk after each
table.py                            the results for people
"""
