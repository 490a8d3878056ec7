/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-procedure.h"

#include "mi-procedure-private.h"

#include <string.h>

#define EFFECT_MAX_LEN 512

void
mi_keys_clear (MiKeys *keys)
{
  g_return_if_fail (keys != NULL);
  explicit_bzero (keys, sizeof *keys);
}

void
mi_effects_reset (MiEffects *effects)
{
  g_return_if_fail (effects != NULL);
  /* Not the arena: 16 KiB are not worth touching in every step. */
  effects->n = 0;
  effects->arena_used = 0;
  effects->deadline_ms = -1;
  effects->overflow = FALSE;
}

MiEffect *
mi_effects_add (MiEffects *effects, MiEffectKind kind, guint16 channel)
{
  /* The last place is kept for FAILED. */
  static MiEffect dropped;
  guint room = kind == MI_EFFECT_FAILED ? MI_EFFECTS_MAX : MI_EFFECTS_MAX - 1;
  MiEffect *effect;

  g_return_val_if_fail (effects != NULL, &dropped);
  if (effects->n >= room)
    {
      effects->overflow = TRUE;
      return &dropped;
    }
  effect = &effects->items[effects->n++];
  memset (effect, 0, sizeof *effect);
  effect->kind = kind;
  effect->channel = channel;
  effect->deadline_ms = -1;
  return effect;
}

void
mi_effects_write (MiEffects *effects, guint16 channel, const guint8 *data, gsize len)
{
  MiEffect *effect;

  g_return_if_fail (effects != NULL && (data != NULL || len == 0));
  if (len > EFFECT_MAX_LEN || len > sizeof effects->arena - effects->arena_used
      || effects->n >= MI_EFFECTS_MAX - 1)
    {
      effects->overflow = TRUE;
      return;
    }
  effect = mi_effects_add (effects, MI_EFFECT_WRITE, channel);
  effect->data = effects->arena + effects->arena_used;
  effect->len = len;
  if (len > 0)
    memcpy (effects->arena + effects->arena_used, data, len);
  effects->arena_used += len;
}

static const char *
event_name (MiEventKind kind)
{
  switch (kind)
    {
    case MI_EVENT_START:
      return "start";
    case MI_EVENT_RECEIVED:
      return "received";
    case MI_EVENT_WRITTEN:
      return "written";
    case MI_EVENT_VALUE:
      return "value";
    case MI_EVENT_IO_FAILED:
      return "io-failed";
    case MI_EVENT_TIMER:
      return "timer";
    case MI_EVENT_PERSISTED:
      return "persisted";
    case MI_EVENT_PERSIST_FAILED:
      return "persist-failed";
    case MI_EVENT_CREDENTIAL:
      return "credential";
    case MI_EVENT_CREDENTIAL_REFUSED:
      return "credential-refused";
    case MI_EVENT_CANCEL:
      return "cancel";
    case MI_EVENT_LINK_LOST:
      return "link-lost";
    }
  return "unknown";
}

gpointer
mi_procedure_alloc (const MiProcedureClass *klass, guint state)
{
  MiProcedure *self = g_malloc0 (klass->size);

  self->klass = klass;
  self->state = state;
  self->state_deadline_ms = -1;
  return self;
}

void
mi_procedure_enter (MiProcedure *self, guint state)
{
  guint limit_ms = self->klass->states[state].limit_ms;

  self->state = state;
  self->state_deadline_ms = limit_ms > 0 ? self->now_ms + limit_ms : -1;
}

void
mi_procedure_done (MiProcedure *self, MiEffects *effects)
{
  mi_effects_add (effects, MI_EFFECT_DONE, 0);
  self->finished = TRUE;
}

gboolean
mi_procedure_handle (MiProcedure *self, const MiInput *in, MiEffects *effects, GError **error)
{
  return self->klass->states[self->state].handler (self, in, effects, error);
}

static gboolean
unexpected (MiProcedure *self, const MiInput *in, GError **error)
{
  const char *state = mi_procedure_get_state_name (self);

  switch (in->kind)
    {
    case MI_INPUT_EVENT:
      g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL, "unexpected event %s in state %s",
                   event_name (in->event->kind), state);
      break;
    case MI_INPUT_MESSAGE:
      g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL,
                   "unexpected message of type %02x in state %s", in->type, state);
      break;
    case MI_INPUT_SENT:
      g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL,
                   "unexpected acknowledgement of type %02x in state %s", in->type, state);
      break;
    case MI_INPUT_OPCODE:
      g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL, "unexpected opcode 0x%02x in state %s",
                   in->opcode, state);
      break;
    case MI_INPUT_EXPLORED:
      g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL, "unexpected exploration in state %s", state);
      break;
    }
  return FALSE;
}

