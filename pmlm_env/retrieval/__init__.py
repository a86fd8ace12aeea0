"""Stage 2, peer-informed: from a patient's check-ups to the labels of training patients like her."""

from pmlm_env.retrieval.cross_fit import out_of_fold_vectors
from pmlm_env.retrieval.encoder import PatientEncoder
from pmlm_env.retrieval.retriever import Peer, Retriever

__all__ = ["PatientEncoder", "Peer", "Retriever", "out_of_fold_vectors"]
