"""The Hugging Face Hub, which may be out of reach."""

import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import hf_hub_url, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError

from mosaic_lab.core.errors import InputError

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


@contextmanager
def naming_hub_errors(repo_id: str) -> Iterator[None]:
    """Turns what goes wrong between here and the Hub into an `InputError` that names the repository."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise InputError(f"{repo_id}: there is no token: run `hf auth login`, or set HF_TOKEN") from error
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        raise InputError(f"{repo_id}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """The reason in one line; an upload's threads wrap the Hub's answer."""
    while not isinstance(error, HfHubHTTPError) and error.__cause__ is not None:
        error = error.__cause__
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401:
        return "the Hub does not know this token (401): run `hf auth login` again, or mend HF_TOKEN"
    if status == 403:
        return "this token has no permission to write there (403)"
    return first_line(error)
