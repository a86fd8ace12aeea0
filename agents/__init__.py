"""The learning agents: policies, training algorithms, evaluation, and the `pmlm` command line."""
