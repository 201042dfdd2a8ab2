"""Which models and versions exist, and which version is the default one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from modelserver.errors import Conflict, DefaultVersionInUse, ModelNotFound, VersionNotFound

V = TypeVar("V")


class _Model(Generic[V]):
    __slots__ = ("default", "versions")

    def __init__(self, version: str, entry: V) -> None:
        self.versions = {version: entry}
        self.default = version


class Registry(Generic[V]):
    """Names to versions. The first version of a name is its default until `set_default`."""

    def __init__(self, changed: Callable[[str, Sequence[str], str], None] | None = None) -> None:
        """`changed` is told a name, the versions that it has from now on, and which of them is the default one."""
        self._changed = changed
        self._models: dict[str, _Model[V]] = {}

    def check_free(self, name: str, version: str) -> None:
        """Raises Conflict if the version is registered already."""
        if name in self._models and version in self._models[name].versions:
            raise Conflict(f"Model version {version} is already registered for model {name}")

    def add(self, name: str, version: str, entry: V) -> None:
        """Raises Conflict if the version is registered already."""
        self.check_free(name, version)
        if name in self._models:
            self._models[name].versions[version] = entry
        else:
            self._models[name] = _Model(version, entry)
        self._tell(name)

    def get(self, name: str, version: str | None = None) -> V:
        """The named or the default version. Raises ModelNotFound, VersionNotFound."""
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(f"Model not found: {name}")
        entry = model.versions.get(model.default if version is None else version)
        if entry is None:
            raise VersionNotFound(f"Model version: {version} does not exist for model: {name}")
        return entry

    def removable(self, name: str, version: str | None = None) -> V:
        """The version `remove` would remove. Raises as `get`, and DefaultVersionInUse."""
        entry = self.get(name, version)
        model = self._models[name]
        if len(model.versions) > 1 and version in (None, model.default):
            raise DefaultVersionInUse(name)
        return entry

    def remove(self, name: str, version: str | None = None) -> V:
        """Forget a version, and the name with its last version. Raises as `removable`."""
        entry = self.removable(name, version)
        self.discard(name, self._models[name].default if version is None else version)
        return entry

    def discard(self, name: str, version: str) -> None:
        """Forget a version even if it is the default one; the oldest of the others becomes the default then."""
        model = self._models[name]
        del model.versions[version]
        if not model.versions:
            del self._models[name]
        elif model.default == version:
            model.default = next(iter(model.versions))
        self._tell(name)

    def set_default(self, name: str, version: str) -> None:
        """Raises ModelNotFound, VersionNotFound (with this call's own wording)."""
        self.get(name)
        model = self._models[name]
        if version not in model.versions:
            raise VersionNotFound(f"Model version {version} does not exist for model {name}")
        model.default = version
        self._tell(name)

    def versions(self, name: str) -> list[V]:
        """All versions of a name, in order of registration. Raises ModelNotFound."""
        self.get(name)
        return list(self._models[name].versions.values())

    def defaults(self) -> Iterator[tuple[str, V]]:
        """(name, default version) of every model, sorted by name in code-point order."""
        for name in sorted(self._models):
            model = self._models[name]
            yield name, model.versions[model.default]

    def _tell(self, name: str) -> None:
        if self._changed is None:
            return
        if model := self._models.get(name):
            self._changed(name, tuple(model.versions), model.default)
        else:
            self._changed(name, (), "")

    def __iter__(self) -> Iterator[V]:
        for model in list(self._models.values()):
            yield from list(model.versions.values())
