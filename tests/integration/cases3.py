#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Firmware 2.1.1 and later, plans and keys from elsewhere: cases3.py NAME runs one case."""

import hashlib
import json
import pathlib
import shlex
import sys
import time

import harness
import signing
from cases import A, BIND_KEY, BOUND, DID, ONE, TOKEN, give_keys, last, refused, same_keys, updated
from cloud_service import VECTORS, CloudService, session_text
from harness import World, custom_image, firmware, image

HERE = pathlib.Path(__file__).resolve().parent
ROOT = VECTORS["root"]["public"]
OTHER_ROOT = VECTORS["other_root"]["public"]
V2 = f"[{A}]\nModel=LYWSD03MMC\nFirmware=2.1.1_0159\nInterval=250\nRootKey={ROOT}\n"
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
        world.ctl("activate", command("kill-agent"), A, expect=-9)

        def over():
            jobs = [j for j in world.ctl("--json", "jobs").json() if j["Kind"] == "activate"]
            return jobs and jobs[-1]["State"] == "failed" and jobs[-1]["Error"].rsplit(".", 1)[1]
        world.until(over)
        assert over() in ("CredentialRefused", "Timeout"), over()
        assert world.device_state(A)["registered"] is False
        world.ctl("activate", command("good"), A)
        same_keys(world)


@case
def a_silent_agent_times_out_before_the_device_does():
    with Rooted(V2) as world:
        world.known(A)
        begin = time.monotonic()
        result = world.ctl("activate", command("silent"), A, expect=1)
        assert "Timeout" in result.err and 15 < time.monotonic() - begin < 100, result  # the agent sleeps for 120 s
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
        assert running.wait(harness.LIMIT_S) == 5 and time.monotonic() - begin < 15  # not the 18 s of the agent
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


# --- updates ---------------------------------------------------------------------------------------

IMAGE_CONFIG = f"[images]\nRootKey={signing.VENDOR_ROOT};{signing.ROOT}\n"
LYWSD = BOUND + f"ImageRootKey={signing.ROOT}\n"
NEW = LYWSD.replace("1.0.0_0130", "2.1.1_0159")


class Signed(Rooted):
    """The daemon trusts the test authority for images, too; the thermometer is bound, with its keys stored."""

    def __init__(self, devices, **more):
        super().__init__(devices, config=IMAGE_CONFIG, **more)

    def __enter__(self):
        super().__enter__()
        self.known(A)
        give_keys(self)
        return self


def signed_image(world, version="2.1.1_0160", seed=23, size=20004):
    return world.file(f"{version}.bin", signing.sign(image(size, seed, text="1.0.0_0001"), version))


@case
def a_two_hop_plan_ends_at_the_second_image():
    with Signed(LYWSD.replace("LYWSD03MMC", "LYWSD03MMC\nHardware=B1.4")) as world:
        try:
            first = firmware("Original_OTA_Xiaomi_LYWSD03MMC_v2.1.1_0159c.bin")
        except harness.Skip:
            first = signed_image(world, "2.1.1_0159", seed=24)
        second = signed_image(world)
        done = last(world.ctl("--json", "update", A, first, second))
        assert done["State"] == "done" and done["Hop"] == 2 and done["Hops"] == 2, done
        result = done["Result"]
        assert result["versions"] == ["2.1.1_0159", "2.1.1_0160"] and result["proof"] == "version", result
        assert result["version-before"] == "1.0.0_0130" and result["version"] == "2.1.1_0160", result
        assert not result.get("device-decides"), result
        state = world.device_state(A)
        assert state["version"] == "2.1.1_0160" and state["auth_version"] == 2, state
        assert last(world.ctl("--json", "login", A))["Result"]["keys"] == "current"


@case
def the_real_signed_image_satisfies_a_thermometer_of_2_1_1():
    with World(BOUND.replace("1.0.0_0130", "2.1.1_0158")) as world:
        path = firmware("Original_OTA_Xiaomi_LYWSD03MMC_v2.1.1_0159c.bin")
        world.known(A)
        give_keys(world)
        updated(world, path, "2.1.1_0159")


