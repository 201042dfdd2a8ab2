"""`TextClassifier`: a text in, the probability of every class out."""

from __future__ import annotations

import importlib
import logging
from typing import Any

import torch

from ts.handler_utils.text_utils import ngrams_iterator
from ts.handler_utils.timer import timed
from ts.torch_handler.text_handler import TextHandler
from ts.utils.util import map_class_to_label

logger = logging.getLogger(__name__)


class TextClassifier(TextHandler):
    """For models of an embedding bag, called with `(indices, offsets)`; one text at a time, so a batch size of 1."""

    ngrams = 2

    @timed
    def preprocess(self, data: Any) -> tuple[Any, list[str]]:
        """Indices of the n-grams of the first row's text, and its tokens. Raises `KeyError` for an unknown n-gram."""
        text = data[0].get("data") or data[0].get("body")
        if isinstance(text, bytes | bytearray):
            text = text.decode("utf-8")
        tokens = self._tokenize(self._clean(text))
        indices = [self.source_vocab[ngram] for ngram in ngrams_iterator(tokens, self.ngrams)]
        return torch.as_tensor(indices, device=self.device), tokens

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's scores for what `preprocess` gave."""
        indices, _ = data
        return super().inference(indices, self._offsets(), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> list[dict[str, float]]:
        """Label to probability, from scores of shape 1 x classes."""
        return map_class_to_label(torch.softmax(data, dim=-1).tolist(), self.mapping)

    def get_insights(self, text_preprocess: Any, _: Any, target: Any = 0) -> list[dict[str, Any]]:
        """`importances`, one row with a share for each dimension of the embedding, and `words`, the tokens."""
        indices, tokens = text_preprocess
        baseline = importlib.import_module("captum.attr").TokenReferenceBase()
        reference = baseline.generate_reference(indices.shape[0], device=self.device).squeeze(0)
        logger.info("indices %s, target %s", tuple(indices.shape), target)
        attributions = self.lig.attribute(indices, reference, additional_forward_args=(self._offsets(),), target=target)
        importances = self.summarize_attributions(attributions)
        logger.info("attributions %s", tuple(importances.shape))
        return [{"importances": importances.tolist(), "words": self.get_word_token(tokens)}]

    def _clean(self, text: str) -> str:
        text = self._expand_contractions(self._remove_html_tags(text).lower())
        return self._remove_punctuation(self._remove_accented_characters(text))

    def _offsets(self) -> Any:
        """One text, which begins at the first index."""
        return torch.as_tensor([0], device=self.device)
