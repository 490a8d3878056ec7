/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-manager-private.h"

#include <malloc.h>
#include <string.h>
#include <unistd.h>

#include "mi-advert.h"
#include "mi-bytes.h"
#include "mi-certificate.h"
#include "mi-register.h"
#include "mitherm-dbus.h"
#include "mitherm-device.h"
#include "mitherm-job.h"
#include "mitherm-links.h"
#include "mitherm-news.h"
#include "mitherm-sensor.h"
#include "mitherm-tree.h"

#define ROOT_PATH   "/org/mitherm"
#define EXPIRY_S    600
#define DEVICES_MAX 2000
#define TRIM_MS     1500

struct _MithermManager
{
  GObject parent_instance;

  MithermManagerConfig config;
  MithermTree *tree;
  MithermAgents *agents; /* NULL without a bus, and after the end */
  MithermDBusManager1 *skeleton;
  GHashTable *devices; /* address (in the device) -> MithermDevice */
  GQueue heard;        /* devices, the one silent for longest first */
  MithermNews *news;   /* what waits to be signalled */
  GPtrArray *jobs;     /* all that can be read, the finished ones too */
  GQueue waiting;      /* jobs, in the order of their calls */
  GPtrArray *running;  /* jobs that hold an adapter */
  MithermSensorWatch *watch;
  guint expiry_s;
  guint expiry_source;
  guint trim_source;
  guint dispatch_source;
  guint last_number;
  gboolean stopped;
};

G_DEFINE_FINAL_TYPE (MithermManager, mitherm_manager, G_TYPE_OBJECT)

static void schedule_expiry (MithermManager *self);

static void
mitherm_manager_finalize (GObject *object)
{
  MithermManager *self = MITHERM_MANAGER (object);

  mitherm_manager_stop (self);
  g_ptr_array_unref (self->running);
  g_ptr_array_unref (self->jobs);
  g_hash_table_unref (self->devices);
  mitherm_sensor_watch_free (self->watch);
  mitherm_news_free (self->news);
  g_clear_object (&self->skeleton);
  g_clear_pointer (&self->tree, mitherm_tree_free);
  G_OBJECT_CLASS (mitherm_manager_parent_class)->finalize (object);
}

static void
mitherm_manager_class_init (MithermManagerClass *klass)
{
  G_OBJECT_CLASS (klass)->finalize = mitherm_manager_finalize;
}

static void
mitherm_manager_init (MithermManager *self)
{
  self->devices = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, g_object_unref);
  self->news = mitherm_news_new ();
  self->jobs = g_ptr_array_new_with_free_func (g_object_unref);
  self->running = g_ptr_array_new_with_free_func (g_object_unref);
  g_queue_init (&self->heard);
  g_queue_init (&self->waiting);
  self->expiry_s = EXPIRY_S;
}

/* Devices: the registry, and their coming and going. */

static MithermDevice *
add_device (MithermManager *self, const char *address)
{
  MithermDevice *device = mitherm_device_new (self, address);

  g_hash_table_insert (self->devices, (gpointer) mitherm_device_get_address (device), device);
  return device;
}

static void
put_on_bus (MithermManager *self, MithermDevice *device)
{
  if (self->tree == NULL)
    return;
  mitherm_device_set_on_bus (device, TRUE);
  mitherm_tree_add_device (self->tree, device);
}

static void
remove_device (MithermManager *self, MithermDevice *device)
{
  mitherm_links_remove (&self->heard, mitherm_device_get_heard_link (device));
  mitherm_news_forget (self->news, device);
  mitherm_device_set_on_bus (device, FALSE);
  if (self->tree != NULL)
    mitherm_tree_remove_device (self->tree, device);
  g_hash_table_remove (self->devices, mitherm_device_get_address (device));
}

static gboolean
is_silent (MithermManager *self, MithermDevice *device)
{
  gint64 heard_us = mitherm_device_get_heard_us (device);

  return heard_us == 0
         || g_get_monotonic_time () - heard_us >= (gint64) self->expiry_s * G_USEC_PER_SEC;
}