@case
def an_unsigned_image_is_refused_before_connecting_and_the_ways_are_told():
    with Signed(NEW) as world:
        world.ctl("info", "--read", A)
        jobs = world.ctl("--json", "jobs").out.count('"Kind"')
        result = refused(world, custom_image(20004), "NotSigned")
        for way in ("signed by the vendor", "envelope", "risk unsigned"):
            assert way in result.err, result
        assert world.ctl("--json", "jobs").out.count('"Kind"') == jobs
        tampered = bytearray(signed_image(world).read_bytes())
        tampered[0x900] ^= 1
        tampered[0x4E20 - 4 + 4:0x4E24] = b""  # no change of length: the CRC of the body is wrong now
        refused(world, bytes(tampered), "BadImage")


@case
def an_image_signed_by_another_authority_is_refused():
    with World(NEW) as world:
        world.known(A)
        give_keys(world)
        world.ctl("info", "--read", A)
        result = world.ctl("update", A, signed_image(world), expect=4)
        assert "BadImage" in result.err or "NotSigned" in result.err, result


@case
def under_an_envelope_the_device_decides_and_may_accept():
    with Signed(NEW + "AcceptEnvelope=true\n") as world:
        world.ctl("info", "--read", A)
        envelope = world.file("envelope.bin", signing.ENVELOPE)
        path = world.file("custom.bin", custom_image(20004))
        running = world.ctl("--json", "update", f"--envelope={envelope}", "--expect-version=V5.8", A, path, expect=None)
        done = last(running)
        assert done["Result"]["device-decides"] is True, done
        assert any("decides" in note for note in done["Result"]["notes"]), done
        banks = world.device_state(A)["banks"]
        assert any(b["written"] > 20004 + 1000 for b in banks), banks
        assert done["State"] == "done" and "5.8" in done["Result"]["version"], done


@case
def under_an_envelope_the_device_may_refuse():
    with Signed(NEW + "OnReject=restart\n") as world:
        world.ctl("info", "--read", A)
        envelope = world.file("envelope.bin", signing.ENVELOPE)
        result = world.ctl("update", f"--envelope={envelope}", A, world.file("c.bin", custom_image(20004)), expect=1)
        assert "NotUpdated" in result.err and "decides itself" in result.err, result
        assert world.device_state(A)["version"] == "2.1.1_0159"
        world.ctl("update", f"--envelope={world.file('e.bin', signing.ENVELOPE[:-3])}", A, world.dir / "c.bin", expect=4)


@case
def with_the_risk_unsigned_a_refusal_is_not_updated():
    with Signed(NEW + "OnReject=restart\n") as world:
        world.ctl("info", "--read", A)
        path = world.file("c.bin", custom_image(20004))
        result = world.ctl("--json", "update", "--accept=unsigned", A, path, expect=1)
        done = last(result)
        assert done["Error"].endswith("NotUpdated") and done["Result"]["device-decides"] is True, done


@case
def mible_updates_what_has_no_other_service():
    model = "xiaomi.sensor_ht.test"
    device = f"[{A}]\nModel=XMWSDJ04MMC\nFirmware=1.0.0_0010\nInterval=250\nToken={TOKEN}\nBindKey={BIND_KEY}\nDid={DID}\n" \
             f"ImageRootKey={signing.ROOT}\n"
    with Signed(device) as world:
        data = signing.sign(image(20004, 25, text="1.0.0_0001").replace(b"LYWSD03MMC", b"XMWSDJ04MM"), "1.0.0_0012",
                            0x1203, model)
        body = bytearray(data[:20004])
        body[-4:] = harness.crc32(bytes(body[:-4])).to_bytes(4, "little")
        path = world.file("mible.bin", signing.sign(bytes(body), "1.0.0_0012", 0x1203, model))
        refused(world, image(20004), "NotSigned", "--accept=wrong-hardware")
        done = last(world.ctl("--json", "update", A, path))
        assert done["State"] == "done" and done["Result"]["transport"] == "mible", done
        assert done["Result"]["version"] == "1.0.0_0012" and done["Result"]["proof"] == "version", done
        assert world.device_state(A)["version"] == "1.0.0_0012"


