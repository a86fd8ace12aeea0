"""FHIR R4: bulk exports (NDJSON), bundles and single resources."""

from pmlm_env.cohort.sources.fhir.reader import read_fhir

__all__ = ["read_fhir"]
