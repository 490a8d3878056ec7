/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-advert.h"

#include "mi-bytes.h"

#include <string.h>

/* Duplicates and replays (protocol/advertising.md section 9). */

/* A restarted counter is low, comes after a silence, or after the end of its range. */
#define RESTART_BELOW      100
#define RESTART_SILENCE_US (60 * G_USEC_PER_SEC)
#define COUNTER_ENDS       0xffffff9cu
/* Packet ids, 8 bits: how long one means the same measurement, how late a relay may be. */
#define PACKET_LIFE_US  (60 * G_USEC_PER_SEC)
#define RELAY_DELAY_US  (4 * G_USEC_PER_SEC)
#define PACKET_STEP_MAX 64
#define AUTH_FAILURES   3

static MiAdvertFilterSlot *
get_slot (MiAdvertFilter *self, guint16 uuid)
{
  static const guint16 uuids[MI_ADVERT_FILTER_UUIDS]
      = { MI_ADVERT_UUID_MIBEACON, MI_ADVERT_UUID_CUSTOM,  MI_ADVERT_UUID_BTHOME1,
          MI_ADVERT_UUID_BTHOME1E, MI_ADVERT_UUID_BTHOME2, MI_ADVERT_UUID_QINGPING };

  for (guint i = 0; i < MI_ADVERT_FILTER_UUIDS; i++)
    if (uuids[i] == uuid)
      return &self->slots[i];
  return NULL;
}

static gboolean
has_tag (const MiAdvertFilterSlot *slot, guint32 tag)
{
  for (guint i = 0; i < slot->n_tags; i++)
    if (slot->tags[i] == tag)
      return TRUE;
  return FALSE;
}

static void
add_tag (MiAdvertFilterSlot *slot, guint32 tag)
{
  slot->tags[slot->next_tag] = tag;
  slot->next_tag = (slot->next_tag + 1) % MI_ADVERT_FILTER_TAGS;
  slot->n_tags = MIN (slot->n_tags + 1, MI_ADVERT_FILTER_TAGS);
}

static void
forget_tags (MiAdvertFilterSlot *slot)
{
  slot->n_tags = slot->next_tag = 0;
}

static gboolean
is_restart (const MiAdvertFilterSlot *slot, guint32 counter, gint64 silence_us)
{
  return counter < RESTART_BELOW
         && (silence_us >= RESTART_SILENCE_US || slot->counter >= COUNTER_ENDS);
}

/* Part A: an authenticated counter of 32 bits. @tag: the frame's last four bytes. */
static MiAdvertVerdict
check_counter (MiAdvertFilterSlot *slot, guint32 counter, guint32 tag, gboolean strict,
               gint64 now_us)
{
  if (slot->has_counter && counter < slot->counter)
    {
      if (strict || !is_restart (slot, counter, now_us - slot->accepted_us))
        return MI_ADVERT_VERDICT_REPLAY;
    }
  else if (slot->has_counter && counter == slot->counter && has_tag (slot, tag))
    return MI_ADVERT_VERDICT_DUPLICATE;
  if (!slot->has_counter || counter != slot->counter)
    forget_tags (slot);
  add_tag (slot, tag);
  slot->counter = counter;
  slot->has_counter = TRUE;
  slot->has_packet_id = FALSE; /* its tags are gone */
  slot->accepted_us = now_us;
  return MI_ADVERT_VERDICT_ACCEPT;
}

/* FNV-1a: the frames are not authentic anyway, so a collision gains nothing. */
static guint32
hash_frame (const guint8 *data, gsize len)
{
  guint32 hash = 2166136261u;

  for (gsize i = 0; i < len; i++)
    hash = (hash ^ data[i]) * 16777619u;
  return hash;
}

/* Part B: a packet id of 8 bits. */
static MiAdvertVerdict
check_packet_id (MiAdvertFilterSlot *slot, guint8 packet_id, guint32 hash, gint64 now_us)
{
  guint8 step = (guint8) (packet_id - slot->packet_id);
  gint64 silence_us = now_us - slot->accepted_us;

  if (slot->has_packet_id && step == 0 && silence_us < PACKET_LIFE_US)
    {
      if (has_tag (slot, hash))
        return MI_ADVERT_VERDICT_DUPLICATE;
      add_tag (slot, hash);
      return MI_ADVERT_VERDICT_ACCEPT;
    }
  if (slot->has_packet_id && step >= PACKET_STEP_MAX && silence_us <= RELAY_DELAY_US)
    return MI_ADVERT_VERDICT_STALE;
  forget_tags (slot);
  add_tag (slot, hash);
  slot->packet_id = packet_id;
  slot->has_packet_id = TRUE;
  slot->accepted_us = now_us;
  return MI_ADVERT_VERDICT_ACCEPT;
}

static void
note_authentication (MiAdvertFilter *self, const MiAdvert *advert)
{
  if (advert->status != MI_ADVERT_STATUS_ERROR)
    self->auth_failures = advert->encrypted ? 0 : self->auth_failures;
  else if (advert->error == MI_ADVERT_ERROR_AUTH_FAILED && self->auth_failures < AUTH_FAILURES)
    self->auth_failures++;
}

MiAdvertVerdict
mi_advert_filter_check (MiAdvertFilter *self, const MiAdvert *advert, const guint8 *data, gsize len,
                        gint64 now_us)
{
  MiAdvertFilterSlot *slot = get_slot (self, advert->uuid);

  note_authentication (self, advert);
  if (advert->status == MI_ADVERT_STATUS_ERROR || slot == NULL)
    return MI_ADVERT_VERDICT_ERROR;
  if ((advert->fields & MI_ADVERT_HAS_COUNTER) != 0 && len >= 4)
    return check_counter (slot, advert->counter, mi_get_u32 (data + len - 4), self->strict, now_us);
  if (advert->status == MI_ADVERT_STATUS_EMPTY)
    return MI_ADVERT_VERDICT_IGNORED;
  if ((advert->fields & MI_ADVERT_HAS_PACKET_ID) != 0)
    return check_packet_id (slot, advert->packet_id, hash_frame (data, len), now_us);
  return MI_ADVERT_VERDICT_ACCEPT;
}

void
mi_advert_filter_reset (MiAdvertFilter *self)
{
  memset (self->slots, 0, sizeof self->slots);
  self->auth_failures = 0;
}

gboolean
mi_advert_filter_is_wrong_key (const MiAdvertFilter *self)
{
  return self->auth_failures >= AUTH_FAILURES;
}
