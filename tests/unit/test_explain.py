"""Why an engine will not load on a machine, whichever machine that is: engines of TensorRT by their passports, and files of every kind."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dtvit_deploy.artifacts.artifact import Link, Manifest, manifest_path, sha256_of, write_json
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.cli.doctor import lines
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.explain import Explanation, explain
from dtvit_deploy.formats.engine.gpu import Gpu
from dtvit_deploy.formats.engine.here import Here, Installed, in_child
from dtvit_deploy.formats.engine.library import MODULES
from dtvit_deploy.formats.engine.load import Loaded, Validity, load_engine
from dtvit_deploy.formats.engine.options import BuildOptions
from dtvit_deploy.formats.engine.passport import ENGINE, GRAPH, LINK, Passport
from dtvit_deploy.formats.engine.reason import Cause

PLAIN = BuildOptions()
ORIN = Here(
    platform="linux aarch64",
    gpus=(Gpu("Orin", "8.7", 7 << 30),),
    cuda="12.6",
    jetpack="L4T 36.4.0",
    libraries={"tensorrt": Installed("10.3.0", "")},
)
L4 = Here(
    platform="linux x86_64",
    gpus=(Gpu("NVIDIA L4", "8.9", 24 << 30),),
    cuda="12.8",
    driver="570.86",
    libraries={"tensorrt": Installed("10.7.0.23", "")},
)


@dataclass(frozen=True)
class Built:
    """An engine's folder as a builder would leave it, but for what a test changes."""

    folder: Path
    version: str = "10.7.0.23"
    options: BuildOptions = PLAIN
    on: Here = L4
    passport: tuple[tuple[str, Any], ...] = ()

    def write(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        version = (int(part) for part in self.version.split("."))
        (self.folder / ENGINE).write_bytes(struct.pack("<4sI16x4B", b"ftrt", 0, *version) + bytes(1000))
        (self.folder / GRAPH).write_bytes(b"a graph")
        return self.describe()

    def describe(self) -> Path:
        """Write a manifest for the folder as it is."""
        passport = Passport(
            library="tensorrt",
            version=self.version,
            capabilities=(self.on.gpus[0].capability,),
            platform=self.on.platform,
            engine=sha256_of(self.folder / ENGINE),
            bytes=(self.folder / ENGINE).stat().st_size,
            graph=sha256_of(self.folder / GRAPH),
            device=self.on.gpus[0].name,
            cuda=self.on.cuda,
            jetpack=self.on.jetpack,
            options=self.options,
        )
        options = {"passport": msgspec.to_builtins(msgspec.structs.replace(passport, **dict(self.passport)))}
        digest = sha256_of(self.folder)
        tensor = TensorSpec("x", (1, 2))
        manifest = Manifest(
            model="any",
            format="trt",
            precision=Precision.FP16,
            sha256=digest,
            signature=Signature((tensor,), (tensor,)),
            lineage=(Link(kind=LINK, sha256=digest, options=options),),
        )
        write_json(manifest_path(self.folder), manifest)
        return self.folder


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return Built(tmp_path / "net.fp16.trt")


def causes(found: Explanation) -> list[Cause]:
    return [reason.cause for reason in found.reasons]


class TestWhatLoads:
    def test_an_engine_on_the_machine_that_built_it(self, built: Built) -> None:
        found = explain(built.write(), L4)
        assert (found.loads, found.reasons, found.cautions) == (True, (), ())
        assert found.facts["built by"] == "TensorRT 10.7.0.23"
        assert found.facts["built on"] == "NVIDIA L4, linux x86_64"
        assert found.facts["network"] == "any, fp16"

    def test_however_it_is_named(self, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = built.write()
        assert explain(folder / ENGINE, L4).loads
        monkeypatch.chdir(folder)
        assert explain(Path(), L4).loads
        assert explain(Path(ENGINE), L4).loads

    def test_on_a_jetson_whose_module_gives_three_numbers(self, built: Built) -> None:
        assert explain(replace(built, version="10.3.0.30", on=ORIN).write(), ORIN).loads


class TestVersions:
    def test_another_version_is_named_with_the_one_needed(self, built: Built) -> None:
        found = explain(replace(built, version="10.3.0.26").write(), L4)
        assert causes(found) == [Cause.VERSION]
        (reason,) = found.reasons
        assert "10.7.0.23 is installed" in reason.found
        assert "10.3.0.26, which built it" in reason.needed
        assert "tensorrt==10.3.0.*" in reason.remedy

    def test_a_version_compatible_engine_is_told_to_bring_code_along(self, built: Built) -> None:
        found = explain(replace(built, version="10.3.0.26", options=BuildOptions(version_compatible=True)).write(), L4)
        assert found.loads
        assert found.host_code
        assert any("code for the processor" in each for each in found.cautions)

    def test_the_other_library_is_no_substitute(self, built: Built) -> None:
        here = msgspec.structs.replace(L4, libraries={"tensorrt-rtx": Installed("1.7.1.116", "")})
        found = explain(built.write(), here)
        assert causes(found) == [Cause.OTHER_LIBRARY]
        assert "TensorRT-RTX 1.7.1.116" in found.reasons[0].found
        assert "--flavour rtx" in found.reasons[0].remedy

    def test_no_library_at_all(self, built: Built) -> None:
        broken = {"tensorrt": Installed(wrong="installed, and does not import: no libnvinfer.so.10")}
        for here, told in (({}, "not installed"), (broken, "no libnvinfer.so.10")):
            found = explain(built.write(), msgspec.structs.replace(L4, libraries=here))
            assert causes(found) == [Cause.NOT_INSTALLED]
            assert told in found.reasons[0].found
            assert "tensorrt==10.7.0.*" in found.reasons[0].remedy


class TestDevices:
    def test_another_capability_needs_another_engine(self, built: Built) -> None:
        here = msgspec.structs.replace(L4, gpus=(Gpu("NVIDIA A100", "8.0", 80 << 30),))
        found = explain(built.write(), here)
        assert causes(found) == [Cause.CAPABILITY]
        assert "NVIDIA A100 has compute capability 8.0" in found.reasons[0].found
        assert "8.9" in found.reasons[0].needed
        assert "build it for this GPU" in found.reasons[0].remedy

    def test_a_second_gpu_that_fits_is_enough_and_pointed_out(self, built: Built) -> None:
        here = msgspec.structs.replace(L4, gpus=(Gpu("NVIDIA A100", "8.0", 80 << 30), *L4.gpus))
        found = explain(built.write(), here)
        assert (found.loads, found.gpu) == (True, 1)
        assert found.cautions == ("it is for GPU 1, NVIDIA L4, and not for NVIDIA A100: other programs need CUDA_VISIBLE_DEVICES=1",)

    def test_a_second_gpu_with_more_memory_is_enough(self, built: Built) -> None:
        here = msgspec.structs.replace(L4, gpus=(Gpu("NVIDIA L4", "8.9", 1000), *L4.gpus))
        assert explain(built.write(), here).gpu == 1

    @pytest.mark.parametrize(
        ("capability", "jetpack", "loads"), [("8.0", "", True), ("12.0", "", True), ("7.5", "", False), ("8.7", "L4T 36.4.0", False)]
    )
    def test_a_hardware_compatible_engine_runs_from_ampere_on_but_on_no_jetson(
        self, built: Built, capability: str, jetpack: str, loads: bool
    ) -> None:
        here = msgspec.structs.replace(L4, gpus=(Gpu("another", capability, 8 << 30),), jetpack=jetpack)
        assert explain(replace(built, options=BuildOptions(hardware_compatible=True)).write(), here).loads == loads

    def test_the_same_capability_on_another_model_is_a_caution(self, built: Built) -> None:
        here = msgspec.structs.replace(L4, gpus=(Gpu("NVIDIA RTX 4090", "8.9", 24 << 30),))
        found = explain(built.write(), here)
        assert found.loads
        assert "built on NVIDIA L4" in found.cautions[0]

    def test_an_engine_does_not_move_between_platforms(self, built: Built) -> None:
        for platform in ("linux aarch64", "windows x86_64"):
            found = explain(built.write(), msgspec.structs.replace(L4, platform=platform))
            assert causes(found) == [Cause.PLATFORM]
            assert platform in found.reasons[0].found
            assert "linux x86_64" in found.reasons[0].needed
            assert "--flavour on-device" in found.reasons[0].remedy

    def test_no_gpu(self, built: Built) -> None:
        here = msgspec.structs.replace(L4, gpus=(), no_gpu="no NVIDIA driver is installed", cuda="")
        found = explain(built.write(), here)
        assert causes(found) == [Cause.NO_GPU]
        assert "no NVIDIA driver" in found.reasons[0].found
        assert "8.9" in found.reasons[0].needed

    @pytest.mark.parametrize(("cuda", "old"), [("11.8", True), ("12.2", False), ("13.0", False)])
    def test_a_driver_of_an_older_major_version_is_too_old(self, built: Built, cuda: str, old: bool) -> None:
        found = explain(built.write(), msgspec.structs.replace(L4, cuda=cuda))
        assert causes(found) == ([Cause.DRIVER] if old else [])
        if old:
            assert "570.86" in found.reasons[0].found
            assert "newer NVIDIA driver" in found.reasons[0].remedy

    def test_a_library_for_a_newer_cuda_than_the_driver_knows(self, built: Built) -> None:
        here = msgspec.structs.replace(L4, libraries={"tensorrt": Installed("10.7.0.23", "", cuda="13")})
        found = explain(built.write(), here)
        assert causes(found) == [Cause.DRIVER]
        assert "CUDA 13, with which TensorRT 10.7.0.23 here was built" in found.reasons[0].needed

    def test_an_engine_larger_than_the_gpu(self, built: Built) -> None:
        found = explain(built.write(), msgspec.structs.replace(L4, gpus=(Gpu("NVIDIA L4", "8.9", 1000),)))
        assert causes(found) == [Cause.MEMORY]

    def test_everything_at_once_comes_in_the_order_to_mend_it(self, built: Built) -> None:
        found = explain(replace(built, version="10.3.0.26", on=ORIN).write(), msgspec.structs.replace(L4, cuda="11.8"))
        assert causes(found) == [Cause.VERSION, Cause.PLATFORM, Cause.CAPABILITY, Cause.DRIVER]


class TestManifests:
    def test_a_plan_cut_short_is_known_by_its_manifest(self, built: Built) -> None:
        engine = built.write() / ENGINE
        engine.write_bytes(engine.read_bytes()[:-100])
        found = explain(built.folder, L4)
        assert causes(found) == [Cause.TRUNCATED]
        assert "the last 100 are missing" in found.reasons[0].found

    def test_a_flipped_bit(self, built: Built) -> None:
        engine = built.write() / ENGINE
        content = bytearray(engine.read_bytes())
        content[500] ^= 1
        engine.write_bytes(content)
        assert causes(explain(built.folder, L4)) == [Cause.ALTERED]

    def test_a_graph_that_was_changed_beside_the_engine(self, built: Built) -> None:
        (built.write() / GRAPH).write_bytes(b"another graph")
        found = explain(built.folder, L4)
        assert causes(found) == [Cause.ALTERED]
        assert f"{GRAPH} in net.fp16.trt" in found.reasons[0].found

    def test_a_file_that_was_added(self, built: Built) -> None:
        (built.write() / "plugin.so").write_bytes(b"?")
        found = explain(built.folder, L4)
        assert causes(found) == [Cause.ALTERED]
        assert "a file beside the engine" in found.reasons[0].found

    @pytest.mark.parametrize(
        ("change", "told"),
        [({"version": "10.3.0.26"}, "10.3.0.26"), ({"library": "tensorrt-rtx"}, "TensorRT-RTX"), ({"library": "else"}, "else")],
        ids=str,
    )
    def test_one_that_contradicts_the_engine(self, built: Built, change: dict[str, str], told: str) -> None:
        found = explain(replace(built, passport=tuple(change.items())).write(), L4)
        assert causes(found) == [Cause.OTHER_MANIFEST]
        assert told in found.reasons[0].found

    def test_what_one_says_of_another_engine_is_not_held_against_this_one(self, built: Built) -> None:
        orins = replace(built, version="10.3.0.26", on=ORIN, folder=built.folder.with_name("other.trt")).write()
        manifest_path(orins).replace(manifest_path(built.write()))
        assert causes(explain(built.folder, L4)) == [Cause.OTHER_MANIFEST]
        found = explain(built.folder, L4, trust=True)
        assert found.loads
        assert "built on" not in found.facts

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "not a manifest"),
            (b"{", "not a manifest"),
            (b"[" * 100_000, "not a manifest"),
            (b"\xff\xfe", "not a manifest"),
            (b"{}", "not a manifest"),
        ],
        ids=["nothing", "cut", "deep", "no text", "another"],
    )
    def test_one_that_cannot_be_read(self, built: Built, content: bytes, told: str) -> None:
        manifest_path(built.write()).write_bytes(content)
        found = explain(built.folder, L4)
        assert causes(found) == [Cause.UNREADABLE_MANIFEST]
        assert told in found.reasons[0].found
        assert str(built.folder.parent) not in found.reasons[0].found  # names, or 80 columns would not hold it

    @pytest.mark.parametrize("change", [{"capabilities": ["nine"], "engine": 1}, {"more": 1}], ids=str)
    def test_a_passport_that_cannot_be_understood(self, built: Built, change: dict[str, Any]) -> None:
        path = manifest_path(built.write())
        content = msgspec.json.decode(path.read_bytes())
        content["lineage"][-1]["options"]["passport"] |= change
        path.write_bytes(msgspec.json.encode(content))
        assert causes(explain(built.folder, L4)) == [Cause.UNREADABLE_MANIFEST]

    def test_a_lineage_that_leads_elsewhere(self, built: Built) -> None:
        path = manifest_path(built.write())
        content = msgspec.json.decode(path.read_bytes())
        content["lineage"][-1]["sha256"] = "0" * 64
        path.write_bytes(msgspec.json.encode(content))
        assert causes(explain(built.folder, L4)) == [Cause.LINEAGE]

    def test_trust_stands_in_for_a_manifest_and_for_nothing_else(self, built: Built) -> None:
        manifest_path(built.write()).unlink()
        assert causes(explain(built.folder, L4)) == [Cause.NO_MANIFEST]
        found = explain(built.folder, L4, trust=True)
        assert found.loads
        assert "taken on trust" in found.cautions[0]
        (built.folder / ENGINE).write_bytes(b"")
        assert causes(explain(built.folder, L4, trust=True)) == [Cause.EMPTY]

    def test_an_engine_known_to_be_altered_is_not_trusted(self, built: Built) -> None:
        engine = built.write() / ENGINE
        engine.write_bytes(engine.read_bytes()[:-1] + b"x")
        assert causes(explain(built.folder, L4, trust=True)) == [Cause.ALTERED]


