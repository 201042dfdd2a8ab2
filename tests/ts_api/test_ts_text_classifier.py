"""Texts to n-grams and labels; the expected texts were observed on TorchServe."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ts.context import Context, RequestProcessor
from ts.handler_utils.text_utils import get_tokenizer, ngrams_iterator
from ts.metrics.metrics_store import MetricsStore
from ts.torch_handler.contractions import CONTRACTION_MAP
from ts.torch_handler.text_classifier import TextClassifier
from ts.torch_handler.text_handler import CONTRACTIONS_PATTERN

MODEL = """
import torch

class Bag(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.EmbeddingBag(10, 6)
        self.scores = torch.nn.Linear(6, 3)

    def forward(self, indices, offsets=None):
        return self.scores(self.embedding(indices, offsets))
"""
VOCABULARY = {"hello": 1, "world": 2, "hello world": 3, "a": 4, "world a": 5}


def context(folder: Path, headers: dict[str, str] | None = None, **model: str) -> Context:
    manifest = {"model": {"modelName": "m", "modelFile": "bag.py", **model}}
    made = Context("m", str(folder), manifest, 1, None, "0", metrics=MetricsStore({0: "a"}, "m"))  # type: ignore[arg-type]
    made.request_ids, made.request_processor = {0: "a"}, [RequestProcessor(headers or {})]
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bag.py").write_text(MODEL)
    torch.save(VOCABULARY, tmp_path / "source_vocab.pt")
    (tmp_path / "index_to_name.json").write_text(json.dumps({"0": "bad", "1": "fair", "2": "good"}))
    return tmp_path


@pytest.fixture
def classifier(folder: Path) -> TextClassifier:
    handler = TextClassifier()
    handler.initialize(context(folder))
    return handler


@pytest.mark.check("handlers", 16)
@pytest.mark.parametrize(
    "row", [{"body": "Hello world"}, {"data": bytearray(b"Hello world")}, {"body": b"hello WORLD!"}]
)
def test_all_classes_with_their_probabilities(classifier: TextClassifier, folder: Path, row: Any) -> None:
    (answer,) = classifier.handle([row], context(folder))
    scores = classifier.model(torch.tensor([1, 2, 3]), torch.tensor([0]))
    expected = dict(zip(("bad", "fair", "good"), torch.softmax(scores, 1)[0].tolist(), strict=True))
    assert answer == pytest.approx(expected)
    assert list(answer) == ["bad", "fair", "good"]


def test_ngrams_of_a_cleaned_text(classifier: TextClassifier) -> None:
    indices, tokens = classifier.preprocess([{"body": "Hello, <b>W\u00f3rld</b> a"}])
    assert indices.tolist() == [1, 2, 4, 3, 5]
    assert tokens == ["hello", "world", "a"]


@pytest.mark.check("handlers", 16)
def test_an_unknown_word(classifier: TextClassifier) -> None:
    with pytest.raises(KeyError, match="stranger"):
        classifier.preprocess([{"body": "hello stranger"}])


@pytest.mark.check("handlers", 17)
def test_explanation(classifier: TextClassifier, folder: Path) -> None:
    (answer,) = classifier.handle([{"body": "Hello world"}], context(folder, {"explain": "True"}))
    assert answer["words"] == ["hello", "world"]
    (shares,) = answer["importances"]
    assert len(shares) == 6
    assert sum(shares) == pytest.approx(1)


def test_an_explanation_without_captum_names_it(
    classifier: TextClassifier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("captum", "captum.attr"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="captum"):
        classifier.handle([{"body": "Hello world"}], context(folder, {"explain": "True"}))


def test_the_manifest_may_name_the_vocabulary(folder: Path) -> None:
    (folder / "source_vocab.pt").rename(folder / "words.pt")
    handler = TextClassifier()
    handler.initialize(context(folder, sourceVocab="words.pt"))
    assert handler.source_vocab == VOCABULARY
    assert handler.get_source_vocab_path(context(folder, sourceVocab=str(folder / "words.pt")))
    with pytest.raises(Exception, match="Missing the source_vocab file"):
        handler.initialize(context(folder))


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("can't've", "cannotve"),
        ("'cause", "ecause"),
        ("He's shouldn't've", "He is should notve"),
        ("o'clock", "of the clock"),
        ("y'all'd've x'y", "you alldve xy"),
    ],
)
def test_contractions(text: str, expanded: str) -> None:
    assert TextClassifier()._expand_contractions(text) == expanded
    assert len(CONTRACTION_MAP) == 123
    assert CONTRACTIONS_PATTERN.fullmatch("HE'S")


def test_cleaning() -> None:
    handler = TextClassifier()
    assert handler._remove_accented_characters("W\u00f3rld \u00df \u4e2d") == "World  "
    assert handler._remove_html_tags("<b>x</b> &amp; &#12; y") == "x   y"
    assert handler._remove_punctuation("a_b-c, d. it's! ~x #5 \u00e9") == "abc d its x 5 \u00e9"
    assert handler._remove_puncutation("a.b") == "ab"
    assert handler.get_word_token(["it's", "\u0120so"]) == ["it's", "so"]


def test_shares_keep_the_shape() -> None:
    shares = TextClassifier().summarize_attributions(torch.tensor([[0.1, 0.2], [-0.7, 1.0]]))
    assert shares.flatten().tolist() == pytest.approx([0.3359, 0.3712, 0.1092, 0.5979], abs=1e-4)


def test_tokenizers() -> None:
    english = get_tokenizer("basic_english")
    assert english is not None
    text = 'You can now: it\'s "x" (a, b)! c? d; e<br />f. G'
    assert " ".join(english(text)) == "you can now it ' s x ( a , b ) ! c ? d e f . g"
    blanks = get_tokenizer(None)
    assert blanks is not None
    assert blanks("A b'c") == ["A", "b'c"]
    assert get_tokenizer(len) is get_tokenizer("other") is None
    with pytest.raises(ValueError, match="Enlish"):
        get_tokenizer("basic_english", "de")


@pytest.mark.parametrize(
    ("ngrams", "expected"),
    [(1, "here we are"), (2, "here we are here_we we_are"), (3, "here we are here_we we_are here_we_are")],
)
def test_ngrams(ngrams: int, expected: str) -> None:
    found = ngrams_iterator(["here", "we", "are"], ngrams)
    assert " ".join(ngram.replace(" ", "_") for ngram in found) == expected


@pytest.mark.check("explain", 15)
def test_the_import_needs_no_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("captum", "captum.attr"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "ts.torch_handler.text_classifier")
    importlib.import_module("ts.torch_handler.text_classifier")
