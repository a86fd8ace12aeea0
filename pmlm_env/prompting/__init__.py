"""Stage 3: filling prompts from templates."""

from pmlm_env.prompting.fields import PeerForm
from pmlm_env.prompting.initial import TEMPLATES, InitialPrompt

__all__ = ["TEMPLATES", "InitialPrompt", "PeerForm"]