class TestWhatIsThere:
    def test_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            explain(tmp_path / "none.engine", L4)

    def test_a_path_longer_than_any_is_told_of_in_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be looked at: File name too long") as caught:
            explain(tmp_path / ("long" * 5000), L4)
        assert len(str(caught.value)) < 200
        assert caught.value.remedy

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match="neither a file nor a folder"):
            explain(tmp_path / "pipe", L4)

    def test_a_job_is_to_be_run_on_the_device(self, tmp_path: Path) -> None:
        job = tmp_path / "net.fp16.trtjob"
        job.mkdir()
        found = explain(job, L4)
        assert causes(found) == [Cause.JOB]
        assert "build.py" in found.reasons[0].remedy

    @pytest.mark.parametrize("described", [True, False], ids=["with its manifest", "without"])
    def test_an_artefact_of_another_runtime_is_no_spoiled_engine(self, tmp_path: Path, described: bool) -> None:
        package = tmp_path / ("net" if described else "net.mlpackage")
        package.mkdir()
        if described:
            tensor, link = TensorSpec("x", (1, 2)), Link(kind="coreml", sha256="0" * 64)
            write_json(
                manifest_path(package),
                Manifest(
                    model="any", format="mlpackage", precision=Precision.FP16, sha256="0" * 64,
                    signature=Signature((tensor,), (tensor,)), lineage=(link,),
                ),
            )  # fmt: skip
        with pytest.raises(InputError, match="is an artefact for Core ML, and --explain is for TensorRT engines"):
            explain(package, L4)

    def test_another_folder(self, tmp_path: Path) -> None:
        assert causes(explain(tmp_path, L4)) == [Cause.NOT_AN_ENGINE]

    def test_a_file_that_is_no_engine_brings_its_own_remedy(self, tmp_path: Path) -> None:
        path = tmp_path / "net.engine"
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
        found = explain(path, L4)
        assert causes(found) == [Cause.NOT_AN_ENGINE]
        assert "git lfs pull" in found.reasons[0].remedy


