"""Core ML on an iPhone, with a stand-in for it at the end of ``devicectl``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devicectl import device, simulator

pytest.importorskip("torch")
pytest.importorskip("coremltools")

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.process.quiet import quiet
from dtvit_deploy.runtimes.base import OnDevice, SessionOptions
from dtvit_deploy.runtimes.compute_plan import ComputePlan
from dtvit_deploy.runtimes.coreml.app import Signing
from dtvit_deploy.runtimes.coreml.iphone import DEVICE, TEAM, IPhoneRuntime
from dtvit_deploy.runtimes.coreml.session import Units

with quiet():
    import coremltools as ct

Feed = dict[str, Any]
OPTIONS = SessionOptions()
Check = Callable[[ComputePlan, str], None]


class TestIPhone:
    def test_a_phone_at_its_cable_is_used_whose_tunnel_is_closed_and_no_simulator_beside_it(
        self, phone: Any, artifact: Artifact, feeds: list[Feed], expected: list[Feed]
    ) -> None:
        phone._lists(simulator("iPhone 17 Pro"), device("My iPhone", tunnelState="disconnected"), version=5)
        with IPhoneRuntime().load(artifact, OPTIONS) as session:
            np.testing.assert_array_equal(session.run(feeds[0])["logits"], expected[0]["logits"])
            assert session.conditions["device"] == "My iPhone (iphone)"

    def test_it_answers_as_the_package_does(self, phone: Any, artifact: Artifact, feeds: list[Feed], expected: list[Feed]) -> None:
        with IPhoneRuntime(Units.CPU_AND_NE).load(artifact, OPTIONS) as session:
            for feed, wanted in zip(feeds, expected, strict=True):
                answer = session.run(feed)
                assert list(answer) == ["logits", "best"]
                for name, values in answer.items():
                    np.testing.assert_array_equal(values, wanted[name])
                    assert values.dtype == wanted[name].dtype
            assert [units for _, units in phone._packages.values()] == ["CPU_AND_NE"]
        assert phone._calls == ["Load", *["Prediction"] * 3, "Unload"]
        assert phone._process.stopped
        assert IPhoneRuntime.rung is Rung.ON_DEVICE

    def test_a_view_of_memory_arrives_as_it_is(self, phone: Any, artifact: Artifact, feeds: list[Feed]) -> None:
        image = feeds[0]["image"]
        with IPhoneRuntime().load(artifact, OPTIONS) as session:
            view = session.run(feeds[0] | {"image": image.transpose(0, 1, 3, 2)[..., ::-1]})
            copy = session.run(feeds[0] | {"image": image.transpose(0, 1, 3, 2)[..., ::-1].copy()})
        np.testing.assert_array_equal(view["logits"], copy["logits"])

    def test_times_are_the_devices_own(self, phone: Any, artifact: Artifact, feeds: list[Feed]) -> None:
        with IPhoneRuntime().load(artifact, OPTIONS) as session:
            assert isinstance(session, OnDevice)
            session.run(feeds[0])
            session.run(feeds[0])
            assert (session.load_ms, session.first_ms, session.device_ms) == (250.0, 9.0, 1.5)

    def test_sessions_share_the_app_and_the_last_one_ends_it(self, phone: Any, artifact: Artifact, feeds: list[Feed]) -> None:
        with IPhoneRuntime().load(artifact, OPTIONS) as one:
            with IPhoneRuntime(Units.CPU_ONLY).load(artifact, OPTIONS) as other:
                np.testing.assert_array_equal(one.run(feeds[0])["logits"], other.run(feeds[0])["logits"])
                assert len(phone._packages) == 2
            assert not phone._process.stopped
            one.run(feeds[0])
        assert phone._process.stopped
        assert phone._builds == 1

    def test_the_plan_is_the_devices(self, is_right: Check, phone: Any, artifact: Artifact) -> None:
        with IPhoneRuntime().load(artifact, OPTIONS) as session:
            plan = session.compute_plan()
        assert "ComputePlan" in phone._calls
        is_right(plan, "CPU, GPU and Neural Engine")

    def test_a_figure_says_on_what_it_was_taken(self, phone: Any, artifact: Artifact) -> None:
        with IPhoneRuntime().load(artifact, OPTIONS) as session:
            told = session.conditions
        assert told["runtime"] == f"coreml-iphone {ct.__version__}"
        assert (told["system"], told["developer mode"]) == ("iOS 18.1 (22B83)", "enabled")
        assert told["host"] == "Apple M2 Pro, macOS 15.1"
        assert "SHA-256 " + artifact.manifest.sha256[:12] in told["compiled"]

    def test_the_app_is_signed_by_whom_the_environment_names(self, phone: Any, artifact: Artifact) -> None:
        with IPhoneRuntime().load(artifact, OPTIONS):
            assert phone._credentials.development_team == "ABCDE12345"
        with IPhoneRuntime(signing=Signing(profile="uuid", bundle="org.example.app")).load(artifact, OPTIONS):
            assert (phone._credentials.provisioning_profile_uuid, phone._credentials.bundle_identifier) == ("uuid", "org.example.app")
        with pytest.raises(InputError, match="give both or neither"):
            Signing(profile="uuid")

    def test_the_app_is_built_where_it_was_built_before(self, phone: Any, artifact: Artifact, tmp_path: Path) -> None:
        with IPhoneRuntime(folder=tmp_path / "app").load(artifact, OPTIONS):
            pass
        assert (tmp_path / "app").is_dir()

    @pytest.mark.parametrize("folder", ["my app", "app;id", "$HOME"])
    def test_nothing_is_given_that_a_shell_would_read(self, phone: Any, artifact: Artifact, tmp_path: Path, folder: str) -> None:
        with pytest.raises(InputError, match="coremltools hands it to a shell as it is"):
            IPhoneRuntime(folder=tmp_path / folder).load(artifact, OPTIONS)
        with pytest.raises(InputError, match="the identifier"):
            Signing(team=folder)
        assert phone._calls == []
        assert not (tmp_path / folder).exists()

    def test_it_is_found_by_its_name_where_there_are_several(self, phone: Any, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
        phone._lists(device("One"), device("Other"))
        assert IPhoneRuntime().available().missing == "2 iPhones are connected: One, Other"
        assert IPhoneRuntime(device="None").available().missing == "no iPhone called 'None' is connected, but One, Other"
        monkeypatch.setenv(DEVICE, "Other")
        with IPhoneRuntime().load(artifact, OPTIONS) as session:
            assert session.conditions["device"] == "Other (iphone)"

    def test_what_is_missing_is_named(self, phone: Any, mac: Any, monkeypatch: pytest.MonkeyPatch, artifact: Artifact) -> None:
        phone._lists()
        found = IPhoneRuntime().available()
        assert (found.version, found.missing) == (None, "no iPhone is connected")
        assert "developer mode" in found.remedy
        mac.program("xcrun", 'echo "ERROR: no devices can be listed" >&2; exit 1')
        assert IPhoneRuntime().available().missing == "devicectl does not tell what is connected: ERROR: no devices can be listed"
        monkeypatch.delenv(TEAM)
        assert IPhoneRuntime().available().missing == "nobody is named to sign the app"
        (mac.programs / "devicectl").unlink()
        assert IPhoneRuntime().available().missing == "devicectl is not here"
        with pytest.raises(MissingError, match="needs coreml-iphone, which is not usable here: devicectl is not here"):
            IPhoneRuntime().load(artifact, OPTIONS)

    @pytest.mark.parametrize(
        ("method", "message"),
        [("Load", "the device cannot load net.fp32.mlpackage on My iPhone: no such opset"), ("Prediction", "the device cannot run net")],
    )
    def test_what_the_app_refuses_is_the_packages_fault(
        self, phone: Any, artifact: Artifact, feeds: list[Feed], method: str, message: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        phone._refusals[method] = (-32000, "no such opset\nand more")
        with pytest.raises(InputError) as caught, IPhoneRuntime().load(artifact, OPTIONS) as session:
            session.run(feeds[0])
        assert str(caught.value).startswith(message)
        assert phone._process.stopped
        assert capfd.readouterr() == ("", "")

    def test_a_device_that_goes_away_is_missing(self, phone: Any, artifact: Artifact, feeds: list[Feed]) -> None:
        with IPhoneRuntime().load(artifact, OPTIONS) as session:
            phone._unplugged = True
            with pytest.raises(MissingError, match="the device did not run net") as caught:
                session.run(feeds[0])
        assert "devicectl: error: it is gone" in str(caught.value)
        assert phone._process.stopped

    def test_an_app_that_measures_nothing_gives_no_figure(
        self, phone: Any, artifact: Artifact, feeds: list[Feed], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        predict = phone._predict
        monkeypatch.setattr(phone, "_predict", lambda *given: {**predict(*given), "duration": None})
        with IPhoneRuntime().load(artifact, OPTIONS) as session, pytest.raises(MissingError, match="measured nothing"):
            session.run(feeds[0])

    def test_core_ml_on_this_mac_compiles_and_may_refuse(
        self, mac: Any, phone: Any, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mac.proxy, "refuses", "unknown opset")
        with pytest.raises(InputError, match=r"Core ML of macOS 15\.1 cannot load net\.fp32\.mlpackage on My iPhone: unknown opset"):
            IPhoneRuntime().load(artifact, OPTIONS)
        assert phone._process.stopped

    def test_inner_tensors_are_refused(self, phone: Any, artifact: Artifact) -> None:
        assert IPhoneRuntime().tensors(artifact) == ()
        with pytest.raises(InputError, match="Core ML hands out no inner tensor"):
            IPhoneRuntime().load(artifact, SessionOptions(taps=("stem",)))

    def test_a_running_loop_is_refused_before_anything_happens(self, phone: Any, artifact: Artifact) -> None:
        async def notebook() -> None:
            IPhoneRuntime().load(artifact, OPTIONS)

        with pytest.raises(InputError, match="inside a running event loop"):
            asyncio.run(notebook())
        assert phone._calls == []

    def test_a_session_that_was_left_does_nothing(self, phone: Any, artifact: Artifact, feeds: list[Feed]) -> None:
        with IPhoneRuntime().load(artifact, OPTIONS) as session:
            pass
        session.__exit__()
        for use in (lambda: session.run(feeds[0]), session.compute_plan):
            with pytest.raises(RuntimeError, match="the session was left"):
                use()
        assert phone._calls == ["Load", "Unload"]
