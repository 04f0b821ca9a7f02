"""The Hugging Face Hub, which may be out of reach."""

import os
import urllib.request

from huggingface_hub import hf_hub_url, is_offline_mode

GPT2_ID = "openai-community/gpt2"
PROBE_SECONDS = 5


def can_reach_hub() -> bool:
    """Asks once and briefly, where huggingface_hub would try again for half a minute."""
    if is_offline_mode():
        return False
    request = urllib.request.Request(hf_hub_url(GPT2_ID, "tokenizer.json"), method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False


def is_only_local(name: str) -> bool:
    """Whether the model or tokenizer `name` can only come from this machine: a folder, or the Hub's cache."""
    return os.path.exists(name) or not can_reach_hub()


def first_line(error: Exception) -> str:
    """What went wrong, without the advice that libraries append."""
    return str(error).strip().split("\n")[0] or type(error).__name__
