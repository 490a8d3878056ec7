/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-private.h"

#include <string.h>

/* protocol/ota-mible.md section 1 */
enum
{
  COMMAND_VERSION = 1,
  COMMAND_START = 2,
  COMMAND_INDEX = 3,
  COMMAND_VERIFY = 4,
};

enum
{
  STATUS_SUCCESS = 0,
  STATUS_NO_COMMAND = 1,
  STATUS_AUTHENTICATION = 2,
  STATUS_PARAMETER = 3,
  STATUS_BUSY = 5,
  STATUS_UNSIGNED = 6,
  STATUS_RECEIVE = 7,
  STATUS_LOW_BATTERY = 8,
};

#define EVENT_COMMAND   1
#define EVENT_FRAGMENT  2
#define FRAGMENT_SMALL  512
#define FRAGMENT_LARGE  2048
#define BATTERY_MIN     20 /* percent */
#define RECORD_EVERY    4
#define RECORD_LEN      10 /* u16 index, u32 bytes, u32 running CRC */
#define DELAY_NEVER     0xffffffff
#define DELAY_BY_DEVICE 0xfffffffe
#define DELAY_LONGEST_S 86400
#define FRAGMENT_HEADER 2
#define TICK_PROTOCOL2  20

void
sim_dfu_init (SimDfu *self)
{
  *self = (SimDfu){ .work_ms = -1, .switch_due_ms = -1, .crc = 0xffffffff };
}

void
sim_dfu_reset (SimDevice *self)
{
  g_free (self->dfu.message);
  sim_dfu_init (&self->dfu);
}

void
sim_dfu_abandon (SimDevice *self)
{
  self->dfu.state = SIM_DFU_IDLE;
  self->dfu.switch_due_ms = -1;
}

static void
wake (SimDevice *self)
{
  gint64 tick = self->config.dfu == 2 ? TICK_PROTOCOL2 : SIM_TICK_MS;

  if (self->dfu.work_ms < 0)
    self->dfu.work_ms = (self->now / tick + 1) * tick;
}

/* Events */

static void
answer_command (SimDevice *self, guint16 code, guint8 status, const guint8 *result, gsize len)
{
  guint8 data[16] = { EVENT_COMMAND, (guint8) (3 + len) };

  mi_put_u16 (data + 2, code);
  data[4] = status;
  if (len > 0)
    memcpy (data + 5, result, len);
  sim_device_notify (self, MI_CHANNEL_DFU_CONTROL, data, 5 + len);
}

static void
answer_fragment (SimDevice *self, guint8 status, guint16 index)
{
  guint8 data[5] = { EVENT_FRAGMENT, 3, status };

  mi_put_u16 (data + 3, index);
  sim_device_notify (self, MI_CHANNEL_DFU_CONTROL, data, sizeof data);
}

/* Record: where a later connection may go on (protocol 2) */

static void
store_record (SimDevice *self)
{
  SimDfu *dfu = &self->dfu;
  guint8 record[RECORD_LEN];

  mi_put_u16 (record, dfu->last);
  mi_put_u32 (record + 2, dfu->bytes);
  mi_put_u32 (record + 6, dfu->crc);
  sim_flash_put_record (self->flash, SIM_RECORD_DFU, record, sizeof record);
  sim_device_save (self);
}

static void
load_record (SimDevice *self)
{
  SimDfu *dfu = &self->dfu;
  guint8 record[SIM_RECORD_MAX];

  dfu->last = 0;
  dfu->bytes = 0;
  dfu->crc = 0xffffffff;
  if (self->config.dfu != 2
      || sim_flash_get_record (self->flash, SIM_RECORD_DFU, record) != RECORD_LEN)
    return;
  dfu->last = mi_get_u16 (record);
  dfu->bytes = mi_get_u32 (record + 2);
  dfu->crc = mi_get_u32 (record + 6);
}

/* Commands */

static void
on_start (SimDevice *self)
{
  SimDfu *dfu = &self->dfu;
  guint8 size[2];

  if (self->config.dfu == 2 && self->config.battery < BATTERY_MIN)
    {
      answer_command (self, COMMAND_START, STATUS_LOW_BATTERY, NULL, 0);
      return;
    }
  if (self->ota.state != SIM_OTA_IDLE)
    {
      answer_command (self, COMMAND_START, STATUS_BUSY, NULL, 0);
      return;
    }
  sim_dfu_abandon (self);
  dfu->fragment_size
      = self->config.dfu == 2 && self->auth.sizes.dmtu > 18 ? FRAGMENT_LARGE : FRAGMENT_SMALL;
  dfu->state = SIM_DFU_DOWNLOADING;
  dfu->bank = sim_device_target (self);
  dfu->delay_s = 0;
  load_record (self);
  mi_put_u16 (size, dfu->fragment_size);
  answer_command (self, COMMAND_START, STATUS_SUCCESS, size, sizeof size);
  sim_dfu_expect (self, FRAGMENT_HEADER + dfu->fragment_size);
}