class TestAskingTheLibrary:
    """A library's verdict is stood in for: it gives one on a GPU only."""

    RTX = msgspec.structs.replace(L4, libraries={"tensorrt-rtx": Installed("1.8.0.1", "")})

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Path:
        path = tmp_path / "net.engine"
        path.write_bytes(struct.pack("<4sI16x4B", b"vtrt", 0, 1, 8, 0, 1) + bytes(1000))
        return path

    def test_what_it_holds_against_the_engine_counts(self, engine: Path) -> None:
        found = explain(engine, self.RTX, trust=True, ask=lambda path, gpu: Validity("INVALID", ("OLD_CUDA_DRIVER", "UNSUPPORTED_CC")))
        assert causes(found) == [Cause.CAPABILITY, Cause.DRIVER]
        assert found.facts["TensorRT-RTX itself"] == "invalid OLD_CUDA_DRIVER UNSUPPORTED_CC"

    @pytest.mark.parametrize(
        ("said", "loads"),
        [(Validity("VALID"), True), (Validity("SUBOPTIMAL"), True), (Validity("INVALID"), False), (Validity(wrong="it crashed"), True)],
        ids=lambda value: str(value.verdict or value.wrong) if isinstance(value, Validity) else "",
    )
    def test_its_verdict_is_told(self, engine: Path, said: Validity, loads: bool) -> None:
        found = explain(engine, self.RTX, trust=True, ask=lambda path, gpu: said)
        assert found.loads == loads
        assert found.facts["TensorRT-RTX itself"] in ("valid", "suboptimal", "invalid", "it crashed")

    def test_it_is_not_asked_where_it_has_no_gpu_to_judge_by(self, engine: Path) -> None:
        here = msgspec.structs.replace(self.RTX, gpus=(), no_gpu="none")
        asked: list[Path] = []
        explain(engine, here, ask=lambda path, gpu: asked.append(path) or Validity())  # type: ignore[func-returns-value]
        assert asked == []


