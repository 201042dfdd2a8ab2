"""Tokens and n-grams of English text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Tokenizer = Callable[[str], list[str]]

_drop_quotes = str.maketrans({'"': None, ";": " ", ":": " "})
_separate = re.compile(r"(['.,()!?])").sub


def get_tokenizer(tokenizer: Any, language: str = "en") -> Tokenizer | None:
    """A function from text to tokens: split at blanks for None, `"basic_english"`; None for any other.

    Raises `ValueError` for a language that has no tokenizer.
    """
    if tokenizer is None:
        return str.split
    if tokenizer != "basic_english":
        return None
    if language != "en":
        raise ValueError("Basic normalization is only available for Enlish(en)")
    return _split_english


def ngrams_iterator(token_list: Sequence[str], ngrams: int) -> Iterator[str]:
    """The tokens, then each run of 2, 3, ... `ngrams` tokens, joined by a blank."""
    yield from token_list
    for length in range(2, ngrams + 1):
        for start in range(len(token_list) - length + 1):
            yield " ".join(token_list[start : start + length])


def _split_english(text: str) -> list[str]:
    """Lower case; punctuation marks are tokens of their own."""
    plain = text.lower().replace("<br />", " ").translate(_drop_quotes)
    return _separate(r" \1 ", plain).split()
