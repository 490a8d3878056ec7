#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in the guest, as root: the real daemon against a simulated peripheral through real BlueZ."""

import hashlib
import json
import pathlib
import shlex
import signal
import statistics
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
import harness  # noqa: E402
import signing  # noqa: E402
from cloud_service import VECTORS  # noqa: E402
from guest import ADDRESS, CASES, PLAIN, Guest, breakage, case, restart_bluetoothd  # noqa: E402


def big_image():
    real = harness.FIRMWARE / "ATC_v58.bin"
    return (real.read_bytes(), "5.8") if real.exists() else (harness.custom_image(86340), "V5.8")


def last(result):
    return result.json()[-1]


def update(guest, data, version, *options):
    done = last(guest.ctl("--json", "update", *options, ADDRESS, guest.file("image.bin", data)))
    assert done["State"] == "done" and done["Result"]["proof"] == "version", done
    assert version in done["Result"]["version"], done
    banks = {b["address"]: b for b in guest.device_state(ADDRESS)["banks"]}
    running = banks[guest.device_state(ADDRESS)["running"]]
    size = int.from_bytes(data[0x18:0x1c], "little")
    assert running["size"] == size and running["sha256"] == hashlib.sha256(data[:size]).hexdigest(), running
    return done


@case
def activate_login_and_update_through_real_bluez():
    with Guest(PLAIN) as guest:
        guest.known(ADDRESS)
        print("# discovered")
        guest.ctl("activate", ADDRESS)
        assert guest.device_state(ADDRESS)["registered"] is True
        print("# activated")
        assert last(guest.ctl("--json", "login", ADDRESS))["Result"]["keys"] == "current"
        print("# logged in")
        data, version = big_image()
        begin = time.monotonic()
        done = update(guest, data, version)
        print(f"# updated: {len(data)} bytes in {time.monotonic() - begin:.1f} s, attempts "
              f"{done['Result']['attempts']}")


@case
def update_of_a_stock_image_keeps_the_keys():
    with Guest(PLAIN) as guest:
        guest.known(ADDRESS)
        guest.ctl("activate", ADDRESS)
        update(guest, harness.image(8196, text="1.0.0_0131"), "0131")
        assert last(guest.ctl("--json", "login", ADDRESS))["Result"]["keys"] == "current"


@case
def an_interrupted_upload_is_sent_again():
    with Guest(PLAIN) as guest:
        guest.known(ADDRESS)
        guest.ctl("activate", ADDRESS)
        guest.control(device=ADDRESS, do="fault", spec="cut@200")
        done = update(guest, harness.custom_image(8196), "V5.8")
        assert done["Result"]["attempts"] >= 2, done


@case
def a_killed_bluetoothd_is_survived():
    with Guest(PLAIN) as guest:
        guest.known(ADDRESS)
        guest.ctl("activate", ADDRESS)
        guest.stop(guest.sim)
        restart_bluetoothd(guest, experimental=False, sig=signal.SIGKILL)
        state = guest.dir / "flash.bin"
        assert not state.exists()
        guest.start_sim()
        guest.until(lambda: guest.info(ADDRESS)["LastSeen"] > int((time.time() - 5) * 1e6), limit=90)
        guest.ctl("info", "--read", ADDRESS)


TOKEN, BIND_KEY = "00112233445566778899aabb", "ffeeddccbbaa99887766554433221100"
ROOT = VECTORS["root"]["public"]
BOUND = PLAIN + f"Token={TOKEN}\nBindKey={BIND_KEY}\nDid=blt.3.129vtestaag00\nOnReject=restart\n"
SIGNING = BOUND + f"ImageRootKey={signing.ROOT}\n"
ROOTS = f"[images]\nRootKey={signing.VENDOR_ROOT};{signing.ROOT}\n"


def give_keys(guest):
    guest.known(ADDRESS)
    guest.ctl("keys", "import", "-", data=f"{ADDRESS} {TOKEN} {BIND_KEY}\n")


@case
def version_2_registers_with_a_credential():
    devices = f"[{ADDRESS}]\nModel=LYWSD03MMC\nFirmware=2.1.1_0159\nRootKey={ROOT}\n"
    program = str(HERE.parent / "integration" / "credential.py")

    def command(mode):
        return "--credential-command=" + shlex.join([sys.executable, program, mode])
    with Guest(devices, f"[registration]\nRootKey={ROOT}\n") as guest:
        guest.known(ADDRESS)
        assert "CredentialRefused" in guest.ctl("activate", command("foreign-key"), ADDRESS, expect=1).err
        assert guest.device_state(ADDRESS)["registered"] is False
        guest.ctl("activate", command("good"), ADDRESS)
        assert guest.device_state(ADDRESS)["registered"] is True
        assert last(guest.ctl("--json", "login", ADDRESS))["Result"]["keys"] == "current"


