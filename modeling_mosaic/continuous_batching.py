"""Continuous batching of transformers for a Memory Mosaic: `generate_batch`, `transformers serve`.

transformers keeps keys and values in blocks of `page_size` tokens, each with a page for every layer, and
hands the model a single row: all new tokens of all requests, one request after the other. A mosaic needs
states besides its pairs (see `memory_state.py`), and transformers pages none. So each block here gets pages
more, for the states after the last of its tokens. Wherever blocks are shared, copied or freed (prefixes,
forks, cancelled requests), their states are so too. `page_contents.py` says what lies where.

The model is not written a second time for rows of many requests. Requests with equally many new tokens form
an ordinary batch, to which [`PagedMemories`] is the cache: all decoded tokens one batch, each prompt mostly
one of its own.

Written against transformers 5.24, whose interface to models is not a public one. All that uses it is in these
two files, which do not travel with saved models: there they could not be mended.
`tests/modeling_mosaic/test_continuous_batching.py` fails where it changes.

Shapes: B requests with T new tokens and at most S slots; W columns of the second model's window; H heads, D
head size, C hidden size.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import GenerationConfig, PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.modeling_outputs import CausalLMOutputWithPast

from .compatibility import CACHE_NAME
from .memory_masks_v2 import TokenNumbers
from .page_contents import KEYS, LAYER_TYPE, PAGE_CONTENTS, VALUES, PageContents

if TYPE_CHECKING:
    from transformers import ContinuousBatchingConfig
    from transformers.generation.continuous_batching import PagedAttentionCache

    from .modeling_mosaic import MosaicForCausalLM

# Requests with fewer slots share a batch whatever their lengths; longer ones only with those of less than
# twice their length, so that padding costs less than they do.
FEW_SLOTS = 1024


def init_continuous_batching(
    model: "MosaicForCausalLM",
    generation_config: GenerationConfig | None = None,
    continuous_batching_config: "ContinuousBatchingConfig | None" = None,
    workload_hints=None,
) -> ContinuousBatchingManager:
    """Makes the manager of transformers' continuous batching; arguments as in `GenerationMixin`.

    Raises:
        ImportError: before transformers 5.24.
        ValueError: for a model of another type, attention other than sdpa and eager, and settings that
            offload requests, compile, make CUDA graphs, or work asynchronously on a CPU.
    """
    if CACHE_NAME != "cache":
        raise ImportError(
            f"continuous batching of a Memory Mosaic needs transformers 5.24 or newer, not "
            f"{transformers.__version__}"
        )
    if (kept := getattr(model, "_cached_continuous_batching_manager", None)) is not None:
        return kept
    if model.config.model_type not in PAGE_CONTENTS:
        raise ValueError(f"there is no continuous batching for models of type {model.config.model_type}")
    if model.config._attn_implementation not in ("sdpa", "eager"):
        raise ValueError(
            "continuous batching of a Memory Mosaic needs attn_implementation 'sdpa' or 'eager', not "
            f"{model.config._attn_implementation!r}"
        )
    settings = continuous_batching_config or transformers.ContinuousBatchingConfig()
    generation_config = generation_config or model.generation_config
    if generation_config.eos_token_id is None:
        # transformers' word for none.
        generation_config.eos_token_id = -1
    paged = PagedMosaic(model, settings.page_size)
    return MosaicBatchingManager(paged, generation_config, settings, workload_hints)


class MosaicBatchingManager(ContinuousBatchingManager):
    """transformers' manager, which refuses what would give wrong tokens or end all requests."""

    def __init__(self, model: "PagedMosaic", *args, **kwargs):
        super().__init__(model, *args, **kwargs)
        self.cancelled: list[str] = []
        settings = self.continuous_batching_config
        compiles = settings.varlen_compile_config or settings.decode_compile_config
        wrong = {
            # Asynchronous batching processes the last token of an offloaded request again.
            "cpu_offload_space": settings.cpu_offload_space != 0 and settings.cpu_offload_space,
            # Batches are formed on the host, by lengths that are read from the device.
            "use_cuda_graph": any(settings.cuda_graph_booleans) and settings.use_cuda_graph,
            "varlen_compile_config, decode_compile_config or default_compile_level": compiles or False,
            "use_async_batching on a CPU": model.device.type == "cpu" and settings.use_async_batching,
        }
        for name, value in wrong.items():
            if value is not False:
                raise ValueError(f"continuous batching of a Memory Mosaic has no {name} (given {value})")

    def switch_to_cb_friendly_attn(self, model: "PagedMosaic", auto_switch_to_flash: bool = True) -> None:
        """Leaves the attention implementation to the model."""

    def add_request(self, input_ids: list[int], *args, **kwargs) -> str | None:
        """Adds a request, as transformers' manager does.

        Raises:
            ValueError: for an empty prompt or a token outside the vocabulary, which would end all requests.
        """
        vocab_size = self.model.config.vocab_size
        if not input_ids or min(input_ids) < 0 or max(input_ids) >= vocab_size:
            raise ValueError(f"input_ids must hold tokens, all of [0, {vocab_size}), not {input_ids[:8]}...")
        self._forget_cancelled()
        return super().add_request(input_ids, *args, **kwargs)

    def cancel_request(self, request_id: str) -> None:
        """Cancels a request, as transformers' manager does."""
        super().cancel_request(request_id)
        self.cancelled.append(request_id)

    def _forget_cancelled(self) -> None:
        """Drops who waits for cancelled requests; transformers 5.24 does so for finished ones alone."""
        if not self.cancelled or self.batch_processor is None:
            return
        scheduler = self.batch_processor.scheduler
        # A result on its way would go to others if nobody waited for it.
        held = scheduler.active_requests.keys() | scheduler.waiting_requests.keys()
        for request_id in set(self.cancelled) - held:
            self.output_router.result_handlers.pop(request_id, None)
        self.cancelled = [request_id for request_id in self.cancelled if request_id in held]


