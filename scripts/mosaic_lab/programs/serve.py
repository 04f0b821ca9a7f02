"""Serves a model over HTTP as OpenAI's server does: python scripts/serve.py MODEL [--option value ...]"""

import os
import socket
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from transformers import AutoConfig
from transformers.utils.import_utils import is_serve_available

from modeling_mosaic import MosaicForCausalLM, MosaicV2ForCausalLM
from mosaic_lab.core.command import CommandParser, check_range
from mosaic_lab.core.errors import InputError, first_line, reported_as

ENGINES = ("transformers", "vllm")


@dataclass
class ServeArguments:
    """Which server, and where. All other options are those of the server, as it spells them."""

    engine: str = field(
        default="transformers",
        metadata={"help": "transformers: the server of `transformers serve`. vllm: that of vLLM."},
    )
    host: str = field(
        default="127.0.0.1", metadata={"help": "Address to listen at; 0.0.0.0 lets other machines in."}
    )
    port: int = field(default=8000, metadata={"help": "Port to listen at."})
    continuous_batching: bool = field(
        default=False,
        metadata={"help": "Generates for all requests together, as they come and go; vLLM always does."},
    )

    def __post_init__(self):
        check_range(self, port=(1, 2**16 - 1))
        if self.engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")


def make_parser() -> CommandParser:
    """The command line: a model, the options above, and those of the server."""
    parser = CommandParser(
        ServeArguments,
        description="Answers /v1/completions, /v1/chat/completions and others over HTTP. Behind the model "
        "stand any options of `transformers serve`, or of vLLM's server, besides: see their help.",
    )
    parser.add_argument("model", help="folder or Hub id of a trained model")
    return parser


def serve(model: str, options: ServeArguments, others: list[str]) -> None:
    """Serves until it is stopped.

    Args:
        model (`str`): folder or Hub id.
        options (`ServeArguments`): where, and by what.
        others (`list[str]`): further options of the server, as typed.

    Raises:
        InputError: for missing packages, an address that is taken, or a model that cannot be served so.
    """
    try:
        AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise InputError(f"model {model}: cannot be loaded: {first_line(error)}") from error
    check_address(options.host, options.port)
    if options.engine == "vllm":
        hand_over_to_vllm(model, options, others)
    if not is_serve_available():
        raise InputError(
            "the server needs fastapi, uvicorn, openai and pydantic: pip install 'memory-mosaics[serve]'"
        )
    run_server(
        **read_server_options(others),
        force_model=model,
        host=options.host,
        port=options.port,
        continuous_batching=options.continuous_batching,
    )


def check_address(host: str, port: int) -> None:
    """Raises an `InputError` unless a server can listen there; better known before a model is loaded."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(f"cannot listen at {host}, port {port}: {error.strerror}") from error


def hand_over_to_vllm(model: str, options: ServeArguments, others: list[str]) -> None:
    """Becomes vLLM's server."""
    if find_spec("vllm") is None:
        raise InputError("engine vllm: the package vllm is missing: pip install vllm")
    address = ["--host", options.host, "--port", str(options.port)]
    module = "vllm.entrypoints.openai.api_server"
    os.execv(sys.executable, [sys.executable, "-m", module, "--model", model, *address, *others])


def read_server_options(others: list[str]) -> dict[str, Any]:
    """Options of `transformers serve`, and its defaults, by name; those of [`ServeArguments`] left out.

    Raises:
        InputError: for an option that it has not, or a wrong value.
    """
    import typer
    from transformers.cli.serve import Serve

    app = typer.Typer(add_completion=False)
    app.command()(Serve)
    try:
        given = typer.main.get_command(app).make_context("serve", list(map(_spell, others))).params
    except Exception as error:
        raise InputError(f"{' '.join(others)}: {first_line(error)}") from error
    own = {"force_model", "non_blocking", *ServeArguments.__dataclass_fields__}
    return {name: value for name, value in given.items() if name not in own}


def _spell(word: str) -> str:
    """An option in the server's spelling, with dashes, where it is in that of our programs."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def run_server(**options: Any) -> None:
    """Runs transformers' server with the options of its `Serve`, until a signal ends it."""
    from transformers.cli.serve import Serve
    from transformers.cli.serving import model_manager

    for model_class in (MosaicForCausalLM, MosaicV2ForCausalLM):
        # The only place where it looks for the class that a config names.
        setattr(model_manager.transformers, model_class.__name__, model_class)
    # Its constructor serves, and leaves the thread of continuous batching, for which Python would wait.
    server = Serve.__new__(Serve)
    try:
        server.__init__(**options)
    finally:
        if hasattr(server, "_generation_state"):
            server._generation_state.shutdown()


def main(argv: list[str] | None = None) -> None:
    """Runs the command line `argv`."""
    with reported_as("serve"):
        options, named, others = make_parser().parse_known(sys.argv[1:] if argv is None else argv)
        serve(named.model, options, others)


if __name__ == "__main__":
    main()
