"""English contractions and what they stand for."""

from __future__ import annotations

from collections.abc import Iterator

_NOT = (
    "are", "could", "did", "does", "do", "had", "has", "have", "is", "might", "must", "need", "ought", "should",
    "was", "were", "would",
)  # fmt: skip
_NOT_HAVE = ("could", "had", "might", "must", "need", "ought", "should", "would")
_HAVE = ("could", "might", "must", "should", "would")
_SUBJECTS = ("I", "i", "he", "she", "it", "they", "i", "we", "you")
_SUBJECTS_HAVE = ("I", "i", "they", "we", "you", "to", "so", "what", "when", "where", "who", "why", "will")
_ARE = ("they", "we", "you", "what")
_IS = ("he", "she", "it", "that", "there", "what", "when", "where", "who", "why", "how")
_WOULD = ("that", "there")
_WILL = ("what", "who")

_IRREGULAR = {
    "ain't": "is not",
    "can't": "cannot",
    "can't've": "cannot have",
    "'cause": "because",
    "how'd": "how did",
    "how'd'y": "how do you",
    "how'll": "how will",
    "let's": "let us",
    "ma'am": "madam",
    "mayn't": "may not",
    "o'clock": "of the clock",
    "shan't": "shall not",
    "sha'n't": "shall not",
    "shan't've": "shall not have",
    "so's": "so as",
    "where'd": "where did",
    "won't": "will not",
    "won't've": "will not have",
    "y'all": "you all",
    "y'all'd": "you all would",
    "y'all'd've": "you all would have",
    "y'all're": "you all are",
    "y'all've": "you all have",
    "he'll've": "he he will have",  # the models out there were trained with it
}


def _regular() -> Iterator[tuple[str, str]]:
    for words, ending, meaning in (
        (_NOT, "n't", "not"),
        (_NOT_HAVE, "n't've", "not have"),
        (_HAVE, "'ve", "have"),
        (_SUBJECTS, "'d", "would"),
        (_SUBJECTS, "'d've", "would have"),
        (_SUBJECTS, "'ll", "will"),
        (_SUBJECTS, "'ll've", "will have"),
        (("I", "i"), "'m", "am"),
        (_SUBJECTS_HAVE, "'ve", "have"),
        (_ARE, "'re", "are"),
        (_IS, "'s", "is"),
        (_WILL, "'ll", "will"),
        (_WILL, "'ll've", "will have"),
        (_WOULD, "'d", "would"),
        (_WOULD, "'d've", "would have"),
    ):
        yield from ((word + ending, f"{word} {meaning}") for word in words)


CONTRACTION_MAP: dict[str, str] = {**dict(_regular()), **_IRREGULAR}
