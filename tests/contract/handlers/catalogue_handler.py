"""One product from several fields: a picture, a title, and facts as JSON."""

import io

from PIL import Image


class CatalogueHandler:
    def __init__(self):
        self.initialized = False

    def initialize(self, context):
        self.initialized = True

    def describe(self, row):
        picture, title, facts = row.get("picture"), row.get("title"), row.get("facts")
        answer = {"fields": sorted(row)}
        if picture:
            image = Image.open(io.BytesIO(picture))
            answer["picture"] = {"size": image.size, "mode": image.mode, "mean": sum(image.convert("L").tobytes())}
        if title is not None:
            answer["title"] = bytes(title).decode("utf-8").title()
        if facts is not None:
            answer["price"] = facts["price"] * facts.get("count", 1)
        return answer

    def handle(self, data, context):
        return [self.describe(row) for row in data]