static void
on_index (SimDevice *self)
{
  SimDfu *dfu = &self->dfu;
  guint8 result[6];

  if (dfu->state == SIM_DFU_IDLE)
    load_record (self);
  mi_put_u16 (result, dfu->last);
  mi_put_u32 (result + 2, ~dfu->crc);
  answer_command (self, COMMAND_INDEX, STATUS_SUCCESS, result, self->config.dfu == 2 ? 6 : 2);
}

static guint8
verify (SimDevice *self)
{
  SimDfu *dfu = &self->dfu;

  if (dfu->state != SIM_DFU_DOWNLOADING || dfu->bytes == 0)
    return STATUS_UNSIGNED;
  switch (sim_firmware_verify (self, dfu->bank, dfu->bytes))
    {
    case SIM_TRUST_SIGNED:
      return STATUS_SUCCESS;
    case SIM_TRUST_REFUSED:
      return STATUS_AUTHENTICATION;
    case SIM_TRUST_UNSIGNED:
    default:
      return STATUS_UNSIGNED;
    }
}

static void
on_verify (SimDevice *self, const guint8 *parameters, gsize len)
{
  SimDfu *dfu = &self->dfu;
  guint8 status;

  if (len != 4)
    {
      answer_command (self, COMMAND_VERIFY, STATUS_PARAMETER, NULL, 0);
      return;
    }
  dfu->delay_s = mi_get_u32 (parameters);
  status = sim_device_status (self, verify (self));
  sim_flash_drop_record (self->flash, SIM_RECORD_DFU);
  dfu->state = status == STATUS_SUCCESS ? SIM_DFU_READY : SIM_DFU_IDLE;
  mi_frame_reset (self->auth.dfu_frame);
  sim_device_save (self);
  answer_command (self, COMMAND_VERIFY, status, NULL, 0);
  sim_device_event (self, "{\"event\":\"dfu-end\",\"status\":%u}", status);
}

static void
on_command (SimDevice *self, const guint8 *data, gsize len)
{
  guint8 version[2] = { (guint8) self->config.dfu, 0 };
  guint16 code = mi_get_u16 (data);
  guint8 forced
      = code != COMMAND_VERIFY ? sim_device_status (self, STATUS_SUCCESS) : STATUS_SUCCESS;

  if (forced != STATUS_SUCCESS)
    {
      answer_command (self, code, forced, NULL, 0);
      return;
    }
  switch (code)
    {
    case COMMAND_VERSION:
      answer_command (self, code, STATUS_SUCCESS, version, sizeof version);
      break;
    case COMMAND_START:
      on_start (self);
      break;
    case COMMAND_INDEX:
      on_index (self);
      break;
    case COMMAND_VERIFY:
      on_verify (self, data + 3, len - 3);
      break;
    default:
      answer_command (self, code, STATUS_NO_COMMAND, NULL, 0);
      break;
    }
}

void
sim_dfu_command (SimDevice *self, const guint8 *data, gsize len)
{
  SimDfu *dfu = &self->dfu;
  guint room = self->config.dfu == 2 ? 1 : SIM_DFU_QUEUE;

  if (!self->auth.logged_in || len < 3 || len != 3u + data[2] || len > sizeof dfu->commands[0])
    return;
  if (dfu->n_commands >= room)
    return;
  memcpy (dfu->commands[dfu->n_commands], data, len);
  dfu->command_len[dfu->n_commands++] = len;
  wake (self);
}

/* Fragments */

/* Returns: whether the fragment is in the flash */
static gboolean
store_fragment (SimDevice *self, guint16 index, const guint8 *data, gsize len)
{
  SimDfu *dfu = &self->dfu;
  guint64 at = (guint64) (index - 1) * dfu->fragment_size;
  g_autofree guint8 *copy = g_memdup2 (data, len);

  if (at + len > self->config.limit)
    return FALSE;
  if (index == 1)
    {
      sim_flash_erase (self->flash, dfu->bank, self->config.limit);
      if (len > SIM_IMAGE_MARK)
        copy[SIM_IMAGE_MARK] = 0xff; /* not bootable before the switch */
    }
  return sim_flash_rewrite (self->flash, dfu->bank + (guint32) at, copy, len);
}

