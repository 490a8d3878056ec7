#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes tests/fuzz/corpus/advert from the vectors: one input for each receiver (address and key)."""
import json
import pathlib

TOP = pathlib.Path(__file__).resolve().parent
FILES = [json.loads((TOP.parent / "vectors" / name).read_text()) for name in ("adverts.json", "adverts-more.json")]
FOLDER = TOP / "corpus" / "advert"
KINDS = {"fe95": 0, "m038f": 0, "181a": 1, "181c": 2, "181e": 3, "fcd2": 4, "fdcd": 5}
OTHER, ELEMENTS = 6, 7


def every(kind):
    return [vector for file in FILES for vector in file[kind]]


def head(mac, key, strict=False):
    key = bytes.fromhex(key or "")
    flags = (mac is not None) | {0: 0, 16: 1, 12: 2}.get(len(key), 3) << 1 | strict << 3
    return bytes.fromhex((mac or "00" * 6).replace(":", "")) + bytes([flags]) + key[:16].ljust(16, b"\0")


def frame(kind, data, seconds=1):
    return bytes([kind, seconds, len(data)]) + data


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    inputs = {}
    for vector in every("vectors"):
        name = f"{(vector['mac'] or 'none').replace(':', '').lower()}-{(vector.get('key_hex') or 'plain')[:8]}"
        data = inputs.setdefault(name, head(vector["mac"], vector.get("key_hex")))
        data += frame(KINDS.get(vector["uuid"], OTHER), bytes.fromhex(vector["service_data_hex"]))
        if "adv_hex" in vector:
            data += frame(ELEMENTS, bytes.fromhex(vector["adv_hex"]))
        inputs[name] = data
    for vector in every("adv_vectors"):
        inputs[vector["id"]] = head(None, None) + frame(ELEMENTS, bytes.fromhex(vector["adv_hex"]))
    for vector in every("sequences"):
        data, last = head(vector["mac"], vector.get("key_hex"), vector.get("strict", False)), 0
        for step in vector["steps"]:
            data += frame(KINDS[vector["uuid"]], bytes.fromhex(step["service_data_hex"]),
                          min(255, int(step["t"] - last)))
            last = step["t"]
        inputs[vector["id"]] = data
    for name, data in inputs.items():
        (FOLDER / name).write_bytes(data)


main()
