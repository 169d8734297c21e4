"""Bad input: one clear message with a way out, the documented exit code, no traceback, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dtvit_deploy.artifact import manifest_path, sha256_of

DEPLOY = str(Path(sys.executable).with_name("dtvit-deploy"))
NETWORKS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, image):
        return self.head(self.conv(image).relu().mean((2, 3)))

class Branches(Net):
    def forward(self, image):
        logits = super().forward(image)
        if logits.sum() > 0:
            return logits
        return -logits

class Rolls(Net):
    def forward(self, image):
        return super().forward(image) + torch.rand(1)

class Large(Net):  # 4 MB
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(4, 1000), nn.Linear(1000, 1000), nn.Linear(1000, 3))

def image():
    return {"image": torch.zeros(1, 3, 16, 16)}

def net(): return Net(), image()
def branches(): return Branches(), image()
def rolls(): return Rolls(), image()
def large(): return Large(), image()
def fails(): raise ValueError("not today")
"""
COLOURS = """
import torch
from torch import nn

class Colours(nn.Module):
    '''Says what colour the upper left quarter has: it sees a wrong colour, a wrong range and a wrong side up.'''

    def forward(self, image):
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        red, green, blue = ((image[:, :, :8, :8].mean((2, 3)) * std + mean)).unbind(1)
        light = (red + green + blue) / 3
        return torch.stack([blue - red - green, 0.25 - light, green - red - blue, red - green - blue, light - 0.75], 1)

def make(): return Colours(), {"image": torch.zeros(1, 3, 16, 16)}
"""


