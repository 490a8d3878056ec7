/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-private.h"

void
bridge_job_free (gpointer data)
{
  BridgeJob *job = data;

  g_free (job->device);
  g_free (job->kind);
  g_free (job->state);
  g_free (job->message);
  g_free (job);
}

gboolean
bridge_job_is_final (const BridgeJob *job)
{
  return g_strcmp0 (job->state, "done") == 0 || g_strcmp0 (job->state, "failed") == 0
         || g_strcmp0 (job->state, "cancelled") == 0;
}

BridgeJob *
bridge_job_current (Bridge *self, BridgeItem *item)
{
  const char *path = item->started != NULL ? item->started : item->job;

  return g_hash_table_lookup (self->jobs, path);
}

gboolean
bridge_job_is_busy (Bridge *self, BridgeItem *item)
{
  BridgeJob *job = bridge_job_current (self, item);

  if (item->calling != BRIDGE_COMMAND_NONE || item->started != NULL)
    return TRUE;
  return !g_str_equal (item->job, BRIDGE_NO_JOB) && (job == NULL || !bridge_job_is_final (job));
}

static BridgeItem *
item_of_job (Bridge *self, const char *path, const BridgeJob *job)
{
  GHashTableIter iter;
  BridgeItem *item;

  if (job->device != NULL && (item = g_hash_table_lookup (self->items, job->device)) != NULL)
    return item;
  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, (gpointer *) &item))
    if (g_strcmp0 (item->started, path) == 0)
      return item;
  return NULL;
}

void
bridge_job_on_properties (Bridge *self, const char *path, GVariant *properties)
{
  BridgeJob *job = g_hash_table_lookup (self->jobs, path);
  g_autofree char *device = NULL;
  BridgeItem *item;

  if (job == NULL)
    {
      job = g_new0 (BridgeJob, 1);
      g_hash_table_insert (self->jobs, g_strdup (path), job);
    }
  if (g_variant_lookup (properties, "Device", "o", &device))
    bridge_set_text (&job->device, device);
  bridge_told_take_text (properties, "Kind", &job->kind);
  bridge_told_take_text (properties, "State", &job->state);
  bridge_told_take_text (properties, "ErrorMessage", &job->message);
  bridge_told_take_number (properties, "Progress", &job->progress);
  item = item_of_job (self, path, job);
  if (item != NULL)
    bridge_told_refresh (self, item);
}

void
bridge_job_on_gone (Bridge *self, const char *path)
{
  BridgeJob *job = g_hash_table_lookup (self->jobs, path);
  BridgeItem *item = job != NULL ? item_of_job (self, path, job) : NULL;

  if (item != NULL && g_strcmp0 (item->started, path) == 0)
    bridge_command_end (item, job);
  g_hash_table_remove (self->jobs, path);
  if (item != NULL)
    bridge_told_refresh (self, item);
}
