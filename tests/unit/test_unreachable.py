"""Why a device cannot be reached: each reason is one message with a remedy, and no host is ever taken for another."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from commandline import deploy
from dtvit_deploy.devices.address import parse
from dtvit_deploy.devices.inventory import find
from dtvit_deploy.devices.openssh import Connection
from dtvit_deploy.devices.ssh_failure import unreachable
from dtvit_deploy.errors import DeployError, InputError, MissingError
from sshd import ALIAS, Sshd, free_port, sshd


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    with sshd(tmp_path / "device") as found:
        monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(found.config))
        yield found


def connects(address: str = f"ssh://{ALIAS}") -> bool:
    with Connection(parse(address)) as connection:
        return connection.run(["echo", "here"]).stdout == b"here\n"


def refusal(kind: type[DeployError], address: str = f"ssh://{ALIAS}") -> str:
    with pytest.raises(kind) as refused, Connection(parse(address)):
        pass
    assert refused.value.remedy
    assert "\n" not in str(refused.value)
    return f"{refused.value} | {refused.value.remedy}"


LOOSE = ("StrictHostKeyChecking no", "StrictHostKeyChecking off", "StrictHostKeyChecking accept-new\n  UserKnownHostsFile /dev/null")


@pytest.mark.parametrize("checking", ["StrictHostKeyChecking ask", "StrictHostKeyChecking accept-new", *LOOSE])
def test_another_host_key_than_the_known_one_is_never_accepted(server: Sshd, checking: str) -> None:
    server.know(server.make_key("another").with_suffix(".pub"))
    server.configure(checking)
    told = refusal(MissingError)
    assert "null" in checking or "it shows another host key than the one that is known" in told
    assert "null" in checking or f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in told


@pytest.mark.parametrize(
    "checking", ["StrictHostKeyChecking ask", "StrictHostKeyChecking yes", *LOOSE, "NoHostAuthenticationForLocalhost yes"]
)
def test_an_unknown_host_key_is_not_accepted_and_not_noted(server: Sshd, checking: str) -> None:
    (server.folder / "known").write_text("")
    server.configure(checking)
    told = refusal(MissingError)
    assert "its host key is not known here" in told
    assert f"ssh -F {server.config} {ALIAS}" in told
    assert ("is not followed here" in told) == (checking in LOOSE)
    assert (server.folder / "known").read_text() == ""


def test_a_user_who_takes_new_keys_and_remembers_them_may(server: Sshd) -> None:
    (server.folder / "known").write_text("")
    server.configure("StrictHostKeyChecking accept-new")
    assert connects()
    assert (server.folder / "known").read_text()


def test_a_key_that_is_not_let_in_is_told(server: Sshd) -> None:
    server.make_key("stranger")
    server.configure(key="stranger")
    told = refusal(MissingError)
    assert "Permission denied (publickey)" in told
    assert f"ssh-copy-id -F {server.config} {ALIAS}" in told


def test_a_key_with_a_passphrase_asks_nobody(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = server.make_key("locked", "secret")
    (server.folder / "authorized").write_text(locked.with_suffix(".pub").read_text())
    server.configure(key="locked")
    asked = server.folder / "asked"
    window = server.folder / "window"
    window.write_text(f"#!/bin/sh\ntouch {asked}\necho secret\n")
    window.chmod(0o755)
    for name, value in {"SSH_ASKPASS": str(window), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}.items():
        monkeypatch.setenv(name, value)
    assert "a key with a passphrase must be in the agent (ssh-add)" in refusal(MissingError)
    assert not asked.exists()


def test_nothing_at_a_port_and_no_such_name_are_told_apart(server: Sshd) -> None:
    server.configure(alias="*")
    assert "no ssh server answers at that port" in refusal(MissingError, f"ssh://me@x:{free_port()}")
    server.config.write_text("")
    assert "its name is not known" in refusal(MissingError, "ssh://no-such-device.invalid")


@contextlib.contextmanager
def listener(words: bytes | None) -> Iterator[int]:
    """Something at a port that is no ssh server: it says a word and hangs up, or says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held: list[socket.socket] = []

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listening.accept()[0])
                    if words is not None:
                        held[-1].sendall(words)
                        held.pop().close()

        threading.Thread(target=answer, daemon=True).start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
        for each in held:
            each.close()


@pytest.mark.parametrize("words", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b""])
def test_what_is_no_ssh_server_is_told(server: Sshd, words: bytes) -> None:
    server.configure(alias="*")
    with listener(words) as port:
        assert "something answers there that is no ssh server for you" in refusal(MissingError, f"ssh://x:{port}")


def test_a_machine_that_says_nothing_is_not_waited_for_without_end(server: Sshd) -> None:
    server.configure("ConnectTimeout 1", alias="*")
    with listener(None) as port:
        assert "it does not answer" in refusal(MissingError, f"ssh://x:{port}")


@pytest.mark.parametrize("text", ["Nonsense yes\n", "Host *\n  Port many\n", "Host *\n  StrictHostKeyChecking maybe\n"])
def test_a_configuration_that_ssh_does_not_accept_is_the_users_mistake(server: Sshd, text: str) -> None:
    server.config.write_text(text)
    told = refusal(InputError)
    assert re.search(r"does not accept its configuration: .*line \d", told)
    assert "DTVIT_DEPLOY_SSH_CONFIG" in told


def test_a_configuration_that_is_not_there_is_told(server: Sshd) -> None:
    server.config.unlink()
    assert str(server.config) in refusal(InputError)


