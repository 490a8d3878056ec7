/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-auth-private.h"

#include "mi-bytes.h"

#include <string.h>

#define HOLD_MS 400

gpointer
mi_auth_alloc (const MiProcedureClass *klass, guint state, MiSizes *sizes, gboolean explore)
{
  MiAuth *self = mi_procedure_alloc (klass, state);

  self->sizes = sizes;
  self->explore = explore;
  self->frame = mi_frame_new (MI_CHANNEL_AUTH, MI_ROLE_HOST, sizes);
  self->held_deadline_ms = -1;
  self->overall_deadline_ms = -1;
  return self;
}

void
mi_auth_clear (MiProcedure *procedure)
{
  MiAuth *self = (MiAuth *) procedure;

  g_clear_pointer (&self->frame, mi_frame_free);
}

gint64
mi_auth_deadline (MiProcedure *procedure)
{
  MiAuth *self = (MiAuth *) procedure;
  gint64 deadline = mi_deadline_min (mi_frame_deadline (self->frame), self->overall_deadline_ms);

  return mi_deadline_min (deadline, self->held_deadline_ms);
}

void
mi_auth_write_opcode (MiEffects *effects, guint32 opcode)
{
  guint8 bytes[4];

  mi_put_u32 (bytes, opcode);
  mi_effects_write (effects, MI_CHANNEL_CONTROL, bytes, sizeof bytes);
}

gboolean
mi_auth_begin_explore (MiAuth *self, MiEffects *effects)
{
  /* One byte, as the vendor's app writes it (protocol/framing.md section 6). */
  static const guint8 opcode = MI_OPCODE_EXPLORE;

  if (!self->explore || self->sizes->explored)
    return FALSE;
  self->sizes->explored = TRUE;
  mi_effects_write (effects, MI_CHANNEL_CONTROL, &opcode, sizeof opcode);
  mi_frame_explore (self->frame, self->parent.now_ms, effects);
  return TRUE;
}

gboolean
mi_auth_send (MiAuth *self, guint8 type, const guint8 *data, gsize len, MiEffects *effects,
              GError **error)
{
  if (mi_frame_send (self->frame, type, data, len, self->parent.now_ms, effects))
    return TRUE;
  g_set_error (error, MI_ERROR, MI_ERROR_TRANSFER,
               "message of type %02x and %" G_GSIZE_FORMAT " bytes cannot be sent in state %s",
               type, len, mi_procedure_get_state_name (&self->parent));
  return FALSE;
}

void
mi_auth_expect (MiAuth *self, guint8 type, gsize max, MiEffects *effects)
{
  self->ready = mi_frame_expect (self->frame, type, max, self->parent.now_ms, effects);
}

gboolean
mi_auth_await_last (MiAuth *self, const MiInput *in, guint8 type, guint32 success, guint32 failure,
                    guint next)
{
  if (mi_input_is_sent (in, type))
    {
      mi_procedure_enter (&self->parent, next);
      return TRUE;
    }
  if ((!mi_input_is_opcode (in, success) && !mi_input_is_opcode (in, failure))
      || !mi_frame_is_sending (self->frame) || self->held != 0)
    return FALSE;
  self->held = in->opcode;
  self->held_deadline_ms = self->parent.now_ms + HOLD_MS;
  return TRUE;
}

gboolean
mi_auth_check_length (MiProcedure *self, const MiInput *in, gsize wanted, GError **error)
{
  if (in->len == wanted)
    return TRUE;
  g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL,
               "message of type %02x has %" G_GSIZE_FORMAT
               " bytes in state %s, not %" G_GSIZE_FORMAT,
               in->type, in->len, mi_procedure_get_state_name (self), wanted);
  return FALSE;
}

static gboolean
default_opcode (MiProcedure *self, const MiInput *in, GError **error)
{
  const char *state = mi_procedure_get_state_name (self);

  switch (in->opcode)
    {
    case MI_OPCODE_NOT_BOUND:
      g_set_error (error, MI_ERROR, MI_ERROR_NOT_BOUND,
                   "device answered 0x%02x in state %s: not registered", in->opcode, state);
      return FALSE;
    case MI_OPCODE_ALREADY_BOUND:
      g_set_error (error, MI_ERROR, MI_ERROR_ALREADY_BOUND,
                   "device answered 0x%02x in state %s: already registered", in->opcode, state);
      return FALSE;
    case MI_OPCODE_OOB_NEEDED:
      g_set_error (error, MI_ERROR, MI_ERROR_OOB_NEEDED,
                   "device answered 0x%02x in state %s: out-of-band method missing", in->opcode,
                   state);
      return FALSE;
    default:
      return mi_procedure_default (self, in, error);
    }
}

gboolean
mi_auth_default (MiProcedure *self, const MiInput *in, GError **error)
{
  if (in->kind == MI_INPUT_OPCODE)
    return default_opcode (self, in, error);
  return mi_procedure_default (self, in, error);
}

void
mi_auth_set_transfer_error (GError **error, const MiFrameEvent *event, const char *state)
{
  gboolean silence = g_strcmp0 (event->reason, "no acknowledgement") == 0;

  g_set_error (error, MI_ERROR, silence ? MI_ERROR_TIMEOUT : MI_ERROR_TRANSFER,
               "message of type %02x failed in state %s: %s", event->type, state,
               event->reason != NULL ? event->reason : "unknown reason");
}

