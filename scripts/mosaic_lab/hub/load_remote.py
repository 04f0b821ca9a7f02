"""Loads a model from the Hub without this package: python load_remote.py OWNER/NAME REVISION TEXT OUTPUT

OUTPUT is a safetensors file with the token ids of TEXT and the logits behind each of them.
"""

import sys

# As if it were not installed: whatever tries to import it fails.
sys.modules["modeling_mosaic"] = None

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402


def main() -> None:
    """Downloads, computes and writes."""
    repo_id, revision, text, output = sys.argv[1:]
    options = {"revision": revision, "trust_remote_code": True}
    ids = AutoTokenizer.from_pretrained(repo_id, **options)(text, return_tensors="pt")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(repo_id, dtype=torch.float32, **options).eval()
    with torch.no_grad():
        save_file({"ids": ids, "logits": model(ids).logits}, output)


if __name__ == "__main__":
    main()