def test_without_an_ssh_client_it_is_told_what_to_install(server: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "openssh-client" in refusal(MissingError)


def test_what_a_configuration_does_besides_connecting_is_left_out(server: Sshd, tmp_path: Path) -> None:
    server.configure(
        f"LocalCommand touch {tmp_path}/local",
        "PermitLocalCommand yes",
        f"RemoteCommand touch {tmp_path}/remote",
        "RequestTTY force",
        f"LocalForward {free_port()} 127.0.0.1:1",
        "ForwardAgent yes",
        "ControlMaster auto",
        f"ControlPath {tmp_path}/shared",
        "ControlPersist 60",
        "LogLevel DEBUG3",
        "ForkAfterAuthentication yes",
        "StdinNull yes",
    )
    assert connects()
    assert not {path.name for path in tmp_path.iterdir()} & {"local", "remote", "shared"}


def test_names_with_something_for_a_shell_in_them_run_nothing(server: Sshd, tmp_path: Path) -> None:
    """This configuration hands host and user to a shell without quotes, as those in the wild do."""
    server.configure(f"ProxyCommand echo %n %h %r > {tmp_path}/called; false", alias="*")
    marker = tmp_path / "marker"
    evils = (
        f"$(touch {marker})",
        f"`touch {marker}`",
        f";touch {marker};",
        f"x\ntouch {marker}",
        "-oProxyCommand=touch",
        f"|touch {marker}",
    )
    for evil in (*evils, *(each.replace("/", "%2F") for each in evils)):
        for address in (f"ssh://{evil}", f"ssh://{evil}@x", f"ssh://x:{evil}"):
            with pytest.raises(InputError):
                find(address)
    for address in (f"ssh://{evils[0]}", f"ssh://{evils[3]}@x", "--help", "-oProxyCommand=touch"):
        done = deploy("doctor", f"--device={address}", cwd=tmp_path, code=2, fresh=True)
        assert "Traceback" not in done.stderr
    assert not marker.exists()
    assert not (tmp_path / "called").exists()


def test_the_command_line_tells_one_message_with_exit_code_3(server: Sshd, tmp_path: Path) -> None:
    server.know(server.make_key("another").with_suffix(".pub"))
    done = deploy("doctor", "--device", server.address, "--json", cwd=tmp_path, code=3, fresh=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr.count("error:") == 1
    assert "another host key" in done.stderr
    assert "Traceback" not in done.stderr
    assert "@@@" not in done.stderr  # ssh's own warning


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ssh: connect to host orin port 22: No route to host", "it does not answer"),
        ("ssh: connect to host orin port 22: Operation timed out", "it does not answer"),  # macOS
        ("ssh: connect to host orin port 22: Host is down", "it does not answer"),
        ("ssh: Could not resolve hostname orin: nodename nor servname provided, or not known", "its name is not known"),  # macOS
        ("kex_exchange_identification: read: Connection reset by peer", "no ssh server for you"),
        ("Unable to negotiate with 10.0.0.7 port 22: no matching host key type found. Their offer: ssh-dss", "Their offer: ssh-dss"),
        ("@       WARNING: REVOKED HOST KEY DETECTED!               @\nHost key verification failed.", "shows another host key"),
        (
            'sign_and_send_pubkey: signing failed for ED25519 "x" from agent: agent refused operation\nme@orin: Permission denied',
            "did not sign",
        ),
        ("Something that no release has said yet \x1b[2J", ":2222 cannot be reached: Something that no release has said yet �[2J"),
        ("", "ssh ended without a word"),
    ],
)
def test_what_ssh_says_elsewhere_has_its_reason_too(said: str, told: str) -> None:
    """By the words of OpenSSH's source and of macOS' C library; nothing here says them."""
    error = unreachable(parse("ssh://me@orin:2222"), {}, f"{said}\r\n".encode())
    assert isinstance(error, MissingError)
    assert told in str(error)
    assert str(error).isprintable()
    assert error.remedy
    assert "{" not in error.remedy


def test_a_private_key_that_others_can_read_is_told(server: Sshd) -> None:
    (server.folder / "user").chmod(0o644)
    assert "ssh takes no private key that others can read: Load key" in refusal(MissingError)


def test_a_private_key_that_is_none_is_told(server: Sshd) -> None:
    (server.folder / "user").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n")
    assert "a private key cannot be used: Load key" in refusal(MissingError)


def test_more_keys_than_a_server_looks_at_are_told(server: Sshd) -> None:
    keys = [server.make_key(f"stranger-{number}") for number in range(7)]
    server.configure(*(f"IdentityFile {key}" for key in keys))
    assert "more keys were offered than it looks at" in refusal(MissingError)


def test_a_jump_host_of_the_configuration_is_gone_through(server: Sshd) -> None:
    server.configure("ProxyJump gate")
    behind = server.config.read_text()
    server.configure(alias="gate")
    with server.config.open("a") as file:
        file.write(behind)
    before = server.log.count("Accepted publickey")
    assert connects()
    assert server.log.count("Accepted publickey") == before + 2


def test_a_jump_host_that_lets_nobody_in_is_told(server: Sshd) -> None:
    server.make_key("stranger")
    server.configure("ProxyJump gate")
    behind = server.config.read_text()
    server.configure(alias="gate", key="stranger")
    with server.config.open("a") as file:
        file.write(behind)
    assert "Permission denied (publickey)" in refusal(MissingError)
