/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "pair.h"

#include <string.h>

/* Far above what any procedure needs; a livelock ends here. */
#define STEPS_MAX 200000

gboolean
pair_random (guint8 *out, gsize len, gpointer user_data)
{
  for (gsize i = 0; i < len; i++)
    out[i] = (guint8) g_rand_int (user_data);
  return TRUE;
}

Pair *
pair_new (const char *config, guint32 seed)
{
  Pair *self = g_new0 (Pair, 1);
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_auto (GStrv) groups = NULL;
  g_autoptr (GError) error = NULL;

  self->random = g_rand_new_with_seed (seed);
  self->store = g_array_new (FALSE, TRUE, sizeof (PairKeys));
  g_queue_init (&self->events);
  g_key_file_load_from_data (file, config, -1, G_KEY_FILE_NONE, &error);
  g_assert_no_error (error);
  groups = g_key_file_get_groups (file, NULL);
  self->device = sim_device_new (file, groups[0], pair_random, self->random, &error);
  g_assert_no_error (error);
  return self;
}

static void
event_free (gpointer data)
{
  MiEvent *event = data;

  g_free ((gpointer) event->data);
  g_free (event);
}

static void
drop_events (Pair *self)
{
  g_queue_clear_full (&self->events, event_free);
}

void
pair_free (Pair *self)
{
  drop_events (self);
  sim_device_free (self->device);
  g_array_unref (self->store);
  g_rand_free (self->random);
  g_clear_error (&self->error);
  g_clear_pointer (&self->certificate, g_bytes_unref);
  g_free (self);
}

static void
queue_event (Pair *self, MiEventKind kind, guint16 channel, const guint8 *data, gsize len)
{
  MiEvent *event = g_new0 (MiEvent, 1);

  event->kind = kind;
  event->channel = channel;
  event->data = g_memdup2 (data, len);
  event->len = len;
  g_queue_push_tail (&self->events, event);
}

static void
lose_link (Pair *self)
{
  if (!self->link_up)
    return;
  self->link_up = FALSE;
  if (sim_device_is_connected (self->device))
    sim_device_disconnect (self->device, self->now_ms);
  queue_event (self, MI_EVENT_LINK_LOST, 0, NULL, 0);
}

/* How often the next packet arrives; may change @packet or drop the link. */
static guint
suffer (Pair *self, guint8 *packet, gsize len)
{
  if (self->packets++ != self->fault_at || self->fault == PAIR_FAULT_NONE)
    return 1;
  switch (self->fault)
    {
    case PAIR_FAULT_LOST:
      return 0;
    case PAIR_FAULT_REPEATED:
      return 2;
    case PAIR_FAULT_CORRUPTED_FIRST:
      packet[0] ^= 1;
      return 1;
    case PAIR_FAULT_CORRUPTED_LAST:
      packet[len - 1] ^= 0x80;
      return 1;
    case PAIR_FAULT_CUT:
      lose_link (self);
      return 0;
    case PAIR_FAULT_NONE:
    default:
      return 1;
    }
}

static void
take_outputs (Pair *self)
{
  SimOutput output;

  while (sim_device_pop (self->device, &output))
    {
      guint8 packet[SIM_PACKET_MAX];

      if (output.kind == SIM_OUTPUT_DISCONNECTED)
        lose_link (self);
      if (output.kind != SIM_OUTPUT_NOTIFY || !self->link_up)
        continue;
      memcpy (packet, output.data, output.len);
      for (guint n = suffer (self, packet, output.len); n > 0; n--)
        queue_event (self, MI_EVENT_RECEIVED, output.channel, packet, output.len);
    }
}

static gboolean
write_packet (Pair *self, const MiEffect *effect)
{
  guint8 packet[SIM_PACKET_MAX];
  gboolean accepted = TRUE;

  g_assert_cmpuint (effect->len, <=, self->sizes.att_payload);
  g_assert_cmpuint (effect->len, >, 0);
  memcpy (packet, effect->data, effect->len);
  for (guint n = suffer (self, packet, effect->len); n > 0 && self->link_up; n--)
    {
      accepted = sim_device_write (self->device, self->now_ms, effect->channel, packet, effect->len,
                                   NULL);
      take_outputs (self);
    }
  return accepted;
}

