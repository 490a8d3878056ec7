/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-private.h"

void
bridge_ignore_log (Bridge *self)
{
  g_autoptr (GString) text = g_string_new (NULL);
  GHashTableIter iter;
  gpointer reason, count;

  g_hash_table_iter_init (&iter, self->ignored);
  while (g_hash_table_iter_next (&iter, &reason, &count))
    g_string_append_printf (text, "%s%s %u", text->len > 0 ? ", " : "", (const char *) reason,
                            GPOINTER_TO_UINT (count));
  g_message ("ignored messages so far: %s", text->str);
  self->ignored_new = 0;
  self->ignored_logged = g_get_monotonic_time ();
}

void
bridge_ignore (Bridge *self, const char *reason)
{
  guint count = GPOINTER_TO_UINT (g_hash_table_lookup (self->ignored, reason));

  g_hash_table_insert (self->ignored, (gpointer) reason,
                       GUINT_TO_POINTER (count < G_MAXUINT ? count + 1 : count));
  self->ignored_new++;
  if (count == 0 || g_get_monotonic_time () - self->ignored_logged >= BRIDGE_LOG_GAP_US)
    bridge_ignore_log (self);
}
