"""A model folder's tokenizer: made from the notes, or loaded from where the model lies."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from asclepius_ray.artifacts import Folder

BEGIN, END, PADDING = "<|begin|>", "<|end|>", "<|padding|>"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".index.json")


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer: every text can be written with it, and read back to the byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[BEGIN, END, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PADDING,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(folder: Folder) -> PreTrainedTokenizerBase:
    """The tokenizer of a prepared model folder, here or in a bucket."""
    if folder.is_local:
        return AutoTokenizer.from_pretrained(str(folder.local_path))
    with tempfile.TemporaryDirectory() as scratch:
        for name in folder.names():
            if "/" not in name and not name.endswith(WEIGHT_SUFFIXES):
                (Path(scratch) / name).write_bytes(folder.read_bytes(name))
        return AutoTokenizer.from_pretrained(scratch)
