"""What learns, and how it is judged: policies, algorithms, evaluation, and the `pmlm` command line."""
