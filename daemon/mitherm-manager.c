/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-manager.h"

#include <malloc.h>
#include <string.h>
#include <unistd.h>

#include "mi-advert.h"
#include "mi-bytes.h"
#include "mi-certificate.h"
#include "mi-register.h"
#include "mitherm-dbus.h"
#include "mitherm-device.h"
#include "mitherm-error.h"
#include "mitherm-file.h"
#include "mitherm-job.h"
#include "mitherm-keyfile.h"
#include "mitherm-log.h"
#include "mitherm-options.h"
#include "mitherm-plan.h"
#include "mitherm-sensor.h"
#include "mitherm-tree.h"

#define ROOT_PATH   "/org/mitherm"
#define EXPIRY_S    600
#define DEVICES_MAX 2000
/* As many hops has an update. */
#define PLAN_IMAGES_MAX 8
/* More descriptors a bus does not carry in one message anyway. */
#define CATALOG_FILES_MAX 64
/* Rssi and LastSeen of one thermometer are signalled at most this often. */
#define FLUSH_MS 1000
#define TRIM_MS  1500

struct _MithermManager
{
  GObject parent_instance;

  MithermManagerConfig config;
  MithermTree *tree;
  MithermAgents *agents; /* NULL without a bus, and after the end */
  MithermDBusManager1 *skeleton;
  GHashTable *devices; /* address (in the device) -> MithermDevice */
  GQueue heard;        /* devices, the one silent for longest first */
  GPtrArray *dirty;    /* devices whose Rssi, LastSeen or values wait */
  GPtrArray *changed;  /* devices whose changes wait for the main loop */
  GPtrArray *jobs;     /* all that can be read, the finished ones too */
  GQueue waiting;      /* jobs, in the order of their calls */
  GPtrArray *running;  /* jobs that hold an adapter */
  MithermSensorWatch *watch;
  guint expiry_s;
  guint expiry_source;
  guint flush_source;
  guint emit_source;
  guint trim_source;
  guint dispatch_source;
  guint last_number;
  gboolean stopped;
};

G_DEFINE_FINAL_TYPE (MithermManager, mitherm_manager, G_TYPE_OBJECT)

static void schedule_expiry (MithermManager *self);
static void foreach_device (GFunc func, gpointer func_data, gpointer user_data);

