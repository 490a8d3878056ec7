/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz-peer.h"

#include <string.h>

/* Frames of one input, so that a run stays short. */
#define BUDGET 2000

typedef struct
{
  gboolean to_host;
  gsize len;
  guint8 data[]; /* exactly, so that a read past the end is seen */
} Packet;

static void
put_packet (FuzzPeer *self, gboolean to_host, const guint8 *data, gsize len)
{
  gboolean lost = self->faults >> self->frames++ % 32 & 1;
  Packet *packet;

  if (lost || self->budget == 0)
    return;
  self->budget--;
  packet = g_malloc (sizeof *packet + len);
  packet->to_host = to_host;
  packet->len = len;
  memcpy (packet->data, data, len);
  g_queue_push_tail (&self->queue, packet);
}

/* The host has written. Only noted: nobody steps from inside a step. */
static void
on_host_effect (FuzzRun *run, const MiEffect *effect)
{
  FuzzPeer *self = run->user_data;

  if (self->check != NULL)
    self->check (self, effect);
  if (effect->kind != MI_EFFECT_WRITE)
    return;
  if (effect->channel == MI_CHANNEL_CONTROL)
    {
      self->opcode = effect->data[0];
      self->explore |= self->opcode == 0xa4;
    }
  else if (effect->channel == MI_CHANNEL_AUTH)
    put_packet (self, FALSE, effect->data, effect->len);
}

static void
take_effects (FuzzPeer *self)
{
  g_assert (!self->effects->overflow);
  for (guint i = 0; i < self->effects->n; i++)
    put_packet (self, TRUE, self->effects->items[i].data, self->effects->items[i].len);
  mi_effects_reset (self->effects);
}

static void
peer_take (FuzzPeer *self, MiFrameEvent event)
{
  if (event.kind == MI_FRAME_RECEIVED)
    {
      self->type = event.type;
      self->len = event.len;
      memcpy (self->message, event.data, event.len);
    }
  take_effects (self);
}

static void
peer_feed (FuzzPeer *self, const Packet *packet)
{
  MiFrameView view;

  mi_effects_reset (self->effects);
  if (!mi_frame_is_receiving (self->frame) && mi_frame_decode (packet->data, packet->len, &view)
      && view.sn == 0 && (view.mode == MI_FRAME_ANNOUNCE || view.mode == MI_FRAME_SINGLE))
    mi_frame_expect (self->frame, view.type, MI_FRAME_MAX, self->run.now_ms, self->effects);
  peer_take (self, mi_frame_feed (self->frame, packet->data, packet->len, self->run.now_ms,
                                  self->effects));
}

/* Carries frames until nobody says any more. */
static void
pump (FuzzPeer *self)
{
  g_autofree Packet *packet = NULL;

  for (;;)
    {
      if (self->explore)
        {
          self->explore = FALSE;
          mi_effects_reset (self->effects);
          mi_frame_explore (self->frame, self->run.now_ms, self->effects);
          take_effects (self);
        }
      g_free (packet);
      packet = g_queue_pop_head (&self->queue);
      if (packet == NULL)
        return;
      if (packet->to_host)
        fuzz_run_event (&self->run, MI_EVENT_RECEIVED, MI_CHANNEL_AUTH, packet->data, packet->len);
      else
        peer_feed (self, packet);
    }
}

void
fuzz_peer_init (FuzzPeer *self, MiReader *in)
{
  static MiEffects effects;
  guint8 flags = mi_reader_u8 (in);
  guint16 att = flags & 2 ? 244 : 20;

  memset (self, 0, sizeof *self);
  self->faults = flags & 4 ? mi_reader_u32 (in) : 0;
  self->host_sizes = (MiSizes) MI_SIZES_INIT (att);
  self->sizes = (MiSizes) MI_SIZES_INIT (att);
  self->frame = mi_frame_new (MI_CHANNEL_AUTH,
                              flags & 1 ? MI_ROLE_DEVICE_GEN1 : MI_ROLE_DEVICE_GEN2, &self->sizes);
  self->effects = &effects;
  mi_effects_reset (self->effects);
  self->budget = BUDGET;
}

void
fuzz_peer_send (FuzzPeer *self, guint8 type, const guint8 *data, gsize len)
{
  mi_effects_reset (self->effects);
  if (len > 0 && mi_frame_send (self->frame, type, data, len, self->run.now_ms, self->effects))
    take_effects (self);
}

void
fuzz_peer_opcode (FuzzPeer *self, guint8 opcode)
{
  const guint8 bytes[4] = { opcode };

  fuzz_run_event (&self->run, MI_EVENT_RECEIVED, MI_CHANNEL_CONTROL, bytes, sizeof bytes);
}

void
fuzz_peer_persisted (FuzzPeer *self)
{
  if (self->persisted == NULL || self->persisted (self))
    fuzz_run_event (&self->run, MI_EVENT_PERSISTED, 0, NULL, 0);
}

static void
peer_tick (FuzzPeer *self, const FuzzItem *item)
{
  self->run.now_ms += item->delta_ms;
  mi_effects_reset (self->effects);
  peer_take (self, mi_frame_tick (self->frame, self->run.now_ms, self->effects));
}

/* Good in form, wrong in content: what only the procedure can notice. */
static void
peer_corrupt (FuzzPeer *self, const FuzzItem *item)
{
  guint8 message[64];

  memset (message, item->len > 1 ? item->data[1] : 0, sizeof message);
  fuzz_peer_send (self, item->len > 0 ? item->data[0] : 0, message,
                  MIN (item->len > 2 ? item->data[2] : 16, sizeof message));
}

static void
peer_item (FuzzPeer *self, const FuzzItem *item)
{
  if (item->kind == FUZZ_ITEM_PERSISTED)
    {
      fuzz_peer_persisted (self);
      return;
    }
  if (fuzz_run_item (&self->run, item))
    return;
  switch (item->kind)
    {
    case FUZZ_ITEM_ANSWER:
      self->answer (self);
      break;
    case FUZZ_ITEM_MESSAGE:
      if (item->len > 1)
        fuzz_peer_send (self, item->data[0], item->data + 1, item->len - 1);
      break;
    case FUZZ_ITEM_OPCODE:
      if (item->len > 0)
        fuzz_peer_opcode (self, item->data[0]);
      break;
    case FUZZ_ITEM_TICK:
      peer_tick (self, item);
      break;
    case FUZZ_ITEM_CORRUPT:
      peer_corrupt (self, item);
      break;
    default:
      break;
    }
}

void
fuzz_peer_play (FuzzPeer *self, MiProcedure *procedure, MiReader *in)
{
  FuzzItems items = { .in = *in };
  FuzzItem item;

  fuzz_run_init (&self->run, procedure);
  self->run.effect = on_host_effect;
  self->run.user_data = self;
  fuzz_run_event (&self->run, MI_EVENT_START, 0, NULL, 0);
  pump (self);
  while (fuzz_items_next (&items, &item) && self->budget > 0)
    {
      peer_item (self, &item);
      pump (self);
    }
  fuzz_items_clear (&items);
  fuzz_run_finish (&self->run);
  g_queue_clear_full (&self->queue, g_free);
  mi_frame_free (self->frame);
}
