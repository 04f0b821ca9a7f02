"""Asks a language model for texts: a batch of requests at a time, padded on the left."""

import hashlib
from collections.abc import Sequence

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import is_bitsandbytes_available

from mosaic_lab.babistories.options import StoryArguments
from mosaic_lab.babistories.prompts import as_model_input
from mosaic_lab.core.devices import find_device
from mosaic_lab.core.errors import InputError
from mosaic_lab.training.model import is_mosaic, load_with_tokenizer


class ModelWriter:
    """Answers requests with the model and the sampling parameters of the options.

    Raises:
        InputError: for a model that cannot be loaded.
    """

    def __init__(self, options: StoryArguments):
        self.options = options
        self.model, self.tokenizer = _load(options, find_device(None))
        self.model.eval()
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def answer(self, requests: Sequence[str], seed: str, openings: Sequence[str] | None = None) -> list[str]:
        """Samples an answer to each request; they depend on the arguments and the batch size only.

        Args:
            requests (`Sequence[str]`): in plain words.
            seed (`str`): seed of the sampling.
            openings (`Sequence[str]`, *optional*): first words of each answer.

        Returns:
            `list[str]`: the answers, openings included.

        Raises:
            InputError: if a request and its answer are longer than the model can read.
        """
        openings = openings or [""] * len(requests)
        digest = hashlib.blake2b(seed.encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest, "little") >> 1)
        answers: list[str] = []
        for start in range(0, len(requests), self.options.batch_size):
            batch = slice(start, start + self.options.batch_size)
            continuations = self._continue(
                [
                    as_model_input(self.tokenizer, request, opening)
                    for request, opening in zip(requests[batch], openings[batch], strict=True)
                ]
            )
            answers += [opening + text for opening, text in zip(openings[batch], continuations, strict=True)]
        return answers

    @torch.inference_mode()
    def _continue(self, texts: list[str]) -> list[str]:
        options = self.options
        # A chat template holds the special tokens already.
        inputs = self.tokenizer(
            texts,
            add_special_tokens=self.tokenizer.chat_template is None,
            padding=True,
            return_tensors="pt",
            return_token_type_ids=False,
        ).to(self.model.device)
        self._check_length(inputs["input_ids"].shape[1] + options.max_new_tokens)
        ids = self.model.generate(
            **inputs,
            do_sample=True,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        given, all_of_it = (
            self.tokenizer.batch_decode(part, skip_special_tokens=True) for part in (inputs["input_ids"], ids)
        )
        # Some tokenizers lose the space in front of a text that is decoded alone.
        return [text[len(begin) :] for begin, text in zip(given, all_of_it, strict=True)]

    def _check_length(self, length: int) -> None:
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if not is_mosaic(self.model.config) and positions is not None and length > positions:
            raise InputError(
                f"model {self.options.model}: its {positions} positions are fewer than a request and "
                f"max_new_tokens {self.options.max_new_tokens}, {length} together"
            )


def _load(options: StoryArguments, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if not options.load_in_4bit:
        model, tokenizer = load_with_tokenizer(options.model, dtype=options.dtype)
        return model.to(device), tokenizer
    if not is_bitsandbytes_available():
        raise InputError("load_in_4bit: the package bitsandbytes is missing: pip install bitsandbytes")
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return load_with_tokenizer(
        options.model, dtype=options.dtype, quantization_config=quantization, device_map={"": device}
    )
