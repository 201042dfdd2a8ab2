"""Streams: a word at a time, as it is thought of."""

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException


class StoryHandler:
    def initialize(self, context):
        self.end = "The end."

    def handle(self, data, context):
        words = [row["body"].split() for row in data]
        if not any(words):
            raise PredictionException("Nothing to tell", 400)
        for word in words[0][:-1]:
            send_intermediate_predict_response(
                [f"{word} "], context.request_ids, "Intermediate Prediction success", 200, context
            )
        return [f"{words[0][-1]}. {self.end}"]
