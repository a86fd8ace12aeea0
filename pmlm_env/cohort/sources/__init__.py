"""Readers of cohorts, one module per file format."""

from pmlm_env.registry import Registry

#: Sources by name: callables ``(path, schema, **source_kwargs) -> (Cohort, ReadReport)``.
SOURCES = Registry("source", "pmlm.sources", {"tables": "pmlm_env.cohort.sources.tables:read_cohort"})