static void
count_fragment (SimDevice *self, guint16 index, const guint8 *data, gsize len)
{
  SimDfu *dfu = &self->dfu;

  if (index == 1)
    {
      dfu->last = 0;
      dfu->bytes = 0;
      dfu->crc = 0xffffffff;
    }
  dfu->crc = mi_crc32 (dfu->crc, data, len); /* a repeated fragment counts again */
  if (index <= dfu->last)
    return;
  dfu->bytes += (guint32) len;
  dfu->last = index;
  if (self->config.dfu == 2 && index % RECORD_EVERY == 0)
    store_record (self);
}

static void
take_fragment (SimDevice *self, const guint8 *message, gsize len)
{
  SimDfu *dfu = &self->dfu;
  guint16 index = len > FRAGMENT_HEADER ? mi_get_u16 (message) : 0;
  const guint8 *data = message + FRAGMENT_HEADER;
  guint8 status;

  if (index == 0 || (self->config.dfu == 1 && index < dfu->last && index != 1))
    return;
  len -= FRAGMENT_HEADER;
  status = sim_device_status (self, STATUS_SUCCESS);
  if (status == STATUS_SUCCESS && !store_fragment (self, index, data, len))
    status = STATUS_BUSY;
  if (status == STATUS_SUCCESS)
    count_fragment (self, index, data, len);
  answer_fragment (self, status, index);
}

void
sim_dfu_event (SimDevice *self, const MiFrameEvent *event)
{
  SimDfu *dfu = &self->dfu;

  if (dfu->state != SIM_DFU_DOWNLOADING)
    return;
  if (event->kind == MI_FRAME_RECEIVED)
    {
      g_free (dfu->message);
      dfu->message = g_memdup2 (event->data, event->len);
      dfu->message_len = event->len;
    }
  else if (event->kind == MI_FRAME_RX_FAILED)
    dfu->gave_up = TRUE;
  else
    return;
  wake (self);
}

/* Link and time */

static void
switch_banks (SimDevice *self)
{
  sim_device_switch (self, self->dfu.bank);
  self->dfu.switch_due_ms = -1;
  sim_device_restart (self, 0);
}

void
sim_dfu_disconnected (SimDevice *self)
{
  SimDfu *dfu = &self->dfu;
  gboolean ready = dfu->state == SIM_DFU_READY;
  guint32 bank = dfu->bank;
  guint32 delay_s = dfu->delay_s == DELAY_BY_DEVICE ? 0 : dfu->delay_s;
  gint64 due_ms = dfu->switch_due_ms;

  sim_dfu_reset (self);
  dfu->bank = bank;
  dfu->switch_due_ms = due_ms;
  if (ready && delay_s != DELAY_NEVER)
    dfu->switch_due_ms = self->now + (gint64) MIN (delay_s, DELAY_LONGEST_S) * 1000;
}

gint64
sim_dfu_deadline (SimDevice *self)
{
  return sim_earlier (self->dfu.work_ms, self->dfu.switch_due_ms);
}

static void
work_on_message (SimDevice *self)
{
  SimDfu *dfu = &self->dfu;
  g_autofree guint8 *message = g_steal_pointer (&dfu->message);
  gboolean gave_up = dfu->gave_up;

  dfu->gave_up = FALSE;
  if (dfu->state != SIM_DFU_DOWNLOADING || (message == NULL && !gave_up))
    return;
  if (message != NULL)
    take_fragment (self, message, dfu->message_len);
  else if (self->config.dfu == 2)
    answer_fragment (self, STATUS_RECEIVE, dfu->last);
  sim_dfu_expect (self, FRAGMENT_HEADER + dfu->fragment_size);
}

void
sim_dfu_tick (SimDevice *self)
{
  SimDfu *dfu = &self->dfu;

  if (dfu->switch_due_ms >= 0 && dfu->switch_due_ms <= self->now)
    switch_banks (self);
  if (dfu->work_ms < 0 || dfu->work_ms > self->now)
    return;
  dfu->work_ms = -1;
  if (!self->connected)
    return;
  work_on_message (self);
  for (guint i = 0; i < dfu->n_commands; i++)
    on_command (self, dfu->commands[i], dfu->command_len[i]);
  dfu->n_commands = 0;
}
