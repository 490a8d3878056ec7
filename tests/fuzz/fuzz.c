/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz.h"

#include <string.h>

/* No single wait of any procedure is longer: the device itself gives up after 30 s. */
#define LONGEST_WAIT_MS 30000
/* BUSY three times, LOST rounds, a held opcode and the state's own limit: far below this. */
#define TIMERS_TO_THE_END 100

void
fuzz_begin (void)
{
  static gboolean begun;

  if (begun)
    return;
  begun = TRUE;
  g_log_set_always_fatal (G_LOG_LEVEL_CRITICAL | G_LOG_FATAL_MASK);
}

gboolean
fuzz_random (guint8 *out, gsize len, gpointer user_data)
{
  guint32 *state = user_data;

  for (gsize i = 0; i < len; i++)
    {
      *state = *state * 1664525u + 1013904223u;
      out[i] = (guint8) (*state >> 24);
    }
  return TRUE;
}

/* One byte covers both frames back to back and a wait of half a minute. */
static gint64
delta_of (guint8 byte)
{
  return byte < 128 ? byte * 4 : (byte - 127) * 250;
}

gboolean
fuzz_items_next (FuzzItems *self, FuzzItem *out)
{
  const guint8 *data;

  if (mi_reader_left (&self->in) == 0)
    return FALSE;
  out->kind = mi_reader_u8 (&self->in);
  out->delta_ms = delta_of (mi_reader_u8 (&self->in));
  out->len = mi_reader_u8 (&self->in);
  /* An input that was cut off is still a list. */
  out->len = MIN (out->len, mi_reader_left (&self->in));
  data = mi_reader_take (&self->in, out->len);
  g_free (self->copy);
  self->copy = NULL;
  if (data == NULL || out->len == 0)
    {
      out->len = 0;
      out->data = NULL;
      return TRUE;
    }
  self->copy = g_memdup2 (data, out->len);
  out->data = self->copy;
  return TRUE;
}

void
fuzz_items_clear (FuzzItems *self)
{
  g_clear_pointer (&self->copy, g_free);
}

void
fuzz_run_init (FuzzRun *self, MiProcedure *procedure)
{
  static MiEffects effects;

  memset (self, 0, sizeof *self);
  self->procedure = procedure;
  self->effects = &effects;
  self->now_ms = 1000;
}

/* For people who look into one input: FUZZ_VERBOSE=1 run-NAME FILE. */
static void
tell_end (const FuzzRun *self, const MiEffect *effect)
{
  static gint verbose = -1;

  if (verbose < 0)
    verbose = g_getenv ("FUZZ_VERBOSE") != NULL;
  if (verbose)
    g_printerr ("step %u: %s\n", self->steps, self->done ? "done" : effect->error->message);
}

static void
check_effect (FuzzRun *self, const MiEffect *effect, gboolean last)
{
  const MiEffects *effects = self->effects;

  switch (effect->kind)
    {
    case MI_EFFECT_WRITE:
    case MI_EFFECT_WRITE_REQUEST:
      g_assert (effect->len >= 1 && effect->len <= 512);
      g_assert (effect->data >= effects->arena);
      g_assert (effect->data + effect->len <= effects->arena + sizeof effects->arena);
      break;
    case MI_EFFECT_DONE:
    case MI_EFFECT_FAILED:
      g_assert (!self->finished && last);
      self->finished = TRUE;
      self->done = effect->kind == MI_EFFECT_DONE;
      g_assert (self->done || (effect->error != NULL && effect->error->domain == MI_ERROR));
      tell_end (self, effect);
      break;
    case MI_EFFECT_PERSIST:
      g_assert (effect->keys != NULL);
      break;
    case MI_EFFECT_NEED_CREDENTIAL:
      g_assert (effect->keys != NULL && effect->deadline_ms > self->now_ms);
      break;
    case MI_EFFECT_PROGRESS:
      g_assert (effect->done <= effect->total);
      break;
    case MI_EFFECT_READ:
    case MI_EFFECT_DISCONNECT:
      break;
    default:
      g_assert_not_reached ();
    }
}

static void
check_deadline (const FuzzRun *self)
{
  gint64 deadline = self->effects->deadline_ms;

  if (self->finished)
    g_assert (deadline == -1);
  else if (self->started)
    g_assert (deadline >= 0 && deadline <= self->now_ms + LONGEST_WAIT_MS);
}

