"""What a cache of either Memory Mosaic keeps of a text: all that memories need to know of the model."""

from typing import NamedTuple

from transformers import PreTrainedConfig

from ..memory_state import CONTEXTUAL_AVERAGE, LAST_KEY, LAST_VALUE, PERSISTENT_AVERAGE
from ..modeling_mosaic_v2 import AVERAGE, LONG_STATES, SHORT_STATES, WINDOW_KEYS, WINDOW_VALUES
from ..modeling_mosaic_v2 import LAST_KEY as V2_LAST_KEY
from ..modeling_mosaic_v2 import LAST_VALUE as V2_LAST_VALUE


class State(NamedTuple):
    """A vector that a layer keeps besides its pairs.

    Attributes:
        number (`int`): of the state in a cache.
        is_average (`bool`): whether it keeps full precision.
        num_scales (`int`): numbers of each unit behind its `head_dim` ones.
    """

    number: int
    is_average: bool = False
    num_scales: int = 0


class Layout(NamedTuple):
    """What the layers of a model keep.

    Attributes:
        paper (`str`): number of the model's paper on arXiv.
        states (`dict[str, State]`): by their names in files.
        window (`tuple`): numbers in a cache of the keys and the values of a short-term memory's window, if
            the model has one.
    """

    paper: str
    states: dict[str, State]
    window: tuple[int, ...] = ()

    @property
    def number_of_states(self) -> int:
        """How many states a layer of a cache has, those of the window included."""
        return len(self.states) + len(self.window)


def _states_of(memory: str, first: int) -> dict[str, State]:
    """Those of one of the second model's contextual memories."""
    return {
        f"{memory}_average": State(first + AVERAGE, is_average=True, num_scales=1),
        f"{memory}_last_key": State(first + V2_LAST_KEY),
        f"{memory}_last_value": State(first + V2_LAST_VALUE),
    }


LAYOUTS = {
    "mosaic": Layout(
        "2405.06394",
        {
            "contextual_average": State(CONTEXTUAL_AVERAGE, is_average=True),
            "last_key": State(LAST_KEY),
            "last_value": State(LAST_VALUE),
            "persistent_average": State(PERSISTENT_AVERAGE, is_average=True),
        },
    ),
    "mosaic_v2": Layout(
        "2507.03285",
        {**_states_of("short", SHORT_STATES), **_states_of("long", LONG_STATES)},
        window=(WINDOW_KEYS, WINDOW_VALUES),
    ),
}


def find_layout(config: PreTrainedConfig) -> Layout:
    """The layout of a model's caches.

    Raises:
        ValueError: for another kind of model, or one without long-term memory.
    """
    if config.model_type not in LAYOUTS:
        raise ValueError(f"config must be a Memory Mosaic's, not {config.model_type}'s")
    layout = LAYOUTS[config.model_type]
    if config.number_of_conv_states != layout.number_of_states:
        raise ValueError(
            "use_long_memory is False: without long-term memory a model holds its latest "
            f"{config.stored_window + 1} pairs and no others: there is nothing to keep, to bound or to search"
        )
    return layout