@case
def firmware_2_1_1_takes_the_real_signed_image():
    path = harness.firmware("Original_OTA_Xiaomi_LYWSD03MMC_v2.1.1_0159c.bin")
    with Guest(BOUND.replace("1.0.0_0130", "2.1.1_0158")) as guest:
        give_keys(guest)
        update(guest, path.read_bytes(), "2.1.1_0159")


@case
def firmware_2_1_1_gets_no_unsigned_image():
    with Guest(BOUND.replace("1.0.0_0130", "2.1.1_0159")) as guest:
        give_keys(guest)
        path = guest.file("custom.bin", harness.custom_image(8196))
        assert "NotSigned" in guest.ctl("update", ADDRESS, path, expect=4).err
        assert len(guest.device_state(ADDRESS)["banks"]) == 1
        done = last(guest.ctl("--json", "update", "--accept=unsigned", ADDRESS, path, expect=1))
        assert done["Error"].endswith("NotUpdated") and done["Result"]["device-decides"] is True, done
        assert guest.device_state(ADDRESS)["version"] == "2.1.1_0159"


@case
def two_hops_end_at_the_second_image():
    with Guest(SIGNING, ROOTS) as guest:
        give_keys(guest)
        first = guest.file("first.bin", signing.sign(harness.image(8196, 24, "1.0.0_0001"), "2.1.1_0159"))
        second = guest.file("second.bin", signing.sign(harness.image(8196, 23, "1.0.0_0001"), "2.1.1_0160"))
        done = last(guest.ctl("--json", "update", ADDRESS, first, second))
        assert done["State"] == "done" and done["Result"]["versions"] == ["2.1.1_0159", "2.1.1_0160"], done
        assert last(guest.ctl("--json", "login", ADDRESS))["Result"]["keys"] == "current"


import scanning  # noqa: E402, F401 -- more cases


BROKEN = 3


def run_case(name):
    """Whether the guest can go on; a failure in a broken one says nothing."""
    begin = time.monotonic()
    try:
        CASES[name]()
        print(f"# {time.monotonic() - begin:.0f} s", flush=True)
        print(f"ok {name}", flush=True)
    except harness.Skip as reason:
        print(f"skip {name} # {reason}", flush=True)
    except BaseException as error:  # every failure is a line
        traceback.print_exc(file=sys.stdout)
        if breakage():
            print(f"# {name}: {breakage()}", flush=True)
            return False
        print(f"not ok {name} # {type(error).__name__}", flush=True)
    return not breakage()


def run_cases(names):
    """Those without a line of their own want another guest."""
    names = names or list(CASES)
    print("# cases:", *names, flush=True)
    return 0 if all(run_case(name) for name in names) else BROKEN


def figure(name, value, unit, **more):
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit, **more}), flush=True)


def upload_seconds(config, size):
    with Guest(PLAIN, config) as guest:
        guest.known(ADDRESS)
        guest.ctl("activate", ADDRESS)
        child = guest.ctl_start("--json", "update", ADDRESS, guest.file("i.bin", harness.custom_image(size)))
        start = guest.wait_event(ADDRESS, "ota-start") and time.monotonic()
        guest.wait_event(ADDRESS, "ota-end")
        seconds = time.monotonic() - start
        assert child.wait(200) == 0
        return seconds


def bleak_seconds(size):
    with Guest(PLAIN.replace("1.0.0_0130", "V5.8")) as guest:
        guest.stop_daemon()
        return float(subprocess.run([sys.executable, HERE / "bleak_upload.py", ADDRESS, str(size)], check=True,
                                    stdout=subprocess.PIPE, text=True, timeout=280).stdout)


def bench():
    size = 20004
    blocks = (size + 15) // 16
    # First in the boot: it fails where BlueZ has cached another table of services.
    bleak = bleak_seconds(size)
    # In turns, and the median of each: the guest is slow and noisy.
    turns = [(upload_seconds("", size), upload_seconds("[update]\nPipelined=false\n", size)) for _ in range(5)]
    piped, plain = (statistics.median(seconds) for seconds in zip(*turns))
    figure("vm-upload-not-pipelined", blocks / plain, "blocks/s")
    figure("vm-upload-pipelined", blocks / piped, "blocks/s", ratio=round(plain / piped, 2),
           against="vm-upload-not-pipelined")
    figure("vm-upload-bleak", blocks / bleak, "blocks/s")
    figure("vm-upload-against-bleak", blocks / piped, "blocks/s", ratio=round(bleak / piped, 2),
           against="vm-upload-bleak, the same reads in the same boot")
    return 0


if __name__ == "__main__":
    if "--bench" in sys.argv:
        sys.exit(bench())
    sys.exit(run_cases(sys.argv[1:]))
