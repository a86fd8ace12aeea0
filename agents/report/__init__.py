"""The agents' benchmark as tables and figures: ``agents.report.report``."""
