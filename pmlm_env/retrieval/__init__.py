"""Stage 2 (peer-informed): finding training patients similar to a patient."""

from pmlm_env.retrieval.cross_fit import out_of_fold_vectors
from pmlm_env.retrieval.encoder import PatientEncoder
from pmlm_env.retrieval.retriever import Peer, Retriever

__all__ = ["PatientEncoder", "Peer", "Retriever", "out_of_fold_vectors"]