static gboolean
is_held (MithermDevice *device)
{
  return mitherm_device_get_job (device) != NULL || mitherm_device_has_keys (device);
}

void
mitherm_manager_review (MithermManager *self, MithermDevice *device)
{
  if (!self->stopped && is_silent (self, device) && !is_held (device))
    remove_device (self, device);
}

static gboolean
on_expiry (gpointer user_data)
{
  MithermManager *self = user_data;
  MithermDevice *device;

  self->expiry_source = 0;
  while ((device = g_queue_peek_head (&self->heard)) != NULL && is_silent (self, device))
    {
      mitherm_links_remove (&self->heard, mitherm_device_get_heard_link (device));
      mitherm_manager_review (self, device);
    }
  schedule_expiry (self);
  return G_SOURCE_REMOVE;
}

/* One timer, for the thermometer that has been silent for longest. */
static void
schedule_expiry (MithermManager *self)
{
  MithermDevice *device = g_queue_peek_head (&self->heard);
  gint64 left_us;

  if (device == NULL || self->expiry_source != 0)
    return;
  left_us = mitherm_device_get_heard_us (device) + (gint64) self->expiry_s * G_USEC_PER_SEC
            - g_get_monotonic_time ();
  self->expiry_source
      = g_timeout_add_seconds ((guint) (MAX (left_us, 0) / G_USEC_PER_SEC) + 1, on_expiry, self);
}

void
mitherm_manager_set_expiry (MithermManager *self, guint seconds)
{
  self->expiry_s = seconds;
  g_clear_handle_id (&self->expiry_source, g_source_remove);
  schedule_expiry (self);
}

/* Strangers cannot fill the memory: who was silent for longest makes room. */
static void
make_room (MithermManager *self)
{
  GList *item = self->heard.head;

  while (item != NULL && g_hash_table_size (self->devices) >= DEVICES_MAX)
    {
      MithermDevice *device = item->data;

      item = item->next;
      if (!is_held (device))
        remove_device (self, device);
    }
}

static gboolean
on_trim (gpointer user_data)
{
  MithermManager *self = user_data;

  self->trim_source = 0;
#ifdef __GLIBC__
  malloc_trim (0);
#endif
  return G_SOURCE_REMOVE;
}

/*
 * Lists of many objects pass through the heap as large trees of small pieces; what is then free
 * between the pieces that stay goes back to the kernel. About 50 us, and only after such a list.
 */
static void
trim_soon (MithermManager *self)
{
  if (self->trim_source == 0 && !self->stopped)
    self->trim_source = g_timeout_add (TRIM_MS, on_trim, self);
}

void
mitherm_manager_emit_later (MithermManager *self, MithermDevice *device)
{
  /* One that has gone may end before its turn comes. */
  if (!self->stopped && mitherm_device_check_known (device, NULL))
    mitherm_news_later (self->news, device);
}

static void
on_stale (MithermDevice *device, gpointer user_data)
{
  mitherm_manager_emit_later (user_data, device);
}

static void
on_advert (MithermRadio *radio, const MithermAdvert *advert, gpointer user_data)
{
  MithermManager *self = user_data;
  MithermDevice *device = g_hash_table_lookup (self->devices, advert->address);
  gboolean new = device == NULL;
  MiAdvertIdentity identity;
  guint8 address[6];
  gboolean known
      = mi_advert_identify (advert->uuid, advert->data, advert->len, advert->name, &identity);

  if (new)
    {
      if (!known || !mi_address_parse (advert->address, address))
        return;
      make_room (self);
      device = add_device (self, advert->address);
    }
  mitherm_links_remove (&self->heard, mitherm_device_get_heard_link (device));
  mitherm_device_heard (device, advert, &identity);
  g_queue_push_tail_link (&self->heard, mitherm_device_get_heard_link (device));
  schedule_expiry (self);
  if (new)
    {
      mitherm_device_flush (device);
      put_on_bus (self, device);
      trim_soon (self);
    }
  mitherm_device_measure (device, advert);
  if (!new)
    mitherm_news_later (self->news, device);
}