static gboolean
deliver_opcode (MiAuth *self, const MiEvent *event, guint32 opcode, MiEffects *effects,
                GError **error)
{
  const MiInput in = { .kind = MI_INPUT_OPCODE, .event = event, .opcode = opcode };

  return mi_procedure_handle (&self->parent, &in, effects, error);
}

/* The held opcode's time has come; the pending message does not matter any more. */
static gboolean
deliver_held (MiAuth *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  guint32 opcode = self->held;

  mi_frame_reset (self->frame);
  self->held_deadline_ms = -1;
  if (!deliver_opcode (self, event, opcode, effects, error))
    return FALSE;
  self->held = 0;
  return TRUE;
}

static gboolean
deliver_one (MiAuth *self, const MiEvent *event, const MiFrameEvent *frame_event,
             MiEffects *effects, GError **error)
{
  MiInput in = {
    .event = event, .type = frame_event->type, .data = frame_event->data, .len = frame_event->len
  };

  switch (frame_event->kind)
    {
    case MI_FRAME_NOTHING:
    case MI_FRAME_MALFORMED:
      return TRUE;
    case MI_FRAME_SENT:
      in.kind = MI_INPUT_SENT;
      break;
    case MI_FRAME_RECEIVED:
      in.kind = MI_INPUT_MESSAGE;
      break;
    case MI_FRAME_EXPLORED:
      in.kind = MI_INPUT_EXPLORED;
      break;
    case MI_FRAME_TX_FAILED:
    case MI_FRAME_RX_FAILED:
      if (self->held != 0)
        return deliver_held (self, event, effects, error);
      mi_auth_set_transfer_error (error, frame_event, mi_procedure_get_state_name (&self->parent));
      return FALSE;
    }
  if (in.kind == MI_INPUT_SENT && self->held != 0)
    return deliver_held (self, event, effects, error);
  return mi_procedure_handle (&self->parent, &in, effects, error);
}

static gboolean
deliver (MiAuth *self, const MiEvent *event, MiFrameEvent frame_event, MiEffects *effects,
         GError **error)
{
  gboolean ok = deliver_one (self, event, &frame_event, effects, error);

  /* A handler that expects a message may get one that came early. Each turn is one message, and
   * at most one is kept, so this ends. */
  while (ok && !self->parent.finished && self->ready.kind != MI_FRAME_NOTHING)
    {
      MiFrameEvent early = self->ready;

      self->ready = (MiFrameEvent){ .kind = MI_FRAME_NOTHING };
      ok = deliver_one (self, event, &early, effects, error);
    }
  return ok;
}

static gboolean
on_control (MiAuth *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  guint8 bytes[4] = { 0 };

  /* A shorter opcode is extended with zeros (protocol/gatt.md section 2). */
  if (event->len == 0 || event->len > sizeof bytes)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL,
                   "opcode of %" G_GSIZE_FORMAT " bytes in state %s", event->len,
                   mi_procedure_get_state_name (&self->parent));
      return FALSE;
    }
  memcpy (bytes, event->data, event->len);
  if (!deliver_opcode (self, event, mi_get_u32 (bytes), effects, error))
    return FALSE;
  return deliver (self, event, (MiFrameEvent){ .kind = MI_FRAME_NOTHING }, effects, error);
}

static gboolean
on_timer (MiAuth *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  const MiInput in = { .kind = MI_INPUT_EVENT, .event = event };

  if (self->held_deadline_ms >= 0 && event->now_ms >= self->held_deadline_ms)
    return deliver_held (self, event, effects, error);
  if (!deliver (self, event, mi_frame_tick (self->frame, event->now_ms, effects), effects, error))
    return FALSE;
  if (self->parent.finished)
    return TRUE;
  if (self->overall_deadline_ms >= 0 && event->now_ms >= self->overall_deadline_ms)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_TIMEOUT,
                   "the device's time limit for the whole procedure passed in state %s",
                   mi_procedure_get_state_name (&self->parent));
      return FALSE;
    }
  return mi_procedure_handle (&self->parent, &in, effects, error);
}

gboolean
mi_auth_dispatch (MiProcedure *procedure, const MiEvent *event, MiEffects *effects, GError **error)
{
  MiAuth *self = (MiAuth *) procedure;
  const MiInput in = { .kind = MI_INPUT_EVENT, .event = event };

  if (event->kind == MI_EVENT_TIMER)
    return on_timer (self, event, effects, error);
  if (event->kind == MI_EVENT_RECEIVED)
    {
      if (event->channel == MI_CHANNEL_CONTROL)
        return on_control (self, event, effects, error);
      if (event->channel == MI_CHANNEL_AUTH)
        return deliver (self, event,
                        mi_frame_feed (self->frame, event->data, event->len, event->now_ms,
                                       effects),
                        effects, error);
      return TRUE; /* somebody else's subscription, e.g. measurements */
    }
  if (!mi_procedure_handle (procedure, &in, effects, error))
    return FALSE;
  return deliver (self, event, (MiFrameEvent){ .kind = MI_FRAME_NOTHING }, effects, error);
}
