"""A state as text: what is packed comes back bit for bit, what is damaged is refused, what is old is read."""

from __future__ import annotations

import base64
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo_policies.accuracy.anytime import MESSPlusAnytime
from wattzoo_policies.accuracy.state_text import PLAIN_LENGTH, pack_counters, read_state, unpack_counters, write_state
from wattzoo_policies.protocols import StateError

DIGESTS = st.text("0123456789abcdef", min_size=10, max_size=10)
COUNTS = st.one_of(
    st.integers(0, 2**53).map(float),
    st.floats(0.0, allow_nan=False, allow_infinity=False),
)


@given(st.dictionaries(DIGESTS, COUNTS, max_size=192))
def test_counters_come_back_exactly_and_in_their_order(counters: dict[str, float]) -> None:
    packed = pack_counters(counters)
    assert isinstance(packed, str)
    assert list(unpack_counters(packed).items()) == list(counters.items())


def test_a_whole_count_below_a_million_takes_eight_bytes() -> None:
    # five of the digest; 2 x 999,999 has 21 bits, seven a byte
    packed_text = pack_counters({"00ff00ff00": 999_999.0})
    assert isinstance(packed_text, str)
    assert len(base64.b64decode(packed_text)) == 8


@given(st.dictionaries(st.text(), COUNTS.filter(lambda value: value < 1e15), max_size=5))
def test_any_key_comes_back(counters: dict[str, float]) -> None:
    assert unpack_counters(json.loads(json.dumps(pack_counters(counters)))) == counters


@given(st.binary(min_size=1, max_size=40))
def test_damaged_counters_are_refused_or_read_as_numbers(raw: bytes) -> None:
    try:
        counters = unpack_counters(base64.b64encode(raw).decode())
    except ValueError:
        return
    assert all(isinstance(value, float) for value in counters.values())


@given(st.dictionaries(st.text(max_size=20), st.lists(st.floats(allow_nan=False), max_size=200), max_size=10))
def test_a_body_comes_back_whether_packed_or_not(body: dict[str, list[float]]) -> None:
    body = {f"x{key}": value for key, value in body.items()}
    text = write_state("Law", body)
    assert {key: read_state("Law", text)[key] for key in body} == body
    plain = json.dumps({"version": 2, "policy": "Law"} | body, separators=(",", ":"))
    assert ("z" in json.loads(text)) == (len(plain) > PLAIN_LENGTH)


def packed(raw: bytes) -> str:
    return json.dumps({"version": 2, "policy": "Law", "z": base64.b64encode(raw).decode()})


@pytest.mark.parametrize(
    "text",
    [
        packed(zlib.compress(b"{" + b" " * 5000 + b"}")[:-8]),  # cut
        packed(zlib.compress(b" " * (1 << 21))),  # larger than any state
        packed(b"no zlib"),
        packed(zlib.compress(b"no json")),
        json.dumps({"version": 2, "policy": "Law", "z": "no base64 \u00e9"}),
        json.dumps({"version": 3, "policy": "Law"}),
        json.dumps({"version": 2, "policy": "Other"}),
        "[]",
        "",
    ],
)
def test_what_cannot_be_read_is_a_state_error(text: str) -> None:
    with pytest.raises(StateError):
        read_state("Law", text)


def test_a_state_of_version_one_is_read() -> None:
    # as written before counters were packed
    counters = {"0011223344": 3, "aabbccddee": 1}
    ledger = {"m": {"a": [3, 4]}, "r": 2.0, "c": counters, "s": 0.0, "t": 15.0, "w": None, "x": 0}
    old = {
        "version": 1,
        "policy": "MESSPlusAnytime",
        "members": [["a", None, 0.0]],
        "ledger": ledger,
        "rows": [[4, 3, 0, 0, 4, 3, 4, 4]],
        "open": 0,
        "served": None,
        "due": [],
    }
    state = MESSPlusAnytime().state_from_json(json.dumps(old))
    assert state.ledger.counters == {"0011223344": 3.0, "aabbccddee": 1.0}
    assert state.ledger.debt_requests == pytest.approx(-1.0)
    assert MESSPlusAnytime().state_from_json(state.to_json()) == state