@case
def an_interrupted_mible_update_is_resumed():
    device = f"[{A}]\nModel=XMWSDJ04MMC\nFirmware=1.0.0_0010\nInterval=250\nToken={TOKEN}\nBindKey={BIND_KEY}\nDid={DID}\n" \
             f"ImageRootKey={signing.ROOT}\n"
    with Signed(device) as world:
        path = world.file("mible.bin", signing.sign(image(20004, 25, text="1.0.0_0001"), "1.0.0_0012", 0x1203, "x.y"))
        world.control(device=A, do="fault", spec=">cut@200")
        done = last(world.ctl("--json", "update", "--accept=wrong-hardware", A, path))
        assert done["State"] == "done" and done["Result"]["attempts"] == 2, done


@case
def mible_is_taken_where_it_is_asked_for():
    device = LYWSD + "Dfu=2\n"
    with Signed(device) as world:
        path = signed_image(world)
        result = world.ctl("update", "--transport=mible", A, world.file("u.bin", custom_image(20004)), expect=4)
        assert "NotSigned" in result.err, result
        done = last(world.ctl("--json", "update", "--transport=mible", A, path))
        assert done["State"] == "done" and done["Result"]["transport"] == "mible", done
        done = last(world.ctl("--json", "update", A, signed_image(world, "2.1.1_0161", 30)))
        assert done["State"] == "done" and done["Result"]["transport"] == "telink", done


@case
def a_transport_that_is_not_offered_is_unsupported():
    with Signed(LYWSD) as world:
        result = world.ctl("update", "--transport=mible", A, signed_image(world), expect=4)
        assert "Unsupported" in result.err and "mible" in result.err, result


@case
def a_plan_tells_hops_risks_and_reasons():
    with Signed(NEW) as world:
        world.ctl("info", "--read", A)
        signed, custom = signed_image(world), world.file("custom.bin", custom_image(20004))
        hops = world.ctl("--json", "plan", A, signed, custom).json()[0]
        assert [h["image"] for h in hops] == [0, 1], hops
        assert hops[0]["from"] == "2.1.1_0159" and hops[0]["to"] == "2.1.1_0160", hops
        assert hops[0]["risks"] == [] and hops[0]["device-decides"] is False, hops
        assert hops[0]["transport"] == "telink" and hops[0]["refusal"] == "none", hops
        assert hops[1]["from"] == "2.1.1_0160" and hops[1]["signed"] == "required", hops
        assert hops[1]["device-decides"] is True and hops[1]["risks"] == ["unsigned"], hops
        text = world.ctl("plan", A, custom).out
        for part in ("2.1.1_0159 -> V5.8", "device decides", "--accept=unsigned", "atc#364", "pvvx#781"):
            assert part in text, text
        envelope = world.file("envelope.bin", signing.ENVELOPE)
        hop, = world.ctl("--json", "plan", f"--envelope={envelope}", A, custom).json()[0]
        assert hop["risks"] == [] and hop["device-decides"] is True and hop["size"] > 20016, hop
        world.ctl("plan", A, "/nonexistent", expect=2)
        world.ctl("plan", expect=2)
        assert world.ctl("--json", "jobs").out.count('"Kind":"update"') == 0


RULES = """[rule first]
Model=LYWSD03MMC
From=<2
To=>=2.1.1,>=2.1.1_0160
Action=via 1.0.0_0150
Text=Take 0150 first.

[rule bad]
Model=LYWSD03MMC
To=custom,=5.7
Action=refuse
Text=That one is known to be bad.
Source=test#1

[rule careful]
Model=LYWSD03MMC
To=custom,=5.6
Action=risk unknown-version
Text=Nobody knows.

[rule strong]
Model=LYWSD03MMC
To=custom,=5.5
Action=min-battery 2900
Text=It needs a strong battery.

[rule told]
Model=LYWSD03MMC
To=custom,=5.8
Action=note
Text=Read this note.
"""


class Ruled(Signed):
    """With rules of its own in a data folder."""

    def start_daemon(self, *more):
        data = self.dir / "data"
        if not data.exists():
            harness.shutil.copytree(harness.TOP / "data" / "models.d", data / "models.d")
            (data / "rules.d").mkdir()
            (data / "rules.d" / "test.conf").write_text(RULES)
        super().start_daemon(f"--data-dir={data}", *more)


@case
def rules_refuse_ask_and_tell():
    with Ruled(BOUND + f"ImageRootKey={signing.ROOT}\nBattery=80\n") as world:
        result = refused(world, custom_image(text="V5.7"), "BadImage")
        assert "known to be bad" in result.err, result
        result = refused(world, custom_image(text="V5.6"), "BadImage")
        assert "Nobody knows" in result.err and "unknown-version" in result.err, result
        result = refused(world, custom_image(text="V5.5"), "BatteryLow")
        assert "2900" in result.err, result
        done = updated(world, custom_image(text="V5.8"), "V5.8")
        assert "Read this note." in done["Result"]["notes"], done


