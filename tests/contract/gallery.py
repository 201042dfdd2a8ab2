"""The handlers of `contract/handlers` as archives: what is packed into each, and what it is asked."""

from __future__ import annotations

import base64
import importlib
import io
import json
import math
import struct
import subprocess
import warnings
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.talk import Exchange
from harness.wheels import make_wheel

HANDLERS = Path(__file__).with_name("handlers")
JSON, TEXT, PNG, WAV = "application/json", "text/plain; charset=utf-8", "image/png", "audio/wav"
BOUNDARY = "multipart/form-data; boundary=b"

Options = dict[str, str | Path]  # of the archiver, without the dashes


@dataclass(frozen=True)
class Exhibit:
    """A handler, what is packed with it, and what it is asked.

    `make` writes what is no source into a directory and returns the archiver's options for it. `together`: all requests
    are sent at once, and reach the handler as one batch.
    """

    name: str
    handler: str  # a file beside the others, perhaps with a function
    exchanges: Sequence[Exchange]
    make: Callable[[Path], Options] = lambda _: {}
    together: bool = False
    registration: Mapping[str, Any] = field(default_factory=dict)


def pack_exhibit(archiver: Path, exhibit: Exhibit, work: Path, store: Path) -> None:
    """Write `<name>.mar` into the store, with the archiver of either project."""
    work.mkdir()
    made = exhibit.make(work)
    options = {"model-name": exhibit.name, "version": "1.0", "handler": HANDLERS / exhibit.handler, **made}
    words = [f"--{name}={value}" for name, value in options.items()]
    subprocess.run([str(archiver), *words, f"--export-path={store}", "--force"], check=True, capture_output=True)


def ask_for(exhibit: str, name: str, content_type: str, body: bytes | str, **options: Any) -> Exchange:
    data = body.encode() if isinstance(body, str) else body
    return Exchange(name, f"POST /predictions/{exhibit}", content_type=content_type, body=data, **options)


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def labels(work: Path, *names: str) -> Path:
    return write(work / "index_to_name.json", json.dumps(dict(enumerate(names))))


def with_weights(model: Any) -> Any:
    """The same weights on every machine, whatever its random numbers."""
    import torch

    with torch.no_grad():
        for number, weights in enumerate(model.state_dict().values()):
            if weights.is_floating_point():
                wave = torch.arange(weights.numel(), dtype=torch.float64) + number
                weights.copy_(torch.sin(wave).reshape(weights.shape))
    return model.eval()


def eager(module: str, name: str, path: Path) -> Path:
    """The weights of a model in `contract/handlers`."""
    import torch

    model = getattr(importlib.import_module(f"contract.handlers.{module}"), name)()
    torch.save(with_weights(model).state_dict(), path)
    return path


def make_sentiment(work: Path) -> Options:
    words = ["<unk>", "a", "good", "bad", "film", "plot", "very", "not", "the", "was", "über", "it"]
    vocabulary = write(work / "vocabulary.txt", "\n".join(words) + "\n")
    names = labels(work, "negative", "neutral", "positive")
    return {
        "model-file": HANDLERS / "sentiment_model.py",
        "serialized-file": eager("sentiment_model", "Sentiment", work / "sentiment.pt"),
        "extra-files": f"{vocabulary},{names}",
    }


