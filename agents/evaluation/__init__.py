"""Evaluation of trained agents: scores of replies, confidence intervals of differences, traces, and tables."""
