#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What users do, on simulated thermometers: cases.py NAME runs one case."""

import hashlib
import json
import re
import resource
import signal
import sys
import time

import harness
from harness import World, custom_image, firmware, image

A = "A4:C1:38:00:00:01"
B = "A4:C1:38:00:00:02"
ONE = f"[{A}]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\nInterval=250\n"
TWO = ONE + f"[{B}]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\nInterval=250\n"
TOKEN = "00112233445566778899aabb"
BIND_KEY = "ffeeddccbbaa99887766554433221100"
DID = "blt.3.129vtestaag00"
BOUND = ONE + f"Token={TOKEN}\nBindKey={BIND_KEY}\nDid={DID}\n"
CASES = {}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


def export(token=TOKEN, bind_key=BIND_KEY, address=A, state="current"):
    return json.dumps({"version": 1, "devices": [{"address": address, "model": "LYWSD03MMC", "did": DID, "keys": [
        {"token": token, "bind_key": bind_key, "origin": "import", "created": "2026-01-01T00:00:00Z",
         "state": state}]}]})


def give_keys(world, **keys):
    world.ctl("keys", "import", world.file("keys.json", export(**keys).encode()))


def last(result):
    return result.json()[-1]


def same_keys(world, address=A):
    """The store's current keys are the device's."""
    out = world.file("out.json", b"")
    world.ctl("keys", "export", out)
    stored = {d["address"]: d for d in json.loads(out.read_text())["devices"]}[address]
    current = [k for k in stored["keys"] if k["state"] == "current"]
    device = world.device_state(address)
    assert len(current) == 1, stored
    assert current[0]["token"] == device["token"] and current[0]["bind_key"] == device["bind_key"]
    assert stored["did"] == device["did"] or not stored["did"]


@case
def list_shows_the_thermometer_and_its_model():
    with World(ONE) as world:
        world.known(A)
        text = world.ctl("list").out
        assert A in text and "LYWSD03MMC" in text, text
        device = world.ctl("--json", "list").json()[0][0]
        assert device["Model"] == "LYWSD03MMC" and device["ProductId"] == 0x055B, device
        assert device["HasKeys"] is False and device["Bound"] != "yes", device


@case
def read_info_reads_versions_from_the_device():
    with World(ONE) as world:
        world.known(A)
        done = last(world.ctl("--json", "info", "--read", A))
        assert done["State"] == "done" and done["Kind"] == "info", done
        info = world.info(A)
        assert info["Firmware"] in ("1.0.0_0130", "0130") and info["AuthVersion"] == 1, info
        assert info["Hardware"].startswith("B"), info
        assert info["Signed"] == "not-required", info


@case
def activate_registers_and_keeps_the_keys():
    with World(ONE) as world:
        world.known(A)
        result = world.ctl("activate", A)
        assert "registering" in result.out and "done" in result.out, result
        assert world.device_state(A)["registered"] is True
        same_keys(world)
        info = world.info(A)
        assert info["Bound"] == "yes" and info["HasKeys"] is True, info
        path, = world.key_files()
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


@case
def secrets_appear_nowhere_but_in_the_export():
    with World(ONE) as world:
        world.known(A)
        out = world.ctl("--json", "activate", A).out + world.ctl("--json", "login", A).out
        out += world.ctl("--json", "list").out + world.ctl("--json", "info", A).out + world.ctl("--json", "jobs").out
        out += world.gdbus("--object-path=/org/mitherm",
                           "--method=org.freedesktop.DBus.ObjectManager.GetManagedObjects").out
        device = world.device_state(A)
        out += (world.dir / "daemon.log").read_text()
        for secret in (device["token"], device["bind_key"]):
            assert len(secret) >= 24 and secret not in out.lower()


@case
def activate_twice_is_refused_without_force():
    with World(ONE) as world:
        world.known(A)
        world.ctl("activate", A)
        before = world.device_state(A)["token"]
        result = world.ctl("activate", A, expect=4)
        assert "AlreadyBound" in result.err, result
        assert world.device_state(A)["token"] == before
        world.ctl("activate", "--force", A)
        assert world.device_state(A)["token"] != before
        same_keys(world)


@case
def login_proves_the_keys():
    with World(BOUND) as world:
        world.known(A)
        assert "NoKeys" in world.ctl("login", A, expect=4).err
        give_keys(world)
        done = last(world.ctl("--json", "login", A))
        assert done["State"] == "done" and done["Result"]["keys"] == "current", done
        assert world.info(A)["Bound"] == "yes"


