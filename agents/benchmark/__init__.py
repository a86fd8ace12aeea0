"""Benchmark and tuning: every agent gets the same patients and the same budgets."""
