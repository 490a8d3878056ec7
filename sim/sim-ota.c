/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-private.h"

#include <string.h>

/* protocol/ota-telink.md section 1 */
#define COMMAND_FIRST 0xff00
#define COMMAND_START 0xff01
#define COMMAND_END   0xff02
#define BLOCK_LEN     16u
#define PACKET_LEN    20u
#define END_LEN       6u

#define TIMER_MS        30000
#define TIMER_CUSTOM_MS 16000

/* Result codes (section 3, first column) */
enum
{
  CODE_SUCCESS = 0,
  CODE_PACKET_LOST = 1,
  CODE_DATA_CRC = 2,
  CODE_WRITE_FLASH = 3,
  CODE_LAST_PACKETS_LOST = 4,
  CODE_TIMEOUT = 5,
  CODE_FIRMWARE_CHECK = 6,
};

/* Extended OTA (section 8) */
#define EXTENDED_COMMAND 0x73
#define EXTENDED_BANK    SIM_BANK_EXTENDED
#define EXTENDED_MIN_KIB 4
#define EXTENDED_MAX_KIB 207
#define ERASE_MS         10 /* per sector */
enum
{
  EXTENDED_INFO = 0,
  EXTENDED_RUNNING = 1,
  EXTENDED_BUSY = 2,
  EXTENDED_READY = 3,
  EXTENDED_ERASED = 4,
  EXTENDED_REFUSED = 0xfe,
};

void
sim_ota_reset (SimOta *self)
{
  *self = (SimOta){ .last = -1, .deadline_ms = -1, .erase_due_ms = -1 };
}

/* Which bank an upload goes to, and how much of it may be used. */
static guint32
target_bank (SimDevice *self)
{
  return self->ota.extended_limit > 0 ? EXTENDED_BANK : sim_device_target (self);
}

static guint32
target_limit (SimDevice *self)
{
  return self->ota.extended_limit > 0 ? self->ota.extended_limit : self->config.limit;
}

static void
arm_timer (SimDevice *self)
{
  self->ota.deadline_ms = self->now + (sim_firmware_is_custom (self) ? TIMER_CUSTOM_MS : TIMER_MS);
}

/* Any result ends the upload, and the device restarts soon after. */
static void
finish (SimDevice *self, guint8 code)
{
  SimOta *ota = &self->ota;

  ota->state = SIM_OTA_ENDED;
  ota->deadline_ms = -1;
  ota->code = code;
  if (code != CODE_SUCCESS)
    sim_flash_erase (self->flash, ota->bank, target_limit (self));
  sim_device_event (self, "{\"event\":\"ota-end\",\"code\":%u}", code);
  sim_device_restart (self, SIM_RESTART_MS);
  sim_device_save (self);
}

static void
start (SimDevice *self)
{
  SimOta *ota = &self->ota;

  if (ota->state == SIM_OTA_ENDED)
    return;
  sim_dfu_abandon (self); /* both use the same bank */
  sim_flash_drop_record (self->flash, SIM_RECORD_DFU);
  ota->state = SIM_OTA_RUNNING;
  ota->last = -1;
  ota->code = CODE_SUCCESS;
  ota->bank = target_bank (self);
  sim_flash_erase (self->flash, ota->bank, target_limit (self));
  arm_timer (self);
  sim_device_event (self, "{\"event\":\"ota-start\",\"bank\":%u}", ota->bank);
}

/* Returns: result code; %CODE_SUCCESS: go on */
static guint8
store_block (SimDevice *self, const guint8 *data)
{
  SimOta *ota = &self->ota;
  guint32 at = mi_get_u16 (data) * BLOCK_LEN;
  guint8 block[BLOCK_LEN];

  if (mi_crc16_modbus (data, PACKET_LEN - 2) != mi_get_u16 (data + PACKET_LEN - 2))
    return CODE_DATA_CRC;
  if (at + BLOCK_LEN > target_limit (self))
    return CODE_WRITE_FLASH;
  memcpy (block, data + 2, sizeof block);
  if (at == 0)
    block[SIM_IMAGE_MARK] = 0xff; /* not bootable before everything is here */
  if (!sim_flash_program (self->flash, ota->bank + at, block, sizeof block))
    return CODE_WRITE_FLASH;
  return CODE_SUCCESS;
}

