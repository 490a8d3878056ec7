#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Firmware 2.1.1 and later, plans and keys from elsewhere: cases3.py NAME runs one case."""

import json
import pathlib
import shlex
import sys
import time

import harness
from cases import A, BIND_KEY, BOUND, DID, ONE, TOKEN, give_keys, last, refused, same_keys, updated
from cloud_service import VECTORS, CloudService, session_text
from harness import World, custom_image, firmware, image

HERE = pathlib.Path(__file__).resolve().parent
ROOT = VECTORS["root"]["public"]
OTHER_ROOT = VECTORS["other_root"]["public"]
V2 = f"[{A}]\nModel=LYWSD03MMC\nFirmware=2.1.1_0159\nRootKey={ROOT}\n"
CASES = {}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


class Rooted(World):
    """The daemon trusts the authority of the vectors."""

    def __init__(self, devices, config=f"[registration]\nRootKey={ROOT}\n", **more):
        super().__init__(devices, **more)
        path = self.dir / "mithermd.conf"
        path.write_text(config)
        self.daemon_args.append(f"--config={path}")


def command(*arguments):
    return "--credential-command=" + shlex.join([sys.executable, str(HERE / "credential.py"), *map(str, arguments)])


def stored(world, address=A):
    """The sets of keys in the store, newest first."""
    out = world.file("stored.json", b"")
    world.ctl("keys", "export", out)
    devices = {d["address"]: d for d in json.loads(out.read_text())["devices"]}
    return devices[address]["keys"] if address in devices else []


# --- credentials -----------------------------------------------------------------------------------

@case
def a_credential_command_registers_version_2():
    with Rooted(V2) as world:
        world.known(A)
        asked = world.dir / "request.json"
        result = world.ctl("activate", command("good", asked), A)
        assert "waiting-credential" in result.out, result
        state = world.device_state(A)
        assert state["registered"] is True and state["did"], state
        same_keys(world)
        request = json.loads(asked.read_text())
        assert set(request) == {"version", "address", "model", "product_id", "did", "token", "bind_key",
                                "deadline_ms"}, request
        assert request["version"] == 1 and request["address"] == A and request["product_id"] == 0x055B, request
        assert request["model"] == "miaomiaoce.sensor_ht.t2" and request["did"] is None, request
        assert request["token"] == state["token"] and request["bind_key"] == state["bind_key"]
        assert 0 < request["deadline_ms"] <= 18000, request
        assert last(world.ctl("--json", "login", A))["Result"]["keys"] == "current"
        log = (world.dir / "daemon.log").read_text().lower() + result.out + result.err
        assert state["token"] not in log and state["bind_key"] not in log
        assert "instead of the vendor's" in log


@case
def a_did_that_the_device_holds_is_kept():
    with Rooted(V2 + f"Did={DID}\n") as world:
        world.known(A)
        asked = world.dir / "request.json"
        world.ctl("activate", command("good", asked), A)
        assert json.loads(asked.read_text())["did"] == DID
        assert world.device_state(A)["did"] == DID
        same_keys(world)


def refuses_and_stays_usable(mode, error="CredentialRefused", text=None, code=1):
    with Rooted(V2) as world:
        world.known(A)
        result = world.ctl("activate", command(mode), A, expect=code)
        assert error in result.err and (text is None or text in result.err), result
        assert world.device_state(A)["registered"] is False
        keys = stored(world)
        assert len(keys) == 1 and keys[0]["state"] == "pending", [k["state"] for k in keys]
        world.ctl("activate", command("good"), A)
        same_keys(world)
        assert len(stored(world)) == 2


@case
def a_credential_for_another_bind_key_is_refused():
    refuses_and_stays_usable("foreign-key")


@case
def a_certificate_of_another_authority_is_refused():
    refuses_and_stays_usable("foreign-certificate")


@case
def a_certificate_not_valid_at_the_credentials_time_is_refused():
    refuses_and_stays_usable("expired")


@case
def a_truncated_certificate_is_refused():
    refuses_and_stays_usable("truncated")


@case
def an_empty_signature_is_refused():
    refuses_and_stays_usable("empty-signature", text="signature")


@case
def a_refusing_agent_is_quoted():
    refuses_and_stays_usable("refuse", text="expired-session")


@case
def a_command_without_an_answer_is_told():
    refuses_and_stays_usable("exit", text="exit status 3")


@case
def nested_rubbish_from_an_agent_is_refused():
    refuses_and_stays_usable("garbage")


