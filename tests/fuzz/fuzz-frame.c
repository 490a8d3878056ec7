/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz.h"

#include "mi-frame.h"

#include <string.h>

/* The longest a host may be busy with one transfer whose peer is silent: BUSY waits, rounds. */
#define TICKS_TO_THE_END 20
#define BUDGET           4000

enum
{
  ITEM_FEED,
  ITEM_SEND,   /* type, length u16 */
  ITEM_EXPECT, /* type, max u16 */
  ITEM_TICK,
  ITEM_DEADLINE,
  ITEM_EXPLORE,
  ITEM_RESET,
};

typedef struct
{
  MiSizes sizes;
  MiFrameRole role;
  MiFrame *frame;
  MiEffects *effects;
  gint64 now_ms;
  gsize max; /* of the last expectation */
} Side;

static void
side_init (Side *self, MiFrameRole role, guint16 att, MiEffects *effects)
{
  memset (self, 0, sizeof *self);
  self->sizes = (MiSizes) MI_SIZES_INIT (att);
  self->role = role;
  self->frame = mi_frame_new (MI_CHANNEL_AUTH, role, &self->sizes);
  self->effects = effects;
  self->now_ms = 5000;
}

static void
check (Side *self, MiFrameEvent event)
{
  g_assert (!self->effects->overflow);
  g_assert (self->sizes.dmtu >= 4 && self->sizes.simul >= 1);
  for (guint i = 0; i < self->effects->n; i++)
    g_assert (self->effects->items[i].kind == MI_EFFECT_WRITE
              && self->effects->items[i].len <= 512);
  switch (event.kind)
    {
    case MI_FRAME_RECEIVED:
      g_assert (event.len >= 1 && event.len <= self->max && event.data != NULL);
      g_assert (!mi_frame_is_receiving (self->frame));
      break;
    case MI_FRAME_SENT:
    case MI_FRAME_TX_FAILED:
      g_assert (!mi_frame_is_sending (self->frame));
      break;
    case MI_FRAME_RX_FAILED:
      g_assert (!mi_frame_is_receiving (self->frame) && event.reason != NULL);
      break;
    case MI_FRAME_NOTHING:
    case MI_FRAME_MALFORMED:
    case MI_FRAME_EXPLORED:
    default:
      break;
    }
}

static MiFrameEvent
side_tick (Side *self)
{
  mi_effects_reset (self->effects);
  return mi_frame_tick (self->frame, self->now_ms, self->effects);
}

static void
side_item (Side *self, const FuzzItem *item)
{
  static const guint8 message[MI_FRAME_MAX];
  MiReader in = MI_READER (item->data, item->len);
  MiFrameEvent event = { .kind = MI_FRAME_NOTHING };
  guint8 type = mi_reader_u8 (&in);
  guint16 len = mi_reader_u16 (&in);

  mi_effects_reset (self->effects);
  self->now_ms += item->delta_ms;
  switch (item->kind)
    {
    case ITEM_FEED:
      event = mi_frame_feed (self->frame, item->data, item->len, self->now_ms, self->effects);
      break;
    case ITEM_SEND:
      mi_frame_send (self->frame, type, message, MIN (len, sizeof message), self->now_ms,
                     self->effects);
      break;
    case ITEM_EXPECT:
      self->max = len;
      event = mi_frame_expect (self->frame, type, len, self->now_ms, self->effects);
      break;
    case ITEM_TICK:
      event = side_tick (self);
      break;
    case ITEM_DEADLINE:
      self->now_ms = MAX (self->now_ms, mi_frame_deadline (self->frame));
      event = side_tick (self);
      break;
    case ITEM_EXPLORE:
      mi_frame_explore (self->frame, self->now_ms, self->effects);
      break;
    case ITEM_RESET:
      mi_frame_reset (self->frame);
      g_assert (mi_frame_deadline (self->frame) == -1 && mi_frame_is_idle (self->frame));
      break;
    default:
      break;
    }
  check (self, event);
}

/* Whoever is left alone comes to rest: a device may wait for ever, but without a timer. */
static void
side_finish (Side *self)
{
  for (guint i = 0; mi_frame_deadline (self->frame) >= 0; i++)
    {
      g_assert (i < TICKS_TO_THE_END);
      self->now_ms = MAX (self->now_ms, mi_frame_deadline (self->frame));
      check (self, side_tick (self));
    }
  if (self->role == MI_ROLE_HOST)
    g_assert (mi_frame_is_idle (self->frame));
  mi_frame_free (self->frame);
}

/* One side against anything. */
static void
run_alone (MiReader *in, MiFrameRole role, guint16 att)
{
  static MiEffects effects;
  FuzzItems items = { .in = *in };
  FuzzItem item;
  Side side;

  side_init (&side, role, att, &effects);
  mi_frame_set_fill_quirk (side.frame, role == MI_ROLE_DEVICE_GEN1);
  while (fuzz_items_next (&items, &item))
    side_item (&side, &item);
  fuzz_items_clear (&items);
  side_finish (&side);
}

