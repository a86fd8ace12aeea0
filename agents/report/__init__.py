"""The agents' benchmark as tables and pictures: ``agents.report.report``."""