void
fuzz_run_step (FuzzRun *self, const MiEvent *event)
{
  gboolean was_finished = self->finished;

  self->started |= event->kind == MI_EVENT_START;
  self->steps++;
  mi_procedure_step (self->procedure, event, self->effects);
  if (was_finished)
    g_assert (self->effects->n == 0);
  g_assert (!self->effects->overflow);
  for (guint i = 0; i < self->effects->n; i++)
    check_effect (self, &self->effects->items[i], i + 1 == self->effects->n);
  g_assert (mi_procedure_is_finished (self->procedure) == self->finished);
  g_assert (mi_procedure_get_state_name (self->procedure) != NULL);
  check_deadline (self);
  if (self->effect != NULL)
    for (guint i = 0; i < self->effects->n; i++)
      self->effect (self, &self->effects->items[i]);
}

void
fuzz_run_event (FuzzRun *self, MiEventKind kind, guint16 channel, const guint8 *data, gsize len)
{
  const MiEvent event
      = { .kind = kind, .now_ms = self->now_ms, .channel = channel, .data = data, .len = len };

  fuzz_run_step (self, &event);
}

static void
step_credential (FuzzRun *self, const FuzzItem *item)
{
  MiReader in = MI_READER (item->data, item->len);
  MiCredential credential = { .utc = mi_reader_u32 (&in) };
  const MiEvent event
      = { .kind = MI_EVENT_CREDENTIAL, .now_ms = self->now_ms, .credential = &credential };

  /* The first byte may ask for a certificate of any length: devices take 512 bytes. */
  credential.certificate_len = (gsize) mi_reader_u8 (&in) * 3;
  credential.certificate = g_malloc0 (credential.certificate_len + 1);
  memset (credential.did, 'd', sizeof credential.did);
  fuzz_run_step (self, &event);
  g_free ((gpointer) credential.certificate);
}

gboolean
fuzz_run_item (FuzzRun *self, const FuzzItem *item)
{
  static const MiEventKind kinds[FUZZ_ITEM_OWN] = {
    [FUZZ_ITEM_CONTROL] = MI_EVENT_RECEIVED,
    [FUZZ_ITEM_AUTH] = MI_EVENT_RECEIVED,
    [FUZZ_ITEM_OTHER] = MI_EVENT_RECEIVED,
    [FUZZ_ITEM_DEADLINE] = MI_EVENT_TIMER,
    [FUZZ_ITEM_WAIT] = MI_EVENT_TIMER,
    [FUZZ_ITEM_WRITTEN] = MI_EVENT_WRITTEN,
    [FUZZ_ITEM_VALUE] = MI_EVENT_VALUE,
    [FUZZ_ITEM_IO_FAILED] = MI_EVENT_IO_FAILED,
    [FUZZ_ITEM_PERSISTED] = MI_EVENT_PERSISTED,
    [FUZZ_ITEM_PERSIST_FAILED] = MI_EVENT_PERSIST_FAILED,
    [FUZZ_ITEM_CREDENTIAL] = MI_EVENT_CREDENTIAL,
    [FUZZ_ITEM_CREDENTIAL_REFUSED] = MI_EVENT_CREDENTIAL_REFUSED,
    [FUZZ_ITEM_CANCEL] = MI_EVENT_CANCEL,
    [FUZZ_ITEM_LINK_LOST] = MI_EVENT_LINK_LOST,
    [FUZZ_ITEM_START] = MI_EVENT_START,
  };
  MiReader in = MI_READER (item->data, item->len);
  guint16 channel = 0;

  if (item->kind >= FUZZ_ITEM_OWN)
    return FALSE;
  self->now_ms += item->delta_ms;
  if (item->kind == FUZZ_ITEM_DEADLINE)
    self->now_ms = MAX (self->now_ms, self->effects->deadline_ms);
  if (item->kind == FUZZ_ITEM_CREDENTIAL)
    {
      step_credential (self, item);
      return TRUE;
    }
  if (item->kind == FUZZ_ITEM_CONTROL)
    channel = MI_CHANNEL_CONTROL;
  else if (item->kind == FUZZ_ITEM_AUTH)
    channel = MI_CHANNEL_AUTH;
  else
    channel = mi_reader_u16 (&in);
  in.failed = FALSE;
  fuzz_run_event (self, kinds[item->kind], channel, item->len > 0 ? item->data + in.pos : NULL,
                  mi_reader_left (&in));
  return TRUE;
}

void
fuzz_run_finish (FuzzRun *self)
{
  if (!self->started)
    fuzz_run_event (self, MI_EVENT_START, 0, NULL, 0);
  for (guint i = 0; !self->finished; i++)
    {
      g_assert (i < TIMERS_TO_THE_END);
      self->now_ms = MAX (self->now_ms, self->effects->deadline_ms);
      fuzz_run_event (self, MI_EVENT_TIMER, 0, NULL, 0);
    }
  fuzz_run_event (self, MI_EVENT_TIMER, 0, NULL, 0);
  fuzz_run_event (self, MI_EVENT_LINK_LOST, 0, NULL, 0);
  g_clear_pointer (&self->procedure, mi_procedure_free);
}
