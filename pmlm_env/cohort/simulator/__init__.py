"""Simulated cohort that replaces the paper's private one: labs, dates, labels, histories and doctors' replies."""

from pmlm_env.cohort.simulator.simulate import SIGNALS, Signal, simulate_cohort
from pmlm_env.cohort.simulator.tables import Language, schema_in

__all__ = ["SIGNALS", "Language", "Signal", "schema_in", "simulate_cohort"]
