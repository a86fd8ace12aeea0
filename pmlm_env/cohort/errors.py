"""The exception that this package raises."""


class CohortError(ValueError):
    """A cohort cannot be read, written or split as asked; the message says where and what to do."""
