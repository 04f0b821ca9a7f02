"""Memory Mosaics v2 with one change taken back. Importing this makes the Auto classes know them."""

from transformers import AutoConfig, AutoModelForCausalLM

from mosaic_lab.ablations.modeling import AblatedMosaicV2Config, AblatedMosaicV2ForCausalLM

AutoConfig.register(AblatedMosaicV2Config.model_type, AblatedMosaicV2Config)
AutoModelForCausalLM.register(AblatedMosaicV2Config, AblatedMosaicV2ForCausalLM)