class TestTheChild:
    def test_its_last_line_is_the_answer(self) -> None:
        assert in_child("import json; print('noise'); print(json.dumps([sys.argv[1]]))", "a b", limit=30) == (["a b"], "")

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            ("import os; os.abort()", "signal 6"),
            ("raise ImportError('a library is missing')", "ImportError: a library is missing"),
            ("print('{')", "cannot be understood"),
            ("pass", "cannot be understood"),
            ("raise SystemExit(3)", "exit status 3"),
        ],
        ids=["crash", "error", "no JSON", "silence", "status"],
    )
    def test_whatever_becomes_of_it_is_told(self, code: str, told: str) -> None:
        answer, wrong = in_child(code, limit=30)
        assert answer is None
        assert told in wrong

    def test_one_that_never_ends_is_given_up(self) -> None:
        assert in_child("import time; time.sleep(60)", limit=0.3) == (None, "it did not end within 0.3 s")

    def test_loading_without_the_library_says_so(self, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(MODULES, "tensorrt", "no_such_library")
        assert "no_such_library" in load_engine(built.write() / ENGINE, "tensorrt", "0" * 64).wrong


class TestLoading:
    """In the child, by a stand-in for the library: the real one loads nothing without a GPU."""

    STAND_IN = """
import os
class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)
class Engine:
    num_io_tensors = 2
    def get_tensor_name(self, index): return "xy"[index]
    def get_tensor_shape(self, name): return (1, 16)
    def get_tensor_dtype(self, name): return type("DataType", (), {"name": "HALF"})
class Runtime:
    def __init__(self, logger): self.logger = logger
    def deserialize_cuda_engine(self, content):
        if content.endswith(b"bad"):
            self.logger.log(ILogger.ERROR, "Serialization assertion failed")
            return None
        if content.endswith(b"core") and getattr(self, "DLA_core", None) != 1:
            return None
        if content.endswith(b"second") and os.environ.get("CUDA_VISIBLE_DEVICES") != "GPU-b":
            return None
        if content.endswith(b"host") and not self.engine_host_code_allowed:
            return None
        return Engine()
"""

    @pytest.fixture(autouse=True)
    def library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "stand_in_for_tensorrt.py").write_text(self.STAND_IN)
        monkeypatch.syspath_prepend(tmp_path / "modules")
        monkeypatch.setitem(MODULES, "tensorrt", "stand_in_for_tensorrt")

    def load(self, folder: Path, content: bytes, **how: Any) -> Loaded:
        path = folder / ENGINE
        path.write_bytes(content)
        return load_engine(path, "tensorrt", sha256_of(path), **how)

    def test_an_engine_that_loads_shows_its_tensors(self, tmp_path: Path) -> None:
        assert self.load(tmp_path, b"good") == Loaded(("x 1x16 HALF", "y 1x16 HALF"))

    def test_a_refusal_carries_what_the_library_said(self, tmp_path: Path) -> None:
        assert self.load(tmp_path, b"bad").wrong == "Serialization assertion failed"

    def test_code_for_the_processor_runs_only_when_allowed(self, tmp_path: Path) -> None:
        assert "gave no reason" in self.load(tmp_path, b"host").wrong
        assert self.load(tmp_path, b"host", host_code=True).tensors

    def test_one_for_a_dla_is_loaded_for_its_core(self, tmp_path: Path) -> None:
        assert self.load(tmp_path, b"core").wrong
        assert self.load(tmp_path, b"core", dla_core=1).tensors

    def test_it_is_loaded_on_the_gpu_that_it_fits_of_those_that_are_shown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
        assert self.load(tmp_path, b"second").wrong
        assert self.load(tmp_path, b"second", gpu=1).tensors

    def test_bytes_that_were_not_checked_are_not_loaded(self, tmp_path: Path) -> None:
        (tmp_path / ENGINE).write_bytes(b"good")
        assert "changed since" in load_engine(tmp_path / ENGINE, "tensorrt", "0" * 64).wrong


class TestTheText:
    def test_it_fits_80_columns(self, built: Built) -> None:
        folder = replace(built, version="10.3.0.26", on=ORIN, folder=built.folder.parent / f"{'long-' * 20}.trt").write()
        found = explain(folder, msgspec.structs.replace(L4, gpus=(), no_gpu="why " * 40))
        told = lines(found, Loaded(wrong="not tried"))
        assert max(map(len, told)) <= 80
        assert told[-1] == "FAIL: it will not load here, for 3 reasons"

    def test_a_verdict_says_what_was_done(self, built: Built) -> None:
        found = explain(built.write(), L4)
        assert lines(found)[-1] == "PASS: nothing speaks against loading it here"
        assert lines(found, Loaded(("x 1x2 FLOAT",)))[-2:] == ["loading: done: x 1x2 FLOAT", "PASS: it loads here"]
        assert lines(found, Loaded(wrong="the process was ended by signal 11"))[-1].startswith("FAIL")
