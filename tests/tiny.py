"""Tiny random Llamas in Hugging Face format, so that tests train and serve real models without a download.

In: a folder and sizes. Out: the folder with config.json, model.safetensors and a real byte-level BPE
tokenizer (end-of-sequence token and chat template included), the same bytes from the same arguments.
Imports torch and transformers only when called.
"""

from __future__ import annotations

from pathlib import Path

_SPECIAL = ["<s>", "</s>", "<unk>"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<s>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '</s>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '</s>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
_TEXT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request. "
    "### Instruction: ### Input: ### Response: the answer of a question is in the text below, and the name of it is "
)


def tiny_llama(folder: Path, layers: int = 6, hidden: int = 32, vocab: int = 300, seed: int = 0) -> Path:
    """Write a random Llama of `layers` layers into `folder` and return it.

    `hidden` is a multiple of 16 (4 heads, 2 of them for keys and values); `vocab` is at least 260 and is exactly
    the number of rows of the embedding.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder, vocab)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
        # Large enough that the random model is not a constant function, so adapters visibly change its output.
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder


def tiny_bert(
    folder: Path, layers: int = 4, hidden: int = 32, vocab: int = 300, seed: int = 0, family: str = "bert"
) -> Path:
    """Write a random BERT or RoBERTa encoder (`family`) of `layers` layers into `folder` and return it."""
    import torch
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder, vocab)
    config_class, model_class = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}[family]
    config = config_class(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=520,
        pad_token_id=1,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    model.save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path, vocab: int) -> int:
    """A byte-level BPE that can spell any text; returns its size, `vocab`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=_SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=1,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    fast.chat_template = _CHAT_TEMPLATE
    fast.save_pretrained(folder)
    size = tokenizer.get_vocab_size()
    if size > vocab:
        raise ValueError(f"vocab must be at least {size} to spell every byte, got {vocab}")
    return vocab


def tiny_vit(folder: Path, layers: int = 6, hidden: int = 32, seed: int = 0, size: int = 16) -> Path:
    """Write a random ViT of `layers` layers, with its image processor, into `folder` and return it."""
    import json

    import torch
    from transformers import ViTConfig, ViTModel

    folder.mkdir(parents=True, exist_ok=True)
    config = ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        image_size=size,
        patch_size=8,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ViTModel(config)
    model.save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "size": {"height": size, "width": size},
        "resample": 2,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