static void
mitherm_manager_finalize (GObject *object)
{
  MithermManager *self = MITHERM_MANAGER (object);

  mitherm_manager_stop (self);
  g_ptr_array_unref (self->dirty);
  g_ptr_array_unref (self->changed);
  g_ptr_array_unref (self->running);
  g_ptr_array_unref (self->jobs);
  g_hash_table_unref (self->devices);
  mitherm_sensor_watch_free (self->watch);
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
  self->dirty = g_ptr_array_new_with_free_func (g_object_unref);
  self->changed = g_ptr_array_new_with_free_func (g_object_unref);
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

static gboolean
is_queued_as_heard (MithermManager *self, GList *link)
{
  return link->prev != NULL || link->next != NULL || self->heard.head == link;
}

static void
unlink_heard (MithermManager *self, MithermDevice *device)
{
  GList *link = mitherm_device_get_link (device);

  if (is_queued_as_heard (self, link))
    g_queue_unlink (&self->heard, link);
}

static void
remove_device (MithermManager *self, MithermDevice *device)
{
  unlink_heard (self, device);
  if (mitherm_device_is_dirty (device))
    g_ptr_array_remove_fast (self->dirty, device);
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
      unlink_heard (self, device);
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

static gboolean
on_flush (gpointer user_data)
{
  MithermManager *self = user_data;
  guint left = 0;

  if (self->dirty->len == 0)
    {
      self->flush_source = 0;
      return G_SOURCE_REMOVE;
    }
  for (guint i = 0; i < self->dirty->len; i++)
    {
      MithermDevice *device = g_ptr_array_index (self->dirty, i);

      if (mitherm_device_flush (device))
        {
          self->dirty->pdata[i] = self->dirty->pdata[left];
          self->dirty->pdata[left++] = device;
        }
      else
        mitherm_device_set_dirty (device, FALSE);
    }
  g_ptr_array_set_size (self->dirty, (gint) left);
  return G_SOURCE_CONTINUE;
}

static void
mark_dirty (MithermManager *self, MithermDevice *device)
{
  if (mitherm_device_is_dirty (device))
    return;
  if (self->flush_source == 0)
    {
      /* Nothing was signalled in the last second. */
      self->flush_source = g_timeout_add (FLUSH_MS, on_flush, self);
      if (!mitherm_device_flush (device))
        return;
    }
  mitherm_device_set_dirty (device, TRUE);
  g_ptr_array_add (self->dirty, g_object_ref (device));
}

static void
on_stale (MithermDevice *device, gpointer user_data)
{
  mark_dirty (user_data, device);
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
  unlink_heard (self, device);
  mitherm_device_heard (device, advert, &identity);
  g_queue_push_tail_link (&self->heard, mitherm_device_get_link (device));
  schedule_expiry (self);
  if (new)
    {
      mitherm_device_flush (device);
      put_on_bus (self, device);
      trim_soon (self);
    }
  mitherm_device_measure (device, advert);
  if (!new)
    mark_dirty (self, device);
}

static void
on_radio_changed (MithermRadio *radio, gpointer user_data)
{
  MithermManager *self = user_data;
  g_auto (GStrv) adapters = mitherm_radio_dup_adapters (radio);

  mitherm_dbus_manager1_set_adapters (self->skeleton, (const char *const *) adapters);
  mitherm_dbus_manager1_set_discovering (self->skeleton, mitherm_radio_is_discovering (radio));
}

static gboolean
on_emit (gpointer user_data)
{
  MithermManager *self = user_data;

  self->emit_source = 0;
  for (guint i = 0; i < self->changed->len; i++)
    mitherm_device_emit (g_ptr_array_index (self->changed, i));
  g_ptr_array_set_size (self->changed, 0);
  return G_SOURCE_REMOVE;
}

void
mitherm_manager_emit_soon (MithermManager *self, MithermDevice *device)
{
  if (self->stopped)
    return;
  g_ptr_array_add (self->changed, g_object_ref (device));
  if (self->emit_source == 0)
    self->emit_source = g_idle_add (on_emit, self);
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

/* Manager1 */

static GVariant *
get_argument (GDBusMethodInvocation *invocation, gsize index)
{
  return g_variant_get_child_value (g_dbus_method_invocation_get_parameters (invocation), index);
}

static int
get_fd (GDBusMethodInvocation *invocation, GError **error)
{
  GDBusMessage *message = g_dbus_method_invocation_get_message (invocation);
  g_autoptr (GVariant) handle = get_argument (invocation, 0);

  return mitherm_file_get_fd (g_dbus_message_get_unix_fd_list (message),
                              g_variant_get_handle (handle), error);
}

static GBytes *
read_argument (GDBusMethodInvocation *invocation, const char *what, GError **error)
{
  g_autoptr (GVariant) handle = get_argument (invocation, 0);

  return mitherm_file_take (invocation, g_variant_get_handle (handle), what, error);
}

MiImage *
mitherm_manager_new_image (MithermManager *self, GBytes *file)
{
  if (self->config.n_roots == 0)
    return mi_image_new (file, NULL);
  return mi_image_new_with_roots (file, self->config.roots, self->config.n_roots);
}

static gboolean
on_inspect_image (MithermDBusManager1 *skeleton, GDBusMethodInvocation *invocation,
                  GUnixFDList *fds, GVariant *handle, gpointer user_data)
{
  MithermManager *self = user_data;
  GError *error = NULL;
  g_autoptr (GBytes) file = read_argument (invocation, "image", &error);
  g_autoptr (MiImage) image = NULL;

  if (file == NULL)
    {
      g_dbus_method_invocation_take_error (invocation, error);
      return TRUE;
    }
  image = mitherm_manager_new_image (self, file);
  g_dbus_method_invocation_return_value (
      invocation,
      g_variant_new ("(@a{sv})", mi_models_describe_image (self->config.models, image)));
  return TRUE;
}

static void
on_imported (const char *address, gpointer user_data)
{
  MithermManager *self = user_data;
  MithermDevice *device = g_hash_table_lookup (self->devices, address);

  if (device == NULL)
    {
      device = add_device (self, address);
      put_on_bus (self, device);
    }
  mitherm_device_keys_changed (device);
}

static void
import_keys (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermManager *self = MITHERM_MANAGER (object);
  g_autoptr (GVariant) options = get_argument (invocation, 1);
  g_autoptr (GBytes) file = NULL;
  MithermImport result = { 0 };
  GError *error = NULL;
  gsize len;
  const char *data;

  if (!mitherm_options_parse (options, NULL, 0, &error)
      || (file = read_argument (invocation, "key file", &error)) == NULL)
    {
      g_dbus_method_invocation_take_error (invocation, error);
      return;
    }
  data = g_bytes_get_data (file, &len);
  if (!mitherm_keyfile_import (self->config.store, self->config.models, data, len, on_imported,
                               self, &result, &error))
    {
      g_dbus_method_invocation_take_error (invocation, error);
      return;
    }
  g_message ("%u key sets imported, %u entries skipped", result.imported, result.skipped);
  g_dbus_method_invocation_return_value (
      invocation, g_variant_new ("(uu@aa{sv})", result.imported, result.skipped, result.problems));
}

static gboolean
on_import_keys (MithermDBusManager1 *skeleton, GDBusMethodInvocation *invocation, GUnixFDList *fds,
                GVariant *handle, GVariant *options, gpointer user_data)
{
  MithermManager *self = user_data;

  mitherm_manager_authorize (self, invocation, "import-keys", import_keys, G_OBJECT (self));
  return TRUE;
}

static void
on_exported (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GDBusMethodInvocation *invocation = user_data;
  GError *error = NULL;

  if (!mitherm_file_write_finish (result, &error))
    g_dbus_method_invocation_take_error (invocation, error);
  else
    {
      g_message ("Keys exported for %s", g_dbus_method_invocation_get_sender (invocation));
      g_dbus_method_invocation_return_value (invocation, NULL);
    }
}

static MithermDevice *
find_node (const char *node, gpointer user_data)
{
  MithermManager *self = user_data;
  g_autofree char *address = g_strdelimit (g_strdup (node), "_", ':');

  return g_hash_table_lookup (self->devices, address);
}

/* @path: (nullable): object path of a thermometer, whose address goes to @address */
static gboolean
find_by_path (MithermManager *self, const char *path, const char **address, GError **error)
{
  MithermDevice *device = NULL;

  if (path == NULL)
    return TRUE;
  if (g_str_has_prefix (path, MITHERM_DEVICE_PATH_PREFIX))
    device = find_node (path + strlen (MITHERM_DEVICE_PATH_PREFIX), self);
  if (device == NULL)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND, "No thermometer is at %s.", path);
      return FALSE;
    }
  *address = mitherm_device_get_address (device);
  return TRUE;
}

static void
export_keys (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermManager *self = MITHERM_MANAGER (object);
  g_autoptr (GVariant) options = get_argument (invocation, 1);
  g_autofree char *path = NULL;
  const MithermOption known[] = { { "device", "o", &path } };
  const char *address = NULL;
  GError *error = NULL;
  int fd = -1;
  char *text;

  if (!mitherm_options_parse (options, known, G_N_ELEMENTS (known), &error)
      || !find_by_path (self, path, &address, &error) || (fd = get_fd (invocation, &error)) < 0)
    {
      g_dbus_method_invocation_take_error (invocation, error);
      return;
    }
  text = mitherm_keyfile_export (self->config.store, address);
  mitherm_file_write_async (fd, text, strlen (text), on_exported, invocation);
}

static gboolean
on_export_keys (MithermDBusManager1 *skeleton, GDBusMethodInvocation *invocation, GUnixFDList *fds,
                GVariant *handle, GVariant *options, gpointer user_data)
{
  MithermManager *self = user_data;

  mitherm_manager_authorize (self, invocation, "export-secrets", export_keys, G_OBJECT (self));
  return TRUE;
}

/* Plans */

static gboolean
read_plan_images (MithermManager *self, GDBusMethodInvocation *invocation, GPtrArray *images,
                  GError **error)
{
  g_autoptr (GVariant) handles = get_argument (invocation, 1);
  gsize n = g_variant_n_children (handles);

  if (n == 0 || n > PLAN_IMAGES_MAX)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                   "A plan is made for 1 to %d images, not for %" G_GSIZE_FORMAT ".",
                   PLAN_IMAGES_MAX, n);
      return FALSE;
    }
  for (gsize i = 0; i < n; i++)
    {
      g_autoptr (GVariant) handle = g_variant_get_child_value (handles, i);
      g_autoptr (GBytes) file
          = mitherm_file_take (invocation, g_variant_get_handle (handle), "image", error);

      if (file == NULL)
        return FALSE;
      g_ptr_array_add (images, mitherm_manager_new_image (self, file));
    }
  return TRUE;
}