static void
on_radio_changed (MithermRadio *radio, gpointer user_data)
{
  MithermManager *self = user_data;
  g_auto (GStrv) adapters = mitherm_radio_dup_adapters (radio);

  mitherm_dbus_manager1_set_adapters (self->skeleton, (const char *const *) adapters);
  mitherm_dbus_manager1_set_discovering (self->skeleton, mitherm_radio_is_discovering (radio));
}

void
mitherm_manager_emit_soon (MithermManager *self, MithermDevice *device)
{
  if (!self->stopped)
    mitherm_news_soon (self->news, device);
}

/* Jobs: one at a time for each adapter and for each thermometer. */

static gboolean
is_taken (MithermManager *self, const char *adapter, MithermJob *candidate)
{
  for (guint i = 0; i < self->running->len; i++)
    {
      MithermJob *job = g_ptr_array_index (self->running, i);

      if (mitherm_job_get_device (job) == mitherm_job_get_device (candidate))
        return TRUE;
      if (!mitherm_job_is_passive (job) && !mitherm_job_is_passive (candidate)
          && g_strcmp0 (mitherm_job_get_adapter (job), adapter) == 0)
        return TRUE;
    }
  return FALSE;
}

/* By the adapter that hears it best, if that is still there, else by any. */
static const char *
adapter_for (MithermDevice *device, char **adapters)
{
  const char *best = mitherm_device_get_adapter (device);

  if (best != NULL && g_strv_contains ((const char *const *) adapters, best))
    return best;
  return adapters[0];
}

static gboolean
on_dispatch (gpointer user_data)
{
  MithermManager *self = user_data;
  g_auto (GStrv) adapters = mitherm_radio_dup_adapters (self->config.radio);
  GList *item = self->waiting.head;

  self->dispatch_source = 0;
  while (item != NULL)
    {
      GList *next = item->next;
      MithermJob *job = item->data;
      const char *adapter = adapter_for (mitherm_job_get_device (job), adapters);

      if (!is_taken (self, adapter, job))
        {
          g_queue_delete_link (&self->waiting, item);
          g_ptr_array_add (self->running, job);
          mitherm_job_start (job, adapter);
        }
      item = next;
    }
  return G_SOURCE_REMOVE;
}

/* From the main loop, so that nobody is started from inside another job's end. */
static void
dispatch (MithermManager *self)
{
  if (self->dispatch_source == 0 && !self->stopped)
    self->dispatch_source = g_idle_add (on_dispatch, self);
}

static void
show_jobs (MithermManager *self)
{
  g_autoptr (GPtrArray) paths = g_ptr_array_new ();

  for (guint i = 0; i < self->running->len; i++)
    {
      MithermJob *job = g_ptr_array_index (self->running, i);

      if (!mitherm_job_is_over (job))
        g_ptr_array_add (paths, (gpointer) mitherm_job_get_path (job));
    }
  for (GList *item = self->waiting.head; item != NULL; item = item->next)
    g_ptr_array_add (paths, (gpointer) mitherm_job_get_path (item->data));
  g_ptr_array_add (paths, NULL);
  mitherm_dbus_manager1_set_active_jobs (self->skeleton, (const char *const *) paths->pdata);
}

guint
mitherm_manager_next_number (MithermManager *self)
{
  return ++self->last_number;
}

void
mitherm_manager_queue (MithermManager *self, MithermJob *job)
{
  g_ptr_array_add (self->jobs, g_object_ref (job));
  g_queue_push_tail (&self->waiting, g_object_ref (job));
  show_jobs (self);
  g_dbus_interface_skeleton_flush (G_DBUS_INTERFACE_SKELETON (self->skeleton));
  dispatch (self);
}

void
mitherm_manager_release (MithermManager *self, MithermJob *job)
{
  g_ptr_array_remove_fast (self->running, job);
  dispatch (self);
}

