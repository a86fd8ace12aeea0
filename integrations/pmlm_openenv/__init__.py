"""PMLM-v0 in words, served by OpenEnv: what a client needs."""

from pmlm_openenv.client import PMLMClient
from pmlm_openenv.models import EditAction, EditObservation, EditState

__all__ = ["EditAction", "EditObservation", "EditState", "PMLMClient"]
