#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The same upload by bleak, for comparison: bleak_upload.py ADDRESS SIZE prints the seconds from the start
command to the end command.

One write without response a block and a read every 8 blocks, as this library is used for it.
"""

import asyncio
import pathlib
import struct
import sys
import time

# Run by the interpreter for which Debian packages bleak.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
sys.path.append("/usr/lib/python3/dist-packages")
from bleak import BleakClient, BleakScanner  # noqa: E402
import harness  # noqa: E402

OTA = "00010203-0405-0607-0809-0a0b0c0d2b12"


def crc16(data):
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def packets(image):
    for index in range((len(image) + 15) // 16):
        body = struct.pack("<H", index) + image[index * 16:index * 16 + 16].ljust(16, b"\xff")
        yield body + struct.pack("<H", crc16(body))


async def main(address, size):
    image = harness.custom_image(size)
    blocks = list(packets(image))
    device = None
    while device is None:
        device = await BleakScanner.find_device_by_address(address, timeout=20, adapter="hci0")
    async with BleakClient(device, adapter="hci0") as client:
        await client.write_gatt_char(OTA, b"\x00\xff", response=False)
        begin = time.monotonic()
        await client.write_gatt_char(OTA, b"\x01\xff", response=False)
        await asyncio.sleep(0.3)
        for index, block in enumerate(blocks):
            await client.write_gatt_char(OTA, block, response=False)
            if index % 8 == 7:
                await client.read_gatt_char(OTA)
        await client.read_gatt_char(OTA)
        last = len(blocks) - 1
        await client.write_gatt_char(OTA, struct.pack("<HHH", 0xFF02, last, last ^ 0xFFFF), response=False)
        seconds = time.monotonic() - begin
        await asyncio.sleep(1)
    print(seconds)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