def deploy(*arguments: object, cwd: Path, before: Callable[[], None] | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | env
    command = [DEPLOY, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False, preexec_fn=before)


def tree(folder: Path) -> dict[str, str]:
    """Everything in a folder, hidden or not, by content."""
    paths = (path for path in folder.rglob("*"))
    return {str(path.relative_to(folder)): sha256_of(path) if path.is_file() else "folder" for path in paths}


def refused(*arguments: object, cwd: Path, code: int = 2, out: bool = True, before: Callable[[], None] | None = None, **env: str) -> str:
    """The message of a command that must fail in the folder ``cwd`` and leave it, and the cache, as they were."""
    cache = Path(env.get("DTVIT_DEPLOY_CACHE", os.environ["DTVIT_DEPLOY_CACHE"]))
    was = tree(cwd)
    done = deploy(*arguments, *(("-o", "new/out") if out else ()), cwd=cwd, before=before, **env)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert tree(cwd) == was
    assert not list(cache.glob(".*"))
    lines = done.stderr.splitlines()
    told = next(index for index, line in enumerate(lines) if re.match("[eE]rror: ", line))
    assert all(line.startswith(("· ", "Usage: ", "Try ")) or not line for line in lines[:told]), done.stderr
    assert "Traceback" not in done.stderr
    return "\n".join(lines[told:])


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's modules, a checkpoint, images in class folders, and an export of both networks."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "networks.py").write_text(NETWORKS)
    (folder / "colours.py").write_text(COLOURS)
    random = np.random.RandomState(0)
    for name in "abc":
        (folder / "images" / name).mkdir(parents=True)
        for index in range(2):
            Image.fromarray(random.randint(0, 256, (20, 20, 3), np.uint8)).save(folder / "images" / name / f"{index}.jpg")
    for model, out in (("networks:net", "net"), ("colours:make", "colours")):
        done = deploy("export", "-m", model, "-o", out, cwd=folder)
        assert done.returncode == 0, done.stderr
    state = {
        "conv.weight": torch.ones(4, 3, 3, 3),
        "conv.bias": torch.zeros(4),
        "head.weight": torch.ones(3, 4),
        "head.bias": torch.ones(3),
    }
    save_file(state, folder / "good.safetensors")
    return folder


@pytest.fixture
def work(given: Path, tmp_path: Path) -> Path:
    """A copy of it for one test to spoil."""
    return Path(shutil.copytree(given, tmp_path / "work"))


class TestCheckpoints:
    def export(self, work: Path, checkpoint: str) -> str:
        return refused("export", "-m", "networks:net", "-c", checkpoint, cwd=work)

    def test_other_keys_are_listed_by_kind(self, work: Path) -> None:
        state = load_file(work / "good.safetensors")
        state["neck.weight"] = state.pop("head.weight")
        state["conv.bias"] = torch.zeros(5)
        save_file(state, work / "other.safetensors")
        said = self.export(work, "other.safetensors")
        assert "1 missing: head.weight; 1 unexpected: neck.weight; 1 of another shape: conv.bias (5 in the file, 4 in the network)" in said
        assert "try: give the model" in said

    def test_a_truncated_file_is_refused(self, work: Path) -> None:
        content = (work / "good.safetensors").read_bytes()
        (work / "short.safetensors").write_bytes(content[:-20])
        said = self.export(work, "short.safetensors")
        assert "short.safetensors cannot be read as safetensors" in said
        assert "try: it is truncated or of another kind: copy or save it again" in said

    @pytest.mark.parametrize("new", [True, False])
    def test_a_pickle_that_would_run_code_does_not_run_it(self, new: bool, work: Path, tmp_path: Path) -> None:
        marker = tmp_path / "it-ran"

        class Command:
            def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
                return os.system, (f"touch {marker}",)

        torch.save({"head.weight": Command()}, work / "evil.pt", _use_new_zipfile_serialization=new)
        said = self.export(work, "evil.pt")
        assert not marker.exists()
        assert "posix.system" in said or "nothing in it was run" in said
        assert "try: " in said

    def test_weights_that_are_no_numbers_are_named_and_counted(self, work: Path) -> None:
        state = load_file(work / "good.safetensors")
        state["head.weight"][0, :2] = float("nan")
        save_file(state, work / "nan.safetensors")
        assert "2 weights that are NaN or infinite, in 1 tensors: head.weight (2 NaN, 0 infinite of 12)" in self.export(
            work, "nan.safetensors"
        )

    @pytest.mark.parametrize("name", ["nowhere.safetensors", "images", "networks.py"])
    def test_what_is_no_checkpoint_is_refused_with_what_would_be(self, name: str, work: Path) -> None:
        assert ".safetensors" in self.export(work, name)


class TestModels:
    @pytest.mark.parametrize(
        ("model", "near"),
        [("dualtoken-vit-s-mxi", "did you mean dualtoken-vit-s-mix?"), ("resnet50", "try: give one of dualtoken-vit-t-mix, ")],
    )
    def test_an_unknown_name_comes_back_with_those_that_exist(self, model: str, near: str, work: Path) -> None:
        said = refused("export", "-m", model, cwd=work)
        assert f"there is no model {model!r}" in said
        assert near in said

    def test_no_model_at_all(self, work: Path) -> None:
        assert "no model was given" in refused("export", cwd=work)

    def test_a_branch_on_data_is_refused_with_its_line(self, work: Path) -> None:
        said = refused("export", "-m", "networks:branches", cwd=work)
        assert "networks:branches cannot be exported as a static program" in said
        assert "if logits.sum() > 0:" in said
        assert "try: a branch, an index or a shape that depends on the data must go" in said

    def test_one_that_answers_otherwise_each_time_is_refused(self, work: Path) -> None:
        said = refused("export", "-m", "networks:rolls", cwd=work)
        assert "networks:rolls is not deterministic in eval: two runs of the same input differ by up to" in said
        assert "try: remove what is random" in said

    @pytest.mark.parametrize(
        ("model", "reason", "code"),
        [
            ("networks:fails", "ValueError: not today", 2),
            ("needy:net", "imports a_module_of_nobodys, which is not installed", 3),
        ],
    )
    def test_a_factory_that_does_not_work_is_refused_with_the_reason(self, model: str, reason: str, code: int, work: Path) -> None:
        (work / "needy.py").write_text("import a_module_of_nobodys")
        assert reason in refused("export", "-m", model, cwd=work, code=code)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "asked", "exists"),
        [
            (("--target", "tensorflow"), "tensorflow", "onnx"),
            (("--precision", "int4"), "int4", "fp32"),
            (("--input", "image=1x"), "image=1x", "image=1x3x224x224"),
            (("--input", "image=99999999x99999999"), "99999999×99999999", "at most 268,435,456"),
            (("--input-size", "16a"), "16a", "HEIGHTxWIDTH"),
            (("--input-size", "0x16"), "0×16", "at least 1 pixel"),
            (("--input-size", "99999x99999"), "99999×99999", "at most 268,435,456"),
            (("--num-classes", "0"), "--num-classes", "1"),
            (("--seed", "1" + "0" * 30), "0" * 30, "2⁶³"),
            (("--precison", "fp16"), "--precison", "--precision"),
        ],
    )
    def test_what_cannot_be_meant_is_refused_with_what_can(self, options: tuple[str, ...], asked: str, exists: str, work: Path) -> None:
        said = refused("export", "-m", "networks:net", *options, cwd=work)
        assert asked in said
        assert exists in said

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (("--output", "a", "--output", "b"), "2 output names were given (a, b), but networks:net returns 1"),
            (("--precision", "fp16", "--keep-fp32", "neck"), "no node comes from a module 'neck'"),
        ],
    )
    def test_what_does_not_fit_this_network_is_refused(self, options: tuple[str, ...], reason: str, work: Path) -> None:
        assert reason in refused("export", "-m", "networks:net", *options, cwd=work)


