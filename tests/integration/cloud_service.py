# SPDX-License-Identifier: GPL-2.0-or-later
"""A stand-in for the vendor's service: HTTPS on loopback, with an authority of our own.

It checks every request as protocol/registration.md section 6 has it, by code of its own, and signs
credentials with the server key of registration_v2.json.
"""

import base64
import hashlib
import http.server
import json
import pathlib
import ssl
import struct
import subprocess
import threading
import time
import urllib.parse

VECTORS = json.loads((pathlib.Path(__file__).resolve().parents[1] / "vectors" / "registration_v2.json").read_text())
APPLY, BIND = "/app/device/bltapplydid", "/app/v2/device/ble_standard_bind"
USER_ID = "1234567890"
SERVICE_TOKEN = "V1:c2VydmljZS10b2tlbg/+=="
SSECURITY = base64.b64encode(bytes(range(100, 116))).decode()
NEW_DID = "blt.6.1testtesta000"


def openssl(*args, data=None):
    return subprocess.run(["openssl", *[str(a) for a in args]], input=data, capture_output=True, check=True).stdout


def make_authority(folder, name, host="IP:127.0.0.1,DNS:localhost"):
    """An authority and a server certificate by it: (authority's PEM, server's PEM with key)."""
    ca, key, request, server = (folder / f"{name}{end}" for end in ("-ca.pem", "-ca.key", ".csr", ".pem"))
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *new_key, "-keyout", key, "-out", ca, "-days", 2, "-subj", f"/CN={name} authority",
            "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-new", *new_key, "-keyout", server, "-out", request, "-subj", f"/CN={name}")
    extensions = folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={host}\nbasicConstraints=CA:FALSE\n")
    certificate = openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", key, "-set_serial", 1, "-days", 2,
                          "-extfile", extensions)
    server.write_bytes(server.read_bytes() + certificate)
    return ca, server


def rc4(key, data, drop=1024):
    state, j, out = list(range(256)), 0, bytearray()
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) & 255
        state[i], state[j] = state[j], state[i]
    i = j = 0
    for byte in bytes(drop) + data:
        i = (i + 1) & 255
        j = (j + state[i]) & 255
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) & 255])
    return bytes(out[drop:])


def der_integers(der):
    """r and s of an ECDSA signature."""
    assert der[0] == 0x30 and der[1] == len(der) - 2 and der[2] == 2
    r = der[4:4 + der[3]]
    s = der[4 + der[3] + 2:]
    return int.from_bytes(r, "big"), int.from_bytes(s, "big")


def sign_ecdsa(folder, private_hex, data):
    """ECDSA-SHA256 on P-256: r and s, 32 bytes each."""
    key = folder / "signer.der"
    key.write_bytes(bytes.fromhex("30310201010420" + private_hex + "a00a06082a8648ce3d030107"))
    r, s = der_integers(openssl("dgst", "-sha256", "-sign", key, "-keyform", "DER", data=data))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def verify_ecdsa(folder, certificate, signature, data):
    """Whether the certificate's key (DER) made the signature (r and s)."""
    def integer(part):
        part = part.lstrip(b"\0") or b"\0"
        part = (b"\0" if part[0] & 0x80 else b"") + part
        return bytes([2, len(part)]) + part
    body = integer(signature[:32]) + integer(signature[32:])
    (folder / "signature.der").write_bytes(bytes([0x30, len(body)]) + body)
    (folder / "public.pem").write_bytes(openssl("x509", "-inform", "DER", "-pubkey", "-noout", data=certificate))
    return subprocess.run(["openssl", "dgst", "-sha256", "-verify", folder / "public.pem", "-signature",
                           folder / "signature.der"], input=data, capture_output=True, check=False).returncode == 0


def signed_text(did, bind_key, utc):
    """What the server signs: DID of 20 bytes, bind key, UTC little-endian (section 4)."""
    return did.encode().rjust(20, b"\0") + bytes.fromhex(bind_key) + struct.pack("<I", utc)


class Raw:
    """An answer that is no JSON in the envelope."""

    def __init__(self, body=b"", status=200, endless=False, **headers):
        self.body, self.status, self.endless, self.headers = body, status, endless, headers


