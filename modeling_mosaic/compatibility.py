"""What differs between the releases of transformers that this package works with."""

from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.deprecation import deprecate_kwarg

# What the outputs of models call their cache: `past_key_values` before transformers 5.24.
CACHE_NAME = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"

# For functions with an argument `cache`: takes it by its old name too, as transformers' own models do. Before
# 5.24 `generate()` itself uses the old name; a deprecation that is already over is not reported.
renames_cache = deprecate_kwarg(
    "past_key_values", version="5.40.0" if CACHE_NAME == "cache" else "0", new_name="cache"
)
