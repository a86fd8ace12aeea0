"""Runs of a command on the workers of a Ray cluster."""
