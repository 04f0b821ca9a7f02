"""Shows what each memory of a model does on a text: python scripts/inspect_memories.py MODEL --text "..." """

import copy
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from modeling_mosaic import MemoryRecord, SlotStatistics, record_memories, scan_slots
from modeling_mosaic.inspector.server import make_server
from mosaic_lab.core.command import CommandParser, check_least, check_range
from mosaic_lab.core.devices import find_device
from mosaic_lab.core.errors import InputError, reported_as
from mosaic_lab.core.files import reading, replacing
from mosaic_lab.core.model_options import DeviceArguments
from mosaic_lab.training.corpus import stream_stories
from mosaic_lab.training.model import load_with_tokenizer
from mosaic_lab.training.options import DataArguments

# What `--compare` takes for the model with its first weights.
UNTRAINED = "untrained"


@dataclass
class InspectionArguments(DeviceArguments):
    """The text, and where the page goes."""

    text: str | None = field(default=None, metadata={"help": "The text to record."})
    file: str | None = field(default=None, metadata={"help": "A file with the text, in UTF-8."})
    prompt: str | None = field(
        default=None,
        metadata={"help": "Beginning of a text that the model continues by its likeliest tokens."},
    )
    max_new_tokens: int = field(
        default=100, metadata={"help": "How many tokens to add to the prompt at most."}
    )
    max_tokens: int = field(default=4096, metadata={"help": "Longest text to record, in tokens."})
    output: str | None = field(default=None, metadata={"help": "HTML file for the page."})
    record: str | None = field(
        default=None,
        metadata={"help": "safetensors file for the record, which Python and the page can open."},
    )
    compare: str | None = field(
        default=None,
        metadata={
            "help": "Shown beside the first: a folder or Hub id of another model, on the same text; or "
            "another text or a file with one, for the same model; or 'untrained', for the model before "
            "training: its config with random weights."
        },
    )
    ablate: bool = field(
        default=True,
        metadata={
            "help": "Measures what each unit is worth, by a run without it; that takes most of the time."
        },
    )
    serve: bool = field(
        default=False,
        metadata={"help": "Serves the page on 127.0.0.1, where it can run the model again; until Ctrl-C."},
    )
    corpus: str | None = field(
        default=None,
        metadata={
            "help": "Texts over which the use of persistent slots is counted, beside a text or alone: a "
            ".txt, .jsonl or .parquet file, a folder of them, or a Hub dataset id."
        },
    )
    corpus_split: str = field(default="train", metadata={"help": "Split of a folder or dataset to read."})
    text_column: str = field(
        default="text", metadata={"help": "Column of the texts in JSON lines and parquet."}
    )
    num_texts: int | None = field(
        default=None, metadata={"help": "How many texts of the corpus to read at most; all if not given."}
    )
    slots: str | None = field(
        default=None,
        metadata={
            "help": "File for what was counted: a table of the most used slots, NAME.csv, or all of it for "
            "Python, NAME.safetensors."
        },
    )
    port: int = field(default=8041, metadata={"help": "Port of --serve; 0: any that is free."})

    def __post_init__(self):
        given = [name for name in ("text", "file", "prompt") if getattr(self, name) is not None]
        shown = self.output is not None or self.record is not None or self.serve
        if len(given) > 1 or not given and (shown or self.corpus is None):
            raise ValueError(f"exactly one of text, file and prompt must be given, not {given or 'none'}")
        if given and not shown:
            raise ValueError("output, record or serve must be given: nothing would be left of the inspection")
        if self.corpus is None and self.slots is not None:
            raise ValueError(f"slots {self.slots}: needs a corpus whose texts they are counted over")
        if self.corpus is not None and self.slots is None and not (self.output or self.serve):
            raise ValueError("slots, output or serve must be given: nothing would be left of the corpus")
        if self.slots is not None and Path(self.slots).suffix not in (".csv", ".safetensors"):
            raise ValueError(f"slots must be a .csv or .safetensors file, not {self.slots}")
        check_least(self, max_new_tokens=1, max_tokens=1, num_texts=1)
        check_range(self, port=(0, 65535))


def make_parser() -> CommandParser:
    """The command line: a model and the options."""
    parser = CommandParser(
        InspectionArguments, description="Records what each memory does on a text, and shows it as a page."
    )
    parser.add_argument("model", help="folder or Hub id of a trained Memory Mosaic")
    return parser


def inspect(model: str, options: InspectionArguments) -> None:
    """Counts slots over a corpus, records a text, or both, and shows it.

    Raises:
        InputError: for a text or corpus that is empty or cannot be read, or a model that cannot be loaded.
    """
    disable_progress_bar()
    set_verbosity_error()
    device = find_device(options.device)
    network, tokenizer = load_with_tokenizer(model, dtype=options.dtype)
    network.to(device)
    statistics = None
    if options.corpus is not None:
        statistics = count_slots(network, tokenizer, options)
    if (options.text, options.file, options.prompt) != (None, None, None):
        show(network, tokenizer, statistics, options)


