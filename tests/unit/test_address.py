"""An address says where a device is and nothing else: no password, no option, and nothing that a shell on the way could run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtvit_deploy.devices.address import Address, parse
from dtvit_deploy.errors import InputError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://orin", Address("orin")),
        ("ssh://me@orin:2222", Address("orin", "me", 2222)),
        ("ssh://orin/", Address("orin")),
        ("ssh://192.168.55.1", Address("192.168.55.1")),
        ("ssh://[::1]:22", Address("::1", None, 22)),
        ("ssh://me@[fe80::1%25eth0]", Address("fe80::1%eth0", "me")),
        ("ssh://[fe80::1%eth0]", Address("fe80::1%eth0")),
        ("ssh://me@corp.example@gate", Address("gate", "me@corp.example")),
        ("ssh://CORP%5Cme@gate", Address("gate", "CORP\\me")),
        ("ssh://Werkbank-Küche", Address("Werkbank-Küche")),
        ("ssh://lab_orin,2!", Address("lab_orin,2!")),
    ],
)
def test_host_user_and_port_are_told_apart_and_written_the_same_way_again(text: str, address: Address) -> None:
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["ssh://me:s3cret@orin", "ssh://me:s3c@ret@orin", "ssh://me%3As3cret@orin", "me:s3cret@orin", "http://me:s3cret@orin"]
)
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InputError, match="holds a password") as refused:
        parse(text)
    assert "s3c" not in f"{refused.value}{refused.value.remedy}"
    assert "ret" not in str(refused.value).partition("holds")[0]
    assert "ssh-copy-id" in str(refused.value.remedy)


@pytest.mark.parametrize("what", ["/home/me", "/x@y", "?port=2", "#top"])
def test_what_says_nothing_about_where_a_device_is_is_refused(what: str) -> None:
    with pytest.raises(InputError):
        parse(f"ssh://orin{what}")


@pytest.mark.parametrize(
    "text", ["", "orin", "ssh:orin", "ssh://", "ssh://@orin", "ssh://me@", "ssh://::1", "ssh://[::1", "ssh://[no]", "ssh://[::1%25a b]"]
)
def test_what_is_no_address_is_told_with_its_form(text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse(text)
    assert "ssh://" in str(refused.value.remedy)


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "22x", "٢٢", ""])
def test_ports_are_those_that_there_are(port: str) -> None:
    with pytest.raises(InputError):
        parse(f"ssh://orin:{port}")


@pytest.mark.parametrize(
    "part",
    [
        "-oProxyCommand=x",
        "$(x)",
        "`x`",
        "a;b",
        "a|b",
        "a&b",
        "a'b",
        'a"b',
        "a\nb",
        "a\rb",
        "a\0b",
        "a\x7fb",
        "<a",
        "{a}",
        "$HOME",
        "a%0Ab",
        "%2DoX=y",
        "%24(x)",
    ],
)
@pytest.mark.parametrize("place", ["ssh://{}", "ssh://{}@orin", "ssh://{}:22"])
def test_what_a_shell_or_the_client_would_take_for_its_own_is_refused(part: str, place: str) -> None:
    with pytest.raises(InputError):
        parse(place.format(part))


@pytest.mark.parametrize("host", ["a b", "a\\b", "a%h", "a\u00a0b", "a@b", "x" * 256])
def test_hosts_are_held_to_what_openssh_takes(host: str) -> None:
    with pytest.raises(InputError, match=r"cannot be used|password|is no address|is no UTF-8"):
        parse(f"ssh://me@{host.replace('@', '%40')}")


@pytest.mark.parametrize("user", ["me -x", "me\\", "me%25h", "me%2Fx", "", "x" * 256])
def test_users_are_held_to_what_openssh_takes(user: str) -> None:
    with pytest.raises(InputError, match=r"the user .* cannot be used"):
        parse(f"ssh://{user}@orin")


@given(st.text(alphabet=st.sampled_from("aä-@:/[]%2$(`'\" \\\n?#.0"), max_size=12))
def test_whatever_is_taken_can_be_no_option_and_is_read_the_same_again(text: str) -> None:
    try:
        address = parse(f"ssh://{text}")
    except InputError:
        return
    *options, dashes, host = address.arguments
    assert dashes == "--"
    assert not host.startswith("-")
    assert options[::2] == [option for option in ("-l", "-p") if option in options[::2]]
    assert not {*"$`;|&<>(){}'\"\n"} & {*"".join(address.arguments)}
    assert parse(str(address)) == address
