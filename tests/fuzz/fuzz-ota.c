/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz.h"

#include "mi-ota.h"

#include <string.h>

#define IMAGE_MAX 3000

enum
{
  ITEM_GOOD = FUZZ_ITEM_OWN, /* what the device owes is given: a value, or the answer to a write */
  ITEM_ALL_GOOD,             /* as long as it owes something */
  ITEM_CODE,                 /* a read gives the first byte */
  ITEM_NOTIFY,
};

/* A device that counts what it gets, block by block. */
typedef struct
{
  FuzzRun run;
  guint8 image[IMAGE_MAX];
  gsize len;
  guint window;
  guint next;      /* index of the block wanted next */
  guint reads;     /* outstanding */
  guint requests;  /* outstanding */
  guint barrier;   /* blocks that the outstanding read or request stands for */
  guint confirmed; /* blocks whose read or request was answered */
  gboolean started;
  gboolean ended;
} Device;

static void
check_block (Device *self, const MiEffect *effect)
{
  guint8 packet[MI_OTA_PACKET_LEN];

  mi_ota_packet (self->image, self->len, (guint16) self->next, packet);
  g_assert (self->started && !self->ended && effect->len == sizeof packet);
  g_assert (memcmp (effect->data, packet, sizeof packet) == 0);
  self->next++;
  /* At most two windows are on their way. */
  g_assert (self->next - self->confirmed <= 2 * self->window);
}

static void
check_write (Device *self, const MiEffect *effect)
{
  guint16 index;

  if (effect->channel != MI_CHANNEL_OTA)
    return;
  g_assert (effect->len >= 2);
  index = mi_get_u16 (effect->data);
  if (index == 0xff01)
    self->started = TRUE;
  else if (index == 0xff02)
    {
      g_assert (effect->len == 6 && self->next == mi_ota_get_blocks (self->run.procedure));
      g_assert (mi_get_u16 (effect->data + 2) == self->next - 1);
      /* The last word comes when the device has said that it has everything. */
      g_assert (self->confirmed == self->next && self->reads == 0 && self->requests == 0);
      self->ended = TRUE;
    }
  else if (index != 0xff00)
    check_block (self, effect);
}

static void
on_effect (FuzzRun *run, const MiEffect *effect)
{
  Device *self = run->user_data;

  if (effect->kind == MI_EFFECT_WRITE || effect->kind == MI_EFFECT_WRITE_REQUEST)
    check_write (self, effect);
  if (effect->kind == MI_EFFECT_READ)
    g_assert (++self->reads == 1);
  if (effect->kind == MI_EFFECT_WRITE_REQUEST)
    g_assert (++self->requests == 1);
  if (effect->kind == MI_EFFECT_READ || effect->kind == MI_EFFECT_WRITE_REQUEST)
    self->barrier = self->next;
  if (effect->kind == MI_EFFECT_DONE)
    g_assert (self->ended && mi_ota_end_sent (run->procedure));
}

/* Returns: whether the device owed anything */
static gboolean
give (Device *self, const guint8 *data, gsize len)
{
  if (self->requests > 0)
    {
      self->requests--;
      self->confirmed = self->barrier;
      fuzz_run_event (&self->run, MI_EVENT_WRITTEN, MI_CHANNEL_OTA, NULL, 0);
      return TRUE;
    }
  if (self->reads == 0)
    return FALSE;
  self->reads--;
  self->confirmed = self->barrier;
  fuzz_run_event (&self->run, MI_EVENT_VALUE, MI_CHANNEL_OTA, data, len);
  return TRUE;
}

static void
device_item (Device *self, const FuzzItem *item)
{
  /* What comes unasked never comes from a link: the runner drops it. */
  if (item->kind == FUZZ_ITEM_VALUE || item->kind == FUZZ_ITEM_WRITTEN)
    {
      give (self, item->data, item->len);
      return;
    }
  if (item->kind == FUZZ_ITEM_IO_FAILED)
    {
      if (self->reads + self->requests == 0)
        return;
      self->reads = self->requests = 0;
    }
  if (fuzz_run_item (&self->run, item))
    return;
  self->run.now_ms += item->delta_ms;
  switch (item->kind)
    {
    case ITEM_GOOD:
      give (self, NULL, 0);
      break;
    case ITEM_ALL_GOOD:
      while (!self->run.finished && give (self, NULL, 0))
        ;
      break;
    case ITEM_CODE:
      if (self->reads > 0)
        give (self, item->data, MIN (item->len, 1));
      break;
    case ITEM_NOTIFY:
      fuzz_run_event (&self->run, MI_EVENT_RECEIVED, MI_CHANNEL_OTA, item->data, item->len);
      break;
    default:
      break;
    }
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  MiReader in = MI_READER (data, size);
  guint8 flags = mi_reader_u8 (&in);
  MiOtaOptions options = {
    .window = mi_reader_u8 (&in),
    .pipelined = flags & 1,
    .set_interval = (flags & 2) != 0,
    .request = (flags & 4) != 0,
  };
  Device device = { .len = 1 + mi_reader_u16 (&in) % IMAGE_MAX };
  FuzzItems items = { .in = in };
  FuzzItem item;

  fuzz_begin ();
  if (flags & 8)
    options.window = MI_OTA_WINDOW_MAX;
  for (gsize i = 0; i < device.len; i++)
    device.image[i] = (guint8) (i * 7 + (i >> 8) * 13);
  device.window = options.window > 0 ? options.window : MI_OTA_WINDOW_DEFAULT;
  fuzz_run_init (&device.run, mi_ota_new (device.image, device.len, &options));
  device.run.effect = on_effect;
  device.run.user_data = &device;
  fuzz_run_event (&device.run, MI_EVENT_START, 0, NULL, 0);
  while (fuzz_items_next (&items, &item))
    device_item (&device, &item);
  fuzz_items_clear (&items);
  fuzz_run_finish (&device.run);
  return 0;
}
