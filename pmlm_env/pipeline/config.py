"""Settings of stages 1 to 3, in a module that does not load torch, because command lines read them."""

from __future__ import annotations

from dataclasses import dataclass

from pmlm_env.kwargs import NO_KWARGS, Kwargs, read_kwargs
from pmlm_env.prompting import PeerForm


@dataclass(frozen=True)
class PipelineConfig:
    """Settings for making initial prompts.

    Attributes:
        k: Peers per patient (the paper's k).
        peers: Form of ``{peers}``: labels counted, or listed with the nearest first.
        template: ``default``, ``short``, ``paper``, ``raw``, ``personal``, or a template file; see docs/templates.md.
        predictor: Stage 1: ``boosted-trees``, ``logistic``, ``lstm``, ``cnn``, ``transformer``, ``rocket``,
            ``lora-llm``, an installed plugin's name, or package.module:Class; see docs/predictors.md.
        predictor_kwargs: Arguments of the predictor's class, as JSON.
        patient_encoder: The patient vectors of stage 2: ``labels`` (a network trained on the training patients'
            labels), ``summaries`` (standardized summaries; nothing is trained), or a folder that contains a trained
            encoder; see docs/retrieval.md.
        retriever: The search of stage 2: ``cosine``, ``faiss`` (the same peers, faster among many patients), an
            installed plugin's name, or package.module:Class.
        retriever_kwargs: Arguments of the retriever's class, as JSON.
        n_folds: Folds of the out-of-fold predictions and vectors of training patients.
        train_until: Last day of train. By default the paper's, 2021-12-31, if its dates leave enough patients in each
            part, and otherwise the day up to which 70 % of the dates are.
        validation_until: Last day of validation; later patients are test. By default 2022-06-30, or the day up to which
            85 % of the dates are.
        split_by: ``split_date``, the name of another date column of the patients' table, ``split`` (a column with the
            words train, validation and test), or ``random`` (70, 15 and 15 % of the people); by default ``split`` if
            the table has it, or else ``split_date``. All stays of a person are in one part.
    """

    k: int = 10
    peers: PeerForm = "counted"
    template: str = "default"
    predictor: str = "boosted-trees"
    predictor_kwargs: Kwargs = NO_KWARGS
    patient_encoder: str = "labels"
    retriever: str = "cosine"
    retriever_kwargs: Kwargs = NO_KWARGS
    n_folds: int = 5
    train_until: str | None = None
    validation_until: str | None = None
    split_by: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers, and read the arguments given as mappings or JSON.

        Raises:
            ValueError: A number is too small, or arguments are not JSON values or contain what looks like a key.
        """
        for name, option, lowest in (("k", "--k", 1), ("n_folds", "--n-folds", 2)):
            if (number := getattr(self, name)) < lowest:
                raise ValueError(f"{name} is {number}: use {lowest} or more ({option})")
        read_kwargs(self)
