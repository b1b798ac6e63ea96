"""TRL: SFTTrainer and DPOTrainer, with what `options` adds to their configuration."""

import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, Trainer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from bench.contenders.job import Job, Pass, count_supervised, main, watched


def one_pass(job: Job, path: str) -> Pass:
    kept = Pass()
    options = dict(job.options)
    forward = options.setdefault("per_device_train_batch_size", 8)
    if options.get("packing"):
        forward *= job.max_length / job.tokens_per_row
    config: type[Any] = SFTConfig if job.kind == "sft" else DPOConfig
    trainer_class: type[Any] = SFTTrainer if job.kind == "sft" else DPOTrainer
    common = {
        "output_dir": str(Path(job.folder) / Path(path).stem),
        **job.trainer(forward),
        "max_length": job.max_length,
        "train_sampling_strategy": "sequential",
    }
    if job.kind == "dpo":
        common["beta"] = job.beta

    class Watched(trainer_class):  # type: ignore[misc]
        def _precompute_ref_logps(self, *arguments: Any) -> Any:
            start = time.perf_counter()
            found = super()._precompute_ref_logps(*arguments)
            kept.reference_seconds = time.perf_counter() - start
            return found

    count_supervised(Watched, kept)
    trainer: Trainer = Watched(
        model=job.model,
        args=config(**{**common, **options}),
        train_dataset=Dataset.from_list(job.chats(path)),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        peft_config=LoraConfig(
            r=job.rank,
            lora_alpha=job.alpha,
            target_modules=job.targets,
            task_type="CAUSAL_LM",
        ),
        callbacks=[watched(kept, job.device)],
    )
    trainer.train()
    return kept


if __name__ == "__main__":
    main(one_pass, ("torch", "transformers", "peft", "trl"))