/* Changes nothing, so that nobody is asked for leave. */
static gboolean
on_plan (MithermDBusManager1 *skeleton, GDBusMethodInvocation *invocation, GUnixFDList *fds,
         const char *path, GVariant *handles, GVariant *options, gpointer user_data)
{
  MithermManager *self = user_data;
  g_autoptr (GPtrArray) images = g_ptr_array_new_with_free_func ((GDestroyNotify) mi_image_unref);
  g_autoptr (GBytes) envelope = NULL;
  g_autoptr (MiPlan) plan = NULL;
  g_autofree char *expect = NULL;
  gint handle = -1;
  const MithermOption known[]
      = { { "expect-version", "s", &expect }, { "envelope", "h", &handle } };
  const char *address = NULL;
  MithermTarget target;
  GError *error = NULL;

  if (!mitherm_options_parse (options, known, G_N_ELEMENTS (known), &error)
      || !find_by_path (self, path, &address, &error)
      || !read_plan_images (self, invocation, images, &error)
      || (handle >= 0
          && (envelope = mitherm_file_take (invocation, handle, "envelope", &error)) == NULL))
    {
      g_dbus_method_invocation_take_error (invocation, error);
      return TRUE;
    }
  mitherm_plan_get_target (g_hash_table_lookup (self->devices, address), &target);
  plan = mitherm_plan_new (self, &target, images, envelope, expect);
  g_dbus_method_invocation_return_value (invocation,
                                         g_variant_new ("(@aa{sv})", mi_plan_to_variant (plan)));
  return TRUE;
}