class PagedMosaic:
    """A mosaic as continuous batching calls it: the new tokens of all requests are one row.

    Args:
        model (`MosaicForCausalLM`): the model.
        page_size (`int`): tokens of a block.
    """

    def __init__(self, model: "MosaicForCausalLM", page_size: int):
        self.model = model
        self.device, self.dtype = model.device, model.dtype
        self.contents = PAGE_CONTENTS[model.config.model_type](model.config)
        num_pages = self.contents.count_pages(page_size, self.dtype)
        self.config = PreTrainedConfig(
            num_hidden_layers=num_pages,
            layer_types=[LAYER_TYPE] * num_pages,
            hidden_size=model.config.hidden_size,
            num_attention_heads=model.config.num_attention_heads,
            vocab_size=model.config.vocab_size,
            eos_token_id=model.config.eos_token_id,
            # transformers makes no masks for what it does not know: they would be of all requests by all.
            attn_implementation="memory_mosaic",
        )

    def eval(self) -> "PagedMosaic":
        self.model.eval()
        return self

    def _get_logits_processor(self, generation_config: GenerationConfig):
        return self.model._get_logits_processor(generation_config)

    def _supports_logits_to_keep(self) -> bool:
        return True

    @property
    def _cached_continuous_batching_manager(self) -> ContinuousBatchingManager:
        return self.model._cached_continuous_batching_manager

    @_cached_continuous_batching_manager.setter
    def _cached_continuous_batching_manager(self, manager: ContinuousBatchingManager) -> None:
        # Where `init_continuous_batching` looks for it.
        self.model._cached_continuous_batching_manager = manager

    def __call__(self, logits_to_keep: torch.Tensor, **batch) -> CausalLMOutputWithPast:
        """Logits `(1, kept, vocabulary)`.

        Args:
            logits_to_keep (`torch.Tensor`): places in the row, each that of the last new token of a request.
            batch: `input_ids`, `cu_seq_lens_q`, `cu_seq_lens_k`, `read_index`, `write_index` and `cache`; and
                what only serves masks and flash attention.
        """
        num_requests = len(batch["cu_seq_lens_q"]) - 1
        logits = torch.empty(num_requests, self.config.vocab_size, dtype=self.dtype, device=self.device)
        for members in group_requests(batch):
            memories = PagedMemories(self.contents, batch, members)
            inputs_embeds = self.model.get_input_embeddings()(batch["input_ids"][0, memories.place_BT])
            outputs = self.model(
                inputs_embeds=inputs_embeds,
                attention_mask=self.contents.make_masks(inputs_embeds, memories.tokens),
                cache=memories,
                logits_to_keep=1,
            )
            logits[members] = outputs.logits[:, 0]
        kept = torch.searchsorted(batch["cu_seq_lens_q"][1:] - 1, logits_to_keep)
        return CausalLMOutputWithPast(logits=logits[kept][None])


