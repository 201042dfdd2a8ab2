"""An ONNX model, run by ONNX Runtime through the session that the base handler makes."""

import numpy as np

from ts.torch_handler.base_handler import BaseHandler


class OnnxHandler(BaseHandler):
    def preprocess(self, data):
        return np.array([row.get("body")["features"] for row in data], dtype=np.float32)

    def inference(self, data):
        name = self.model.get_inputs()[0].name
        return self.model.run(None, {name: data})[0]

    def postprocess(self, data):
        return data.tolist()