static void
on_block (SimDevice *self, const guint8 *data, gsize len)
{
  SimOta *ota = &self->ota;
  guint8 code = CODE_SUCCESS;
  gint32 index;

  if (len != PACKET_LEN)
    {
      finish (self, CODE_DATA_CRC);
      return;
    }
  index = mi_get_u16 (data);
  if (index <= ota->last)
    return;
  code = index == ota->last + 1 ? store_block (self, data) : CODE_PACKET_LOST;
  if (code != CODE_SUCCESS)
    {
      finish (self, code);
      return;
    }
  ota->last = index;
  arm_timer (self);
}

/* Size field and CRC-32 of what was received, with the boot mark taken as set. */
static gboolean
image_is_sound (SimDevice *self, guint32 received)
{
  SimOta *ota = &self->ota;
  g_autofree guint8 *image = sim_flash_dup (self->flash, ota->bank, MAX (received, 0x20));
  guint32 size = mi_get_u32 (image + SIM_IMAGE_SIZE);

  if (size < MI_IMAGE_MIN_SIZE || size > received)
    return FALSE;
  image[SIM_IMAGE_MARK] = 0x4b;
  return mi_crc32 (0xffffffff, image, size - 4) == mi_get_u32 (image + size - 4);
}

static gboolean
counts_match (SimDevice *self, guint32 received)
{
  guint8 size[4];

  sim_flash_read (self->flash, self->ota.bank + SIM_IMAGE_SIZE, size, sizeof size);
  return ((guint64) mi_get_u32 (size) + BLOCK_LEN - 1) / BLOCK_LEN == received / BLOCK_LEN;
}

/* As reports from the field say: the upload is taken, then the device falls silent or restarts. */
static void
reject (SimDevice *self)
{
  SimOta *ota = &self->ota;

  if (!self->config.reject_freezes)
    {
      finish (self, CODE_FIRMWARE_CHECK);
      return;
    }
  ota->state = SIM_OTA_ENDED;
  ota->deadline_ms = -1;
  sim_flash_erase (self->flash, ota->bank, target_limit (self));
  sim_device_freeze (self);
}

static void
switch_banks (SimDevice *self)
{
  sim_device_switch (self, self->ota.bank);
  finish (self, CODE_SUCCESS);
}

static void
on_end (SimDevice *self, const guint8 *data, gsize len)
{
  SimOta *ota = &self->ota;
  guint32 received = (guint32) (ota->last + 1) * BLOCK_LEN;

  if (len == END_LEN && (mi_get_u16 (data + 2) ^ mi_get_u16 (data + 4)) == 0xffff
      && mi_get_u16 (data + 2) != ota->last)
    finish (self, CODE_LAST_PACKETS_LOST);
  else if (self->config.counts_blocks && !counts_match (self, received))
    finish (self, CODE_LAST_PACKETS_LOST);
  else if (!image_is_sound (self, received))
    finish (self, CODE_FIRMWARE_CHECK);
  else if (self->firmware.enforce
           && sim_firmware_verify (self, ota->bank, received) != SIM_TRUST_SIGNED)
    reject (self);
  else
    switch_banks (self);
}

/* Stock firmware wants a login first (protocol/login.md section 5). */
static gboolean
is_permitted (SimDevice *self)
{
  return self->firmware.auth_version == 0 || self->auth.logged_in;
}

static void
on_running (SimDevice *self, guint16 word, const guint8 *data, gsize len)
{
  if (word == COMMAND_END)
    on_end (self, data, len);
  else if (word < COMMAND_FIRST || len < 2)
    on_block (self, data, len);
}

void
sim_ota_write (SimDevice *self, const guint8 *data, gsize len)
{
  guint16 word = len >= 2 ? mi_get_u16 (data) : 0;

  if (!is_permitted (self))
    return;
  if (len >= 2 && word == COMMAND_START)
    start (self);
  else if (self->ota.state == SIM_OTA_RUNNING)
    on_running (self, word, data, len);
}