static void
set_discovery (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermManager *self = MITHERM_MANAGER (object);
  g_autoptr (GVariant) options = get_argument (invocation, 0);
  gboolean enabled = TRUE;
  const MithermOption known[] = { { "enabled", "b", &enabled } };
  GError *error = NULL;

  if (!mitherm_options_parse (options, known, G_N_ELEMENTS (known), &error))
    {
      g_dbus_method_invocation_take_error (invocation, error);
      return;
    }
  mitherm_radio_set_discovery (self->config.radio, enabled);
  g_dbus_method_invocation_return_value (invocation, NULL);
}

static gboolean
on_set_discovery (MithermDBusManager1 *skeleton, GDBusMethodInvocation *invocation,
                  GVariant *options, gpointer user_data)
{
  MithermManager *self = user_data;

  mitherm_manager_authorize (self, invocation, "configure", set_discovery, G_OBJECT (self));
  return TRUE;
}

/* The catalogue */

static gboolean
read_handles (GDBusMethodInvocation *invocation, GVariant *handles, GPtrArray *files,
              GError **error)
{
  GDBusMessage *message = g_dbus_method_invocation_get_message (invocation);
  gsize n = g_variant_n_children (handles);

  if (n == 0 || n > CATALOG_FILES_MAX)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                   "%" G_GSIZE_FORMAT " files at once are not taken, but 1 to %d.", n,
                   CATALOG_FILES_MAX);
      return FALSE;
    }
  for (gsize i = 0; i < n; i++)
    {
      g_autoptr (GVariant) handle = g_variant_get_child_value (handles, i);
      int fd = mitherm_file_get_fd (g_dbus_message_get_unix_fd_list (message),
                                    g_variant_get_handle (handle), error);
      GBytes *bytes = fd >= 0 ? mitherm_file_read (fd, "firmware file", error) : NULL;

      if (fd >= 0)
        close (fd);
      if (bytes == NULL)
        return FALSE;
      g_ptr_array_add (files, bytes);
    }
  return TRUE;
}

