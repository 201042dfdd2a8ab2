"""`DALIImageClassifier`: an image in, the most probable classes out, with a DALI pipeline in front of the model."""

from __future__ import annotations

from ts.torch_handler.dali_handler import DALIHandler
from ts.torch_handler.image_classifier import ImageClassifier


class DALIImageClassifier(DALIHandler, ImageClassifier):
    """As `ImageClassifier`, but for the preprocessing."""
