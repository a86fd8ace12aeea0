"""Simulated cohort that replaces the paper's private one: labs, dates, labels, histories and doctors' replies."""

from pmlm_env.cohort.simulator.simulate import PART, SIGNALS, Signal, simulate_cohort, simulate_parts
from pmlm_env.cohort.simulator.tables import Language, schema_in

__all__ = ["PART", "SIGNALS", "Language", "Signal", "schema_in", "simulate_cohort", "simulate_parts"]