@case
def wrong_token_fails_and_is_kept():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world, token="ff" * 12)
        result = world.ctl("login", A, expect=1)
        assert "AuthFailed" in result.err, result
        assert world.device_state(A)["registered"] is True
        assert world.ctl("keys", "list").out.count(A) == 1


@case
def login_finds_older_keys_and_makes_them_current():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world, token="ff" * 12)
        give_keys(world)
        done = last(world.ctl("--json", "login", A))
        assert done["State"] == "done" and done["Result"]["keys"] != "current", done
        same_keys(world)
        assert last(world.ctl("--json", "login", A))["Result"]["keys"] == "current"


@case
def login_of_an_unbound_thermometer_says_so():
    with World(ONE) as world:
        world.known(A)
        give_keys(world)
        assert "NotBound" in world.ctl("login", A, expect=4).err
        assert world.info(A)["Bound"] == "no"
        assert world.info(A)["HasKeys"] is True


@case
def version_2_ends_at_once_and_says_what_is_needed():
    with World(f"[{A}]\nModel=LYWSD03MMC\nFirmware=2.1.1_0159\n") as world:
        world.known(A)
        result = world.ctl("activate", A, expect=4)
        assert "NeedsCredential" in result.err, result
        assert world.device_state(A)["registered"] is False
        assert world.info(A)["AuthVersion"] == 2
        assert not world.info(A)["HasKeys"]


def updated(world, data, version, *options, address=A):
    path = world.file("image.bin", data) if isinstance(data, bytes) else data
    done = last(world.ctl("--json", "update", *options, address, path))
    assert done["State"] == "done", done
    assert done["Result"]["proof"] == "version" and version.lower() in done["Result"]["version"].lower(), done
    return done


@case
def update_to_a_custom_image_is_read_back():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world)
        updated(world, custom_image(20004), "V5.8")
        state = world.device_state(A)
        assert state["running"] == 0x20000 and state["version"].upper() == "V5.8", state
        world.until(lambda: world.info(A)["Name"].startswith("ATC_"))
        assert world.info(A)["HasKeys"] is True


@case
def update_to_a_stock_image_keeps_the_registration():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world)
        updated(world, image(20004, text="1.0.0_0131"), "0131")
        assert last(world.ctl("--json", "login", A))["Result"]["keys"] == "current"
        updated(world, image(20004, seed=3, text="1.0.0_0132"), "0132")
        assert world.device_state(A)["running"] == 0


@case
def update_with_the_real_custom_image():
    with World(BOUND) as world:
        path = firmware("ATC_v58.bin")
        world.known(A)
        give_keys(world)
        done = updated(world, path, "5.8")
        bank = [b for b in world.device_state(A)["banks"] if b["address"] == 0x20000][0]
        assert bank["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() and bank["size"] == path.stat().st_size
        assert done["BytesTotal"] >= path.stat().st_size


@case
def update_with_the_real_stock_image():
    with World(ONE.replace("1.0.0_0130", "1.0.0_0109")) as world:
        path = firmware("Original_OTA_Xiaomi_LYWSD03MMC_v1.0.0_0130.bin")
        world.known(A)
        updated(world, path, "1.0.0_0130", "--activate")
        same_keys(world)


@case
def update_with_activate_registers_first():
    with World(ONE) as world:
        world.known(A)
        updated(world, image(4100, text="1.0.0_0131"), "0131", "--activate")
        same_keys(world)


@case
def update_without_keys_is_refused_at_once():
    with World(ONE) as world:
        world.known(A)
        result = world.ctl("update", A, world.file("i.bin", image()), expect=4)
        assert "NoKeys" in result.err or "NotBound" in result.err, result
        assert world.device_state(A)["version"].endswith("0130")


def refused(world, data, name, *options, code=4):
    result = world.ctl("update", *options, A, world.file("bad.bin", data), expect=code)
    assert name in result.err, result
    return result


@case
def bad_images_are_refused_before_connecting():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world)
        good = bytearray(image(20004))
        wrong_crc, no_magic = bytearray(good), bytearray(good)
        wrong_crc[0x700] ^= 1
        no_magic[8:12] = b"XXXX"
        refused(world, b"", "BadImage")
        refused(world, bytes(2 << 20), "BadImage")
        refused(world, bytes(good[:40]), "BadImage")
        refused(world, image(516), "BadImage")
        refused(world, bytes(no_magic), "BadImage")
        refused(world, bytes(wrong_crc), "BadImage")
        refused(world, bytes(good[:-100]), "BadImage")
        refused(world, image(131_076 + 16), "BadImage")
        refused(world, image(131_076 + 16, stock=False), "BadImage")
        assert world.ctl("--json", "jobs").out == ""
        state = world.device_state(A)
        assert state["running"] == 0 and len(state["banks"]) == 1, state


