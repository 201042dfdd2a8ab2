"""`TextIteratorStreamerBatch`: text of a whole batch while transformers generates it."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Queue
from typing import Any


class TextIteratorStreamerBatch:
    """Given as `streamer` to `generate` in one thread, iterated in another: lists of `{"text": str}`, one for a member.

    `timeout` in seconds limits the wait for each step (`queue.Empty`). Ends as soon as any member has ended.
    """

    def __init__(
        self, tokenizer: Any, batch_size: int, skip_prompt: bool = False, timeout: float | None = None, **kwargs: Any
    ) -> None:
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.skip_prompt = skip_prompt
        self.timeout = timeout
        self.decode_kwargs = kwargs
        self.text_queue: Queue[list[dict[str, str]] | None] = Queue()
        self._tokens: list[list[int]] = [[] for _ in range(batch_size)]  # whose text is not out yet
        self._printed = [0] * batch_size  # characters of that text which are
        self._is_prompt = True
        self._ended = False

    def put(self, value: Any) -> None:
        """Take the next tokens in: a tensor of batch, or batch x tokens. Raises `ValueError` for another batch size."""
        if value.shape[0] != self.batch_size:
            raise ValueError(f"TextIteratorStreamerBatch only supports batch size {self.batch_size}")
        if self._is_prompt:
            self._is_prompt = False
            if self.skip_prompt:
                return
        if self._ended:
            return
        tokens = [row if isinstance(row, list) else [row] for row in value.tolist()]
        for held, new in zip(self._tokens, tokens, strict=True):
            held += new
        if any(self.tokenizer.eos_token_id in new for new in tokens):
            self._finish()
        else:
            self.text_queue.put([{"text": self._certain(member)} for member in range(self.batch_size)])

    def end(self) -> None:
        """The generation is over: what has been held back comes out."""
        if not self._ended:
            self._finish()
        self._tokens = [[] for _ in range(self.batch_size)]
        self._printed = [0] * self.batch_size
        self._is_prompt, self._ended = True, False

    def __iter__(self) -> Iterator[list[dict[str, str]]]:
        return self

    def __next__(self) -> list[dict[str, str]]:
        texts = self.text_queue.get(timeout=self.timeout)
        if texts is None:
            raise StopIteration
        return texts

    def _finish(self) -> None:
        self._ended = True
        self.text_queue.put([{"text": self._rest(member)} for member in range(self.batch_size)])
        self.text_queue.put(None)

    def _certain(self, member: int) -> str:
        """The next text that stays: whole words, since a token may be part of a word or of a character."""
        text: str = self.tokenizer.decode(self._tokens[member], **self.decode_kwargs)
        start = self._printed[member]
        if text.endswith("\n"):
            self._tokens[member], self._printed[member] = [], 0
            return text[start:]
        end = len(text) if text and _is_ideograph(text[-1]) else text.rfind(" ") + 1
        self._printed[member] = max(start, end)
        return text[start : self._printed[member]]

    def _rest(self, member: int) -> str:
        text: str = self.tokenizer.decode(self._tokens[member], **self.decode_kwargs)
        return text[self._printed[member] :]


def _is_ideograph(character: str) -> bool:
    """Written without blanks, so that each is a word."""
    return any(low <= ord(character) <= high for low, high in ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FA1F)))
