#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""mitherm-cloud against a stand-in for the vendor's service: cloud.py NAME runs one case."""

import contextlib
import json
import os
import pathlib
import resource
import socket
import subprocess
import sys
import tempfile
import time

import harness
from cloud_service import (APPLY, BIND, NEW_DID, SERVICE_TOKEN, SSECURITY, VECTORS, CloudService, Raw, make_authority,
                           session_text, signed_text, verify_ecdsa)

ADDRESS = "A4:C1:38:00:00:01"
TOKEN = "00112233445566778899aabb"
BIND_KEY = "ffeeddccbbaa99887766554433221100"
OTHER_KEY = "0102030405060708090a0b0c0d0e0f10"
DID = "blt.3.129vtestaag00"
PROGRAM = harness.BUILD / "cloud" / "mitherm-cloud"
CASES = {}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


def request(**changes):
    return json.dumps({"version": 1, "address": ADDRESS, "model": "miaomiaoce.sensor_ht.t2", "product_id": 0x055B,
                       "did": None, "token": TOKEN, "bind_key": BIND_KEY, "deadline_ms": 100000} | changes)


class Desk:
    """A folder with a session file, and the service where one is wanted."""

    def __init__(self, folder):
        self.folder = folder
        self.session = self.write_session()
        self.service = None

    def write_session(self, mode=0o600, **changes):
        path = self.folder / "session"
        path.write_text(session_text(**changes))
        path.chmod(mode)
        return path

    def run(self, *more, data=None, ca=None, url=None, environment=(), expect=None, before=None):
        """Runs the program; returns its answer."""
        args = [PROGRAM, f"--session={self.session}"]
        if self.service or url:
            args += [f"--base-url={url or self.service.url}", f"--ca-file={ca or self.service.ca}"]
        done = subprocess.run([str(a) for a in (*args, *more)], input=request() if data is None else data, text=True,
                              capture_output=True, timeout=120, check=False, env=dict(os.environ) | dict(environment),
                              preexec_fn=before)
        for secret in (SERVICE_TOKEN, SSECURITY, TOKEN, BIND_KEY):
            assert secret not in done.stdout + done.stderr, "a secret in the output"
        assert done.stderr == "", done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 1, done.stdout
        answer = json.loads(lines[0])
        if expect is None:
            assert done.returncode == 0 and set(answer) == {"did", "signature", "utc", "certificate"}, answer
        else:
            assert done.returncode == 1 and set(answer) == {"error", "message"}, answer
            assert answer["error"] == expect and answer["message"], answer
        return answer


@contextlib.contextmanager
def desk(with_service=True, **options):
    with tempfile.TemporaryDirectory(prefix="mitherm-cloud-") as name:
        folder = pathlib.Path(name)
        table = Desk(folder)
        if not with_service:
            yield table
            return
        with CloudService(folder, **options) as service:
            table.service = service
            yield table


def genuine(table, answer, bind_key=BIND_KEY):
    """The answer's certificate signed for this key."""
    certificate = bytes.fromhex(answer["certificate"])
    return verify_ecdsa(table.folder, certificate, bytes.fromhex(answer["signature"]),
                        signed_text(answer["did"], bind_key, answer["utc"]))


@case
def a_credential_is_fetched_in_two_calls():
    with desk() as table:
        answer = table.run()
        assert answer["did"] == NEW_DID and answer["utc"] == VECTORS["utc"], answer
        assert answer["certificate"] == VECTORS["certificate"] and genuine(table, answer), answer
        assert table.service.requests == [
            (APPLY, {"mac": ADDRESS, "model": "miaomiaoce.sensor_ht.t2", "token": TOKEN}),
            (BIND, {"did": NEW_DID, "token": TOKEN, "beacon_key": BIND_KEY,
                    "props": [{"type": "prop", "key": "bind_key", "value": BIND_KEY},
                              {"type": "prop", "key": "smac", "value": ADDRESS}]})]


@case
def plain_answers_are_read_too():
    with desk() as table:
        table.service.sealed = False
        assert genuine(table, table.run())


@case
def the_thermometers_own_did_is_used():
    with desk() as table:
        answer = table.run(data=request(did=DID))
        assert answer["did"] == DID and genuine(table, answer), answer
        assert [data["did"] for _, data in table.service.requests] == [DID, DID]


@case
def another_did_than_the_thermometers_is_refused():
    with desk() as table:
        table.service.answers[APPLY] = lambda data: {"code": 0, "result": {"did": NEW_DID}}
        assert DID in table.run(data=request(did=DID), expect="refused")["message"]
        assert len(table.service.requests) == 1