class TestImages:
    """Of `verify --data`, `evaluate --data` and `export --data` alike."""

    def verify(self, work: Path, data: str) -> str:
        return refused("verify", "net/networks.net.fp32.onnx", "--data", data, cwd=work)

    def test_an_empty_folder_is_refused(self, work: Path) -> None:
        (work / "empty").mkdir()
        for command in ("verify", "evaluate"):
            said = refused(command, "net/networks.net.fp32.onnx", "--data", "empty", cwd=work)
            assert "empty holds no files" in said
            assert "try: give a folder of images" in said

    def test_a_folder_that_cannot_be_read_is_refused(self, work: Path) -> None:
        (work / "loop").symlink_to("loop")
        assert "loop" in self.verify(work, "loop")
        assert "nowhere" in self.verify(work, "nowhere")
        assert "nowhere does not exist" in refused("export", "-m", "networks:net", "--data", "nowhere", cwd=work)
        assert "is a file" in self.verify(work, "networks.py")

    def test_what_only_has_an_images_name_is_refused_by_name(self, work: Path) -> None:
        (work / "images" / "b" / "1.jpg").write_text("<html>404</html>")
        said = self.verify(work, "images")
        assert "images/b/1.jpg is not an image of a known format" in said
        assert "try: take it out of the folder" in said

    def test_a_truncated_jpeg_among_whole_ones_is_named(self, work: Path) -> None:
        path = work / "images" / "c" / "0.jpg"
        path.write_bytes(path.read_bytes()[:-200])
        assert "images/c/0.jpg cannot be read as an image" in self.verify(work, "images")

    @pytest.mark.parametrize("side", [11_000, 60_000])  # above our limit, and above Pillow's
    def test_a_decompression_bomb_does_not_go_off(self, side: int, work: Path) -> None:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
        (work / "images" / "a" / "bomb.png").write_bytes(png)
        said = self.verify(work, "images")
        assert "images/a/bomb.png" in said
        assert "11000×11000 pixels" in said or "3600000000 pixels" in said

    def test_feeds_that_do_not_fit_are_refused(self, work: Path) -> None:
        np.savez(work / "feeds.npz", image=np.zeros((2, 3, 15, 16), np.float32))
        assert "image 1×3×16×16 float32" in self.verify(work, "feeds.npz")

    def test_images_for_a_network_that_takes_none(self, work: Path) -> None:
        assert "accuracy needs images" in refused("evaluate", "net/networks.net.fp32.onnx", cwd=work)


