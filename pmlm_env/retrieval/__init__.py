"""Stage 2 (peer-informed): finding training patients similar to a patient."""

from pmlm_env.registry import Registry
from pmlm_env.retrieval.base import Peer, Retriever
from pmlm_env.retrieval.cosine import CosineRetriever
from pmlm_env.retrieval.cross_fit import out_of_fold_vectors
from pmlm_env.retrieval.encoder import PatientEncoder

#: Retrievers by name.
RETRIEVERS = Registry(
    "retriever", "pmlm.retrievers", {"cosine": "pmlm_env.retrieval.cosine:CosineRetriever"}, ["peers"]
)

__all__ = ["RETRIEVERS", "CosineRetriever", "PatientEncoder", "Peer", "Retriever", "out_of_fold_vectors"]
