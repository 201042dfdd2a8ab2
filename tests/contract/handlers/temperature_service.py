"""A service of plain functions, with its state in the module."""

import json

_scale = None


def handle(data, context):
    global _scale
    if not _scale:
        _scale = (9 / 5, 32)
    if data is None:
        return None
    results = []
    for row in data:
        celsius = row.get("data") or row.get("body")
        if isinstance(celsius, (bytes, bytearray)):
            celsius = json.loads(celsius)
        results.append([value * _scale[0] + _scale[1] for value in celsius])
    return results


def kelvin(data, context):
    """Another entry point of the same file, for `--handler temperature_service:kelvin`."""
    if data is None:
        return None
    return ["{:.2f} K".format(float(row["body"]) + 273.15) for row in data]
