"""Stage 3: filling prompts from templates."""

from pmlm_env.prompting.fields import PeerForm
from pmlm_env.prompting.initial import TEMPLATES, InitialPrompt
from pmlm_env.prompting.value_slots import value_slots

__all__ = ["TEMPLATES", "InitialPrompt", "PeerForm", "value_slots"]
