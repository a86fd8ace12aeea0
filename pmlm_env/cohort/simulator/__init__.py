"""Simulated cohort that replaces the paper's private one: labs, dates, labels, histories and doctors' replies."""

from pmlm_env.cohort.simulator.simulate import SIGNALS, Signal, simulate_cohort

__all__ = ["SIGNALS", "Signal", "simulate_cohort"]
