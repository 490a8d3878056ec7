/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz.h"

#include "mi-crypto.h"
#include "mi-dfu.h"
#include "mi-frame.h"

#include <string.h>

#define IMAGE_MAX 6000

enum
{
  ITEM_REPLY = FUZZ_ITEM_OWN, /* status, result: to the last command */
  ITEM_FRAGMENT,              /* status, index u16 added to the right one */
  ITEM_CONTROL,               /* raw bytes on 0x0017 */
  ITEM_DATA,                  /* raw bytes on 0x0018 */
  ITEM_GOOD,                  /* what a good device says next, so often */
};

/* A device that keeps what it is sent. */
typedef struct
{
  FuzzRun run;
  MiSizes host_sizes;
  MiSizes sizes;
  MiFrame *frame;
  MiEffects *effects;
  GQueue queue; /* of GBytes: frames of the host */
  guint8 protocol;
  guint16 size;    /* of a fragment */
  guint16 command; /* last one */
  gboolean answered;
  gboolean tampered; /* something but a good device spoke */
  guint16 index;     /* of the last fragment that came whole, not yet told; 0: none */
  guint16 last;      /* told with success */
  gsize stored;
  guint8 image[IMAGE_MAX];
  guint8 flash[IMAGE_MAX + 2048];
  gsize len;
  gboolean disconnect;
} Device;

static void
on_effect (FuzzRun *run, const MiEffect *effect)
{
  Device *self = run->user_data;

  if (effect->kind == MI_EFFECT_DISCONNECT)
    self->disconnect = TRUE;
  if (effect->kind == MI_EFFECT_DONE)
    g_assert (self->disconnect && mi_dfu_verified (run->procedure));
  if (effect->kind != MI_EFFECT_WRITE)
    return;
  if (effect->channel == MI_CHANNEL_DFU_CONTROL)
    {
      g_assert (effect->len >= 3 && effect->data[2] == effect->len - 3);
      self->command = mi_get_u16 (effect->data);
      self->answered = FALSE;
    }
  else if (effect->channel == MI_CHANNEL_DFU_DATA)
    g_queue_push_tail (&self->queue, g_bytes_new (effect->data, effect->len));
}

static void
store (Device *self, MiFrameEvent event)
{
  gsize at;

  if (event.kind != MI_FRAME_RECEIVED || event.len < 3)
    return;
  self->index = mi_get_u16 (event.data);
  at = (gsize) (self->index - 1) * self->size;
  /* A host that was told another size has its own idea of the places. */
  if (self->tampered && (at + event.len - 2 > self->len || event.len - 2 > self->size))
    return;
  g_assert (self->index >= 1 && event.len - 2 <= self->size && at + event.len - 2 <= self->len);
  memcpy (self->flash + at, event.data + 2, event.len - 2);
  self->stored = MAX (self->stored, at + event.len - 2);
}

static void
to_host (Device *self, guint16 channel, const guint8 *data, gsize len)
{
  g_autofree guint8 *exact = g_memdup2 (data, len);

  fuzz_run_event (&self->run, MI_EVENT_RECEIVED, channel, exact, len);
}

static void
pump (Device *self)
{
  GBytes *frame;

  while ((frame = g_queue_pop_head (&self->queue)) != NULL)
    {
      gsize len;
      const guint8 *data = g_bytes_get_data (frame, &len);
      MiFrameEvent event;
      MiFrameView view;

      mi_effects_reset (self->effects);
      if (!mi_frame_is_receiving (self->frame) && mi_frame_decode (data, len, &view)
          && view.sn == 0)
        mi_frame_expect (self->frame, MI_MESSAGE_PASS_THROUGH, self->size + 2, self->run.now_ms,
                         self->effects);
      event = mi_frame_feed (self->frame, data, len, self->run.now_ms, self->effects);
      store (self, event);
      for (guint i = 0; i < self->effects->n; i++)
        to_host (self, MI_CHANNEL_DFU_DATA, self->effects->items[i].data,
                 self->effects->items[i].len);
      g_bytes_unref (frame);
    }
}

static void
reply (Device *self, guint8 status, const guint8 *result, gsize len)
{
  guint8 bytes[64] = { 1, 0, 0, 0, status };

  len = MIN (len, sizeof bytes - 5);
  bytes[1] = (guint8) (3 + len);
  mi_put_u16 (bytes + 2, self->command);
  if (len > 0)
    memcpy (bytes + 5, result, len);
  to_host (self, MI_CHANNEL_DFU_CONTROL, bytes, 5 + len);
}

static void
fragment_event (Device *self, guint8 status, guint16 index)
{
  guint8 bytes[5] = { 2, 3, status };

  mi_put_u16 (bytes + 3, index);
  to_host (self, MI_CHANNEL_DFU_CONTROL, bytes, sizeof bytes);
}

