# SPDX-License-Identifier: GPL-2.0-or-later
"""Images signed by the test authority of image.json (protocol/image.md sections 2 to 5)."""

import base64
import json
import pathlib
import struct
import tempfile
import zlib

from cloud_service import openssl

VECTORS = json.loads((pathlib.Path(__file__).resolve().parents[1] / "vectors" / "image.json").read_text())
ROOT = VECTORS["root"]["public"]
VENDOR_ROOT = "bef58b02dae3fff8541aa0448fbac44db7c69a2fa8f0b1b6ff7ad951db6628fa" \
              "d7f020ea39a2ee867fdd783fdc2fb086095cc2850413a2802c627dbdc715f4f9"
ENVELOPE = bytes.fromhex(VECTORS["envelope"]["envelope"])
MAGIC = bytes.fromhex("000000004d49ef54464f544182562647")


def pem(der):
    text = base64.b64encode(der).decode()
    lines = [text[i:i + 64] for i in range(0, len(text), 64)]
    return ("-----BEGIN CERTIFICATE-----\n" + "\n".join(lines) + "\n-----END CERTIFICATE-----\n").encode()


def tag(body, version, product_id, model, cert_size):
    """version: "2.1.1_0160"."""
    numbers, build = version.split("_")
    major, minor, revision = map(int, numbers.split("."))
    values = bytes([1, 5, major, minor, revision]) + struct.pack("<H", int(build))
    values += bytes([4, len(model)]) + model.encode() + bytes([3, 1, 1, 5, 4]) + struct.pack("<I", product_id)
    head = MAGIC + struct.pack("<HHIHBB", 28 + len(values) + 4, product_id, len(body), cert_size, 0, 0) + values
    return head + struct.pack("<I", zlib.crc32(body + head, 0xFFFFFFFF) ^ 0xFFFFFFFF)


def sign(body, version, product_id=0x055B, model="miaomiaoce.sensor_ht.t2"):
    certificates = b"".join(pem(bytes.fromhex(der)) for der in VECTORS["chain"])
    head = tag(body, version, product_id, model, len(certificates))
    with tempfile.TemporaryDirectory() as folder:
        key = pathlib.Path(folder) / "signer.der"
        key.write_bytes(bytes.fromhex("30310201010420" + VECTORS["signer"]["private"] + "a00a06082a8648ce3d030107"))
        signature = openssl("dgst", "-sha256", "-sign", key, "-keyform", "DER", data=body + head)
    signed = body + head + certificates + signature
    return signed + b"\xff" * (-len(signed) % 16)
