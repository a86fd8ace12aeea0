"""Baselines for learning agents: controls, filters, and searches for one set of edits for the whole task."""