static gboolean
default_event (MiProcedure *self, const MiInput *in, GError **error)
{
  const char *state = mi_procedure_get_state_name (self);

  switch (in->event->kind)
    {
    case MI_EVENT_CANCEL:
      g_set_error (error, MI_ERROR, MI_ERROR_CANCELLED, "cancelled in state %s", state);
      return FALSE;
    case MI_EVENT_LINK_LOST:
      g_set_error (error, MI_ERROR, MI_ERROR_LINK_LOST, "link lost in state %s", state);
      return FALSE;
    case MI_EVENT_IO_FAILED:
      g_set_error (error, MI_ERROR, MI_ERROR_IO, "characteristic %04x failed in state %s",
                   in->event->channel, state);
      return FALSE;
    case MI_EVENT_TIMER:
      if (self->state_deadline_ms < 0 || in->event->now_ms < self->state_deadline_ms)
        return TRUE;
      g_set_error (error, MI_ERROR, MI_ERROR_TIMEOUT, "no answer in state %s within %u ms", state,
                   self->klass->states[self->state].limit_ms);
      return FALSE;
    case MI_EVENT_START:
    case MI_EVENT_RECEIVED:
    case MI_EVENT_WRITTEN:
    case MI_EVENT_VALUE:
    case MI_EVENT_PERSISTED:
    case MI_EVENT_PERSIST_FAILED:
    case MI_EVENT_CREDENTIAL:
    case MI_EVENT_CREDENTIAL_REFUSED:
      break;
    }
  return unexpected (self, in, error);
}

gboolean
mi_procedure_default (MiProcedure *self, const MiInput *in, GError **error)
{
  if (in->kind == MI_INPUT_EVENT)
    return default_event (self, in, error);
  return unexpected (self, in, error);
}

gint64
mi_deadline_min (gint64 a, gint64 b)
{
  if (a < 0)
    return b;
  return b < 0 ? a : MIN (a, b);
}

static void
fail (MiProcedure *self, MiEffects *effects, GError *error)
{
  self->finished = TRUE;
  self->error = error;
  g_prefix_error (&self->error, "%s: ", self->klass->name);
  mi_effects_add (effects, MI_EFFECT_FAILED, 0)->error = self->error;
}

void
mi_procedure_step (MiProcedure *self, const MiEvent *event, MiEffects *effects)
{
  const MiInput in = { .kind = MI_INPUT_EVENT, .event = event };
  GError *error = NULL;
  gboolean ok;

  g_return_if_fail (self != NULL && event != NULL && effects != NULL);
  mi_effects_reset (effects);
  if (self->finished)
    return;
  self->now_ms = event->now_ms;
  if (self->klass->dispatch != NULL)
    ok = self->klass->dispatch (self, event, effects, &error);
  else
    ok = mi_procedure_handle (self, &in, effects, &error);
  if (ok && effects->overflow && !self->finished)
    {
      g_set_error (&error, MI_ERROR, MI_ERROR_PROTOCOL, "too many effects in state %s",
                   mi_procedure_get_state_name (self));
      ok = FALSE;
    }
  if (!ok)
    fail (self, effects, error);
  if (!self->finished)
    effects->deadline_ms = mi_deadline_min (
        self->state_deadline_ms, self->klass->deadline != NULL ? self->klass->deadline (self) : -1);
}

const char *
mi_procedure_get_name (MiProcedure *self)
{
  g_return_val_if_fail (self != NULL, NULL);
  return self->klass->name;
}

const char *
mi_procedure_get_state_name (MiProcedure *self)
{
  g_return_val_if_fail (self != NULL, NULL);
  return self->klass->states[self->state].name;
}

gboolean
mi_procedure_is_finished (MiProcedure *self)
{
  g_return_val_if_fail (self != NULL, TRUE);
  return self->finished;
}

void
mi_procedure_free (MiProcedure *self)
{
  gsize size;

  if (self == NULL)
    return;
  size = self->klass->size;
  if (self->klass->clear != NULL)
    self->klass->clear (self);
  g_clear_error (&self->error);
  explicit_bzero (self, size);
  g_free (self);
}
