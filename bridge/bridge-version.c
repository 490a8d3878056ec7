/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-private.h"

/* A version that could not be read. */
#define READ_AGAIN_US (G_GINT64_CONSTANT (3600) * G_USEC_PER_SEC)
#define READ_GAP_US   (10 * G_USEC_PER_SEC)

static void
on_read_started (GObject *source, GAsyncResult *result, gpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = bridge_bus_call_job_finish (result, &error);

  if (path == NULL)
    g_debug ("a version cannot be read: %s", error->message);
}

/*
 * Without the installed version there is nothing that an update entity could show. Only of
 * thermometers that have keys here: those are somebody's who uses this daemon.
 */
static gboolean
wants_reading (Bridge *self, BridgeItem *item, gint64 now)
{
  return item->present && !item->forgotten && item->told.has_keys && *item->told.firmware == '\0'
         && bridge_told_heard_lately (item) && !bridge_job_is_busy (self, item)
         && (item->read_us == 0 || now - item->read_us >= READ_AGAIN_US);
}

/* One after the other, as each takes the radio for some seconds. */
void
bridge_version_read (Bridge *self, gint64 now)
{
  GHashTableIter iter;
  BridgeItem *item;

  if (self->read_us != 0 && now - self->read_us < READ_GAP_US)
    return;
  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, (gpointer *) &item))
    if (wants_reading (self, item, now))
      {
        self->read_us = item->read_us = now;
        bridge_bus_call_job (self->bus, item->path, "ReadInfo", NULL, self->cancellable,
                             on_read_started, NULL);
        return;
      }
}
