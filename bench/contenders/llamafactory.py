"""LLaMA-Factory: its `run_exp`, with what `options` adds to its arguments.

It finds the reference of DPO anew at every step; there is no setting for another way.
"""

import json
from pathlib import Path
from typing import Any

from llamafactory.train.dpo.trainer import CustomDPOTrainer
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer
from llamafactory.train.tuner import run_exp

from bench.contenders.job import Job, Pass, count_supervised, main, watched
from bench.shape import SYSTEM

TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
}


def one_pass(job: Job, path: str) -> Pass:
    kept = Pass()
    options = dict(job.options)
    forward = options.setdefault("per_device_train_batch_size", 8)
    if options.get("neat_packing"):
        forward *= job.max_length / job.tokens_per_row
    folder = Path(job.folder) / Path(path).stem
    _write_rows(job, path, folder)
    arguments = {
        "stage": job.kind,
        "do_train": True,
        "model_name_or_path": job.model,
        "finetuning_type": "lora",
        "lora_rank": job.rank,
        "lora_alpha": job.alpha,
        "lora_target": "all" if job.targets == "all-linear" else ",".join(job.targets),
        "dataset": "rows",
        "dataset_dir": str(folder),
        "template": "qwen",
        "default_system": SYSTEM,
        "cutoff_len": job.max_length,
        "disable_shuffling": True,
        "output_dir": str(folder / "output"),
        **job.trainer(forward),
    }
    if job.kind == "dpo":
        arguments["pref_beta"] = job.beta
    trainer: type[Any] = CustomSeq2SeqTrainer if job.kind == "sft" else CustomDPOTrainer
    step = trainer.training_step
    count_supervised(trainer, kept)
    run_exp({**arguments, **options}, callbacks=[watched(kept, job.device)])
    trainer.training_step = step
    return kept


def _write_rows(job: Job, path: str, folder: Path) -> None:
    """The rows as a data set of LLaMA-Factory's: messages, and for pairs two answers."""
    folder.mkdir()
    if job.kind == "sft":
        rows = [{"messages": r["prompt"] + r["completion"]} for r in job.chats(path)]
        columns = {"messages": "messages"}
    else:
        rows = [
            {"messages": r["prompt"], "chosen": r["chosen"][0], "rejected": r["rejected"][0]}
            for r in job.chats(path)
        ]
        columns = {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}
    about: dict[str, Any] = {
        "file_name": "rows.json",
        "formatting": "sharegpt",
        "columns": columns,
        "tags": TAGS,
        "ranking": job.kind == "dpo",
    }
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"rows": about}), encoding="utf-8")


if __name__ == "__main__":
    main(one_pass, ("torch", "transformers", "peft", "llamafactory"))
