#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A credential command for tests: credential.py MODE [FILE]; request on stdin, answer on stdout.

FILE gets the request. Signs with the server key of registration_v2.json.
"""

import json
import os
import pathlib
import signal
import sys
import tempfile
import time

from cloud_service import VECTORS, sign_ecdsa, signed_text

NEW_DID = "blt.6.1testtesta000"


def answer(request, mode):
    did = request["did"] or NEW_DID
    utc = int(VECTORS["utc"])
    bind_key = request["bind_key"]
    certificate = VECTORS["certificate"]
    if mode == "foreign-key":
        bind_key = "00" * 16
    if mode == "expired":
        utc = 1500000000  # before the certificate's first day
    if mode == "foreign-certificate":
        certificate = VECTORS["other_certificate"]
    with tempfile.TemporaryDirectory() as folder:
        signature = sign_ecdsa(pathlib.Path(folder), VECTORS["server"]["private"],
                               signed_text(did, bind_key, utc)).hex()
    if mode == "truncated":
        certificate = certificate[:-20]
    if mode == "empty-signature":
        signature = ""
    return {"did": did, "signature": signature, "utc": utc, "certificate": certificate}


def main():
    mode = sys.argv[1]
    request = json.load(sys.stdin)
    if len(sys.argv) > 2:
        pathlib.Path(sys.argv[2]).write_text(json.dumps(request))
    if mode == "refuse":
        print(json.dumps({"error": "expired-session", "message": "sign in again"}))
        return 1
    if mode == "silent":
        time.sleep(120)
    if mode == "kill-agent":
        os.kill(os.getppid(), signal.SIGKILL)
        return 0
    if mode == "exit":
        return 3
    if mode == "garbage":
        print("[" * 100000)
        return 0
    print(json.dumps(answer(request, mode)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