@case
def an_agent_that_dies_ends_the_job():
    with Rooted(V2) as world:
        world.known(A)
        begin = time.monotonic()
        world.ctl("activate", command("kill-agent"), A, expect=-9)

        def over():
            jobs = [j for j in world.ctl("--json", "jobs").json() if j["Kind"] == "activate"]
            return jobs and jobs[-1]["State"] == "failed" and jobs[-1]["Error"].rsplit(".", 1)[1]
        world.until(over, limit=30)
        assert over() in ("CredentialRefused", "Timeout") and time.monotonic() - begin < 30
        assert world.device_state(A)["registered"] is False
        world.ctl("activate", command("good"), A)
        same_keys(world)


@case
def a_silent_agent_times_out_before_the_device_does():
    with Rooted(V2) as world:
        world.known(A)
        begin = time.monotonic()
        result = world.ctl("activate", command("silent"), A, expect=1)
        assert "Timeout" in result.err and 15 < time.monotonic() - begin < 40, result
        assert world.device_state(A)["registered"] is False
        world.ctl("activate", command("good"), A)
        same_keys(world)


@case
def cancel_while_the_agent_is_asked():
    with Rooted(V2) as world:
        world.known(A)
        running = world.ctl_start("activate", command("silent"), A)

        def waiting():
            return [j for j in world.ctl("--json", "jobs").json() if j["State"] == "waiting-credential"]
        world.until(waiting)
        begin = time.monotonic()
        running.send_signal(harness.signal.SIGINT)
        assert running.wait(20) == 5 and time.monotonic() - begin < 5
        world.ctl("activate", command("good"), A)
        same_keys(world)


@case
def a_device_with_another_root_refuses_and_stays_unbound():
    with Rooted(V2.replace(ROOT, OTHER_ROOT)) as world:
        world.known(A)
        result = world.ctl("activate", command("good"), A, expect=1)
        assert "CredentialRefused" in result.err, result
        assert world.device_state(A)["registered"] is False


@case
def without_the_configured_root_the_vendors_counts():
    with Rooted(V2, config="") as world:
        world.known(A)
        result = world.ctl("activate", command("good"), A, expect=1)
        assert "CredentialRefused" in result.err, result
        assert "instead of the vendor's" not in (world.dir / "daemon.log").read_text()


@case
def an_agent_that_left_is_forgotten():
    with Rooted(V2) as world:
        world.known(A)
        world.gdbus("--object-path=/org/mitherm", "--method=org.mitherm.Manager1.RegisterCredentialAgent", "/x")
        world.until(lambda: "has left the bus" in (world.dir / "daemon.log").read_text())
        assert "NeedsCredential" in world.ctl("activate", A, expect=4).err
        result = world.gdbus("--object-path=/org/mitherm",
                             "--method=org.mitherm.Manager1.UnregisterCredentialAgent", "/x", expect=1)
        assert "org.mitherm.Error.NotFound" in result.err, result
        assert not stored(world)


@case
def bad_credential_commands_are_told():
    with Rooted(V2) as world:
        world.known(A)
        world.ctl("activate", "--credential-command='", A, expect=2)
        world.ctl("activate", "--detach", command("good"), A, expect=2)
        result = world.ctl("activate", "--credential-command=/nonexistent/command", A, expect=1)
        assert "/nonexistent/command" in result.err and "CredentialRefused" in result.err, result


def cloud_command(world, service):
    program = harness.BUILD / "cloud" / "mitherm-cloud"
    if not program.exists():
        raise harness.Skip("mitherm-cloud is not built")
    session = world.file("session", session_text().encode())
    session.chmod(0o600)
    return "--credential-command=" + shlex.join([str(program), f"--session={session}", f"--ca-file={service.ca}",
                                                 f"--base-url={service.url}"])


@case
def mitherm_cloud_brings_the_credential():
    with Rooted(V2) as world, CloudService(world.dir) as service:
        world.known(A)
        world.ctl("activate", cloud_command(world, service), A)
        same_keys(world)
        asked = [data for path, data in service.requests]
        assert len(asked) == 2 and asked[0]["model"] == "miaomiaoce.sensor_ht.t2", asked


@case
def what_the_service_refuses_is_told():
    with Rooted(V2) as world, CloudService(world.dir) as service:
        world.known(A)
        service.answers["/app/device/bltapplydid"] = lambda data: {"code": -8, "message": "no such model"}
        result = world.ctl("activate", cloud_command(world, service), A, expect=1)
        assert "CredentialRefused" in result.err and "no such model" in result.err, result
        assert world.device_state(A)["registered"] is False


if __name__ == "__main__":
    sys.exit(harness.main(CASES))