guint8
sim_ota_read (SimDevice *self)
{
  guint8 code = sim_device_status (self, self->ota.code);

  if (code != self->ota.code && self->ota.state == SIM_OTA_RUNNING)
    finish (self, code);
  return code;
}

void
sim_ota_disconnected (SimDevice *self)
{
  if (self->ota.state == SIM_OTA_RUNNING)
    finish (self, CODE_TIMEOUT);
  else if (self->ota.state == SIM_OTA_IDLE && self->ota.extended_limit > 0)
    sim_device_restart (self, 0); /* the command makes the firmware restart on disconnect */
}

/* Extended OTA */

static void
answer_extended (SimDevice *self, guint8 status, guint32 address, guint32 size)
{
  guint8 data[10] = { EXTENDED_COMMAND, status };

  mi_put_u32 (data + 2, address);
  mi_put_u32 (data + 6, size);
  sim_device_notify (self, MI_CHANNEL_EXTENDED, data, sizeof data);
}

static void
prepare_extended (SimDevice *self, guint32 address, guint32 kib)
{
  SimOta *ota = &self->ota;

  kib = (kib + 3) / 4 * 4;
  ota->erase_at = address;
  ota->erase_end
      = MIN (address + kib * 1024 + SIM_FLASH_SECTOR, EXTENDED_BANK + SIM_BANK_EXTENDED_LIMIT);
  ota->erase_due_ms = self->now + ERASE_MS;
  answer_extended (self, EXTENDED_BUSY, address, kib);
}

void
sim_ota_extended (SimDevice *self, const guint8 *data, gsize len)
{
  SimOta *ota = &self->ota;
  guint32 address = len == 9 ? mi_get_u32 (data + 1) : 0;
  guint32 kib = len == 9 ? mi_get_u32 (data + 5) : 0;
  guint32 region = ota->extended_limit > 0 ? EXTENDED_BANK : sim_device_target (self);

  if (len < 1 || data[0] != EXTENDED_COMMAND || (len != 1 && len != 9))
    return;
  if (ota->state != SIM_OTA_IDLE)
    answer_extended (self, EXTENDED_RUNNING, region, target_limit (self) / 1024);
  else if (ota->erase_due_ms >= 0)
    answer_extended (self, EXTENDED_BUSY, ota->erase_at, (ota->erase_end - ota->erase_at) / 1024);
  else if (len == 1)
    answer_extended (self, EXTENDED_INFO, region, target_limit (self) / 1024);
  else if (kib < EXTENDED_MIN_KIB || kib > EXTENDED_MAX_KIB || address % SIM_FLASH_SECTOR != 0)
    answer_extended (self, EXTENDED_REFUSED, address, kib);
  else if (address != EXTENDED_BANK || self->running == EXTENDED_BANK)
    answer_extended (self, EXTENDED_INFO, region, target_limit (self) / 1024);
  else
    prepare_extended (self, address, kib);
}

static void
erase_next (SimDevice *self)
{
  SimOta *ota = &self->ota;

  if (ota->erase_at >= ota->erase_end)
    {
      ota->erase_due_ms = -1;
      ota->extended_limit = ota->erase_end - EXTENDED_BANK;
      answer_extended (self, EXTENDED_READY, EXTENDED_BANK,
                       (ota->erase_end - EXTENDED_BANK - SIM_FLASH_SECTOR) / 1024);
      return;
    }
  sim_flash_erase (self->flash, ota->erase_at, SIM_FLASH_SECTOR);
  answer_extended (self, EXTENDED_ERASED, ota->erase_at, SIM_FLASH_SECTOR / 1024);
  ota->erase_at += SIM_FLASH_SECTOR;
  ota->erase_due_ms = self->now + ERASE_MS;
}

/* Time */

gint64
sim_ota_deadline (SimDevice *self)
{
  return sim_earlier (self->ota.deadline_ms, self->ota.erase_due_ms);
}

void
sim_ota_tick (SimDevice *self)
{
  SimOta *ota = &self->ota;

  if (ota->erase_due_ms >= 0 && ota->erase_due_ms <= self->now)
    erase_next (self);
  if (ota->state == SIM_OTA_RUNNING && ota->deadline_ms >= 0 && ota->deadline_ms <= self->now)
    finish (self, CODE_TIMEOUT);
}
