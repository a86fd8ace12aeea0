"""A causal LM, fine-tuned with LoRA to name the label (paper, Eq. 1 and Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.io.checked_files import file_in
from pmlm_env.llm.lora.adapters import Adapter
from pmlm_env.llm.lora.settings import LoraSettings
from pmlm_env.llm.lora.training import fine_tune
from pmlm_env.llm.lora.tunable import TunableLM, tunable_lm
from pmlm_env.predictors.base import assign_folds
from pmlm_env.predictors.inputs import InputScaler
from pmlm_env.predictors.label_model import CURE, LabelModel
from pmlm_env.predictors.training import VALIDATION_FOLDS
from pmlm_env.prompting.history import History
from pmlm_env.prompting.prediction import PredictionPrompt

if TYPE_CHECKING:
    from pmlm_env.llm.local.chat_template import Tokens

SCALER_FILE = "scaler.safetensors"

#: LLaMA-Factory's, but for what are arguments here.
SETTINGS = LoraSettings()

MOST_TOKENS = 100_000


class LoraLLM(LabelModel):
    """An instruction-tuned causal LM with a LoRA adapter that has learned to answer with the patient's label.

    The prompt has the check-ups as text (``History``). A label's score is the log-likelihood of the answer that
    consists of it, up to the end of the model's turn, so the probabilities are those of the answers that are labels.
    They are not normalized by the number of tokens: a model that has learned whole answers gives a long label no
    smaller probability.

    One fold of the training patients is not learned; training ends when their micro-F1 no longer rises, and the epoch
    with the highest counts. Each patient is computed alone, so their scores do not depend on others.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        model: str = "smollm2-135m",
        template: str = "predict",
        max_tokens: int = 800,
        max_patients: int | None = None,
        n_epochs: int = 3,
        learning_rate: float = 1e-4,
        gradient_checkpointing: bool = False,
        device: str = "auto",
    ) -> None:
        """Make an unfitted predictor.

        Args:
            seed: Draws the initial adapter, the validation fold, the order of the examples and the patients.
            model: A bundled model's name, a folder in Hugging Face's format, a GGUF file or a hub name. It is not saved
                with the predictor, only named.
            template: ``predict``, ``predict-short``, or a template file.
            max_tokens: Maximum number of tokens of a prompt and its answer; of long histories, less is written.
            max_patients: Maximum number of training patients to learn from, drawn at random; None = all.
            n_epochs: The largest number of epochs.
            learning_rate: The highest learning rate.
            gradient_checkpointing: Whether to save memory at the cost of a third more time.
            device: Where it is fitted and predicts; after loading, ``auto``.

        Raises:
            ValueError: A number is out of range.
        """
        super().__init__(seed)
        for name, value, lowest in (("max_tokens", max_tokens, 16), ("max_patients", max_patients, 2)):
            if value is None and name == "max_patients":
                continue
            if type(value) is not int or not lowest <= value <= MOST_TOKENS:
                raise ValueError(f"{name} is {value!r}: use {lowest} to {MOST_TOKENS:,}")
        for name, text in (("model", model), ("template", template), ("device", device)):
            if not isinstance(text, str):
                raise ValueError(f"{name} is {text!r}: it should be text")
        if not isinstance(gradient_checkpointing, bool):
            raise ValueError(f"gradient_checkpointing is {gradient_checkpointing!r}: use true or false")
        self.model, self.template, self.max_tokens, self.max_patients = model, template, max_tokens, max_patients
        self.device = device
        self._settings = replace(
            SETTINGS, n_epochs=n_epochs, learning_rate=learning_rate, gradient_checkpointing=gradient_checkpointing
        )
        self._prompt: PredictionPrompt | None = None
        self._scaler: InputScaler | None = None
        self._adapter: Adapter | None = None

    def _arguments(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "max_patients": self.max_patients,
            "n_epochs": settings.n_epochs,
            "learning_rate": settings.learning_rate,
            "gradient_checkpointing": settings.gradient_checkpointing,
        }

    @property
    def adapter(self) -> Adapter:
        """What the model has learned.

        Raises:
            RuntimeError: ``fit`` has not been called.
        """
        self._check_fitted()
        assert self._adapter is not None
        return self._adapter

    def lm(self) -> TunableLM:
        """Return the model, with whatever adapter it has; a model's own files are read to identify it."""
        settings, commit = self._settings, None
        if self._adapter is not None:
            commit = self._adapter.base.rpartition("@")[2]
        return tunable_lm(self.model, self.device, rank=settings.rank, alpha=settings.alpha, revision=commit)

    def _fit(self, cohort: Cohort, codes: npt.NDArray[np.intp]) -> None:
        self._prompt, self._scaler = PredictionPrompt.load(self.template, cohort.schema), InputScaler.fit(cohort)
        self._adapter = None
        lm = self.lm()
        if lm.limit is not None and self.max_tokens > lm.limit:
            raise ValueError(f"max_tokens is {self.max_tokens}, but {self.model} reads at most {lm.limit}: lower it")
        drawn = np.sort(np.random.default_rng(self.seed).permutation(len(cohort))[: self.max_patients])
        persons = [cohort[int(i)].person for i in drawn]
        folds = assign_folds(codes[drawn], VALIDATION_FOLDS, np.random.default_rng(self.seed), persons)
        enough = len(set(persons)) >= 2 * VALIDATION_FOLDS
        learned, held_out = (drawn[folds > 0], drawn[folds == 0]) if enough else (drawn, drawn)
        examples = [(self._prompt_of(cohort[int(i)], cohort, lm), self._labels[codes[i]]) for i in drawn]
        by_patient = dict(zip(drawn.tolist(), examples, strict=True))
        self._adapter = fine_tune(
            lm,
            [by_patient[i] for i in learned.tolist()],
            [by_patient[i] for i in held_out.tolist()],
            self._settings,
            seed=self.seed,
            choices=sorted({label for _, label in examples}),  # so the score is the micro-F1
            description="fine-tuning the predictor",
        )

    def _scores(self, cohort: Cohort) -> npt.NDArray[np.float64]:
        lm = self.lm()
        lm.use(self.adapter)
        answers = self._answers(lm)
        patients = tqdm(cohort, desc="predicting", unit="patient", disable=None, leave=False, delay=2)
        prompts = (lm.chat.encode(self._prompt_of(patient, cohort, lm)) for patient in patients)
        return np.stack([lm.log_likelihoods(prompt, answers) for prompt in prompts])

    def _answers(self, lm: TunableLM) -> Sequence[Tokens]:
        return [lm.chat.encode_reply(label) for label in self._labels]

    def prompt(self, patient: Patient, cohort: Cohort) -> str:
        """Return a patient's prompt, of at most ``max_tokens`` tokens together with the longest answer.

        Args:
            patient: The patient.
            cohort: The patient's cohort, for its schema.

        Raises:
            ValueError: ``max_tokens`` is too small even for the shortest prompt.
        """
        self._check_fitted()
        return self._prompt_of(patient, cohort, self.lm())

    def _prompt_of(self, patient: Patient, cohort: Cohort, lm: TunableLM) -> str:
        assert self._prompt is not None
        assert self._scaler is not None
        template = self._prompt
        history = History(patient, cohort.schema.indicators, self._scaler.transform(patient.values), template.words)
        room = self.max_tokens - max(map(len, self._answers(lm)))

        def n_tokens(text: str, levels: str) -> int:
            return len(lm.chat.encode(template.fill(text, levels, self._labels)))

        most, levels = history.n_levels, history.levels()
        text = history.longest(lambda text: n_tokens(text, levels) <= room) if template.has_history else ""
        while most and n_tokens(text, levels) > room:  # with hundreds of indicators, their levels alone are too long
            most //= 2
            levels = history.levels(most)
        if (shortest := n_tokens(text, levels)) > room:
            raise ValueError(
                f"max_tokens is {self.max_tokens}: the shortest prompt of patient {patient.patient_id} takes "
                f"{shortest + self.max_tokens - room}: raise it, or shorten the template"
            )
        return template.fill(text, levels, self._labels)

    def _description(self) -> dict[str, Any]:
        assert self._prompt is not None
        return {"template": self._prompt.text, "language": self._prompt.language}

    def _read_description(self, content: Mapping[str, Any]) -> None:
        self._prompt = PredictionPrompt(content["template"], "template", str(content.get("language", "en")))

    def _save(self, folder: Path) -> None:
        assert self._scaler is not None
        self.adapter.save(folder)
        self._scaler.save(folder / SCALER_FILE)

    def _load(self, folder: Path) -> None:
        """Read the adapter.

        Raises:
            ValueError: A file is missing or damaged, or the model is missing, or is another one.
        """
        self._adapter = Adapter.load(folder, CURE)
        self._adapter.check_base(self.lm().files.identity)
        self._scaler = InputScaler.load(file_in(folder, SCALER_FILE), len(self._indicators), CURE)
