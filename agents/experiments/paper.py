"""The numbers of the paper's tables 1 to 3 (arXiv 2412.15957, version 1), in %."""

from __future__ import annotations

from collections.abc import Mapping

#: The metrics of each row, as they are named in ``agents.evaluation.metrics``.
METRICS = (
    "bleu4", "rougeL", "rouge1", "rouge2", "bertscore_precision", "bertscore_recall", "bertscore_f1",
)  # fmt: skip

#: A part of a table: for each LLM, the values of ``METRICS``.
Part = Mapping[str, tuple[float, ...]]

#: The parts of table 1: the LLM with the raw-data prompt, and with the prompt of all four stages.
BEFORE, AFTER = "raw-data prompt", "prompt of all stages, refined"

TABLE_1: Mapping[str, Part] = {
    BEFORE: {
        "Gemini1.5-pro": (6.49, 15.46, 27.57, 6.19, 62.79, 65.15, 63.94),
        "GLM4": (8.39, 19.46, 30.93, 9.95, 63.06, 64.95, 63.99),
        "GLM4-plus": (7.79, 15.45, 33.15, 10.48, 59.43, 63.26, 61.26),
        "GPT3.5-turbo": (8.73, 20.08, 29.48, 9.69, 65.56, 64.90, 65.19),
        "GPT4": (7.76, 15.49, 28.62, 9.38, 61.03, 64.59, 62.75),
    },
    AFTER: {
        "Gemini1.5-pro": (10.65, 22.39, 37.01, 13.67, 69.54, 70.75, 70.13),
        "GLM4": (9.42, 21.31, 34.67, 11.57, 66.80, 69.51, 68.12),
        "GLM4-plus": (9.04, 18.47, 36.22, 11.96, 65.20, 69.58, 67.31),
        "GPT3.5-turbo": (9.39, 22.84, 32.41, 10.49, 69.25, 68.59, 68.89),
        "GPT4": (10.88, 22.69, 39.03, 14.30, 69.80, 71.21, 70.50),
    },
}

#: A part of table 2: LLMs that were fine-tuned with LoRA to write the reply.
FINE_TUNED = "fine-tuned LLM"

TABLE_2: Mapping[str, Part] = {
    FINE_TUNED: {
        "Llama3-8B": (9.56, 23.52, 38.44, 14.12, 65.61, 65.93, 65.77),
        "GLM4-9B": (8.79, 19.72, 36.40, 12.02, 64.37, 64.29, 64.33),
        "Qwen2-7B": (8.03, 19.78, 36.64, 12.18, 64.38, 64.22, 64.30),
        "LLaVA1.5-7B": (7.45, 16.61, 33.26, 13.59, 61.30, 63.29, 62.28),
    },
    AFTER: {"GPT4": TABLE_1[AFTER]["GPT4"]},
}

#: The other parts of table 3: what is left out.
NO_PREDICTION, NO_PEERS, NO_REFINEMENT = "without stage 1", "without stage 2", "without refinement"

TABLE_3: Mapping[str, Part] = {
    NO_PREDICTION: {"GPT4": (8.42, 18.39, 34.01, 10.85, 61.10, 65.01, 62.99)},
    NO_PEERS: {"GPT4": (9.29, 21.38, 34.54, 11.51, 65.92, 68.61, 67.24)},
    NO_REFINEMENT: {"GPT4": (7.91, 17.68, 33.07, 10.39, 63.62, 66.09, 64.83)},
    AFTER: {"GPT4": TABLE_1[AFTER]["GPT4"]},
}

#: Why the paper's numbers differ in level.
DIFFERENCES = (
    "The paper's numbers are means of five runs, without intervals, on private records of 2,373 patients. Its "
    "LLMs, its data and its BERTScore model are others, its patient encoder learns with the policy, and its prompts "
    "list the peers' conditions, which our default prompts count. Compare changes, not levels."
)
