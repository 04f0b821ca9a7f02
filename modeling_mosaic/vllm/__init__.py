"""Memory Mosaics in vLLM: its plugin, which every vLLM process runs where this package is installed.

`configuration.py` has what vLLM is told about them, `requests.py` which tokens of a step are whose,
`memories.py` the memories and `modeling.py` the model; `memories_v2.py` and `modeling_v2.py` what the second
model has of its own.
"""


def register() -> None:
    """Makes vLLM know the models: the entry point of the group `vllm.general_plugins`.

    May run several times. Imports no weights' code: vLLM imports the model where it builds it.
    """
    # Makes transformers' AutoConfig know them.
    import modeling_mosaic  # noqa: F401

    from .configuration import register_configurations

    register_configurations()