@case
def a_refusal_is_told_with_its_message():
    with desk() as table:
        for path in (APPLY, BIND):
            for sealed in (True, False):
                table.service.sealed = sealed
                table.service.answers[path] = lambda data: {"code": -8, "message": "device already \x1b[1m bound"}
                message = table.run(expect="refused")["message"]
                assert "device already" in message and "-8" in message and "\x1b" not in message, message
            table.service.answers[path] = table.service.apply
        table.service.answers[BIND] = lambda data: {"code": 0, "result": {"success": False}}
        table.run(expect="refused")
        table.service.answers[BIND] = lambda data: Raw(b"not here", 404)
        table.run(expect="refused")


@case
def an_expired_session_is_named():
    with desk() as table:
        table.write_session(ServiceToken="V1:old")
        table.run(expect="expired-session")
        assert table.service.requests == []
        table.write_session()
        for reply in ({"code": 3, "message": "auth err"}, {"code": 0, "message": "SERVICETOKEN_EXPIRED"},
                      Raw(b"", 401), Raw(b"<html>", 403)):
            table.service.answers[BIND] = lambda data, reply=reply: reply
            table.run(expect="expired-session")


@case
def a_wrong_region_is_named_and_no_redirect_followed():
    with desk() as table, CloudService(table.folder, name="other") as other:
        for status in (301, 302, 307, 308):
            table.service.answers[APPLY] = lambda data, status=status: Raw(
                b"", status, Location=other.url.replace("127.0.0.1", "localhost") + APPLY)
            assert "localhost" in table.run(expect="wrong-region")["message"]
        assert other.connections == 0 and other.requests == []
        table.service.answers[APPLY] = lambda data: {"code": -10, "message": "Region mismatch"}
        table.run(expect="wrong-region")
        before = table.service.connections
        table.write_session(Region="mars")
        assert "mars" in table.run(expect="wrong-region")["message"]
        assert table.service.connections == before


def changed(table, **changes):
    """A bind answer with other members."""
    def answer(data):
        result = table.service.credential(data) | changes
        return {"code": 0, "message": "ok", "result": {k: v for k, v in result.items() if v is not None}}
    return answer


@case
def malformed_answers_are_named():
    with desk() as table:
        service = table.service
        for sealed in (True, False):
            service.sealed = sealed
            for text in (b'{"code":0', b"{}", b'{"code":0,"result":null}', b'{"code":0,"result":{"did":5}}',
                         b'{"code":0,"result":{"did":"blt.3.129vtestaag00-too-long"}}',
                         b'{"code":0,"result":{"did":"a\xff"}}'):
                service.answers[APPLY] = lambda data, text=text: text
                table.run(expect="malformed")
        for body in (b"", b"<html>busy</html>", b"AAAA", b"!", b"\0" * 40):
            service.answers[APPLY] = lambda data, body=body: Raw(body)
            table.run(expect="malformed")


@case
def deep_nesting_needs_no_deep_stack():
    def small_stack():
        resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))
    # the second closes its brackets in strings only
    deep = ['{"a":' + "[" * 30000 + "]" * 30000 + "}", '{"a":' + '["]",' * 11000]
    with desk() as table:
        for text in deep:
            table.run(data=text, expect="bad-request", before=small_stack)
            table.service.answers[APPLY] = lambda data, text=text: text.encode()
            table.run(expect="malformed", before=small_stack)


@case
def malformed_credentials_are_named():
    with desk() as table:
        service = table.service
        good = service.credential({"did": DID, "beacon_key": BIND_KEY})
        certificate, signature = good["cloud_cert"], good["cloud_sign"]
        # fits: the certificate with and without padding, url-safe or not
        for fits in (certificate.rstrip("="), certificate.replace("-", "+").replace("_", "/")):
            service.answers[BIND] = changed(table, cloud_cert=fits)
            assert genuine(table, table.run())
        for bad in ({"cloud_cert": "*" + certificate[1:]}, {"cloud_cert": certificate[:-8]}, {"cloud_cert": ""},
                    {"cloud_cert": certificate[:400]}, {"cloud_cert": None}, {"cloud_cert": 5},
                    {"cloud_cert": certificate * 2}, {"cloud_sign": signature[:-4]}, {"cloud_sign": ""},
                    {"cloud_sign": signature.rstrip("=") + "AA=="}, {"cloud_sign": None}, {"cloud_sign": "?" * 86},
                    {"utc": -1}, {"utc": 1 << 32}, {"utc": "now"}, {"utc": None}, {"success": None}):
            service.answers[BIND] = changed(table, **bad)
            table.run(expect="malformed")