static void
read_value (Pair *self, const MiEffect *effect)
{
  guint8 value[SIM_PACKET_MAX];
  gsize len = sizeof value;

  self->reads++;
  if (!self->link_up)
    return;
  if (sim_device_read (self->device, self->now_ms, effect->channel, value, &len, NULL))
    queue_event (self, MI_EVENT_VALUE, effect->channel, value, len);
  else
    queue_event (self, MI_EVENT_IO_FAILED, effect->channel, NULL, 0);
  take_outputs (self);
}

static void
persist (Pair *self, const MiEffect *effect)
{
  PairKeys entry = { *effect->keys, effect->key_state };

  self->persists++;
  if (self->fail_persist)
    {
      queue_event (self, MI_EVENT_PERSIST_FAILED, 0, NULL, 0);
      return;
    }
  g_array_prepend_val (self->store, entry);
  queue_event (self, MI_EVENT_PERSISTED, 0, NULL, 0);
}

/* What the vendor's server does: signs DID, bind key and time. */
static void
supply_credential (Pair *self, MiProcedure *procedure, const MiEffect *effect, MiEffects *effects)
{
  MiCredential credential = { .utc = self->utc };
  MiEvent event = { MI_EVENT_CREDENTIAL, self->now_ms, 0, NULL, 0, &credential };
  guint8 message[MI_DID_LEN + MI_BIND_KEY_LEN + 4];

  if (self->server_key == NULL)
    {
      event.kind = MI_EVENT_CREDENTIAL_REFUSED;
      event.credential = NULL;
      mi_procedure_step (procedure, &event, effects);
      return;
    }
  if (effect->keys->has_did)
    memcpy (credential.did, effect->keys->did, MI_DID_LEN);
  else
    g_assert_true (mi_did_from_text ("blt.4.fromtheserver", credential.did));
  memcpy (message, credential.did, MI_DID_LEN);
  memcpy (message + MI_DID_LEN, effect->keys->bind_key, MI_BIND_KEY_LEN);
  mi_put_u32 (message + MI_DID_LEN + MI_BIND_KEY_LEN, self->utc);
  g_assert_true (
      mi_ecdsa_sign (self->server_key, message, sizeof message, credential.signature, NULL));
  credential.certificate = g_bytes_get_data (self->certificate, &credential.certificate_len);
  mi_procedure_step (procedure, &event, effects);
}

typedef enum
{
  RUNNING,
  DONE,
  FAILED,
} Outcome;

static Outcome carry_out (Pair *self, MiProcedure *procedure, MiEffects *effects);

static Outcome
carry_out_one (Pair *self, MiProcedure *procedure, const MiEffect *effect, gboolean *credential)
{
  switch (effect->kind)
    {
    case MI_EFFECT_WRITE:
      write_packet (self, effect);
      return RUNNING;
    case MI_EFFECT_WRITE_REQUEST:
      queue_event (self, write_packet (self, effect) ? MI_EVENT_WRITTEN : MI_EVENT_IO_FAILED,
                   effect->channel, NULL, 0);
      return RUNNING;
    case MI_EFFECT_READ:
      read_value (self, effect);
      return RUNNING;
    case MI_EFFECT_PERSIST:
      persist (self, effect);
      return RUNNING;
    case MI_EFFECT_NEED_CREDENTIAL:
      *credential = TRUE;
      return RUNNING;
    case MI_EFFECT_DISCONNECT:
      lose_link (self);
      return RUNNING;
    case MI_EFFECT_FAILED:
      g_clear_error (&self->error);
      self->error = g_error_copy (effect->error);
      return FAILED;
    case MI_EFFECT_DONE:
      return DONE;
    case MI_EFFECT_PROGRESS:
    default:
      return RUNNING;
    }
}

static Outcome
carry_out (Pair *self, MiProcedure *procedure, MiEffects *effects)
{
  Outcome outcome = RUNNING;
  gboolean credential = FALSE;
  MiEffect request = { 0 };
  MiKeys keys;

  g_assert_false (effects->overflow);
  for (guint i = 0; i < effects->n; i++)
    {
      Outcome one;

      if (effects->items[i].kind == MI_EFFECT_NEED_CREDENTIAL)
        {
          keys = *effects->items[i].keys;
          request.keys = &keys;
        }
      one = carry_out_one (self, procedure, &effects->items[i], &credential);
      g_assert_true (one == RUNNING || outcome == RUNNING);
      outcome = MAX (outcome, one);
    }
  if (!credential)
    return outcome;
  supply_credential (self, procedure, &request, effects);
  return carry_out (self, procedure, effects);
}

