"""Bounds of the Trainer's options, which transformers takes as they are until something breaks."""

import math

# Least and largest value.
COUNT, SEED, RATE = (1, 2**31), (0, 2**32 - 1), (0, math.inf)
# Below 1.
DECAY = (0, math.nextafter(1, 0))
TRAINER_BOUNDS = {
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "eval_accumulation_steps": COUNT,
    "dataloader_prefetch_factor": COUNT,
    "ddp_bucket_cap_mb": COUNT,
    "ddp_timeout": COUNT,
    "max_steps": (-1, 2**31),
    "save_total_limit": (0, 2**31),
    "dataloader_num_workers": (0, 1024),
    "seed": SEED,
    "data_seed": SEED,
    "num_train_epochs": RATE,
    "learning_rate": RATE,
    "warmup_steps": RATE,
    "weight_decay": RATE,
    "adam_beta1": DECAY,
    "adam_beta2": DECAY,
    "adam_epsilon": RATE,
    "max_grad_norm": RATE,
    "label_smoothing_factor": (0, 1),
    "neftune_noise_alpha": RATE,
    "logging_steps": RATE,
    "eval_steps": RATE,
    "eval_delay": RATE,
    "save_steps": RATE,
}