static void
good_reply (Device *self)
{
  guint8 result[6] = { 0 };

  self->answered = TRUE;
  switch (self->command)
    {
    case 1:
      result[0] = self->protocol;
      reply (self, 0, result, 2);
      break;
    case 2:
      mi_put_u16 (result, self->size);
      reply (self, 0, result, 2);
      break;
    case 3:
      mi_put_u16 (result, self->last);
      mi_put_u32 (result + 2,
                  mi_crc32 (0xffffffff, self->flash, (gsize) self->last * self->size) ^ 0xffffffff);
      reply (self, 0, result, self->protocol == 2 ? 6 : 2);
      break;
    default:
      /* The whole image has to be there, and nothing else. */
      if (!self->tampered)
        g_assert (self->stored == self->len && memcmp (self->flash, self->image, self->len) == 0);
      reply (self, 0, NULL, 0);
      break;
    }
}

static gboolean
good (Device *self)
{
  guint16 index = self->index;

  if (self->run.finished)
    return FALSE;
  if (!self->answered)
    good_reply (self);
  else if (index > 0)
    {
      self->index = 0;
      self->last = index;
      fragment_event (self, 0, index);
    }
  else
    return FALSE;
  pump (self);
  return TRUE;
}

static void
device_item (Device *self, const FuzzItem *item)
{
  MiReader in = MI_READER (item->data, item->len);
  guint8 status = mi_reader_u8 (&in);
  guint16 offset = mi_reader_u16 (&in);

  if (item->kind != ITEM_GOOD && item->kind != FUZZ_ITEM_WAIT && item->kind != FUZZ_ITEM_DEADLINE)
    self->tampered = TRUE;
  if (fuzz_run_item (&self->run, item))
    return;
  self->run.now_ms += item->delta_ms;
  switch (item->kind)
    {
    case ITEM_REPLY:
      reply (self, status, item->len > 1 ? item->data + 1 : NULL,
             item->len > 1 ? item->len - 1 : 0);
      break;
    case ITEM_FRAGMENT:
      fragment_event (self, status, (guint16) (self->index + offset));
      break;
    case ITEM_CONTROL:
      to_host (self, MI_CHANNEL_DFU_CONTROL, item->data, item->len);
      break;
    case ITEM_DATA:
      to_host (self, MI_CHANNEL_DFU_DATA, item->data, item->len);
      break;
    case ITEM_GOOD:
      for (guint i = 0; i <= status && good (self); i++)
        ;
      break;
    default:
      break;
    }
}

static void
device_init (Device *self, MiReader *in)
{
  static MiEffects effects;
  guint8 flags = mi_reader_u8 (in);
  guint16 att = flags & 2 ? 244 : 20;

  memset (self, 0, sizeof *self);
  self->protocol = flags & 1 ? 2 : 1;
  self->host_sizes = (MiSizes) MI_SIZES_INIT (att);
  if (flags & 2 && flags & 1)
    self->host_sizes = (MiSizes){ att, 242, 6, TRUE };
  self->sizes = self->host_sizes;
  self->size = self->sizes.dmtu > 18 ? 2048 : 512;
  self->len = 1 + mi_reader_u16 (in) % IMAGE_MAX;
  for (gsize i = 0; i < self->len; i++)
    self->image[i] = flags & 4 ? 0xa5 : (guint8) (i * 7 + (i >> 8) * 13);
  if (flags & 8)
    {
      /* It holds the first fragment already. */
      self->last = 1;
      self->stored = MIN (self->size, self->len);
      memcpy (self->flash, self->image, self->stored);
    }
  self->effects = &effects;
  self->frame = mi_frame_new (MI_CHANNEL_DFU_DATA,
                              flags & 1 ? MI_ROLE_DEVICE_GEN2 : MI_ROLE_DEVICE_GEN1, &self->sizes);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static Device device;
  MiReader in = MI_READER (data, size);
  FuzzItems items;
  FuzzItem item;

  fuzz_begin ();
  device_init (&device, &in);
  items = (FuzzItems){ .in = in };
  fuzz_run_init (&device.run, mi_dfu_new (&device.host_sizes, device.image, device.len, 0));
  device.run.effect = on_effect;
  device.run.user_data = &device;
  fuzz_run_event (&device.run, MI_EVENT_START, 0, NULL, 0);
  while (fuzz_items_next (&items, &item))
    {
      device_item (&device, &item);
      pump (&device);
    }
  fuzz_items_clear (&items);
  fuzz_run_finish (&device.run);
  g_queue_clear_full (&device.queue, (GDestroyNotify) g_bytes_unref);
  mi_frame_free (device.frame);
  return 0;
}