@case
def a_slow_service_ends_in_a_timeout():
    with desk() as table:
        def slow(data):
            table.service.wait(60)
            return table.service.apply(data)
        for path in (APPLY, BIND):
            table.service.answers[path] = slow
            begin = time.monotonic()
            table.run(data=request(deadline_ms=1500), expect="timeout")
            assert 1.4 < time.monotonic() - begin < 50  # the service takes 60 s
            table.run("--timeout=1", expect="timeout")
            table.service.answers[path] = table.service.apply
        before = len(table.service.requests)
        table.run(data=request(deadline_ms=0), expect="timeout")
        assert len(table.service.requests) == before


@case
def a_request_that_does_not_end_is_a_timeout():
    with desk() as table:
        child = subprocess.Popen([str(PROGRAM), f"--session={table.session}", f"--base-url={table.service.url}",
                                  "--timeout=1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        child.stdin.write(request())
        child.stdin.flush()
        assert child.wait(60) == 1
        assert json.loads(child.stdout.read())["error"] == "timeout"
        child.stdin.close()
        child.stdout.close()
        assert table.service.connections == 0


@case
def a_signature_for_another_key_is_passed_on():
    with desk() as table:
        table.service.signs_for = OTHER_KEY
        answer = table.run()
        assert not genuine(table, answer) and genuine(table, answer, OTHER_KEY)


@case
def a_foreign_authority_is_not_trusted():
    with desk() as table:
        foreign, _ = make_authority(table.folder, "foreign")
        table.run(ca=foreign, expect="network")
        args = [PROGRAM, f"--session={table.session}", f"--base-url={table.service.url}"]
        done = subprocess.run([str(a) for a in args], input=request(), text=True, capture_output=True, timeout=60,
                              check=False)
        assert json.loads(done.stdout)["error"] == "network", done
        table.run(ca=table.folder / "absent.pem", expect="network")
        assert table.service.connections > 0 and table.service.requests == []


@case
def a_certificate_for_another_host_is_not_trusted():
    with desk(host="DNS:api.io.mi.com") as table:
        table.run(expect="network")
        assert table.service.connections == 1 and table.service.requests == []


@case
def proxies_and_key_logs_of_the_environment_are_not_used():
    with desk() as table:
        log = table.folder / "keys.log"
        nowhere = {name: "http://127.0.0.1:1" for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")}
        assert genuine(table, table.run(environment=nowhere | {"SSLKEYLOGFILE": str(log)}))
        assert not log.exists()


@case
def nobody_there_is_a_network_error():
    with desk() as table:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            table.run(url=f"https://127.0.0.1:{unused.getsockname()[1]}", expect="network")
        for status in (500, 503):
            table.service.answers[APPLY] = lambda data, status=status: Raw(b"", status)
            table.run(expect="network")


@case
def an_endless_answer_is_cut_off():
    with desk() as table:
        table.service.answers[APPLY] = lambda data: Raw(endless=True)
        table.run(expect="malformed")
        assert len(table.service.requests) == 1


@case
def a_session_file_must_be_private_and_complete():
    with desk() as table:
        for mode in (0o644, 0o640, 0o604, 0o620):
            table.write_session(mode)
            assert "chmod 600" in table.run(expect="bad-session")["message"]
        for name in ("UserId", "ServiceToken", "SSecurity", "Region"):
            table.write_session(**{name: None})
            assert name in table.run(expect="bad-session")["message"]
        for bad in ({"UserId": "1; channel=x"}, {"ServiceToken": "a b"}, {"SSecurity": "no base64"}, {"SSecurity": ""}):
            table.write_session(**bad)
            table.run(expect="bad-session")
        table.session.write_text(session_text().replace("[session]", ""))
        table.run(expect="bad-session")
        table.session.unlink()
        table.run(expect="bad-session")
        table.session.mkdir()
        table.run(expect="bad-session")
        assert table.service.connections == 0


@case
def requests_that_make_no_sense_are_refused():
    with desk() as table:
        for data in ("", "{}", "[]", "rubbish", request(version=2), request(token=TOKEN[2:]), request(bind_key="xyz"),
                     request(address="here"), request(did=7), request(deadline_ms="soon"), request() + "x" * 70000):
            table.run(data=data, expect="bad-request")
        assert table.service.connections == 0


@case
def only_https_and_known_options():
    with desk(with_service=False) as table:
        for bad in (["--base-url=http://127.0.0.1:1"], ["--insecure"], ["--timeout=0"], ["--token=x"], ["more"]):
            done = subprocess.run([str(PROGRAM), f"--session={table.session}", *bad], input=request(), text=True,
                                  capture_output=True, timeout=60, check=False)
            assert done.returncode == 2 and done.stdout == "" and done.stderr, done


@case
def it_never_runs_as_root():
    with desk(with_service=False) as table:
        table.write_session(Region=None)
        table.run(expect="not-permitted" if os.geteuid() == 0 else "bad-session")


if __name__ == "__main__":
    sys.exit(harness.main(CASES))