def test_images_of_every_kind_load_correctly(work: Path) -> None:
    blue, green, red, white = (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255)

    def plain(colour: tuple[int, int, int]) -> Image.Image:
        return Image.new("RGB", (20, 20), colour)

    def save(kind: str, name: str, image: Image.Image, **options: object) -> None:
        (work / "all" / kind).mkdir(parents=True, exist_ok=True)
        image.save(work / "all" / kind / name, **options)  # type: ignore[arg-type]

    save("0-blue", "cmyk.jpg", plain(blue).convert("CMYK"), quality=100)
    save("0-blue", "rgb.png", plain(blue))
    save("1-dark", "16-bit.png", Image.fromarray(np.full((20, 20), 0x2000, np.uint16)))
    save("2-green", "palette.png", plain(green).quantize(4))
    save("2-green", "palette.gif", plain(green).quantize(4))
    hidden = plain(red)
    hidden.putalpha(0)  # red that nobody sees, over white
    save("4-white", "transparent.png", hidden)
    save("4-white", "16-bit.tif", Image.fromarray(np.full((20, 20), 0xFF00, np.uint16)))
    opaque = plain(red)
    opaque.putalpha(255)
    save("3-red", "rgba.png", opaque)
    turned = plain(white)
    turned.paste(red, (10, 0, 20, 10))  # stored in the upper right: upper left once it is turned upright
    exif = Image.Exif()
    exif[0x0112] = 8  # rotate by 90° anticlockwise to see it upright
    save("3-red", "exif.jpg", turned, exif=exif, quality=100)
    artefact = "colours/colours.make.fp32.onnx"
    done = deploy("evaluate", artefact, "--data", "all", "--json", cwd=work)
    assert done.returncode == 0, done.stderr
    scores = [subject["accuracy"] for subject in json.loads(done.stdout)["subjects"]]
    assert [(score["top1"], score["samples"]) for score in scores] == [(1.0, 9)] * 2
    done = deploy("verify", artefact, "--data", "all", "--json", cwd=work)
    assert json.loads(done.stdout)["verdict"]["passed"] is True


class TestOutput:
    """Refused before any work: in less time than it takes to load PyTorch."""

    @pytest.mark.parametrize(
        ("out", "reason"),
        [
            ("networks.py", "networks.py is not a folder"),
            ("networks.py/below", "networks.py is not a folder"),
            ("/proc/out", "cannot write to the folder /proc/out"),
            ("/sys/out", "cannot write to the folder /sys/out"),
        ],
    )
    def test_one_that_cannot_be_written_is_refused_at_once(self, out: str, reason: str, work: Path) -> None:
        for command in (("export", "-m", "networks:net"), ("verify", "net/networks.net.fp32.onnx")):
            said = refused(*command, "-o", out, cwd=work, out=False)
            assert reason in said
            assert "try: choose another output folder" in said

    def test_a_cache_that_cannot_be_written_is_refused_with_a_way_out(self, work: Path) -> None:
        said = refused("export", "-m", "networks:net", cwd=work, DTVIT_DEPLOY_CACHE=str(work / "networks.py"))
        assert "networks.py cannot be written" in said
        assert "--no-cache" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"no disk can be mounted here: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


