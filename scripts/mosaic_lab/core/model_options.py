"""Options that programs and experiments on trained models have in common."""

from dataclasses import dataclass, field

from mosaic_lab.core.command import check_each_once


@dataclass
class DeviceArguments:
    """Where models compute, and in which precision."""

    device: str | None = field(
        default=None, metadata={"help": "cpu, cuda, cuda:1, ...; the accelerator if there is one by default."}
    )
    dtype: str = field(
        default="auto", metadata={"help": "float32, bfloat16 or float16; as saved (auto) by default."}
    )


@dataclass
class ModelsArguments:
    """The trained models of an experiment, and the folder of its results."""

    models: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Folders, patterns of folders such as 'runs/mosaic-*', or Hub ids of trained models."
        },
    )
    output_dir: str = field(
        default="", metadata={"help": "Folder for the tables, the pictures and their data."}
    )

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("output_dir must be given")
        check_each_once(self, "models")


@dataclass
class ModelsOnDeviceArguments(DeviceArguments, ModelsArguments):
    """Both; results are comparable if all models compute in one precision."""

    dtype: str = field(default="float32", metadata={"help": "float32, bfloat16, float16: of the weights."})