def group_requests(batch: dict[str, Any]) -> list[list[int]]:
    """Numbers of the requests of each batch: as many new tokens, and slots that make little padding."""
    groups = {}
    borders = (batch["cu_seq_lens_q"].tolist(), batch["cu_seq_lens_k"][LAYER_TYPE].tolist())
    sizes = zip(*([end - start for start, end in pairwise(ends)] for ends in borders), strict=True)
    for request, (num_new, num_slots) in enumerate(sizes):
        # A prompt of one token, of which forks wait for the next step, has none yet.
        if num_new > 0:
            groups.setdefault((num_new, max(num_slots, FEW_SLOTS).bit_length()), []).append(request)
    return list(groups.values())


class PagedStates:
    """The states of one layer in pages: what `memory_state.py` reads and writes by their numbers.

    Args:
        states (`dict[int, torch.Tensor]`): states of all blocks, by their numbers.
        before_B (`torch.Tensor`): the block of the last token before the new ones; -1 if there is none.
        kept (`tuple[torch.Tensor, ...]`): new tokens after which states are kept: their blocks, and their
            places in the batch.
    """

    def __init__(
        self, states: dict[int, torch.Tensor], before_B: torch.Tensor, kept: tuple[torch.Tensor, ...]
    ):
        self.states = states
        self.before_B = before_B
        self.kept = kept

    def __getitem__(self, state_idx: int) -> torch.Tensor | None:
        if state_idx not in self.states:
            # A window, which `update_conv_state` reads.
            return None
        # Blocks hold anything before their first token is there, so not a product with 0.
        states_BC = self.states[state_idx][self.before_B.clamp(min=0)]
        return states_BC.masked_fill(self.before_B[:, None] < 0, 0)[..., None]

    def __setitem__(self, state_idx: int, state_BCT: torch.Tensor) -> None:
        block, row, step = self.kept
        states_nC = self.states[state_idx]
        states_nC[block] = state_BCT[row, :, step].to(states_nC.dtype)


class PagedLayer:
    """What `memory_state.py` and the short-term memory ask of a layer of a cache."""

    is_initialized = is_compileable = False
    # The states after each new token are handed over, not the last ones alone.
    record_past = True

    def __init__(self, conv_states: PagedStates, number_of_states: int):
        self.conv_states = conv_states
        self.conv_kernel_size = {}
        self.number_of_states = number_of_states


