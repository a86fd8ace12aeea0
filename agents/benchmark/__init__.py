"""All agents on equal patients within equal budgets."""
