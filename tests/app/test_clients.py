"""Clients of the app: addresses, signed cookies, and a reverse proxy that is believed only if it was named."""

import pytest

from extremal.app.clients import Client, Clients
from support.errors import message_of

DIRECT = {"client": ("192.0.2.7", 5000), "server": ("127.0.0.1", 7860)}
PROXIED = {**DIRECT, "client": ("127.0.0.1", 5000)}


def cookie_of(clients: Clients) -> str:
    return clients.new_cookie(DIRECT).partition(";")[0]


def test_a_visitor_is_known_by_the_cookie_of_this_server() -> None:
    clients = Clients()
    first, second = (clients.identify(DIRECT, {"cookie": cookie_of(clients)}) for _ in range(2))
    assert first.address == second.address == "192.0.2.7"
    assert "" != first.visitor != second.visitor != ""
    cookie = cookie_of(clients)
    assert clients.identify(DIRECT, {"cookie": cookie}) == clients.identify(DIRECT, {"cookie": f"a=b; {cookie}"})
    assert Clients().identify(DIRECT, {"cookie": cookie}).visitor == ""  # another server


@pytest.mark.parametrize("value", ["", "anna", "anna.", ".", "anna.0123456789abcdef", "é.é", '"', "a;;=b"])
def test_invented_cookies_do_not_count(value: str) -> None:
    assert Clients().identify(DIRECT, {"cookie": f"extremal-visitor-7860={value}"}) == Client("192.0.2.7", "")


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites() -> None:
    header = Clients().new_cookie(DIRECT)
    assert header.startswith("extremal-visitor-7860=")
    assert header.endswith("; HttpOnly; SameSite=Strict; Path=/")


@pytest.mark.parametrize("forwarded", ["203.0.113.9", "203.0.113.9, 198.51.100.1", "x"])
def test_forwarded_addresses_are_believed_from_the_named_proxy_only(forwarded: str) -> None:
    headers, last = {"x-forwarded-for": forwarded}, forwarded.rsplit(", ", maxsplit=1)[-1]
    assert Clients().identify(PROXIED, headers).address == "127.0.0.1"
    assert Clients("127.0.0.1").identify(DIRECT, headers).address == "192.0.2.7"
    assert Clients("127.0.0.1").identify(PROXIED, headers).address == ("" if last == "x" else last)


def test_a_proxy_must_be_an_address() -> None:
    assert message_of(Clients, "nginx") == (
        "--proxy must be the IP address of a reverse proxy, got 'nginx'; e.g. 127.0.0.1"
    )