def make_bert(work: Path) -> Options:
    from transformers import BertConfig, BertForSequenceClassification

    model = work / "model"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "was", "good", "bad", "##ly", "##ness"]
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    with_weights(BertForSequenceClassification(config)).save_pretrained(model)
    write(model / "vocab.txt", "\n".join(words) + "\n")
    write(model / "tokenizer_config.json", json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    write(model / "setup_config.json", json.dumps({"max_length": 12}))
    return {"extra-files": f"{model},{labels(work, 'Negative', 'Positive')}"}


def make_shapes(work: Path) -> Options:
    return {
        "model-file": HANDLERS / "shapes_model.py",
        "serialized-file": eager("shapes_model", "Shapes", work / "shapes.pt"),
        "extra-files": labels(work, "circle", "square", "triangle"),
    }


def make_tone(work: Path) -> Options:
    """TorchScript of a model that needs no weights: the loudest band."""
    import torch

    class Loudest(torch.nn.Module):
        def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
            return spectrum.argmax(dim=1)

    return {"serialized-file": scripted(Loudest(), torch.zeros(1, 129), work / "loudest.pt")}


def make_regression(work: Path) -> Options:
    import torch

    config = "micro_batching:\n  micro_batch_size: 2\n  parallelism: {preprocess: 2, inference: 1, postprocess: 2}\n"
    config += "handler: {digits: 3, profile: true}\n"
    model = with_weights(torch.nn.Linear(3, 1))
    return {
        "serialized-file": scripted(model, torch.zeros(1, 3), work / "linear.pt"),
        "config-file": write(work / "model-config.yaml", config),
    }


def scripted(model: Any, example: Any, path: Path) -> Path:
    """TorchScript, which users have, though torch advises against it by now."""
    import torch

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.trace(model, example).save(str(path))  # type: ignore[no-untyped-call]
    return path


def make_greeting(work: Path) -> Options:
    source = 'def greet(name):\n    return "Hello, " + name.strip() + "!"\n'
    wheel = make_wheel(work / "wheels", "greetings", source=source)
    return {"requirements-file": write(work / "requirements.txt", f"--no-index\n-f {wheel.parent}\ngreetings==1.0\n")}


def make_letter(_: Path) -> Options:
    return {"extra-files": HANDLERS / "letter_templates"}


def make_onnx(work: Path) -> Options:
    from onnx import TensorProto, helper, save_model

    shape = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["features", "weights", "bias"], ["scores"])],
        "scores",
        [shape("features", TensorProto.FLOAT, ["batch", 3])],
        [shape("scores", TensorProto.FLOAT, ["batch", 2])],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, (3, 2), [1, 0.5, -2, 0.25, 4, -1]),
            helper.make_tensor("bias", TensorProto.FLOAT, (2,), [0.5, 10]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save_model(model, str(work / "scores.onnx"))
    return {"serialized-file": work / "scores.onnx"}


def picture(mode: str, size: tuple[int, int]) -> bytes:
    """A gradient as PNG."""
    from PIL import Image

    width, height = size
    grey = Image.frombytes("L", size, bytes((x * 7 + y * 13) % 256 for y in range(height) for x in range(width)))
    stream = io.BytesIO()
    grey.convert(mode).save(stream, "PNG")
    return stream.getvalue()


def tone(hertz: int, rate: int = 8000, seconds: float = 0.25) -> bytes:
    """A sine as WAV."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        count = int(rate * seconds)
        values = (round(20000 * math.sin(2 * math.pi * hertz * n / rate)) for n in range(count))
        sound.writeframes(struct.pack(f"<{count}h", *values))
    return stream.getvalue()


def form(*parts: tuple[str, bytes]) -> bytes:
    """A multipart body of headers and contents."""
    return b"".join(b"--b\r\n%b\r\n\r\n%b\r\n" % (head.encode(), body) for head, body in parts) + b"--b--\r\n"


def file_part(name: str, content_type: str, body: bytes) -> tuple[str, bytes]:
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{name}.bin"'
    return f"{disposition}\r\nContent-Type: {content_type}", body


def field_part(name: str, text: str) -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"', text.encode()


SQUARE, PORTRAIT = picture("RGB", (20, 20)), picture("L", (9, 30))
EXHIBITS = [
    Exhibit(
        "sentiment",
        "sentiment_handler.py",
        [
            ask_for("sentiment", "text", TEXT, "a very good film"),
            ask_for("sentiment", "bytes", "", "Not über bad"),
            ask_for("sentiment", "unknown words", TEXT, "quite something"),
            ask_for("sentiment", "form", "application/x-www-form-urlencoded", "data=the+plot+was+bad"),
        ],
        make_sentiment,
    ),
    Exhibit(
        "bert",
        "bert_handler.py",
        [
            ask_for("bert", "text", TEXT, "The film was good"),
            ask_for("bert", "pieces of words", "", "badly goodness"),
            ask_for("bert", "longer than the model takes", TEXT, "the film was bad " * 20),
        ],
        make_bert,
    ),
    Exhibit(
        "shapes",
        "shapes_handler.py",
        [
            ask_for("shapes", "file", PNG, SQUARE),
            ask_for("shapes", "grey", "", PORTRAIT),
            ask_for("shapes", "base64", TEXT, base64.b64encode(SQUARE)),
            ask_for("shapes", "form", BOUNDARY, form(file_part("data", PNG, PORTRAIT))),
            ask_for("shapes", "no picture", PNG, "text"),
        ],
        make_shapes,
    ),
    Exhibit(
        "tone",
        "tone_handler.py",
        [
            ask_for("tone", "a", WAV, tone(440)),
            ask_for("tone", "high", WAV, tone(2000)),
            ask_for("tone", "none", WAV, ""),
        ],
        make_tone,
    ),
    Exhibit(
        "catalogue",
        "catalogue_handler.py",
        [
            ask_for(
                "catalogue",
                "all fields",
                BOUNDARY,
                form(
                    file_part("picture", PNG, PORTRAIT),
                    field_part("title", "straße im mai"),
                    file_part("facts", JSON, b'{"price": 2.5, "count": 4}'),
                ),
            ),
            ask_for("catalogue", "title", BOUNDARY, form(field_part("title", "x"))),
            ask_for("catalogue", "json without price", BOUNDARY, form(file_part("facts", JSON, b"{}"))),
        ],
    ),
    Exhibit(
        "temperature",
        "temperature_service.py",
        [
            ask_for("temperature", "json", JSON, "[0, 100, -40.5]"),
            ask_for("temperature", "undeclared json", "", "[37]"),
            ask_for("temperature", "no list", JSON, "5"),
        ],
    ),
    Exhibit(
        "kelvin",
        "temperature_service:kelvin",
        [ask_for("kelvin", "text", TEXT, "20"), ask_for("kelvin", "no number", TEXT, "warm")],
    ),
    Exhibit(
        "padding",
        "padding_handler.py",
        [
            ask_for("padding", "short", JSON, "[1, 2]"),
            ask_for("padding", "long", JSON, "[0.5, 0.25, 4, 8, 16]"),
            ask_for("padding", "no list", JSON, '{"a": 1}'),
            ask_for("padding", "empty", JSON, "[]"),
        ],
        together=True,
        registration={"batch_size": 4, "max_batch_delay": 20_000},
    ),
    Exhibit(
        "running",
        "running_handler.py",
        [
            ask_for("running", "first", TEXT, "1", headers={"X-User": "anna"}),
            ask_for("running", "another user", TEXT, "10", headers={"X-User": "bob"}),
            ask_for("running", "second", TEXT, "2", headers={"X-User": "anna"}),
            ask_for("running", "without user", "", "7"),
        ],
    ),
    Exhibit("greeting", "greeting_handler.py", [ask_for("greeting", "text", TEXT, "Anna\n")], make_greeting),
    Exhibit(
        "letter",
        "letter_handler.py",
        [
            ask_for("letter", "known", JSON, '{"to": "anna", "template": "parcel"}'),
            ask_for("letter", "folder", JSON, '{"to": "Bo", "template": "welcome"}'),
            ask_for("letter", "unknown template", JSON, '{"to": "Bo", "template": "bill"}'),
        ],
        make_letter,
    ),
    Exhibit(
        "onnx",
        "onnx_handler.py",
        [
            ask_for("onnx", "features", JSON, '{"features": [1, 2, 3]}'),
            ask_for("onnx", "wrong shape", JSON, '{"features": [1, 2]}'),
        ],
        make_onnx,
    ),
    Exhibit(
        "regression",
        "regression_handler.py",
        [
            ask_for("regression", "list", JSON, "[1, 2, 3]"),
            ask_for("regression", "another", JSON, "[0, 0, 0.5]"),
            ask_for("regression", "third", JSON, "[-1, 0.25, 9]"),
        ],
        make_regression,
        together=True,
        registration={"batch_size": 3, "max_batch_delay": 20_000},
    ),
    Exhibit(
        "story",
        "story_handler.py",
        [ask_for("story", "stream", TEXT, "once upon a time"), ask_for("story", "nothing", TEXT, " ")],
    ),
]