class CloudService:
    """with CloudService(folder) as service: service.url, service.ca, service.requests, service.answers."""

    def __init__(self, folder, host="IP:127.0.0.1,DNS:localhost", name="service"):
        self.folder = folder
        self.ca, self.certificate = make_authority(folder, name, host)
        self.requests = []      # (path, the JSON of field data) in order
        self.complaints = []    # what no client may do
        self.connections = 0
        self.nonces = set()
        self.sealed = True      # answers in the envelope, or plain
        self.signs_for = None   # another bind key than the asked one
        self.answers = {APPLY: self.apply, BIND: self.bind}
        self.stopped = threading.Event()

    # --- what it answers -------------------------------------------------------------------------
    def apply(self, data):
        return {"code": 0, "message": "ok", "result": {"did": data.get("did", NEW_DID)}}

    def credential(self, data):
        utc = int(VECTORS["utc"])
        text = signed_text(data["did"], self.signs_for or data["beacon_key"], utc)
        signature = sign_ecdsa(self.folder, VECTORS["server"]["private"], text)
        return {"success": True, "utc": utc,
                "cloud_cert": base64.urlsafe_b64encode(bytes.fromhex(VECTORS["certificate"])).decode(),
                "cloud_sign": base64.urlsafe_b64encode(signature).decode()}

    def bind(self, data):
        return {"code": 0, "message": "ok", "result": self.credential(data)}

    # --- the envelope ----------------------------------------------------------------------------
    def open(self, path, body):
        """The data of a form and the key of its envelope."""
        pairs = urllib.parse.parse_qsl(body.decode(), strict_parsing=True)
        form = dict(pairs)
        assert [name for name, _ in pairs] == ["data", "rc4_hash__", "signature", "ssecurity", "_nonce"], pairs
        assert form["ssecurity"] == SSECURITY
        nonce = base64.b64decode(form["_nonce"], validate=True)
        assert len(nonce) == 12 and abs(int.from_bytes(nonce[8:], "big") - time.time() // 60) <= 1, nonce
        assert nonce not in self.nonces, "a nonce came twice"
        self.nonces.add(nonce)
        key = hashlib.sha256(base64.b64decode(SSECURITY) + nonce).digest()

        def check(got, *fields):
            text = "&".join(["POST", path[len("/app"):], *fields, base64.b64encode(key).decode()])
            assert base64.b64decode(got) == hashlib.sha1(text.encode()).digest(), text
        check(form["signature"], "data=" + form["data"], "rc4_hash__=" + form["rc4_hash__"])
        data = rc4(key, base64.b64decode(form["data"], validate=True)).decode()
        check(rc4(key, base64.b64decode(form["rc4_hash__"], validate=True)), "data=" + data)
        return json.loads(data), key

    def check_headers(self, headers):
        """Complains of what is missing; returns whether the session is known."""
        wanted = {"MIOT-ENCRYPT-ALGORITHM": "ENCRYPT-RC4", "X-XIAOMI-PROTOCAL-FLAG-CLI": "PROTOCAL-HTTP2",
                  "Accept-Encoding": "identity", "Content-Type": "application/x-www-form-urlencoded"}
        for name, value in wanted.items():
            assert headers.get(name) == value, f"{name}: {headers.get(name)}"
        cookies = dict(part.split("=", 1) for part in headers["Cookie"].split("; "))
        assert set(cookies) == {"userId", "serviceToken", "yetAnotherServiceToken", "locale", "timezone",
                                "is_daylight", "dst_offset", "channel"}, cookies
        assert cookies["channel"] == "MI_APP_STORE" and cookies["userId"] == USER_ID, cookies
        assert cookies["serviceToken"] == cookies["yetAnotherServiceToken"], cookies
        return cookies["serviceToken"] == SERVICE_TOKEN

    def answer(self, path, headers, body):
        try:
            known = self.check_headers(headers)
            data, key = self.open(path, body)
        except Exception as problem:
            self.complaints.append(f"{path}: {problem!r}")
            return Raw(b'{"code":-6,"message":"invalid signature"}', 400)
        if not known:
            return Raw(b'{"code":3,"message":"auth err"}', 401)
        self.requests.append((path, data))
        reply = self.answers[path](data)
        if isinstance(reply, Raw):
            return reply
        text = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        return Raw(base64.b64encode(rc4(key, text)) if self.sealed else text)

    # --- the server ------------------------------------------------------------------------------
    def __enter__(self):
        service = self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                reply = service.answer(self.path, self.headers, body)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if not reply.endless:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
                while reply.endless and not service.stopped.is_set():
                    self.wfile.write(b" " * 4096)

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def finish_request(self, request, client_address):
                service.connections += 1
                try:
                    with context.wrap_socket(request, server_side=True) as stream:
                        stream.settimeout(60)
                        Handler(stream, client_address, self)
                except OSError:
                    pass  # the client left, or does not trust us

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind, value, trace):
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)
        if kind is None:
            assert not self.complaints, self.complaints

    def wait(self, seconds):
        """A slow answer; ends early with the service."""
        self.stopped.wait(seconds)


def session_text(**changes):
    values = {"UserId": USER_ID, "ServiceToken": SERVICE_TOKEN, "SSecurity": SSECURITY, "Region": "de"} | changes
    return "[session]\n" + "".join(f"{k}={v}\n" for k, v in values.items() if v is not None)
