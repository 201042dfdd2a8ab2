"""`TextHandler`: vocabulary, tokenizer and cleaning of text for the handlers of text models."""

from __future__ import annotations

import importlib
import re
import string
import unicodedata
from abc import ABC
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ts.handler_utils.text_utils import get_tokenizer
from ts.torch_handler.base_handler import BaseHandler
from ts.torch_handler.contractions import CONTRACTION_MAP
from ts.utils.util import CLEANUP_REGEX

# The first alternative that fits wins: short keys hide longer ones that begin with them, and trained models expect it.
CONTRACTIONS_PATTERN = re.compile(
    "|".join(map(re.escape, sorted(CONTRACTION_MAP, key=len))), flags=re.IGNORECASE | re.DOTALL
)

_drop_punctuation = str.maketrans("", "", string.punctuation)


class TextHandler(BaseHandler, ABC):
    """Base of the text handlers; needs `source_vocab.pt`, a saved mapping from token to index, in the archive."""

    source_vocab: Any = None
    tokenizer: Any = None
    input_text: str | None = None

    def initialize(self, context: Any) -> None:
        """As in the base class, then the vocabulary. Raises `Exception` where that is missing."""
        super().initialize(context)
        self.source_vocab = torch.load(self.get_source_vocab_path(context))
        self.tokenizer = get_tokenizer("basic_english")

    @cached_property
    def lig(self) -> Any:
        """Captum's layer integrated gradients on `model.embedding`; imported only for the first explanation."""
        return importlib.import_module("captum.attr").LayerIntegratedGradients(self.model, self.model.embedding)

    def get_source_vocab_path(self, ctx: Any) -> str:
        """Path of the vocabulary: the one that the manifest names, else `source_vocab.pt` of the model directory."""
        model_dir = Path(ctx.system_properties["model_dir"])
        path = model_dir / (ctx.manifest["model"].get("sourceVocab") or "source_vocab.pt")
        if not path.is_file():
            raise Exception(
                "Missing the source_vocab file. Refer default handler documentation for details on using text_handler."
            )
        return str(path)

    def get_word_token(self, input_tokens: Sequence[str]) -> list[str]:
        """The tokens without the mark that byte-level tokenizers put before words."""
        return [token.replace("\u0120", "") for token in input_tokens]

    def summarize_attributions(self, attributions: Any) -> Any:
        """Attributions as shares, in the shape they come in."""
        shares = torch.softmax(attributions, dim=-1)
        return shares / torch.norm(shares.sum(dim=-1).squeeze(0))

    def _expand_contractions(self, text: str) -> str:
        """`it's` to `it is`; the first letter stays as it was, apostrophes that are left go."""
        return CONTRACTIONS_PATTERN.sub(_expand, text).replace("'", "")

    def _remove_accented_characters(self, text: str) -> str:
        """ASCII letters for accented ones; what has no ASCII form is dropped."""
        return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()

    def _remove_html_tags(self, text: str) -> str:
        """Text without tags and character references."""
        return CLEANUP_REGEX.sub("", text)

    def _remove_punctuation(self, text: str) -> str:
        """Text without ASCII punctuation marks."""
        return text.translate(_drop_punctuation)

    _remove_puncutation = _remove_punctuation  # the name that older handlers call

    def _tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        tokens: list[str] = self.tokenizer(text)
        return tokens


def _expand(found: re.Match[str]) -> str:
    contraction = found.group(0)
    meaning = CONTRACTION_MAP.get(contraction) or CONTRACTION_MAP[contraction.lower()]
    return contraction[0] + meaning[1:]