class PagedMemories(Cache):
    """The cache of a batch of requests with equally many new tokens, kept in transformers' pages.

    Args:
        contents (`PageContents`): what pages hold.
        batch (`dict`): what continuous batching hands to a model.
        members (`list[int]`): the requests' numbers.
    """

    def __init__(self, contents: PageContents, batch: dict[str, Any], members: list[int]):
        self.contents = contents
        self.pages: PagedAttentionCache = batch["cache"]
        allocator = self.pages.cache_allocators[LAYER_TYPE]
        token_B, num_new_B = _find_members(batch["cu_seq_lens_q"], members)
        slot_B, num_slots_B = _find_members(batch["cu_seq_lens_k"][LAYER_TYPE], members)
        step_T = torch.arange(int(num_new_B[0]), device=token_B.device)
        step_S = torch.arange(int(num_slots_B.max()), device=token_B.device)
        # Places in the row, and how many tokens each request has seen before.
        self.place_BT = token_B[:, None] + step_T
        seen_BT = (num_slots_B - num_new_B)[:, None] + step_T
        # Where nothing was seen before, transformers gives no places to read: they are those to write.
        write_index, read_index = (batch[name][allocator.index] for name in ("write_index", "read_index"))
        self.write_BT = write_index[self.place_BT]
        # Shorter memories are padded with their last slot, which the mask hides.
        place_BS = slot_B[:, None] + torch.minimum(step_S, num_slots_B[:, None] - 1)
        self.read_BS = (read_index if len(read_index) else write_index)[place_BS]
        # The slots that are columns of the window; the mask hides those before the first.
        num_columns = min(contents.config.stored_window + len(step_T), len(step_S))
        column_BW = seen_BT[:, -1:] + torch.arange(1 - num_columns, 1, device=token_B.device)
        self.read_BW = self.read_BS.gather(1, column_BW.clamp(min=0))
        self.tokens = TokenNumbers(seen_BT, torch.zeros_like(seen_BT), step_S[None], column_BW)
        super().__init__(self._make_layers(allocator))

    def _make_layers(self, allocator) -> list[PagedLayer]:
        """The layers' states: where they are read, and after which tokens they are kept."""
        seen_BT, size = self.tokens.query_bT, allocator.block_physical_stride
        first_B1 = seen_BT[:, :1]
        before_B = self.read_BS.gather(1, (first_B1 - 1).clamp(min=0)) // size
        before_B = before_B.where(first_B1 > 0, -1)[:, 0]
        is_kept_BT = (seen_BT + 1) % allocator.tokens_per_page == 0
        is_kept_BT[:, -1] = True
        row, step = is_kept_BT.nonzero(as_tuple=True)
        kept = (self.write_BT[row, step] // size, row, step)
        num_states = self.contents.config.number_of_conv_states
        states = self.contents.view_states(self.pages)
        return [PagedLayer(PagedStates(layer, before_B, kept), num_states) for layer in states]

    def update(self, key_BHTD, value_BHTD, layer_idx, *args, **kwargs):
        """Stores the new pairs, and returns those of all slots."""
        if KEYS not in self.contents.columns:
            # They only tell how many tokens there are, which transformers knows.
            return key_BHTD, value_BHTD
        columns = (
            self._exchange(name, layer_idx, states_BHTD.transpose(1, 2).flatten(2), self.read_BS)
            for name, states_BHTD in ((KEYS, key_BHTD), (VALUES, value_BHTD))
        )
        shape = self.contents.config.stored_shape
        return tuple(states_BSC.unflatten(2, shape).transpose(1, 2) for states_BSC in columns)

    def update_conv_state(self, state_BCT, layer_idx, *, state_idx, **kwargs):
        """Keeps the states after those tokens that blocks keep them of; of a window, returns all columns."""
        if state_idx in self.contents.columns:
            states_BTC = state_BCT.transpose(1, 2)
            return self._exchange(state_idx, layer_idx, states_BTC, self.read_BW).transpose(1, 2)
        self.layers[layer_idx].conv_states[state_idx] = state_BCT

    def _exchange(
        self, name: str | int, layer_idx: int, states_BTC: torch.Tensor, place_BS: torch.Tensor
    ) -> torch.Tensor:
        """Stores what a column of pages holds of the new tokens, and returns what it holds in some places."""
        column_nC = self.contents.view_column(self.pages, name, layer_idx)
        column_nC.index_copy_(0, self.write_BT.flatten(), states_BTC.flatten(0, 1))
        return column_nC.index_select(0, place_BS.flatten()).unflatten(0, place_BS.shape)


def _find_members(borders: torch.Tensor, members: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the requests `members` start in a row, and how long they are."""
    borders = borders.long()
    return borders[:-1][members], borders.diff()[members]