class TestAFullDisk:
    def test_under_the_output(self, work: Path, small_disk: Path) -> None:
        said = refused("export", "-m", "networks:large", "-o", small_disk / "new" / "out", cwd=work, out=False)
        assert f"cannot write to the folder {small_disk}/new/out: No space left on device" in said
        assert "try: free some space" in said
        assert tree(small_disk) == {}

    def test_under_the_cache(self, work: Path, small_disk: Path) -> None:
        said = refused("export", "-m", "networks:large", cwd=work, DTVIT_DEPLOY_CACHE=str(small_disk))
        assert f"the cache {small_disk} cannot be written: No space left on device" in said
        assert tree(small_disk) == {}

    def test_under_a_report(self, work: Path, small_disk: Path) -> None:
        (small_disk / "ballast").write_bytes(bytes((1 << 20) - 8192))
        said = refused("verify", "net/networks.net.fp32.onnx", "-o", small_disk / "new", cwd=work, out=False)
        assert f"cannot write to the folder {small_disk}/new: No space left on device" in said
        assert list(tree(small_disk)) == ["ballast"]

    def test_under_the_report_of_a_run(self, work: Path, small_disk: Path) -> None:
        (small_disk / "ballast").write_bytes(bytes((1 << 20) - (80 << 10)))
        (work / "recipe.toml").write_text('[model]\nname = "networks:net"\n[data]\nevaluation = "images"\n')
        said = refused("run", "recipe.toml", "-o", small_disk / "new", cwd=work, out=False)
        assert f"cannot write to the folder {small_disk}/new: No space left on device" in said
        assert list(tree(small_disk)) == ["ballast"]

    def test_a_limit_on_the_size_of_files(self, work: Path) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

        said = refused("export", "-m", "networks:large", cwd=work, before=limit)
        assert "File too large" in said


class TestArtefacts:
    @pytest.mark.parametrize("command", ["verify", "evaluate", "profile"])
    def test_one_whose_bytes_were_changed_is_not_taken_for_what_was_exported(self, command: str, work: Path) -> None:
        path = work / "net" / "networks.net.fp32.onnx"
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)
        said = refused(command, path, "--data", "images", cwd=work)
        assert f"{path} was changed after export: its SHA-256 is {sha256_of(path)[:16]}…" in said
        assert "try: export it again" in said

    def test_one_without_its_manifest_is_refused(self, work: Path) -> None:
        path = work / "net" / "networks.net.fp32.onnx"
        manifest_path(path).unlink()
        said = refused("verify", path, cwd=work)
        assert f"{path.name} has no manifest: {manifest_path(path)} does not exist" in said

    @pytest.mark.parametrize("content", ["", "{}", "[1", "null", "\x00\xff", '{"model": 3}', "[" * 100_000])
    def test_a_manifest_of_garbage_is_refused(self, content: str, work: Path) -> None:
        path = work / "net" / "networks.net.fp32.onnx"
        manifest_path(path).write_text(content)
        assert f"{manifest_path(path)} is not a manifest" in refused("verify", path, cwd=work)

    def test_a_graph_of_garbage_that_its_manifest_vouches_for_is_refused(self, work: Path) -> None:
        path = work / "net" / "networks.net.fp32.onnx"
        old = sha256_of(path)
        path.write_bytes(b"garbage" * 100)
        manifest_path(path).write_text(manifest_path(path).read_text().replace(old, sha256_of(path)))
        said = refused("verify", path, cwd=work)
        assert path.name in said
        assert "try: export it again" in said

    def test_artefacts_of_two_exports_are_not_judged_together(self, work: Path) -> None:
        said = refused("verify", "net/networks.net.fp32.onnx", "colours/colours.make.fp32.onnx", cwd=work)
        assert "2 artefacts have 2 different references; one reference judges all" in said

    @pytest.mark.parametrize("name", ["nowhere.onnx", "/dev/null", ".", "/"])
    def test_what_is_no_artefact_is_refused(self, name: str, work: Path) -> None:
        assert f"there is no artefact at {name}" in refused("verify", name, cwd=work)

    def test_a_folder_that_is_no_artefact_is_refused(self, work: Path) -> None:
        assert "net has no manifest: net.json does not exist" in refused("verify", "net", cwd=work)


