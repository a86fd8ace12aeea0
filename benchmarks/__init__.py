"""Measurements for the numbers in the documentation; not part of the package."""
