"""TRL worker: SFTTrainer and DPOTrainer, with what `options` adds to their configuration."""

import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, Trainer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from bench.shared.worker import Job
from bench.training.job import Pass, counting_step, main, pass_timer, read_chats, trainer_arguments


def one_pass(job: Job, path: str) -> Pass:
    timed = Pass()
    config: type[Any] = SFTConfig if job.kind == "sft" else DPOConfig
    trainer_class: type[Any] = SFTTrainer if job.kind == "sft" else DPOTrainer

    class TimedTrainer(trainer_class):  # type: ignore[misc]
        training_step = counting_step(trainer_class, timed)

        def _precompute_ref_logps(self, *arguments: Any) -> Any:
            start = time.perf_counter()
            found = super()._precompute_ref_logps(*arguments)
            timed.reference_seconds = time.perf_counter() - start
            return found

    arguments = {
        "output_dir": str(Path(job.folder) / Path(path).stem),
        "max_length": job.max_length,
        "train_sampling_strategy": "sequential",
        **({"beta": job.beta} if job.kind == "dpo" else {}),
        **trainer_arguments(job, "packing"),
    }
    trainer: Trainer = TimedTrainer(
        model=job.model,
        args=config(**arguments),
        train_dataset=Dataset.from_list(read_chats(job, path)),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        peft_config=LoraConfig(
            r=job.rank, lora_alpha=job.alpha, target_modules=job.targets, task_type="CAUSAL_LM"
        ),
        callbacks=[pass_timer(timed, job.device)],
    )
    trainer.train()
    return timed


if __name__ == "__main__":
    main(one_pass, ("torch", "transformers", "peft", "trl"))