@case
def an_image_that_must_come_first_is_sent_first():
    with Ruled(LYWSD) as world:
        target, between = signed_image(world), world.file("0150.bin", image(8196, 40, text="1.0.0_0150"))
        world.ctl("info", "--read", A)
        result = world.ctl("update", A, target, expect=4)
        assert "1.0.0_0150" in result.err, result
        hops = world.ctl("--json", "plan", A, target, between).json()[0]
        assert [h["image"] for h in hops] == [1, 0], hops
        done = last(world.ctl("--json", "update", A, target, between))
        assert done["Result"]["versions"] == ["1.0.0_0150", "2.1.1_0160"], done


@case
def a_thermometer_asked_late_gets_its_images_in_order():
    with Ruled(LYWSD) as world:
        target, between = signed_image(world), world.file("0150.bin", image(8196, 40, text="1.0.0_0150"))
        done = last(world.ctl("--json", "update", A, target, between))
        assert done["Result"]["versions"] == ["1.0.0_0150", "2.1.1_0160"], done


@case
def update_registers_with_a_credential():
    devices = V2 + f"ImageRootKey={signing.ROOT}\n"
    with Rooted(devices, config=IMAGE_CONFIG + f"[registration]\nRootKey={ROOT}\n") as world:
        world.known(A)
        done = last(world.ctl("--json", "update", "--activate", command("good"), A, signed_image(world)))
        assert done["State"] == "done" and done["Result"]["version"] == "2.1.1_0160", done
        same_keys(world)


# --- keys from elsewhere ---------------------------------------------------------------------------

A2, A3, A4 = "A4:C1:38:00:00:02", "A4:C1:38:00:00:03", "A4:C1:38:00:00:04"
TOKENS = [f"{i:024x}" for i in range(1, 9)]
BIND_KEYS = [f"{i:032x}" for i in range(0x51, 0x59)]


def imported(world, text, expect=0):
    return world.ctl("--json", "keys", "import", "-", data=text, expect=expect).json()[0]


def key_of(world, address):
    keys = stored(world, address)
    assert len(keys) == 1, keys
    return keys[0].get("token"), keys[0].get("bind_key")


EXTRACTOR_TEXT = f"""Devices found for server "de" @ home "123":
   ---------
   NAME:     Living room
   ID:       blt.3.129vtestaag00
   BLE KEY:  {BIND_KEYS[0]}
   MAC:      {A2}
   TOKEN:    {TOKENS[0]}
   MODEL:    miaomiaoce.sensor_ht.t2
   ---------
   NAME:     Lamp
   ID:       42
   MAC:      11:22:33:44:55:66
   IP:       192.168.1.2
   TOKEN:    {BIND_KEYS[5]}
   MODEL:    yeelink.light.ceiling1
   ---------
   NAME:     Kitchen
   ID:       blt.3.129vtestaag01
   BLE KEY:  {BIND_KEYS[1][:30]}
   MAC:      {A3}
   TOKEN:    {TOKENS[1]}
   MODEL:    miaomiaoce.sensor_ht.t2
   ---------
   NAME:     Bath
   ID:       blt.3.129vtestaag02
   BLE KEY:  {BIND_KEYS[2]}
   MAC:      {A4}
   TOKEN:    {TOKENS[2]}
   MODEL:    miaomiaoce.sensor_ht.t2
"""


@case
def the_extractors_text_is_imported_and_its_bad_line_named():
    with World(ONE) as world:
        result = imported(world, EXTRACTOR_TEXT)
        assert result["imported"] == 2 and result["skipped"] == 1, result
        problem, = result["problems"]
        line = 1 + EXTRACTOR_TEXT.splitlines().index(f"   BLE KEY:  {BIND_KEYS[1][:30]}")
        assert problem["line"] == line and problem["field"] == "bind_key" and "30" in problem["reason"], problem
        assert key_of(world, A2) == (TOKENS[0], BIND_KEYS[0]) and key_of(world, A4) == (TOKENS[2], BIND_KEYS[2])


