"""Stage 2 (peer-informed): finding training patients similar to a patient."""

from pmlm_env.registry import Registry
from pmlm_env.retrieval.base import PatientEncoder, Peer, Retriever
from pmlm_env.retrieval.choice import load_patient_encoder, patient_encoder
from pmlm_env.retrieval.cosine import CosineRetriever
from pmlm_env.retrieval.cross_fit import out_of_fold_vectors
from pmlm_env.retrieval.encoder import NetworkEncoder
from pmlm_env.retrieval.summary_encoder import SummaryEncoder

#: Retrievers by name.
RETRIEVERS = Registry(
    "retriever",
    "pmlm.retrievers",
    {"cosine": "pmlm_env.retrieval.cosine:CosineRetriever", "faiss": "pmlm_env.retrieval.faiss:FaissRetriever"},
    ["peers"],
)

__all__ = [
    "RETRIEVERS",
    "CosineRetriever",
    "NetworkEncoder",
    "PatientEncoder",
    "Peer",
    "Retriever",
    "SummaryEncoder",
    "load_patient_encoder",
    "out_of_fold_vectors",
    "patient_encoder",
]
