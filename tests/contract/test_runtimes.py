"""What the rest of the package relies on, of every runtime alike."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from dtvit_deploy.artifacts.artifact import Artifact, sha256_of
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature
from dtvit_deploy.calibration.feeds import adversarial_feeds
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.runtimes.base import Runtime, Session, SessionOptions
from dtvit_deploy.runtimes.registry import BY_FORMAT, RUNTIMES, open_session, runtime_for

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs

    class Subject(Protocol):
        """See conftest.py."""

        runtime: Runtime
        artifact: Artifact
        reads_files: bool
        answer: Callable[[Feeds], Outputs]
        inner: tuple[str, ...]


Feed = dict[str, NDArray[Any]]


def opened(subject: Subject, taps: tuple[str, ...] = (), threads: int = 1) -> Session:
    return subject.runtime.load(subject.artifact, SessionOptions(threads=threads, taps=taps))


def signature(subject: Subject) -> Signature:
    return subject.artifact.manifest.signature


class TestRuntime:
    def test_it_says_which_version_is_here(self, subject: Subject) -> None:
        found = subject.runtime.available()
        assert found.version
        assert not found.missing

    def test_it_names_itself_and_its_rung(self, subject: Subject) -> None:
        assert isinstance(subject.runtime.rung, Rung)
        if subject.reads_files and subject.runtime.name != "emulated-arm64":  # which nobody chooses by name
            assert RUNTIMES[subject.runtime.name]().name == subject.runtime.name


class TestAnswers:
    def test_outputs_have_the_signatures_names_shapes_and_types_in_its_order(self, subject: Subject, feeds: Feed) -> None:
        with opened(subject) as session:
            assert session.signature == signature(subject)
            outputs = session.run(feeds)
        assert [(name, values.shape, values.dtype.name) for name, values in outputs.items()] == [
            (spec.name, spec.shape, spec.dtype) for spec in signature(subject).outputs
        ]

    def test_they_are_those_of_the_network(self, subject: Subject) -> None:
        with opened(subject) as session:
            for feeds in adversarial_feeds(signature(subject)).values():
                expected, outputs = subject.answer(feeds), session.run(feeds)
                for spec in signature(subject).outputs:
                    np.testing.assert_allclose(outputs[spec.name], expected[spec.name], rtol=1e-4, atol=1e-5, err_msg=spec.name)

    def test_the_same_feeds_get_the_same_answer(self, subject: Subject, feeds: Feed) -> None:
        other = {name: values[..., ::-1].copy() for name, values in feeds.items()}
        with opened(subject) as session, opened(subject) as again:
            first = session.run(feeds)
            session.run(other)
            for session_again in (session, again):
                for name, values in session_again.run(feeds).items():
                    np.testing.assert_array_equal(values, first[name])

    def test_an_answer_stays_when_the_next_one_comes(self, subject: Subject, feeds: Feed) -> None:
        other = {name: values + 1 for name, values in feeds.items()}
        with opened(subject, taps=subject.inner) as session:
            outputs = session.run(feeds)
            kept = {name: values.copy() for name, values in outputs.items()}
            changed = session.run(other)
        assert not np.array_equal(changed["logits"], kept["logits"])
        for name, values in outputs.items():
            np.testing.assert_array_equal(values, kept[name], err_msg=name)

    def test_feeds_are_left_as_they_are(self, subject: Subject, feeds: Feed) -> None:
        before = {name: values.copy() for name, values in feeds.items()}
        with opened(subject) as session:
            session.run(feeds)
        for name, values in feeds.items():
            np.testing.assert_array_equal(values, before[name])

    @pytest.mark.parametrize("view", ["read-only", "reversed", "strided"])
    def test_any_view_of_memory_is_a_feed(self, subject: Subject, feeds: Feed, view: str) -> None:
        image = feeds["image"].copy()
        if view == "read-only":
            image.flags.writeable = False
        elif view == "reversed":
            image = image[..., ::-1].copy()[..., ::-1]
        else:
            image = np.repeat(image, 2, axis=-1)[..., ::2]
        with opened(subject) as session:
            expected = session.run(feeds)
            for name, values in session.run(feeds | {"image": image}).items():
                np.testing.assert_array_equal(values, expected[name])

    def test_the_number_of_threads_does_not_matter(self, subject: Subject, feeds: Feed) -> None:
        with opened(subject, threads=1) as one, opened(subject, threads=2) as two:
            for name, values in one.run(feeds).items():
                np.testing.assert_allclose(two.run(feeds)[name], values, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("wrong", ["missing", "unknown", "shape", "type"])
    def test_its_signature_refuses_what_does_not_fit(self, subject: Subject, feeds: Feed, wrong: str) -> None:
        spoilt = {
            "missing": {"image": feeds["image"]},
            "unknown": feeds | {"mask": feeds["image"]},
            "shape": feeds | {"image": feeds["image"][..., :-1]},
            "type": feeds | {"position": feeds["position"].astype(np.int32)},
        }[wrong]
        with opened(subject) as session, pytest.raises(InputError, match="the feeds do not fit the network"):
            session.signature.check(spoilt)


class TestTaps:
    def test_exactly_what_was_asked_for_comes_after_the_outputs(self, subject: Subject, feeds: Feed) -> None:
        taps = subject.inner[::-1]
        with opened(subject, taps=taps) as session:
            assert list(session.run(feeds)) == [*(spec.name for spec in signature(subject).outputs), *taps]

    def test_they_are_the_networks_inner_tensors(self, subject: Subject, feeds: Feed) -> None:
        expected = subject.answer(feeds)
        with opened(subject, taps=subject.inner) as session:
            outputs = session.run(feeds)
        for name in subject.inner:
            assert outputs[name].shape == expected[name].shape
            np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)

    def test_they_do_not_change_the_outputs(self, subject: Subject, feeds: Feed) -> None:
        with opened(subject) as plain, opened(subject, taps=subject.inner) as tapped:
            outputs = tapped.run(feeds)
            for name, values in plain.run(feeds).items():
                np.testing.assert_allclose(outputs[name], values, rtol=1e-5, atol=1e-6)

    def test_everything_offered_can_be_had_and_is_a_floating_point_tensor(self, subject: Subject, feeds: Feed) -> None:
        offered = subject.runtime.tensors(subject.artifact)
        names = {spec.name for spec in signature(subject).outputs}
        assert set(subject.inner) <= set(offered)
        assert len(set(offered)) == len(offered)
        assert not names & set(offered)
        with opened(subject, taps=offered) as session:
            outputs = session.run(feeds)
        assert outputs.keys() == names | set(offered)
        assert all(np.issubdtype(outputs[name].dtype, np.floating) for name in offered)

    def test_they_are_offered_in_the_order_of_execution(self, subject: Subject) -> None:
        offered = subject.runtime.tensors(subject.artifact)
        assert [name for name in offered if name in subject.inner] == list(subject.inner)

    def test_one_that_does_not_exist_is_refused_by_its_name(self, subject: Subject) -> None:
        with pytest.raises(InputError, match="no_such_tensor"):
            opened(subject, taps=(subject.inner[0], "no_such_tensor"))


class TestConditions:
    def test_a_figure_carries_the_runtime_its_version_the_threads_and_the_precision(self, subject: Subject) -> None:
        version = subject.runtime.available().version
        with opened(subject, threads=2) as session:
            conditions = session.conditions
        assert conditions["runtime"] == f"{subject.runtime.name} {version}"
        assert conditions["threads"] == "2"
        assert conditions["precision"] == "fp32"


class TestFiles:
    @pytest.fixture
    def files(self, subject: Subject) -> list[Path]:
        """The artefact's file, or the files of its folder and of those in it."""
        if not subject.reads_files:
            pytest.skip("it reads no file")
        path = subject.artifact.path
        return sorted(filter(Path.is_file, path.rglob("*"))) if path.is_dir() else [path]

    @pytest.fixture
    def copy(self, subject: Subject, tmp_path: Path) -> Callable[[Path, bytes], Artifact]:
        """An artefact with other bytes in one of its files, whose manifest fits them."""

        def copied(file: Path, content: bytes) -> Artifact:
            path = tmp_path / subject.artifact.name
            if subject.artifact.path.is_dir():
                shutil.copytree(subject.artifact.path, path, dirs_exist_ok=True)
                (path / file.relative_to(subject.artifact.path)).write_bytes(content)
            else:
                path.write_bytes(content)
            return Artifact(path, msgspec.structs.replace(subject.artifact.manifest, sha256=sha256_of(path)))

        return copied

    @pytest.mark.parametrize("kind", ["empty", "noise", "text", "half", "tail lost"])
    @pytest.mark.parametrize("taps", [(), ("conv2d",)], ids=["plain", "tapped"])
    def test_garbage_is_refused(
        self,
        subject: Subject,
        files: list[Path],
        copy: Callable[[Path, bytes], Artifact],
        kind: str,
        taps: tuple[str, ...],
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        for file in files:
            whole = file.read_bytes()
            content = {
                "empty": b"",
                "noise": np.random.default_rng(0).bytes(4096),
                "text": b"not a network\n" * 100,
                "half": whole[: len(whole) // 2],
                "tail lost": whole[:-100],
            }[kind]
            with pytest.raises(InputError) as caught:
                subject.runtime.load(copy(file, content), SessionOptions(taps=taps))
            assert len(str(caught.value).splitlines()) == 1
            assert caught.value.remedy
        assert capfd.readouterr().err == ""  # what is wrong is said once

    def test_garbage_offers_no_tensors(self, subject: Subject, files: list[Path], copy: Callable[[Path, bytes], Artifact]) -> None:
        for file in files:
            with pytest.raises(InputError):
                subject.runtime.tensors(copy(file, b"not a network\n"))

    def test_a_network_with_other_ends_than_its_manifest_says_is_refused_when_loaded(self, subject: Subject) -> None:
        if not subject.reads_files:
            pytest.skip("it reads no file")
        ends = signature(subject)
        fewer = msgspec.structs.replace(subject.artifact.manifest, signature=Signature(ends.inputs[:1], ends.outputs))
        with pytest.raises(InputError, match=r"not the .* that its manifest describes"):
            subject.runtime.load(Artifact(subject.artifact.path, fewer), SessionOptions())


class TestEnd:
    @pytest.mark.parametrize("tapped", [False, True])
    def test_a_session_that_was_left_does_not_run(self, subject: Subject, feeds: Feed, tapped: bool) -> None:
        with opened(subject, taps=subject.inner if tapped else ()) as session:
            session.run(feeds)
        with pytest.raises(RuntimeError, match="the session was left"):
            session.run(feeds)

    def test_leaving_one_leaves_the_others(self, subject: Subject, feeds: Feed) -> None:
        with opened(subject) as session:
            with opened(subject) as other:
                expected = other.run(feeds)
            np.testing.assert_array_equal(session.run(feeds)["logits"], expected["logits"])


class TestRegistry:
    @pytest.mark.parametrize(("format", "names"), BY_FORMAT.items())
    def test_an_artefact_is_opened_by_its_format(
        self,
        artifacts: Callable[[str], Artifact],
        feeds: Feed,
        format: str,  # noqa: A002 - the manifest's word
        names: tuple[str, ...],
    ) -> None:
        usable = [name for name in names if RUNTIMES[name]().available(artifacts(format)).version is not None]
        if not usable:
            pytest.skip(f"{' and '.join(names)} are not usable here")
        assert runtime_for(artifacts(format)).name == usable[0]
        with open_session(artifacts(format), SessionOptions(threads=1)) as session:
            assert session.run(feeds)["best"].shape == (1,)

    def test_an_unknown_format_is_refused_with_those_that_are_known(self, artifacts: Callable[[str], Artifact]) -> None:
        artifact = artifacts("onnx")
        other = Artifact(artifact.path, msgspec.structs.replace(artifact.manifest, format="tflite"))
        with pytest.raises(InputError, match=r"no runtime here loads the format 'tflite' of model\.onnx") as caught:
            runtime_for(other)
        assert caught.value.remedy == "formats that can be loaded: mlpackage, onnx, openvino, program, rtx, trt, trtjob"

    @pytest.mark.parametrize(
        ("format", "module", "extra"),
        [
            ("mlpackage", "coremltools.proto", "coreml"),
            ("mlpackage", "dtvit_deploy.runtimes.mil.runtime", "export"),
            ("onnx", "onnxruntime", "export"),
            ("openvino", "openvino", "openvino"),
            ("program", "dtvit_deploy.runtimes.torch.session", "export"),
            ("rtx", "onnxruntime", "export"),
        ],
        ids=["mil", "mil without torch", "onnxruntime", "openvino", "torch", "emulated"],
    )
    def test_a_runtime_that_is_not_installed_is_missing_with_the_way_to_get_it(
        self,
        artifacts: Callable[[str], Artifact],
        monkeypatch: pytest.MonkeyPatch,
        format: str,  # noqa: A002 - the manifest's word
        module: str,
        extra: str,
    ) -> None:
        artifact = artifacts("onnx")
        artifact = Artifact(artifact.path, msgspec.structs.replace(artifact.manifest, format=format))
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingError) as caught:
            open_session(artifact, SessionOptions())
        assert caught.value.remedy == f"pip install 'dtvit-deploy[{extra}]'"