@case
def the_extractors_json_is_imported_and_its_bad_line_named():
    devices = [{"name": "a [{\"", "mac": A2, "did": "blt.3.129vtestaag00", "model": "miaomiaoce.sensor_ht.t2",
                "token": TOKENS[0], "BLE_DATA": {"beaconkey": BIND_KEYS[0]}},
               {"name": "lamp", "mac": "11:22:33:44:55:66", "model": "yeelink.light.ceiling1", "token": BIND_KEYS[5]},
               {"name": "swapped", "mac": A3, "model": "miaomiaoce.sensor_ht.t2", "token": BIND_KEYS[1],
                "BLE_DATA": {"beaconkey": TOKENS[1]}},
               {"name": "c", "token": TOKENS[2], "mac": A4, "model": "miaomiaoce.sensor_ht.t2",
                "result": {"beaconkey": BIND_KEYS[2]}}]
    text = "\n" + json.dumps([{"server": "de", "homes": [{"home_id": 1, "devices": devices}]}], indent=1)
    with World(ONE) as world:
        result = imported(world, text)
        assert result["imported"] == 2 and result["skipped"] == 1, result
        problem, = result["problems"]
        line = 1 + [i for i, l in enumerate(text.split("\n")) if BIND_KEYS[1] in l][0]
        assert problem["line"] == line and problem["field"] == "token" and "swapped" in problem["reason"], problem
        assert key_of(world, A2) == (TOKENS[0], BIND_KEYS[0]) and key_of(world, A4) == (TOKENS[2], BIND_KEYS[2])


@case
def lists_are_imported_and_their_bad_lines_named():
    text = f"""# my thermometers
{A2} {TOKENS[0]} {BIND_KEYS[0]}
{A3.lower()},{BIND_KEYS[1]}
{A4};{BIND_KEYS[2]};{TOKENS[2]}  # kitchen
A4:C1:38:00:00:0G {TOKENS[3]} {BIND_KEYS[3]}
A4C138000005 {TOKENS[4]} {BIND_KEYS[4][:-1]}
"""
    with World(ONE) as world:
        result = imported(world, text)
        assert result["imported"] == 3 and result["skipped"] == 0, result
        assert [(p["line"], p["field"]) for p in result["problems"]] == [(5, "address"), (6, "key")], result
        assert "31 hex digits" in result["problems"][1]["reason"], result
        assert key_of(world, A2) == (TOKENS[0], BIND_KEYS[0])
        assert key_of(world, A3) == (None, BIND_KEYS[1])
        assert key_of(world, A4) == (TOKENS[2], BIND_KEYS[2])
        assert not any(key in json.dumps(result) for key in TOKENS + BIND_KEYS)


@case
def yaml_of_home_assistant_is_imported_and_its_bad_line_named():
    text = f"""ble_monitor:
  devices:
    - mac: "{A2}"
      name: "Living room"
      encryption_key: "{BIND_KEYS[0]}"  # the key
    - mac: '{A3}'
      encryption_key: {TOKENS[1]}
    - name: Bath
      mac: {A4}
      bindkey: {BIND_KEYS[2]} # comment
"""
    with World(ONE) as world:
        result = imported(world, text)
        assert result["imported"] == 2, result
        problem, = result["problems"]
        assert problem["line"] == 7 and problem["field"] == "bind_key" and "token" in problem["reason"], problem
        assert key_of(world, A2) == (None, BIND_KEYS[0]) and key_of(world, A4) == (None, BIND_KEYS[2])


@case
def rubbish_is_refused_and_harms_nothing():
    deep = '{"a":"' + "]" * 100000 + '","b":' + "[" * 100000
    hidden = "[" + '"]]]",' * 1000 + "/* \" */ " + "[" * 100000
    with World(ONE) as world:
        for text in (deep, hidden, "[" * 500000, "{", "[1,2", "\0\0", "rubbish", "", '{"mac":1}', '[{"mac":"x","token":[]}]'):
            result = world.ctl("keys", "import", "-", data=text, expect=2)
            assert "InvalidArgs" in result.err, result
        assert "CRITICAL" not in (world.dir / "daemon.log").read_text()