def count_slots(network, tokenizer, options: InspectionArguments) -> SlotStatistics:
    """What slots do over the corpus; written to a file if one is named."""
    texts = islice(read_corpus(options), options.num_texts)
    statistics = scan_slots(network, tokenizer, texts, max_tokens=options.max_tokens)
    print(statistics)
    if options.slots is not None:
        if Path(options.slots).suffix == ".csv":
            write_table(statistics, options.slots)
        else:
            statistics.save(options.slots)
        print(f"slots: {options.slots}")
    return statistics


def read_corpus(options: InspectionArguments) -> Iterator[str]:
    """The texts of the corpus, one after the other."""
    # A name that no split has: there is nothing to hold out.
    data = DataArguments(
        dataset=options.corpus,
        text_column=options.text_column,
        train_split=options.corpus_split,
        validation_split="",
    )
    texts, _ = stream_stories(data)
    return (row["text"] for row in texts)


def write_table(statistics: SlotStatistics, path: str) -> None:
    """Writes the most used slots of all units as comma-separated values."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        rows = statistics.rows()
        first = next(rows)
        writer = csv.DictWriter(file, first)
        writer.writeheader()
        writer.writerow(first)
        writer.writerows(rows)


def show(network, tokenizer, statistics: SlotStatistics | None, options: InspectionArguments) -> None:
    """Records the text, writes record and page, and serves the page if that is wanted."""
    text = read_text(options) if options.prompt is None else continue_prompt(network, tokenizer, options)
    record = record_text(network, tokenizer, text, options)
    other = None
    if options.compare is not None:
        other = record_other(network, tokenizer, text, options)
    if options.record is not None:
        record.save(options.record)
        print(f"record: {options.record}")
    if options.output is not None:
        record.write_page(options.output, compare=other, slots=statistics)
        print(f"page: {options.output}")
    if options.serve:
        serve(network, record, other, statistics, options.port)


def read_text(options: InspectionArguments) -> str:
    """The text that the options name."""
    if options.text is not None:
        return options.text
    return read_file(options.file)


def read_file(path: str) -> str:
    """A file's text."""
    with reading(path):
        return Path(path).read_text(encoding="utf-8")


def continue_prompt(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: InspectionArguments
) -> list[int]:
    """Tokens of the prompt and its likeliest continuation."""
    prompt = tokenizer(options.prompt, return_tensors="pt").to(network.device)
    if prompt["input_ids"].shape[1] == 0:
        raise InputError("prompt: it is empty; give the beginning of a text")
    with torch.no_grad():
        written = network.generate(
            **prompt,
            max_new_tokens=options.max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
    return written[0].tolist()


def record_text(network, tokenizer, text: str | list[int], options: InspectionArguments) -> MemoryRecord:
    """The record of a text."""
    return record_memories(network, tokenizer, text, max_tokens=options.max_tokens, ablate=options.ablate)


def record_other(network, tokenizer, text: str | list[int], options: InspectionArguments) -> MemoryRecord:
    """The record to compare with: another model's, or of another text."""
    other = options.compare
    if other == UNTRAINED and not Path(other).exists():
        return record_text(make_untrained(network), tokenizer, text, options)
    if Path(other).is_file():
        return record_text(network, tokenizer, read_file(other), options)
    # Texts have blanks; Hub ids are an owner and a name.
    if not Path(other).is_dir() and (len(other.split()) != 1 or other.count("/") != 1):
        return record_text(network, tokenizer, other, options)
    if not isinstance(text, str):
        text = tokenizer.decode(text)
    other_network, other_tokenizer = load_with_tokenizer(other, dtype=options.dtype)
    return record_text(other_network.to(network.device), other_tokenizer, text, options)


def make_untrained(network: PreTrainedModel) -> PreTrainedModel:
    """The model with the weights that its training would have begun with."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        twin = type(network)(copy.deepcopy(network.config))
    twin.name_or_path = UNTRAINED
    return twin.to(network.device, network.dtype)


def serve(
    network: PreTrainedModel,
    record: MemoryRecord,
    other: MemoryRecord | None,
    statistics: SlotStatistics | None,
    port: int,
) -> None:
    """Serves the page until the program is stopped.

    Raises:
        InputError: if the port is taken.
    """
    try:
        server = make_server(network, record, compare=other, slots=statistics, port=port)
    except OSError as error:
        raise InputError(f"port {port}: {error.strerror}") from error
    print(f"http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends)", flush=True)
    with server:
        server.serve_forever()


def main(argv: list[str] | None = None) -> None:
    """Runs the command line `argv`."""
    with reported_as("inspect_memories"):
        options, others = make_parser().parse(sys.argv[1:] if argv is None else argv)
        inspect(others.model, options)


if __name__ == "__main__":
    main()