/* The next moment at which somebody wants to act; -1: never. */
static gint64
next_time (Pair *self, const MiEffects *effects)
{
  gint64 device = sim_device_deadline (self->device);
  gint64 host = effects->deadline_ms;

  if (device < 0 || host < 0)
    return MAX (device, host);
  return MIN (device, host);
}

static Outcome
wait_and_step (Pair *self, MiProcedure *procedure, MiEffects *effects)
{
  gint64 next = next_time (self, effects);
  MiEvent timer = { .kind = MI_EVENT_TIMER };

  g_assert_cmpint (next, >=, 0);
  self->now_ms = MAX (self->now_ms, next);
  sim_device_tick (self->device, self->now_ms);
  take_outputs (self);
  if (effects->deadline_ms < 0 || effects->deadline_ms > self->now_ms
      || !g_queue_is_empty (&self->events))
    return RUNNING;
  timer.now_ms = self->now_ms;
  mi_procedure_step (procedure, &timer, effects);
  return carry_out (self, procedure, effects);
}

static Outcome
step_queued (Pair *self, MiProcedure *procedure, MiEffects *effects)
{
  MiEvent *event = g_queue_pop_head (&self->events);

  event->now_ms = self->now_ms;
  mi_procedure_step (procedure, event, effects);
  event_free (event);
  return carry_out (self, procedure, effects);
}

gboolean
pair_run (Pair *self, MiProcedure *procedure, gint64 limit_ms)
{
  g_autofree MiEffects *effects = g_new0 (MiEffects, 1);
  gint64 until = self->now_ms + limit_ms;
  MiEvent start = { .kind = MI_EVENT_START, .now_ms = self->now_ms };
  Outcome outcome;

  mi_procedure_step (procedure, &start, effects);
  outcome = carry_out (self, procedure, effects);
  for (guint steps = 0; outcome == RUNNING; steps++)
    {
      if (steps == STEPS_MAX || self->now_ms > until)
        g_error ("%s hangs in state %s at %" G_GINT64_FORMAT
                 " ms, fault %d at %u, deadlines %" G_GINT64_FORMAT " and %" G_GINT64_FORMAT,
                 mi_procedure_get_name (procedure), mi_procedure_get_state_name (procedure),
                 self->now_ms, self->fault, self->fault_at, effects->deadline_ms,
                 sim_device_deadline (self->device));
      outcome = g_queue_is_empty (&self->events) ? wait_and_step (self, procedure, effects)
                                                 : step_queued (self, procedure, effects);
    }
  g_assert_true (mi_procedure_is_finished (procedure));
  drop_events (self);
  mi_procedure_free (procedure);
  return outcome == DONE;
}

void
pair_pass (Pair *self, gint64 ms)
{
  gint64 until = self->now_ms + ms;
  gint64 next;

  while ((next = sim_device_deadline (self->device)) >= 0 && next <= until)
    {
      self->now_ms = MAX (self->now_ms + 1, next);
      sim_device_tick (self->device, self->now_ms);
      take_outputs (self);
    }
  self->now_ms = until;
  sim_device_tick (self->device, self->now_ms);
  take_outputs (self);
}

void
pair_connect (Pair *self, guint16 att_payload)
{
  gint64 limit = self->now_ms + 60000;

  self->sizes = (MiSizes) MI_SIZES_INIT (att_payload);
  while (!sim_device_connect (self->device, self->now_ms, att_payload, NULL))
    {
      g_assert_cmpint (self->now_ms, <, limit);
      pair_pass (self, 500);
    }
  self->link_up = TRUE;
  drop_events (self);
}

void
pair_disconnect (Pair *self)
{
  lose_link (self);
  drop_events (self);
  take_outputs (self);
}

gboolean
pair_knows (Pair *self, const guint8 token[MI_TOKEN_LEN])
{
  for (guint i = 0; i < self->store->len; i++)
    if (memcmp (g_array_index (self->store, PairKeys, i).keys.token, token, MI_TOKEN_LEN) == 0)
      return TRUE;
  return FALSE;
}
