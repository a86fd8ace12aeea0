"""Fine-tuning of causal LMs with LoRA (Hu et al., ICLR 2022) on prompts and completions; needs the extra ``lora``."""
