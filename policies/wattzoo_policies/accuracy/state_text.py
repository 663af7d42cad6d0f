"""How a policy's state becomes text: JSON while it is small, packed when it grows, exact in both.

A state lives in an object's status, so its size is bounded whatever a service exposes: counters are packed to the bytes
of their digest and a number of variable length, and a text of more than `PLAIN_LENGTH` characters is compressed
(base64 of zlib, in the field `z`). Texts of earlier versions, plain throughout, are still read.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from wattzoo_policies.protocols import StateError

PLAIN_LENGTH = 1500
"""Up to so many characters a state stays plain, so that small ones can be read with the eyes."""

VERSION = 2
READABLE = (1, 2)
_MOST_BYTES = 1 << 20
_DIGEST_BYTES = 5
_DIGEST = re.compile(r"[0-9a-f]{10}")
_WHOLE_BELOW = 2.0**53


def write_state(policy: str, body: Mapping[str, Any]) -> str:
    """Return the text of a policy's state."""
    head = {"version": VERSION, "policy": policy}
    text = json.dumps(head | dict(body), separators=(",", ":"))
    if len(text) <= PLAIN_LENGTH:
        return text
    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return json.dumps(head | {"z": packed}, separators=(",", ":"))


def read_state(policy: str, text: str) -> Mapping[str, Any]:
    """Return the body that `write_state` was given; raises `StateError` for another policy, version or damage."""
    try:
        body = json.loads(text)
        if body["policy"] != policy or body["version"] not in READABLE:
            raise StateError(f"state of {body['policy']} version {body['version']}, not {policy} {VERSION}")
        if "z" in body:
            inflate = zlib.decompressobj()
            plain = inflate.decompress(base64.b64decode(body["z"], validate=True), _MOST_BYTES)
            if not inflate.eof:
                raise ValueError("the packed text is cut or too long")
            body = json.loads(plain)
        return dict(body)
    except (KeyError, TypeError, AttributeError, ValueError, zlib.error) as error:
        raise StateError(f"state of {policy} cannot be read: {error}") from error


def pack_counters(counters: Mapping[str, float]) -> str | dict[str, float | int]:
    """Return counters by digest (ten hexadecimal digits) as text, in their order; other keys stay a mapping.

    Each is its digest's five bytes and a number of seven bits a byte, lowest first: twice a whole value, or one
    followed by the eight bytes of a value that is not whole.
    """
    if not all(_DIGEST.fullmatch(key) for key in counters):
        return {key: compact(value) for key, value in counters.items()}
    raw = bytearray()
    for key, value in counters.items():
        whole = float(value).is_integer() and 0.0 <= value < _WHOLE_BELOW
        raw += bytes.fromhex(key)
        number = int(value) << 1 if whole else 1
        while number > 0x7F:
            raw.append(number & 0x7F | 0x80)
            number >>= 7
        raw.append(number)
        if not whole:
            raw += struct.pack("<d", value)
    return base64.b64encode(bytes(raw)).decode()


def unpack_counters(packed: str | Mapping[str, float]) -> dict[str, float]:
    """Return what `pack_counters` was given; raises ValueError when damaged."""
    if not isinstance(packed, str):
        return {str(key): float(value) for key, value in packed.items()}
    raw = base64.b64decode(packed, validate=True)
    counters: dict[str, float] = {}
    place = 0
    try:
        while place < len(raw):
            key, place = raw[place : place + _DIGEST_BYTES].hex(), place + _DIGEST_BYTES
            number = shift = 0
            while raw[place] > 0x7F:
                number |= (raw[place] & 0x7F) << shift
                place, shift = place + 1, shift + 7
            number |= raw[place] << shift
            place += 1
            counters[key] = float(number >> 1)
            if number & 1:
                counters[key] = float(struct.unpack_from("<d", raw, place)[0])
                place += 8
    except (IndexError, struct.error, OverflowError) as error:
        raise ValueError("the packed counters are cut") from error
    return counters


def compact(value: float) -> float | int:
    """Return a whole number without its point, which JSON would write."""
    return int(value) if float(value).is_integer() else value