@case
def an_image_for_another_model_is_refused():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world)
        refused(world, custom_image(hardware=13), "WrongHardware")
        refused(world, custom_image(hardware=19), "WrongHardware")
        other = image(20004).replace(b"LYWSD03MMC", b"MHO-C401\0\0")
        other = other[:-4] + harness.crc32(other[:-4]).to_bytes(4, "little")
        refused(world, other, "WrongHardware")


@case
def a_named_risk_is_taken_and_an_unknown_one_refused():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world)
        refused(world, custom_image(), "InvalidArgs", "--accept=everything", code=2)
        updated(world, custom_image(hardware=13), "V5.8", "--accept=wrong-hardware")


@case
def a_thermometer_that_demands_signatures_gets_no_unsigned_image():
    devices = BOUND.replace("1.0.0_0130", "2.1.1_0159")
    with World(devices) as world:
        world.known(A)
        give_keys(world)
        refused(world, image(20004, text="2.1.1_0160"), "NotSigned")
        world.ctl("info", "--read", A)
        assert world.info(A)["Signed"] == "required"
        assert "NotSigned" in refused(world, custom_image(), "NotSigned").err
        assert all(b["address"] == 0 for b in world.device_state(A)["banks"])


@case
def a_low_battery_is_refused_unless_the_risk_is_named():
    with World(BOUND + "Battery=5\n") as world:
        world.known(A)
        give_keys(world)
        path = world.file("i.bin", custom_image())
        result = world.ctl("update", A, path, expect=4)
        assert "BatteryLow" in result.err, result
        assert all(b["address"] == 0 for b in world.device_state(A)["banks"])
        updated(world, path, "V5.8", "--accept=battery-low")


@case
def an_image_that_is_rejected_after_upload_is_not_updated():
    devices = BOUND + "Enforce=true\nOnReject=restart\n"
    with World(devices) as world:
        world.known(A)
        give_keys(world)
        result = world.ctl("update", A, world.file("i.bin", custom_image(20004)), expect=1)
        assert "NotUpdated" in result.err, result
        assert world.device_state(A)["running"] == 0


@case
def an_interrupted_upload_is_sent_again_in_the_same_job():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world)
        world.control(device=A, do="fault", spec="cut@700")
        done = updated(world, custom_image(20004), "V5.8")
        assert done["Result"]["attempts"] == 2, done


@case
def cancel_stops_an_upload_and_leaves_the_thermometer_running():
    with World(BOUND + "Radio=30,6,0\n") as world:
        world.known(A)
        give_keys(world)
        path = world.file("i.bin", custom_image(86340))
        running = world.ctl_start("update", A, path)
        world.wait_event(A, "ota-start")
        job = [j for j in world.ctl("--json", "jobs").json() if j["Kind"] == "update"][-1]
        assert job["State"] == "uploading", job
        begin = time.monotonic()
        world.ctl("cancel", job["Job"])
        assert running.wait(harness.LIMIT_S) == 5
        assert time.monotonic() - begin < 15  # the rest of the upload would take 27 s
        world.until(lambda: world.device_state(A)["running"] == 0)
        assert last(world.ctl("--json", "login", A))["State"] == "done"


@case
def interrupt_of_the_command_cancels_its_job():
    with World(BOUND + "Radio=30,6,0\n") as world:
        world.known(A)
        give_keys(world)
        running = world.ctl_start("update", A, world.file("i.bin", custom_image(86340)))
        world.wait_event(A, "ota-start")
        running.send_signal(signal.SIGINT)
        assert running.wait(harness.LIMIT_S) == 5


