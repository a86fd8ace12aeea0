"""Readers of cohorts, one module per file format."""

from pmlm_env.registry import Registry

#: Sources by name: callables ``(path, schema, **source_kwargs) -> (Cohort, ReadReport)``. The schema is None if neither
#: the user nor the folder has one. The built-in ones also take ``reading``, the options common to them (``Reading``),
#: and infer the schema if it is None.
SOURCES = Registry(
    "source",
    "pmlm.sources",
    {
        "tables": "pmlm_env.cohort.sources.tables:read_tables",
        "mimic-iv": "pmlm_env.cohort.sources.mimic_iv:read_mimic_iv",
        "discharge-me": "pmlm_env.cohort.sources.discharge_me:read_discharge_me",
        "omop": "pmlm_env.cohort.sources.omop:read_omop",
        "fhir": "pmlm_env.cohort.sources.fhir:read_fhir",
        "meds": "pmlm_env.cohort.sources.meds:read_meds",
    },
)
