"""Audio: a WAV file becomes a spectrogram, a TorchScript model names the loudest band."""

import io
import wave

import torch

from ts.torch_handler.base_handler import BaseHandler


class ToneHandler(BaseHandler):
    def preprocess(self, data):
        spectrograms = []
        for row in data:
            body = row.get("data") or row.get("body")
            with wave.open(io.BytesIO(body)) as sound:
                frames = sound.readframes(sound.getnframes())
                rate = sound.getframerate()
            samples = torch.frombuffer(bytearray(frames), dtype=torch.int16).float() / 32768
            window = torch.hann_window(256)
            spectrum = torch.stft(samples, n_fft=256, window=window, return_complex=True).abs().mean(dim=1)
            spectrograms.append(spectrum)
        self.rate = rate
        return torch.stack(spectrograms)

    def postprocess(self, data):
        return [{"hertz": round(band * self.rate / 256), "rate": self.rate} for band in data.tolist()]