@case
def two_thermometers_at_once_both_end_done():
    with World(TWO) as world:
        world.known(A, B)
        path = world.file("i.bin", image(20004, text="1.0.0_0131"))
        children = [world.ctl_start("update", "--activate", address, path) for address in (A, B)]
        for child in children:
            out, err = child.communicate(timeout=200)
            assert child.returncode == 0, out + err
        for address in (A, B):
            same_keys(world, address)
            assert world.device_state(address)["version"].endswith("0131")


@case
def services_that_bluez_has_kept_from_earlier_are_looked_up_again():
    with World(f"[{A}]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\n") as world:
        world.known(A)
        world.ctl("activate", A)
        update = ("update", A, world.file("image.bin", image(text="1.0.0_0131")))
        for command in (("login", A), ("info", "--read", A), ("clock", A), ("activate", "--force", A), update):
            world.control(do="outdate", device=A)
            world.lines.wait(lambda line: "ok" in line)
            world.ctl(*command)
        assert world.device_state(A)["version"] == "1.0.0_0131"


@case
def bluez_restart_is_survived():
    with World(ONE) as world:
        world.known(A)
        world.control(do="bluez", what="restart")
        world.ctl("activate", "--wait=30", A)
        same_keys(world)
        world.control(do="bluez", what="restart")
        done = last(world.ctl("--json", "login", A))
        assert done["State"] == "done", done


@case
def bluez_restart_during_an_upload_is_retried_or_told():
    with World(BOUND + "Radio=30,6,0\n") as world:
        world.known(A)
        give_keys(world)
        running = world.ctl_start("update", A, world.file("i.bin", custom_image(20004)))
        world.wait_event(A, "ota-start")
        world.control(do="bluez", what="restart")
        out, err = running.communicate(timeout=280)
        assert running.returncode == 0 or "LinkLost" in err or "NotFound" in err, out + err
        assert world.ctl("list").code == 0


@case
def adapter_that_goes_and_comes_back_is_used_again():
    with World(ONE) as world:
        world.known(A)
        world.control(do="bluez", what="remove-adapter", adapter="hci0")

        def adapters():
            out = world.gdbus("--object-path=/org/mitherm", "--method=org.freedesktop.DBus.Properties.Get",
                              "org.mitherm.Manager1", "Adapters").out
            return "hci0" in out
        world.until(lambda: not adapters())
        world.control(do="bluez", what="add-adapter", adapter="hci0")
        world.until(adapters)
        world.ctl("activate", "--wait=30", A)


@case
def failing_connects_are_tried_again():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world)
        world.control(do="bluez", what="fail-connect", count=2, error="le-connection-abort-by-local")
        assert last(world.ctl("--json", "login", A))["State"] == "done"


@case
def without_descriptors_the_slow_path_works():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world)
        world.control(do="bluez", what="no-acquire")
        updated(world, custom_image(4100), "V5.8")


@case
def daemon_restart_keeps_thermometers_with_keys():
    with World(ONE) as world:
        world.known(A)
        world.ctl("activate", A)
        assert world.stop_daemon() == 0
        world.stop(world.sim)
        world.start_daemon()
        info = world.info(A)
        assert info["HasKeys"] is True and info["Model"] == "LYWSD03MMC", info
        assert info["LastSeen"] == 0, info


@case
def killed_daemon_has_lost_no_keys():
    with World(ONE) as world:
        world.known(A)
        running = world.ctl_start("activate", A)
        world.wait_event(A, "registered")
        world.stop_daemon(signal.SIGKILL)
        running.communicate(timeout=60)
        world.start_daemon()
        world.known(A)
        done = last(world.ctl("--json", "--wait=30", "login", A))
        assert done["State"] == "done", done
        same_keys(world)


@case
def a_broken_key_file_is_kept_aside_and_harms_no_other():
    with World(TWO) as world:
        world.known(A, B)
        world.ctl("activate", A)
        world.ctl("activate", B)
        world.stop_daemon()
        path = [p for p in world.key_files() if "A4C138000001" in p.name][0]
        path.write_bytes(b"\x00\xff rubbish [[[\n")
        world.start_daemon()
        world.known(B)
        assert world.info(B)["HasKeys"] is True
        assert last(world.ctl("--json", "--wait=20", "login", B))["State"] == "done"
        aside = [p for p in path.parent.iterdir() if "broken" in p.name]
        assert len(aside) == 1 and aside[0].read_bytes().startswith(b"\x00\xff"), list(path.parent.iterdir())