/* (transfer full) (nullable): of the one of @files that is an index; no other error than its own */
static MithermCatalogIndex *
find_index (GPtrArray *files, GError **error)
{
  for (guint i = 0; i < files->len; i++)
    {
      if (mitherm_catalog_index_is (g_ptr_array_index (files, i)))
        return mitherm_catalog_index_new (g_ptr_array_index (files, i), error);
    }
  return NULL;
}

static GVariant *
describe_refused (const char *name, const GError *error)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (&builder, "{sv}", "name", g_variant_new_string (name != NULL ? name : ""));
  g_variant_builder_add (&builder, "{sv}", "added", g_variant_new_boolean (FALSE));
  g_variant_builder_add (&builder, "{sv}", "reason", g_variant_new_string (error->message));
  return g_variant_builder_end (&builder);
}

static void
review_update (gpointer device, gpointer user_data)
{
  mitherm_device_review_update (device);
}

/* Returns: (transfer floating): what became of each image, NULL if none was taken */
static GVariant *
add_to_catalog (MithermManager *self, GPtrArray *files, char **names, GError **error)
{
  g_autoptr (MithermCatalogIndex) index = find_index (files, error);
  g_auto (GVariantBuilder) results = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE ("aa{sv}"));
  guint n_names = names != NULL ? g_strv_length (names) : 0, taken = 0;

  if (*error != NULL)
    return NULL;
  for (guint i = 0; i < files->len; i++)
    {
      const char *name = i < n_names && *names[i] != '\0' ? names[i] : NULL;
      g_autoptr (GError) local = NULL;
      GVariant *result;

      if (mitherm_catalog_index_is (g_ptr_array_index (files, i)))
        continue;
      result = mitherm_catalog_add (self->config.catalog, g_ptr_array_index (files, i), name, index,
                                    &local);
      taken += result != NULL;
      g_variant_builder_add_value (&results,
                                   result != NULL ? result : describe_refused (name, local));
      if (local != NULL && *error == NULL)
        *error = g_steal_pointer (&local);
    }
  foreach_device (review_update, NULL, self);
  if (*error != NULL && taken == 0)
    return NULL;
  g_clear_error (error);
  return g_variant_builder_end (&results);
}

static gboolean
check_catalog (MithermManager *self, GError **error)
{
  if (self->config.catalog == NULL)
    g_set_error_literal (error, MITHERM_ERROR, MITHERM_ERROR_UNSUPPORTED, "There is no catalogue.");
  return self->config.catalog != NULL;
}

static void
catalog_add (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermManager *self = MITHERM_MANAGER (object);
  g_autoptr (GVariant) handles = get_argument (invocation, 0);
  g_autoptr (GVariant) options = get_argument (invocation, 1);
  g_autoptr (GPtrArray) files = g_ptr_array_new_with_free_func ((GDestroyNotify) g_bytes_unref);
  g_auto (GStrv) names = NULL;
  const MithermOption known[] = { { "names", "as", &names } };
  GVariant *results = NULL;
  GError *error = NULL;

  if (mitherm_options_parse (options, known, G_N_ELEMENTS (known), &error)
      && check_catalog (self, &error) && read_handles (invocation, handles, files, &error))
    results = add_to_catalog (self, files, names, &error);
  if (results == NULL)
    g_dbus_method_invocation_take_error (invocation, error);
  else
    g_dbus_method_invocation_return_value (invocation, g_variant_new ("(@aa{sv})", results));
}

static gboolean
on_catalog_add (MithermDBusManager1 *skeleton, GDBusMethodInvocation *invocation, GUnixFDList *fds,
                GVariant *files, GVariant *options, gpointer user_data)
{
  MithermManager *self = user_data;

  mitherm_manager_authorize (self, invocation, "catalog", catalog_add, G_OBJECT (self));
  return TRUE;
}

static void
catalog_remove (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermManager *self = MITHERM_MANAGER (object);
  g_autoptr (GVariant) sha256 = get_argument (invocation, 0);
  g_autoptr (GVariant) options = get_argument (invocation, 1);
  GError *error = NULL;

  if (!mitherm_options_parse (options, NULL, 0, &error) || !check_catalog (self, &error)
      || !mitherm_catalog_remove (self->config.catalog, g_variant_get_string (sha256, NULL),
                                  &error))
    {
      g_dbus_method_invocation_take_error (invocation, error);
      return;
    }
  foreach_device (review_update, NULL, self);
  g_dbus_method_invocation_return_value (invocation, NULL);
}

