"""What the cache keeps of a stage is what the key says: a checkpoint that changes on the way is not kept under its former digest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.errors import InputError
from dtvit_deploy.models import reference
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.program import program_stage


@pytest.fixture
def mine(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(checkpoint, tmp_path / "mine.safetensors"))


def trained_further(path: Path) -> None:
    """The same network with other weights, whole and well formed, as a training script overwrites its last checkpoint."""
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        state, metadata = {name: file.get_tensor(name) for name in names}, file.metadata()
    save_file({name: value * 0.5 if value.is_floating_point() else value for name, value in state.items()}, path, metadata)


@pytest.mark.parametrize("moment", ["before it is read", "after it was read"])
def test_a_checkpoint_that_changes_after_its_digest_was_taken_is_refused(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    read = reference.load_reference
    steps: list[Callable[[], object]] = [lambda: trained_further(mine)]

    def load(asked: Model) -> Reference:
        if moment == "before it is read":
            steps.pop()()
            return read(asked)
        monkeypatch.setattr(reference, "sha256_of", lambda path: (steps.pop()(), sha256_of(path))[1])
        return read(asked)

    monkeypatch.setattr(reference, "load_reference", load)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(InputError, match=r"mine\.safetensors was changed while it was read") as caught:
        program_stage(Model(checkpoint=mine), cache)
    assert caught.value.remedy == "wait until it is whole, and try again"
    assert steps == []
    assert list(cache.root.iterdir()) == []
