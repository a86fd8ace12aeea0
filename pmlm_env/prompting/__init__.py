"""Stage 3: prompts from templates."""

from pmlm_env.prompting.initial import InitialPrompt

__all__ = ["InitialPrompt"]
