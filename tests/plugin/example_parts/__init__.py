"""One small example of each part of pmlm-env that can be replaced."""
