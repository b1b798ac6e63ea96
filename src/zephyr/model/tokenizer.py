"""Loads tokenizers: the pre-tokenization of their files, and no end token after every text."""

from collections.abc import Set
from pathlib import Path
from typing import Any

from zephyr.errors import ZephyrError

REDOWNLOAD_HINT = "download the whole model in Hugging Face format, safetensors included"


def load_tokenizer(folder: Path) -> Any:
    """Loads the tokenizer of a folder, with the pre-tokenization of its tokenizer.json.

    transformers 5 builds some tokenizers anew by the architecture and takes only vocabulary and
    merges from the file: then numbers are split in other places, or unknown characters vanish.
    An end token that the tokenizer adds to every text is left out: no prompt ends with it.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not any(
        (folder / name).exists() for name in ("tokenizer.json", "vocab.json", "tokenizer.model")
    ):
        raise missing_files_error(folder, "a tokenizer (tokenizer.json)")
    try:
        auto_tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        if not (folder / "tokenizer.json").exists() or not auto_tokenizer.is_fast:
            return _without_end_tokens(auto_tokenizer)
        file_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if _tokenization_rules(auto_tokenizer.backend_tokenizer) == _tokenization_rules(
            file_tokenizer
        ):
            return _without_end_tokens(auto_tokenizer)
        special_tokens = {
            role: token
            for role, token in auto_tokenizer.special_tokens_map.items()
            if isinstance(token, str) and file_tokenizer.token_to_id(token) is not None
        }
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            folder, local_files_only=True, **special_tokens
        )
        return _without_end_tokens(tokenizer)
    except ZephyrError:
        raise
    except Exception as error:  # the library in Rust raises nothing narrower
        raise ZephyrError(
            "this tokenizer can't be read",
            where=str(folder),
            found=describe_error(error),
            todo=REDOWNLOAD_HINT,
        ) from error


def _tokenization_rules(tokenizer: Any) -> list[Any]:
    """The rules of a `tokenizers` tokenizer: model type, normalizer, pre-tokenizer, options."""
    model = tokenizer.model
    options = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    parts = [
        part and part.__getstate__() for part in (tokenizer.normalizer, tokenizer.pre_tokenizer)
    ]
    return [type(model), parts, {k: v for k, v in options.items() if not callable(v)}]


def _without_end_tokens(tokenizer: Any) -> Any:
    """The tokenizer without the tokens that it adds after every text (`add_eos_token`)."""
    from tokenizers import processors

    start_ids, end_ids = find_added_ids(tokenizer)
    if not end_ids:
        return tokenizer
    tokenizer.init_kwargs["add_eos_token"] = False
    if tokenizer.is_fast:
        start_tokens = tokenizer.convert_ids_to_tokens(start_ids)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=[*start_tokens, "$A"],
            special_tokens=list(zip(start_tokens, start_ids, strict=True)),
        )
    else:
        tokenizer.add_eos_token = False
    if find_added_ids(tokenizer) != (start_ids, ()):
        raise ZephyrError(
            "the tokenizer adds tokens after every text, so that no text can be continued",
            where=str(tokenizer.name_or_path),
            found=", ".join(tokenizer.convert_ids_to_tokens(end_ids)),
            todo="set `add_eos_token: false` in its tokenizer_config.json",
        )
    return tokenizer


def check_vocabulary(tokenizer: Any, control_ids: Set[int], rows: int) -> None:
    """Checks that the tokens of texts and of the chat template have a row in the embedding.

    `control_ids` are those that the template writes, `rows` is the size of the embedding. Special
    tokens that nothing writes (a padding token, often) may lack a row.

    Raises:
        ZephyrError: a token that can enter the network has no row.
    """
    if tokenizer.vocab_size > rows:
        raise ZephyrError(
            "the tokenizer in this folder is not that of the network",
            where=str(tokenizer.name_or_path),
            found=f"a vocabulary of {tokenizer.vocab_size} tokens",
            allowed=f"at most {rows}",
            todo=REDOWNLOAD_HINT,
        )
    beyond = {i: token for token, i in tokenizer.get_vocab().items() if i >= rows}
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    lacking = {i for i in beyond if i not in special} | (control_ids & beyond.keys())
    if lacking:
        names = [f"{beyond[i]} ({i})" for i in sorted(lacking)]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        raise ZephyrError(
            "tokens of the chat template or the tokenizer have no row in the embedding",
            where=str(tokenizer.name_or_path),
            found=", ".join(names[:8]) + more,
            allowed=f"ids below {rows}, the rows of the embedding",
            todo="enlarge the embedding with `model.resize_token_embeddings(len(tokenizer))` in "
            "transformers, and save it; or take the tokenizer and chat template that the network "
            "was trained with",
        )


def find_added_ids(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a tokenizer writes of its own before a text, and those after it."""
    ids, plain_ids = (
        tokenizer("a", add_special_tokens=added)["input_ids"] for added in (True, False)
    )
    starts = range(len(ids) - len(plain_ids) + 1)
    at = next((i for i in starts if ids[i : i + len(plain_ids)] == plain_ids), 0)
    return tuple(ids[:at]), tuple(ids[at + len(plain_ids) :])


def missing_files_error(folder: Path, what: str) -> ZephyrError:
    """The error for a model folder that lacks a file."""
    present = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else "no such folder"
    return ZephyrError(
        f"a model folder lacks {what}",
        where=str(folder),
        found=present if isinstance(present, str) else ", ".join(present) or "an empty folder",
        todo=REDOWNLOAD_HINT,
    )


def describe_error(error: BaseException) -> str:
    """The kind and the first line of a library's error."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
