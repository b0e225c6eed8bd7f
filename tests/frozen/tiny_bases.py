"""Tiny bases for the frozen adapters, one a family, each some tens of kilobytes.

Those of text went to school for some seconds, on the texts of the tasks: of random weights hardly anything is
learned, and what is not learned cannot be seen to be gone. They are frozen beside the adapters: nothing here
has to make the same weights with a later version of torch.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import diffusers
import torch
from tiny_data import list_feelings
from tiny_tasks import list_texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

POSITIONS = 64
_LESSONS = 400
_ROWS = 48
_MASKED = 0.2
_IGNORED = -100
# A new encoder's matrices are so small that its outputs hardly differ from one prompt to another.
_GROWTH = 6.0
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SIDE = 32
_Batch = Mapping[str, torch.Tensor]


def save_bases(folder: Path) -> None:
    """Write all bases, each into a folder of its own."""
    _save_bert(folder / "bert")
    _save_gpt2(folder / "gpt2")
    _save_t5(folder / "t5")
    _save_pipeline(folder / "painter")


def _save_bert(folder: Path) -> None:
    """Write an encoder with its pooler and its output layer, as the first BERT has them."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for text in list_texts() for word in _split(text)} - set(_LETTERS))
    pieces = chain(words, _LETTERS, (f"##{letter}" for letter in _LETTERS), ".,?")
    vocabulary = {token: number for number, token in enumerate([*special, *pieces])}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
    )
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=POSITIONS)
    feelings = list_feelings()

    def draw(texts: Sequence[str]) -> _Batch:
        batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        ids = batch["input_ids"]
        is_masked = (torch.rand(ids.shape) < _MASKED) & (ids >= len(special))
        return {
            **batch,
            "input_ids": ids.masked_fill(is_masked, tokenizer.mask_token_id),
            "labels": ids.masked_fill(~is_masked, _IGNORED),
            # Its second lesson is to tell how a text feels, and not what follows it.
            "next_sentence_label": torch.tensor([feelings.get(text, _IGNORED) for text in texts]),
        }

    torch.manual_seed(1)
    _teach(BertForPreTraining(config), draw, list_texts()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_gpt2(folder: Path) -> None:
    """Write a decoder whose tokeniser has a chat template."""
    end, start, stop = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_train_byte_pairs([end, start, stop]),
        eos_token=end,
        bos_token=end,
        extra_special_tokens=[start, stop],
        chat_template=_CHAT,
    )
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    padding = tokenizer.convert_tokens_to_ids(stop)

    def draw(texts: Sequence[str]) -> _Batch:
        rows = [
            tokenizer(f"{text}{end}", truncation=True, max_length=POSITIONS)["input_ids"] for text in texts
        ]
        ids = _pad(rows, padding)
        return {"input_ids": ids, "labels": ids.masked_fill(ids == padding, _IGNORED)}

    torch.manual_seed(2)
    _teach(GPT2LMHeadModel(config), draw, list_texts()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_t5(folder: Path) -> None:
    """Write an encoder with a decoder."""
    padding, end = "<pad>", "</s>"
    pairs = _train_byte_pairs([padding, end])
    pairs.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pairs, pad_token=padding, eos_token=end)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )

    def draw(texts: Sequence[str]) -> _Batch:
        # The end of a text for the whole of it.
        rows = tokenizer(list(texts))["input_ids"]
        ids, answers = _pad(rows, 0), _pad([row[-8:] for row in rows], 0)
        labels = answers.masked_fill(answers == 0, _IGNORED)
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}

    torch.manual_seed(3)
    _teach(T5ForConditionalGeneration(config), draw, list_texts()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_pipeline(folder: Path) -> None:
    """Write a Stable Diffusion as diffusers writes one, its parts one by one."""
    torch.manual_seed(4)
    diffusers.UNet2DConditionModel(
        sample_size=_SIDE // 2,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")
    diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        sample_size=_SIDE,
    ).save_pretrained(folder / "vae")
    diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    ).save_pretrained(folder / "scheduler")
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokens = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), start, end]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=24).save_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=vocabulary[start],
        eos_token_id=vocabulary[end],
    )
    text_encoder = CLIPTextModel(config)
    with torch.no_grad():
        for parameter in text_encoder.parameters():
            parameter.mul_(_GROWTH if parameter.ndim == 2 else 1.0)
    text_encoder.save_pretrained(folder / "text_encoder")
    index: Mapping[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _teach(
    model: PreTrainedModel, draw: Callable[[Sequence[str]], _Batch], texts: Sequence[str]
) -> PreTrainedModel:
    """Let a model learn from batches of texts."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, _LESSONS)
    model.train()
    for _ in range(_LESSONS):
        chosen = torch.randint(len(texts), (_ROWS,)).tolist()
        model(**draw([texts[index] for index in chosen])).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


def _pad(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def _train_byte_pairs(special: list[str]) -> Tokenizer:
    """Return a tokeniser of bytes, of which it knows those that occur here only: a file of few kilobytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=[*_LETTERS, *_LETTERS.upper(), "Ġ", "Ċ", *".,?:[]"],
        show_progress=False,
    )
    # White space is part of the word behind it, and some texts are single words.
    tokenizer.train_from_iterator((f"a {text}" for text in list_texts()), trainer)
    return tokenizer


def _split(text: str) -> Iterator[str]:
    return (word.strip(".,?:[]") for word in text.lower().replace("[", " ").split() if word.strip(".,?:[]"))