@case
def disk_full_stops_the_registration_before_the_device_accepts():
    with World(ONE) as world:
        world.known(A)
        # No file may grow: what a full disk does to a writer.
        resource.prlimit(world.daemon.pid, resource.RLIMIT_FSIZE, (0, 0))
        result = world.ctl("activate", A, expect=1)
        assert "Storage" in result.err, result
        assert world.device_state(A)["registered"] is False
        assert world.info(A)["HasKeys"] is False


@case
def unknown_options_are_refused_by_name():
    with World(ONE) as world:
        world.known(A)
        path = "/org/mitherm/device/A4_C1_38_00_00_01"
        result = world.gdbus(f"--object-path={path}", "--method=org.mitherm.Device1.Activate", "{'colour': <'red'>}",
                             expect=1)
        assert "org.mitherm.Error.InvalidArgs" in result.err and "colour" in result.err, result
        result = world.gdbus(f"--object-path={path}", "--method=org.mitherm.Device1.Login", "{'passive': <'yes'>}",
                             expect=1)
        assert "org.mitherm.Error.InvalidArgs" in result.err and "passive" in result.err, result


@case
def errors_of_the_command_line_have_their_exit_status():
    with World(TWO) as world:
        world.known(A, B)
        assert "11:22:33:44:55:66" in world.ctl("info", "11:22:33:44:55:66", expect=3).err
        assert "more than one" in world.ctl("activate", expect=3).err
        assert "more than one" in world.ctl("info", "LYWSD03MMC", expect=3).err
        world.ctl("update", expect=2)
        world.ctl("update", "--nonsense", A, "x", expect=2)
        world.ctl("frobnicate", expect=2)
        world.ctl("cancel", "99", expect=3)
        world.ctl("cancel", "../../x", expect=3)
        world.ctl("update", A, "/nonexistent", expect=2)
        world.stop_daemon()
        assert "mithermd" in world.ctl("list", expect=3).err
        assert re.search("systemctl|mithermd", world.ctl("list", expect=3).err)


@case
def keys_survive_export_forget_and_import():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world)
        out = world.dir / "export.json"
        world.ctl("keys", "export", out)
        assert out.stat().st_mode & 0o777 == 0o600
        exported = json.loads(out.read_text())
        assert exported["version"] == 1 and exported["devices"][0]["address"] == A
        assert exported["devices"][0]["keys"][0] | {"created": 0} == {
            "token": TOKEN, "bind_key": BIND_KEY, "origin": "import", "created": 0, "state": "current"}, exported
        world.ctl("keys", "forget", A)
        assert world.info(A)["HasKeys"] is False
        imported = world.ctl("--json", "keys", "import", "-", data=out.read_text()).json()[0]
        assert imported["imported"] == 1 and imported["problems"] == [], imported
        assert last(world.ctl("--json", "login", A))["State"] == "done"
        rubbish = world.ctl("keys", "import", "-", data="rubbish", expect=None)
        assert rubbish.code != 0 and rubbish.err, rubbish


@case
def image_tells_what_a_file_is():
    with World(ONE) as world:
        facts = world.ctl("--json", "image", world.file("i.bin", custom_image())).json()[0]
        assert facts["kind"] == "custom-pvvx" and facts["version"] == "V5.8" and facts["crc_ok"] is True, facts
        facts = world.ctl("--json", "image", world.file("j.bin", b"nothing")).json()[0]
        assert facts["kind"] == "unknown" and facts["file_size"] == 7, facts
        text = world.ctl("image", world.file("k.bin", image())).out
        assert "1.0.0_0131" in text and "stock" in text, text


@case
def real_images_are_told_apart():
    with World(ONE) as world:
        signed = firmware("Original_OTA_Xiaomi_LYWSD03MMC_v2.1.1_0159c.bin")
        facts = world.ctl("--json", "image", signed).json()[0]
        assert facts["kind"] == "stock-signed" and facts["tag"]["new_version"] == "2.1.1_0159", facts
        zigbee = world.ctl("--json", "image", firmware("1141-0203-99993001-ATC_v58.zigbee")).json()[0]
        assert zigbee["container"] == "zigbee" and zigbee["image_size"] == 86340, zigbee


@case
def a_thousand_thermometers_are_listed():
    with World(None, sim_args=["--count=1000"]) as world:
        world.until(lambda: len(world.ctl("--json", "list").json()[0]) == 1000)


if __name__ == "__main__":
    sys.exit(harness.main(CASES))