static gboolean
on_catalog_remove (MithermDBusManager1 *skeleton, GDBusMethodInvocation *invocation,
                   const char *sha256, GVariant *options, gpointer user_data)
{
  MithermManager *self = user_data;

  mitherm_manager_authorize (self, invocation, "catalog", catalog_remove, G_OBJECT (self));
  return TRUE;
}

static gboolean
on_catalog_list (MithermDBusManager1 *skeleton, GDBusMethodInvocation *invocation,
                 gpointer user_data)
{
  MithermManager *self = user_data;
  GVariant *list = self->config.catalog != NULL
                       ? mitherm_catalog_list (self->config.catalog)
                       : g_variant_new_array (G_VARIANT_TYPE_VARDICT, NULL, 0);

  g_dbus_method_invocation_return_value (invocation, g_variant_new ("(@aa{sv})", list));
  return TRUE;
}

/* Credential agents */

static void
register_agent (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermManager *self = MITHERM_MANAGER (object);
  g_autoptr (GVariant) path = get_argument (invocation, 0);
  GError *error = NULL;

  if (self->agents == NULL
      || !mitherm_agents_register (self->agents, g_dbus_method_invocation_get_sender (invocation),
                                   g_variant_get_string (path, NULL), &error))
    {
      if (error == NULL)
        error = g_error_new_literal (MITHERM_ERROR, MITHERM_ERROR_BUSY, "The daemon is ending.");
      g_dbus_method_invocation_take_error (invocation, error);
      return;
    }
  g_dbus_method_invocation_return_value (invocation, NULL);
}

static gboolean
on_register_agent (MithermDBusManager1 *skeleton, GDBusMethodInvocation *invocation,
                   const char *agent, gpointer user_data)
{
  MithermManager *self = user_data;

  mitherm_manager_authorize (self, invocation, "credential-agent", register_agent, G_OBJECT (self));
  return TRUE;
}

/* Whoever has registered one may take it back. */
static gboolean
on_unregister_agent (MithermDBusManager1 *skeleton, GDBusMethodInvocation *invocation,
                     const char *agent, gpointer user_data)
{
  MithermManager *self = user_data;
  const char *sender = g_dbus_method_invocation_get_sender (invocation);
  GError *error = NULL;

  if (!mitherm_agents_unregister (self->agents, sender, agent, &error))
    g_dbus_method_invocation_take_error (invocation, error);
  else
    g_dbus_method_invocation_return_value (invocation, NULL);
  return TRUE;
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

static void
foreach_device (GFunc func, gpointer func_data, gpointer user_data)
{
  MithermManager *self = user_data;
  GHashTableIter iter;
  gpointer device;

  g_hash_table_iter_init (&iter, self->devices);
  while (g_hash_table_iter_next (&iter, NULL, &device))
    func (device, func_data);
  trim_soon (self);
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
  foreach_device (allow_signals, NULL, self);
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
  g_signal_connect (skeleton, "handle-inspect-image", G_CALLBACK (on_inspect_image), self);
  g_signal_connect (skeleton, "handle-import-keys", G_CALLBACK (on_import_keys), self);
  g_signal_connect (skeleton, "handle-export-keys", G_CALLBACK (on_export_keys), self);
  g_signal_connect (skeleton, "handle-set-discovery", G_CALLBACK (on_set_discovery), self);
  g_signal_connect (skeleton, "handle-plan", G_CALLBACK (on_plan), self);
  g_signal_connect (skeleton, "handle-catalog-add", G_CALLBACK (on_catalog_add), self);
  g_signal_connect (skeleton, "handle-catalog-remove", G_CALLBACK (on_catalog_remove), self);
  g_signal_connect (skeleton, "handle-catalog-list", G_CALLBACK (on_catalog_list), self);
  g_signal_connect (skeleton, "handle-register-credential-agent", G_CALLBACK (on_register_agent),
                    self);
  g_signal_connect (skeleton, "handle-unregister-credential-agent",
                    G_CALLBACK (on_unregister_agent), self);
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
  g_clear_handle_id (&self->flush_source, g_source_remove);
  g_clear_handle_id (&self->emit_source, g_source_remove);
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