void
mitherm_manager_job_ended (MithermManager *self, MithermJob *job)
{
  MithermDevice *device = mitherm_job_get_device (job);

  if (g_queue_remove (&self->waiting, job))
    g_object_unref (job);
  mitherm_device_set_job (device, NULL);
  show_jobs (self);
  g_dbus_interface_skeleton_flush (G_DBUS_INTERFACE_SKELETON (self->skeleton));
  mitherm_manager_review (self, device);
}

MiImage *
mitherm_manager_new_image (MithermManager *self, GBytes *file)
{
  if (self->config.n_roots == 0)
    return mi_image_new (file, NULL);
  return mi_image_new_with_roots (file, self->config.roots, self->config.n_roots);
}

gboolean
mitherm_manager_verify_credential (MithermManager *self, const MiCredential *credential,
                                   const MiKeys *keys, GError **error)
{
  const guint8 *roots = self->config.credential_roots;

  if (self->config.n_credential_roots == 0)
    return mi_credential_verify (credential, mi_mijia_root, keys, error);
  for (gsize i = 0; i < self->config.n_credential_roots; i++)
    {
      g_clear_error (error);
      if (mi_credential_verify (credential, roots + i * sizeof mi_mijia_root, keys, error))
        return TRUE;
    }
  return FALSE;
}

void
mitherm_manager_authorize (MithermManager *self, GDBusMethodInvocation *invocation,
                           const char *action, MithermAuthFunc func, GObject *object)
{
  if (self->config.auth != NULL)
    mitherm_auth_check (self->config.auth, invocation, action, func, object);
  else
    func (invocation, object);
}

/* On the bus */

void
mitherm_manager_export_job (MithermManager *self, const char *path,
                            GDBusInterfaceSkeleton *skeleton)
{
  if (self->tree != NULL)
    mitherm_tree_add (self->tree, path, skeleton);
}

void
mitherm_manager_drop_job (MithermManager *self, MithermJob *job)
{
  if (self->tree != NULL)
    mitherm_tree_remove (self->tree, mitherm_job_get_path (job));
  g_ptr_array_remove_fast (self->jobs, job);
}

void
mitherm_manager_foreach_device (MithermManager *self, GFunc func, gpointer user_data)
{
  GHashTableIter iter;
  gpointer device;

  g_hash_table_iter_init (&iter, self->devices);
  while (g_hash_table_iter_next (&iter, NULL, &device))
    func (device, user_data);
  trim_soon (self);
}

MithermDevice *
mitherm_manager_find_node (MithermManager *self, const char *node)
{
  g_autofree char *address = g_strdelimit (g_strdup (node), "_", ':');

  return g_hash_table_lookup (self->devices, address);
}

MithermDevice *
mitherm_manager_ensure_device (MithermManager *self, const char *address)
{
  MithermDevice *device = g_hash_table_lookup (self->devices, address);

  if (device == NULL)
    {
      device = add_device (self, address);
      put_on_bus (self, device);
    }
  return device;
}

static MithermDevice *
find_node (const char *node, gpointer user_data)
{
  return mitherm_manager_find_node (user_data, node);
}

static void
foreach_device (GFunc func, gpointer func_data, gpointer user_data)
{
  mitherm_manager_foreach_device (user_data, func, func_data);
}

static void
allow_signals (gpointer device, gpointer user_data)
{
  mitherm_device_set_on_bus (device, TRUE);
}

gboolean
mitherm_manager_export (MithermManager *self, GError **error)
{
  if (!g_dbus_interface_skeleton_export (G_DBUS_INTERFACE_SKELETON (self->skeleton),
                                         self->config.connection, ROOT_PATH, error))
    return FALSE;
  self->agents = mitherm_agents_new (self->config.connection);
  self->tree = mitherm_tree_new (self->config.connection, find_node, foreach_device, self, error);
  mitherm_manager_foreach_device (self, allow_signals, NULL);
  return self->tree != NULL;
}