@case
def snippets_for_other_programs_come_back_the_same():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world)
        assert f'- mac: "{A}"' in world.ctl("keys", "export", "--format=homeassistant").out
        esphome = world.ctl("keys", "export", "--format=esphome").out
        assert "platform: xiaomi_lywsd03mmc" in esphome and f'bindkey: "{BIND_KEY}"' in esphome, esphome
        monitor = world.ctl("keys", "export", "--format=ble_monitor").out
        assert f'encryption_key: "{BIND_KEY}"' in monitor and "ble_monitor:" in monitor, monitor
        world.ctl("keys", "export", "--format=other", expect=2)
        for text in (world.ctl("keys", "export", "--format=homeassistant").out, esphome, monitor):
            assert TOKEN not in text
            world.ctl("keys", "forget", "--purge", A)
            assert imported(world, text)["imported"] == 1
            assert key_of(world, A) == (None, BIND_KEY)


@case
def a_bind_key_is_checked_on_advertisements():
    with World(BOUND + "Advert=mibeacon-encrypted\nInterval=200\n") as world:
        world.known(A)
        imported(world, f"{A} {BIND_KEY}")
        done = last(world.ctl("--json", "login", "--passive", A))
        assert done["State"] == "done" and done["Result"]["keys"] == "current", done
        assert "connecting" not in world.ctl("--json", "login", "--passive", A).out
        world.ctl("keys", "forget", "--purge", A)
        imported(world, f"{A} {'ee' * 16}")
        result = world.ctl("login", "--passive", A, expect=1)
        assert "AuthFailed" in result.err, result


# --- images ----------------------------------------------------------------------------------------

def differences(expected, told, path=""):
    """What of the expected facts is missing or different in what was told."""
    if isinstance(expected, dict) and isinstance(told, dict):
        return [d for key, value in expected.items()
                for d in ([f"{path}{key}: missing"] if key not in told
                          else differences(value, told[key], f"{path}{key}."))]
    if isinstance(expected, list) and isinstance(told, list) and len(expected) == len(told):
        return [d for i, value in enumerate(expected) for d in differences(value, told[i], f"{path}{i}.")]
    if isinstance(expected, str) and isinstance(told, str):
        return [] if expected.lower() == told.lower() else [f"{path}: {told} instead of {expected}"]
    return [] if expected == told else [f"{path}: {told} instead of {expected}"]


@case
def the_facts_of_real_files_are_told():
    known = {item["facts"]["sha256"] if "sha256" in item.get("facts", {}) else item.get("sha256"): item
             for item in signing.VECTORS["real"]}
    if not harness.FIRMWARE.is_dir():
        raise harness.Skip("no firmware files are there (set MITHERM_FIRMWARE)")
    seen = 0
    with World(ONE) as world:
        for path in sorted(harness.FIRMWARE.iterdir()):
            item = known.get(hashlib.sha256(path.read_bytes()).hexdigest())
            if item is None:
                continue
            seen += 1
            told = world.ctl("--json", "image", path).json()[0]
            wrong = differences(item["facts"], told)
            assert not wrong, (path.name, wrong)
            assert set(told["verdict"]) == {"crc", "tag", "chain", "signature", "padding"}, told
            assert set(told["verdict"].values()) <= {"valid", "invalid", "absent"}, told
            assert told["verdict"]["crc"] == "valid" and told["version"] and told["models"], (path.name, told)
    if not seen:
        raise harness.Skip("none of the known firmware files is there (set MITHERM_FIRMWARE)")


@case
def a_signed_image_with_a_flipped_bit_is_no_longer_signed():
    with Rooted(ONE, config=IMAGE_CONFIG) as world:
        good = signed_image(world, size=4100).read_bytes()
        facts = world.ctl("--json", "image", world.file("good.bin", good)).json()[0]
        assert facts["kind"] == "stock-signed" and facts["version"] == "2.1.1_0160", facts
        assert set(facts["verdict"].values()) == {"valid"}, facts
        places = {0x700: "crc", 4100 + 30: "tag", 4100 + 300: "chain", len(good) - 40: "signature"}
        for at, verdict in places.items():
            bad = bytearray(good)
            bad[at] ^= 1
            facts = world.ctl("--json", "image", world.file("bad.bin", bytes(bad))).json()[0]
            assert facts["verdict"][verdict] == "invalid" and facts["kind"] == "damaged", (at, facts)


if __name__ == "__main__":
    sys.exit(harness.main(CASES))