class TestReportsAndRecipes:
    @pytest.mark.parametrize("content", [b"", b"{}", b"[1", b"\xff\xfe\x00", b'{"schema": "x"}', b"{" * 100_000])
    def test_a_report_of_garbage_is_refused(self, content: bytes, work: Path) -> None:
        (work / "report.json").write_bytes(content)
        for arguments in (("report", "report.json"), ("compare", "report.json", "report.json")):
            said = refused(*arguments, cwd=work, out=False)
            assert "report.json is not a report" in said
            assert "try: " in said

    def test_a_report_of_another_version_is_refused(self, work: Path) -> None:
        empty: dict[str, object] = {"data": {}, "device": {}, "versions": {}, "subjects": [], "lineage": []}
        report = empty | {"command": "verify", "model": "m", "created": "", "schema": 99}
        (work / "report.json").write_text(json.dumps(report))
        assert "has schema 99; this version reads schema 1" in refused("report", "report.json", cwd=work, out=False)

    def test_a_report_with_nothing_in_it_does_no_harm(self, work: Path) -> None:
        empty: dict[str, object] = {"data": {}, "device": {}, "versions": {}, "subjects": [], "lineage": []}
        (work / "report.json").write_text(json.dumps(empty | {"command": "[/x]", "model": "[/x]", "created": "", "notes": ["[/x]"]}))
        done = deploy("report", "report.json", cwd=work)
        assert (done.returncode, done.stderr) == (0, "")
        assert "have no subject in common" in refused("compare", "report.json", "report.json", cwd=work, out=False)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"\xff\xfe", "is not a recipe"),
            (b"model = ", "is not a recipe"),
            (b"modle = 1", "modle is not known; known there: model, data"),
            (b'[model]\nname = "nope"', "there is no model 'nope'"),
            (b'[model]\nname = "networks:net"\ninputs = [{name = "image", shape = [99999999, 99999999]}]', "at most 268,435,456"),
            (b'[model]\nname = "networks:net"\n[data]\nevaluation = "nowhere"', "nowhere does not exist"),
            (b'[model]\nname = "networks:net"\n[gates.fp16]\nagreement = 2', "agreement"),
        ],
    )
    def test_a_recipe_of_garbage_is_refused(self, content: bytes, reason: str, work: Path) -> None:
        (work / "recipe.toml").write_bytes(content)
        assert reason in refused("run", "recipe.toml", cwd=work)

    def test_no_recipe(self, work: Path) -> None:
        assert "there is no recipe at nowhere.toml" in refused("run", "nowhere.toml", cwd=work)

    def test_an_image_that_is_found_broken_when_all_is_built_leaves_nothing(self, work: Path) -> None:
        folder = work / "many"
        folder.mkdir()
        for index in range(60):
            Image.new("RGB", (16, 16), (index * 4, 0, 0)).save(folder / f"{index:02}.png")
        (folder / "59.png").write_bytes((folder / "59.png").read_bytes()[:-30])
        (work / "recipe.toml").write_text('[model]\nname = "networks:net"\n[data]\nevaluation = "many"\n')
        assert "59.png cannot be read as an image" in refused("run", "recipe.toml", cwd=work)
        built = deploy("export", "-m", "networks:net", "--data", "many", "-o", "built", cwd=work)  # does not look at that image
        assert built.returncode == 0, built.stderr


def test_a_file_in_the_working_folder_is_not_taken_for_the_runtime(work: Path) -> None:
    (work / "onnxruntime.py").write_text("open('was-run', 'w')")
    done = deploy("profile", "net/networks.net.fp32.onnx", "--seconds", "0.1", "--samples", "64", cwd=work)
    assert done.returncode == 0, done.stderr
    examined = deploy("doctor", "--json", cwd=work)
    assert json.loads(examined.stdout)["targets"][0]["reach"] == "executed", examined.stdout
    assert not (work / "was-run").exists()