static void
make_skeleton (MithermManager *self)
{
  static const char *const none[] = { NULL };
  MithermDBusManager1 *skeleton = mitherm_dbus_manager1_skeleton_new ();

  self->skeleton = skeleton;
  mitherm_dbus_manager1_set_version (skeleton, MITHERM_VERSION);
  mitherm_dbus_manager1_set_active_jobs (skeleton, none);
  mitherm_manager_connect_calls (self, skeleton);
}

static void
add_stored (const MithermRecord *record, gpointer user_data)
{
  if (mitherm_record_has_keys (record))
    add_device (user_data, record->address);
}

MithermManager *
mitherm_manager_new (const MithermManagerConfig *config)
{
  MithermManager *self = g_object_new (MITHERM_TYPE_MANAGER, NULL);

  self->config = *config;
  self->watch = mitherm_sensor_watch_new (
      config->stale_s != 0 ? config->stale_s : MITHERM_SENSOR_STALE_S, on_stale, self);
  make_skeleton (self);
  mitherm_store_foreach (config->store, add_stored, self);
  on_radio_changed (config->radio, self);
  mitherm_radio_set_callbacks (config->radio, on_advert, on_radio_changed, self);
  mitherm_radio_set_discovery (config->radio, config->discovery);
  return self;
}

static void
abandon_jobs (MithermManager *self)
{
  MithermJob *job;

  for (guint i = 0; i < self->jobs->len; i++)
    mitherm_job_abandon (g_ptr_array_index (self->jobs, i));
  while ((job = g_queue_pop_head (&self->waiting)) != NULL)
    g_object_unref (job);
  g_ptr_array_set_size (self->running, 0);
  g_ptr_array_set_size (self->jobs, 0);
}

void
mitherm_manager_stop (MithermManager *self)
{
  if (self->stopped)
    return;
  self->stopped = TRUE;
  g_clear_handle_id (&self->expiry_source, g_source_remove);
  mitherm_news_stop (self->news);
  g_clear_handle_id (&self->trim_source, g_source_remove);
  g_clear_handle_id (&self->dispatch_source, g_source_remove);
  mitherm_radio_set_callbacks (self->config.radio, NULL, NULL, NULL);
  mitherm_radio_set_discovery (self->config.radio, FALSE);
  abandon_jobs (self);
  g_clear_pointer (&self->agents, mitherm_agents_free);
  g_queue_init (&self->heard); /* its links are parts of the devices */
  if (self->tree != NULL)
    g_dbus_interface_skeleton_unexport (G_DBUS_INTERFACE_SKELETON (self->skeleton));
}

GDBusConnection *
mitherm_manager_get_connection (MithermManager *self)
{
  return self->config.connection;
}

MithermRadio *
mitherm_manager_get_radio (MithermManager *self)
{
  return self->config.radio;
}

MithermStore *
mitherm_manager_get_store (MithermManager *self)
{
  return self->config.store;
}

const MithermManagerConfig *
mitherm_manager_get_config (MithermManager *self)
{
  return &self->config;
}

MiModels *
mitherm_manager_get_models (MithermManager *self)
{
  return self->config.models;
}

MithermCatalog *
mitherm_manager_get_catalog (MithermManager *self)
{
  return self->config.catalog;
}

MithermAgents *
mitherm_manager_get_agents (MithermManager *self)
{
  return self->agents;
}

MithermDevice *
mitherm_manager_find_device (MithermManager *self, const char *address)
{
  return g_hash_table_lookup (self->devices, address);
}

void
mitherm_manager_show_sensor (MithermManager *self, MithermDevice *device)
{
  if (self->tree != NULL)
    mitherm_tree_add_sensor (self->tree, device);
}

MithermSensorWatch *
mitherm_manager_get_watch (MithermManager *self)
{
  return self->watch;
}

guint
mitherm_manager_count_devices (MithermManager *self)
{
  return g_hash_table_size (self->devices);
}
