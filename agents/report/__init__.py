"""Tables and figures of the benchmark's results: ``agents.report.report``."""
