/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "drive.h"

#include "mi-bytes.h"

#include <string.h>

Drive *
drive_new (MiProcedure *procedure)
{
  Drive *self = g_new0 (Drive, 1);

  self->procedure = procedure;
  self->lines = g_ptr_array_new_with_free_func (g_free);
  self->persists = g_array_new (FALSE, FALSE, sizeof (DrivePersist));
  self->now_ms = 1000;
  return self;
}

void
drive_free (Drive *self)
{
  mi_procedure_free (self->procedure);
  g_ptr_array_unref (self->lines);
  g_array_unref (self->persists);
  g_free (self->message);
  g_free (self);
}

void
drive_next (Drive *self, MiProcedure *procedure)
{
  mi_procedure_free (self->procedure);
  self->procedure = procedure;
  self->done = FALSE;
  self->failed = FALSE;
  self->terminal = 0;
}

static void
add_line (Drive *self, const char *direction, guint16 channel, const guint8 *data, gsize len)
{
  g_autofree char *hex = mi_hex_encode (data, len);

  g_ptr_array_add (self->lines, g_strdup_printf ("%s %04x %s", direction, channel, hex));
}

static MiEventKind
answer (DriveAnswer how, MiEventKind yes, MiEventKind no)
{
  return how == DRIVE_ANSWER ? yes : no;
}

/* Carries the effects out. Returns the event that follows at once, or -1. */
static int
carry_out (Drive *self)
{
  int follow = -1;

  g_assert_false (self->effects.overflow);
  for (guint i = 0; i < self->effects.n; i++)
    {
      const MiEffect *effect = &self->effects.items[i];

      g_assert_false (self->done || self->failed);
      switch (effect->kind)
        {
        case MI_EFFECT_WRITE:
        case MI_EFFECT_WRITE_REQUEST:
          add_line (self, ">", effect->channel, effect->data, effect->len);
          break;
        case MI_EFFECT_READ:
          g_ptr_array_add (self->lines, g_strdup_printf ("r %04x", effect->channel));
          break;
        case MI_EFFECT_PERSIST:
          {
            DrivePersist persist = { self->lines->len, effect->key_state, *effect->keys };
            DriveAnswer how
                = effect->key_state == MI_KEY_STATE_PENDING ? self->on_pending : self->on_current;

            g_array_append_val (self->persists, persist);
            if (how != DRIVE_KEEP)
              follow = answer (how, MI_EVENT_PERSISTED, MI_EVENT_PERSIST_FAILED);
            break;
          }
        case MI_EFFECT_NEED_CREDENTIAL:
          self->need_credential++;
          self->credential_deadline_ms = effect->deadline_ms;
          if (self->on_credential != DRIVE_KEEP)
            follow = answer (self->on_credential, MI_EVENT_CREDENTIAL, MI_EVENT_CREDENTIAL_REFUSED);
          break;
        case MI_EFFECT_PROGRESS:
          self->progress = effect->done;
          self->total = effect->total;
          break;
        case MI_EFFECT_DISCONNECT:
          self->disconnects++;
          break;
        case MI_EFFECT_DONE:
          self->done = TRUE;
          self->terminal++;
          break;
        case MI_EFFECT_FAILED:
          self->failed = TRUE;
          self->terminal++;
          g_assert_true (effect->error->domain == MI_ERROR);
          self->error = effect->error->code;
          g_free (self->message);
          self->message = g_strdup (effect->error->message);
          break;
        }
    }
  return follow;
}

void
drive_channel_event (Drive *self, MiEventKind kind, guint16 channel, const guint8 *data, gsize len)
{
  MiEvent event = { .kind = kind, .now_ms = self->now_ms, .channel = channel, .len = len };
  /* Exactly as long as it is, so that the sanitizer sees a read past the end. */
  g_autofree guint8 *copy = g_memdup2 (data, len);
  int follow;

  event.data = copy;
  event.credential = kind == MI_EVENT_CREDENTIAL ? self->credential : NULL;
  mi_procedure_step (self->procedure, &event, &self->effects);
  follow = carry_out (self);
  g_assert_cmpuint (self->terminal, <=, 1);
  g_assert_true (mi_procedure_is_finished (self->procedure) == (self->done || self->failed));
  if (follow >= 0)
    drive_event (self, (MiEventKind) follow);
}

void
drive_event (Drive *self, MiEventKind kind)
{
  drive_channel_event (self, kind, 0, NULL, 0);
}

void
drive_receive (Drive *self, guint16 channel, const char *hex)
{
  gsize len = 0;
  g_autofree guint8 *data = mi_hex_decode_alloc (hex, &len);

  self->now_ms += 5;
  add_line (self, "<", channel, data, len);
  drive_channel_event (self, MI_EVENT_RECEIVED, channel, data, len);
}

gboolean
drive_tick (Drive *self)
{
  if (self->effects.deadline_ms < 0)
    return FALSE;
  self->now_ms = MAX (self->now_ms, self->effects.deadline_ms);
  drive_event (self, MI_EVENT_TIMER);
  return TRUE;
}

gint64
drive_wait_end (Drive *self, gint64 limit_ms)
{
  gint64 start = self->now_ms;

  for (guint i = 0; !self->done && !self->failed; i++)
    {
      if (i > 1000 || self->effects.deadline_ms < 0)
        g_error ("state %s would last for ever", mi_procedure_get_state_name (self->procedure));
      drive_tick (self);
    }
  g_assert_cmpint (self->now_ms - start, <=, limit_ms);
  return self->now_ms - start;
}

void
drive_replay (Drive *self, JsonArray *wire, guint first)
{
  for (guint i = first; i < json_array_get_length (wire); i++)
    {
      const char *line = json_array_get_string_element (wire, i);

      if (line[0] == '<')
        {
          g_assert_cmpuint (self->lines->len, ==, i);
          drive_receive (self, (guint16) g_ascii_strtoull (line + 2, NULL, 16), line + 7);
          continue;
        }
      for (guint tries = 0; self->lines->len <= i && tries < 3; tries++)
        drive_tick (self);
      if (self->lines->len <= i)
        g_error ("line %u is missing: %s; state %s %s", i, line,
                 mi_procedure_get_state_name (self->procedure),
                 self->message != NULL ? self->message : "");
      g_assert_cmpstr (g_ptr_array_index (self->lines, i), ==, line);
    }
  g_assert_cmpuint (self->lines->len, ==, json_array_get_length (wire));
}

void
drive_assert_failed (Drive *self, MiError error)
{
  g_assert_true (self->failed);
  if (self->error != error)
    g_error ("failed with %d, not %d: %s", self->error, error, self->message);
  g_assert_cmpstr (self->message, !=, "");
}

void
drive_assert_done (Drive *self)
{
  if (!self->done)
    g_error ("not done but %s in state %s", self->message != NULL ? self->message : "waiting",
             mi_procedure_get_state_name (self->procedure));
}

gboolean
drive_random (guint8 *out, gsize len, gpointer user_data)
{
  GByteArray *queue = user_data;

  if (queue->len < len)
    return FALSE;
  memcpy (out, queue->data, len);
  g_byte_array_remove_range (queue, 0, (guint) len);
  return TRUE;
}

void
drive_hex (JsonObject *object, const char *name, guint8 *out, gsize len)
{
  const char *hex = json_object_get_string_member (object, name);

  g_assert_nonnull (hex);
  if (!mi_hex_decode (hex, out, len))
    g_error ("%s is not %" G_GSIZE_FORMAT " bytes of hex", name, len);
}
