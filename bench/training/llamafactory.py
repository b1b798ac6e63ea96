"""LLaMA-Factory worker: its `run_exp`, with what `options` adds to its arguments.

It computes the reference of DPO anew at every step; there is no setting for another way.
"""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

from llamafactory.train.dpo.trainer import CustomDPOTrainer
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer
from llamafactory.train.tuner import run_exp

from bench.shared.models import SYSTEM
from bench.shared.worker import Job
from bench.training.job import Pass, counting_step, main, pass_timer, read_chats, trainer_arguments

TAGS = {f"{tag}_tag": tag for tag in ("role", "content", "user", "assistant")}


def one_pass(job: Job, path: str) -> Pass:
    timed = Pass()
    folder = Path(job.folder) / Path(path).stem
    _write_dataset(job, path, folder)
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
        **({"pref_beta": job.beta} if job.kind == "dpo" else {}),
        **trainer_arguments(job, "neat_packing"),
    }
    trainer: type[Any] = CustomSeq2SeqTrainer if job.kind == "sft" else CustomDPOTrainer
    with patch.object(trainer, "training_step", counting_step(trainer, timed)):
        run_exp(arguments, callbacks=[pass_timer(timed, job.device)])
    return timed


def _write_dataset(job: Job, path: str, folder: Path) -> None:
    """The rows as a data set of LLaMA-Factory's: messages, and for pairs two answers."""
    folder.mkdir()
    rows: list[dict[str, Any]] = [
        {"messages": row["prompt"] + row["completion"]}
        if job.kind == "sft"
        else {"messages": row["prompt"]} | {key: row[key][0] for key in ("chosen", "rejected")}
        for row in read_chats(job, path)
    ]
    dataset = {
        "file_name": "rows.json",
        "formatting": "sharegpt",
        "columns": {key: key for key in rows[0]},
        "tags": TAGS,
        "ranking": job.kind == "dpo",
    }
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"rows": dataset}), encoding="utf-8")


if __name__ == "__main__":
    main(one_pass, ("torch", "transformers", "peft", "llamafactory"))
