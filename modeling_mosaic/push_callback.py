"""For `Trainer(push_to_hub=True)`: what it uploads during training loads without this package too."""

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.dynamic_module_utils import custom_object_save


class PushModelCode(TrainerCallback):
    """Puts the model's code beside the checkpoint that is about to be uploaded.

    The `Trainer` uploads weights and configs as soon as there is a checkpoint, and the code that the config
    refers to only at the end: `Trainer(..., callbacks=[PushModelCode()])`.
    """

    def on_push_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel,
        **kwargs,
    ):
        if isinstance(model, PreTrainedModel) and model._auto_class is not None:
            custom_object_save(model, args.output_dir)
            custom_object_save(model.config, args.output_dir)