/* Two sides, and what the input does to each frame between them. */

typedef struct
{
  Side host;
  Side device;
  MiReader in;
  guint8 message[MI_FRAME_MAX];
  gsize len;
  gboolean to_device;
  gboolean altered; /* a frame was changed, so that the message may be */
  guint budget;
} Pair;

static void pair_deliver (Pair *self, Side *from);

static void
pair_event (Pair *self, Side *side, MiFrameEvent event)
{
  check (side, event);
  if (event.kind == MI_FRAME_RECEIVED && !self->altered)
    g_assert (event.len == self->len && memcmp (event.data, self->message, self->len) == 0);
  pair_deliver (self, side);
}

static void
pair_frame (Pair *self, Side *to, const guint8 *data, gsize len)
{
  guint8 fate = mi_reader_u8 (&self->in);
  guint times = (fate & 7) == 1 ? 0 : (fate & 7) == 2 ? 2 : 1;

  for (; times > 0; times--)
    {
      g_autofree guint8 *copy = g_memdup2 (data, len);

      if ((fate & 7) == 3)
        {
          copy[(fate >> 3) % len] ^= 1 << (fate >> 5);
          self->altered = TRUE;
        }
      mi_effects_reset (to->effects);
      pair_event (self, to, mi_frame_feed (to->frame, copy, len, to->now_ms, to->effects));
    }
}

static void
pair_deliver (Pair *self, Side *from)
{
  g_autoptr (GPtrArray) frames = g_ptr_array_new_with_free_func ((GDestroyNotify) g_bytes_unref);
  Side *to = from == &self->host ? &self->device : &self->host;

  for (guint i = 0; i < from->effects->n; i++)
    g_ptr_array_add (frames,
                     g_bytes_new (from->effects->items[i].data, from->effects->items[i].len));
  for (guint i = 0; i < frames->len && self->budget > 0; i++)
    {
      gsize len;
      const guint8 *data = g_bytes_get_data (frames->pdata[i], &len);

      self->budget--;
      pair_frame (self, to, data, len);
    }
}

static void
pair_wait (Pair *self, Side *side)
{
  gint64 deadline = mi_frame_deadline (side->frame);

  if (deadline < 0)
    return;
  side->now_ms = MAX (side->now_ms, deadline);
  pair_event (self, side, side_tick (side));
}

static void
run_pair (MiReader *in, MiFrameRole role, guint16 att, gboolean to_device)
{
  static MiEffects host_effects, device_effects;
  Pair pair = { .in = *in, .to_device = to_device, .budget = BUDGET };
  Side *from, *to;

  pair.len = 1 + mi_reader_u16 (&pair.in) % MI_FRAME_MAX;
  for (gsize i = 0; i < pair.len; i++)
    pair.message[i] = (guint8) (i + (i >> 8) + 1);
  side_init (&pair.host, MI_ROLE_HOST, att, &host_effects);
  side_init (&pair.device, role, att, &device_effects);
  if (mi_reader_u8 (&pair.in) & 1)
    {
      mi_effects_reset (&host_effects);
      mi_effects_reset (&device_effects);
      mi_frame_explore (pair.host.frame, pair.host.now_ms, &host_effects);
      mi_frame_explore (pair.device.frame, pair.device.now_ms, &device_effects);
      pair_deliver (&pair, &pair.device);
      pair_wait (&pair, &pair.host);
      pair_wait (&pair, &pair.device);
    }
  from = to_device ? &pair.host : &pair.device;
  to = to_device ? &pair.device : &pair.host;
  mi_effects_reset (to->effects);
  to->max = pair.len;
  pair_event (&pair, to, mi_frame_expect (to->frame, 0, pair.len, to->now_ms, to->effects));
  mi_effects_reset (from->effects);
  if (mi_frame_send (from->frame, 0, pair.message, pair.len, from->now_ms, from->effects))
    pair_deliver (&pair, from);
  for (guint i = 0; i < 200; i++)
    {
      pair_wait (&pair, to);
      pair_wait (&pair, from);
    }
  pair.altered = TRUE;
  side_finish (&pair.host);
  mi_frame_free (pair.device.frame);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static const MiFrameRole roles[] = { MI_ROLE_HOST, MI_ROLE_DEVICE_GEN1, MI_ROLE_DEVICE_GEN2 };
  MiReader in = MI_READER (data, size);
  guint8 mode = mi_reader_u8 (&in);
  guint16 att = mode & 0x80 ? 244 : 20;
  MiFrameView view;

  fuzz_begin ();
  if (mi_frame_decode (data, size, &view))
    g_assert (view.len <= size - 2);
  if (mode & 0x40)
    run_pair (&in, mode & 1 ? MI_ROLE_DEVICE_GEN1 : MI_ROLE_DEVICE_GEN2, att, (mode & 2) != 0);
  else
    run_alone (&in, roles[mode % 3], att);
  return 0;
}
