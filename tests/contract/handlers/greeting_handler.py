"""Leans on a package that its requirements bring."""

import greetings

from ts.torch_handler.base_handler import BaseHandler


class GreetingHandler(BaseHandler):
    def initialize(self, context):
        self.initialized = True

    def preprocess(self, data):
        return [(row.get("data") or row.get("body")) for row in data]

    def inference(self, data):
        return [greetings.greet(name) for name in data]

    def postprocess(self, data):
        return data
