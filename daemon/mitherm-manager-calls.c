/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-manager-private.h"

#include <string.h>

#include "mitherm-device.h"
#include "mitherm-error.h"
#include "mitherm-file.h"
#include "mitherm-keyfile.h"
#include "mitherm-log.h"
#include "mitherm-options.h"
#include "mitherm-plan.h"

/* As many hops has an update. */
#define PLAN_IMAGES_MAX 8
/* More descriptors a bus does not carry in one message anyway. */
#define CATALOG_FILES_MAX 64

/* Arguments */

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

/* Images */

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
      invocation, g_variant_new ("(@a{sv})", mi_models_describe_image (
                                                 mitherm_manager_get_models (self), image)));
  return TRUE;
}

/* Keys */

static void
on_imported (const char *address, gpointer user_data)
{
  mitherm_device_keys_changed (mitherm_manager_ensure_device (user_data, address));
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
  if (!mitherm_keyfile_import (mitherm_manager_get_store (self), mitherm_manager_get_models (self),
                               data, len, on_imported, self, &result, &error))
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

/* @path: (nullable): object path of a thermometer, whose address goes to @address */
static gboolean
find_by_path (MithermManager *self, const char *path, const char **address, GError **error)
{
  MithermDevice *device = NULL;

  if (path == NULL)
    return TRUE;
  if (g_str_has_prefix (path, MITHERM_DEVICE_PATH_PREFIX))
    device = mitherm_manager_find_node (self, path + strlen (MITHERM_DEVICE_PATH_PREFIX));
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
  text = mitherm_keyfile_export (mitherm_manager_get_store (self), address);
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
  mitherm_plan_get_target (mitherm_manager_find_device (self, address), &target);
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
  mitherm_radio_set_discovery (mitherm_manager_get_radio (self), enabled);
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
      GBytes *bytes = mitherm_file_take (invocation, g_variant_get_handle (handle), "image", error);

      if (bytes == NULL)
        return FALSE;
      g_ptr_array_add (files, bytes);
    }
  return TRUE;
}

/* (nullable): base name of file number @i, if the caller has told it */
static const char *
get_name (char **names, guint i)
{
  for (; names != NULL && *names != NULL && i > 0; i--)
    names++;
  return names != NULL && *names != NULL && **names != '\0' ? *names : NULL;
}

/* By what is in it; and by its name, so that no damaged or empty one is passed over. */
static gboolean
is_index (GBytes *file, const char *name)
{
  return mitherm_catalog_index_is (file) || (name != NULL && g_str_has_suffix (name, ".json"));
}

/* (transfer full) (nullable): of the one of @files that is an index; no other error than its own */
static MithermCatalogIndex *
find_index (GPtrArray *files, char **names, GError **error)
{
  for (guint i = 0; i < files->len; i++)
    {
      if (is_index (g_ptr_array_index (files, i), get_name (names, i)))
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
  g_autoptr (MithermCatalogIndex) index = find_index (files, names, error);
  g_auto (GVariantBuilder) results = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE ("aa{sv}"));
  guint taken = 0;

  if (*error != NULL)
    return NULL;
  for (guint i = 0; i < files->len; i++)
    {
      const char *name = get_name (names, i);
      g_autoptr (GError) local = NULL;
      GVariant *result;

      if (is_index (g_ptr_array_index (files, i), name))
        continue;
      result = mitherm_catalog_add (mitherm_manager_get_catalog (self),
                                    g_ptr_array_index (files, i), name, index, &local);
      taken += result != NULL;
      g_variant_builder_add_value (&results,
                                   result != NULL ? result : describe_refused (name, local));
      if (local != NULL && *error == NULL)
        *error = g_steal_pointer (&local);
    }
  mitherm_manager_foreach_device (self, review_update, NULL);
  if (*error != NULL && taken == 0)
    return NULL;
  g_clear_error (error);
  return g_variant_builder_end (&results);
}

static gboolean
check_catalog (MithermManager *self, GError **error)
{
  if (mitherm_manager_get_catalog (self) == NULL)
    g_set_error_literal (error, MITHERM_ERROR, MITHERM_ERROR_UNSUPPORTED, "There is no catalogue.");
  return mitherm_manager_get_catalog (self) != NULL;
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
      || !mitherm_catalog_remove (mitherm_manager_get_catalog (self),
                                  g_variant_get_string (sha256, NULL), &error))
    {
      g_dbus_method_invocation_take_error (invocation, error);
      return;
    }
  mitherm_manager_foreach_device (self, review_update, NULL);
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
  GVariant *list = mitherm_manager_get_catalog (self) != NULL
                       ? mitherm_catalog_list (mitherm_manager_get_catalog (self))
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

  if (mitherm_manager_get_agents (self) == NULL
      || !mitherm_agents_register (mitherm_manager_get_agents (self),
                                   g_dbus_method_invocation_get_sender (invocation),
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

  if (!mitherm_agents_unregister (mitherm_manager_get_agents (self), sender, agent, &error))
    g_dbus_method_invocation_take_error (invocation, error);
  else
    g_dbus_method_invocation_return_value (invocation, NULL);
  return TRUE;
}

void
mitherm_manager_connect_calls (MithermManager *self, MithermDBusManager1 *skeleton)
{
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
