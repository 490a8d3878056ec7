/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-fake-private.h"

#include <string.h>

/* AdvertisementMonitorManager1: passive scanning, as bluetoothd -E offers it. */

#define IFACE_MONITOR   "org.bluez.AdvertisementMonitor1"
#define AD_SERVICE_DATA 0x16
#define CALL_MS         5000

typedef struct
{
  guint8 start;
  guint8 type;
  GBytes *content;
} Pattern;

/* What one client has registered. */
typedef struct
{
  char *sender;
  char *root;
  char *path;       /* of the monitor, nullable */
  GArray *patterns; /* of Pattern; empty until the client has told them */
} FakeMonitor;

/* A registration that waits for the client's answer. */
typedef struct
{
  FakeBluez *bluez;
  guint index; /* of the adapter, which may go meanwhile */
  char *sender;
  char *root;
  GDBusMethodInvocation *invocation;
} Registering;

static void
pattern_clear (gpointer data)
{
  g_bytes_unref (((Pattern *) data)->content);
}

static void
monitor_free (gpointer data)
{
  FakeMonitor *monitor = data;

  g_free (monitor->sender);
  g_free (monitor->root);
  g_free (monitor->path);
  g_array_unref (monitor->patterns);
  g_free (monitor);
}

static gboolean
matches (const Pattern *pattern, const guint8 *element, gsize len)
{
  gsize size;
  const guint8 *content = g_bytes_get_data (pattern->content, &size);

  return pattern->type == AD_SERVICE_DATA && pattern->start + size <= len
         && memcmp (element + pattern->start, content, size) == 0;
}

gboolean
fake_monitors_match (FakeAdapter *adapter, const SimAdvert *advert)
{
  g_autofree guint8 *element = g_malloc (advert->len + 2);

  if (advert->uuid == 0)
    return FALSE;
  element[0] = (guint8) advert->uuid;
  element[1] = (guint8) (advert->uuid >> 8);
  if (advert->len > 0)
    memcpy (element + 2, advert->data, advert->len);
  for (guint i = 0; i < adapter->monitors->len; i++)
    {
      FakeMonitor *monitor = adapter->monitors->pdata[i];

      for (guint j = 0; j < monitor->patterns->len; j++)
        if (matches (&g_array_index (monitor->patterns, Pattern, j), element, advert->len + 2))
          return TRUE;
    }
  return FALSE;
}

/* --- registering --- */

static void
read_patterns (FakeMonitor *monitor, GVariant *properties)
{
  g_autoptr (GVariant) patterns
      = g_variant_lookup_value (properties, "Patterns", G_VARIANT_TYPE ("a(yyay)"));
  const char *type = NULL;
  GVariantIter iter;
  Pattern pattern;
  GVariant *content;

  if (patterns == NULL || !g_variant_lookup (properties, "Type", "&s", &type)
      || !g_str_equal (type, "or_patterns"))
    return;
  g_variant_iter_init (&iter, patterns);
  while (g_variant_iter_next (&iter, "(yy@ay)", &pattern.start, &pattern.type, &content))
    {
      pattern.content = g_variant_get_data_as_bytes (content);
      g_variant_unref (content);
      g_array_append_val (monitor->patterns, pattern);
    }
}

static void
call_monitor (FakeAdapter *adapter, const FakeMonitor *monitor, const char *method)
{
  if (monitor->path != NULL)
    g_dbus_connection_call (adapter->bluez->connection, monitor->sender, monitor->path,
                            IFACE_MONITOR, method, NULL, NULL, G_DBUS_CALL_FLAGS_NONE, CALL_MS,
                            NULL, NULL, NULL);
}

static void
add_monitor (FakeAdapter *adapter, const Registering *wanted, GVariant *objects)
{
  FakeMonitor *monitor = g_new0 (FakeMonitor, 1);
  gboolean before = fake_adapter_is_scanning (adapter);
  GVariantIter iter;
  const char *path;
  GVariant *interfaces;

  monitor->sender = g_strdup (wanted->sender);
  monitor->root = g_strdup (wanted->root);
  monitor->patterns = g_array_new (FALSE, FALSE, sizeof (Pattern));
  g_array_set_clear_func (monitor->patterns, pattern_clear);
  g_variant_iter_init (&iter, objects);
  while (g_variant_iter_loop (&iter, "{&o@a{sa{sv}}}", &path, &interfaces))
    {
      g_autoptr (GVariant) properties
          = g_variant_lookup_value (interfaces, IFACE_MONITOR, G_VARIANT_TYPE_VARDICT);

      if (properties == NULL)
        continue;
      read_patterns (monitor, properties);
      g_free (monitor->path);
      monitor->path = g_strdup (path);
      call_monitor (adapter, monitor, "Activate");
    }
  g_ptr_array_add (adapter->monitors, monitor);
  fake_adapter_scanning_changed (adapter, before);
}

static void
on_objects (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Registering *wanted = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  FakeAdapter *adapter = wanted->bluez->connection == G_DBUS_CONNECTION (source)
                             ? wanted->bluez->adapters->pdata[wanted->index]
                             : NULL;

  if (reply != NULL && adapter != NULL)
    {
      g_autoptr (GVariant) objects = g_variant_get_child_value (reply, 0);

      add_monitor (adapter, wanted, objects);
      g_dbus_method_invocation_return_value (wanted->invocation, NULL);
    }
  else
    fake_failed (wanted->invocation, error != NULL ? error->message : "no adapter");
  g_free (wanted->sender);
  g_free (wanted->root);
  g_free (wanted);
}

static FakeMonitor *
find_monitor (FakeAdapter *adapter, const char *sender, const char *root, guint *index)
{
  for (*index = 0; *index < adapter->monitors->len; ++*index)
    {
      FakeMonitor *monitor = adapter->monitors->pdata[*index];

      if (g_str_equal (monitor->sender, sender)
          && (root == NULL || g_str_equal (monitor->root, root)))
        return monitor;
    }
  return NULL;
}

static void
remove_at (FakeAdapter *adapter, guint index)
{
  gboolean before = fake_adapter_is_scanning (adapter);

  g_ptr_array_remove_index (adapter->monitors, index);
  fake_adapter_scanning_changed (adapter, before);
}

static void
on_method_call (GDBusConnection *connection, const char *sender, const char *path,
                const char *interface, const char *method, GVariant *parameters,
                GDBusMethodInvocation *invocation, gpointer user_data)
{
  FakeAdapter *adapter = user_data;
  Registering *wanted;
  const char *root;
  guint index;

  g_variant_get (parameters, "(&o)", &root);
  if (g_str_equal (method, "UnregisterMonitor"))
    {
      FakeMonitor *monitor = find_monitor (adapter, sender, root, &index);

      if (monitor == NULL)
        {
          fake_error (invocation, "DoesNotExist", "Does Not Exist");
          return;
        }
      call_monitor (adapter, monitor, "Release"); /* as bluetoothd: before the answer */
      remove_at (adapter, index);
      g_dbus_method_invocation_return_value (invocation, NULL);
      return;
    }
  if (find_monitor (adapter, sender, root, &index) != NULL)
    {
      fake_error (invocation, "AlreadyExists", "Already Exists");
      return;
    }
  wanted = g_new0 (Registering, 1);
  wanted->bluez = adapter->bluez;
  wanted->index = adapter->index;
  wanted->sender = g_strdup (sender);
  wanted->root = g_strdup (root);
  wanted->invocation = invocation;
  g_dbus_connection_call (connection, sender, root, "org.freedesktop.DBus.ObjectManager",
                          "GetManagedObjects", NULL, G_VARIANT_TYPE ("(a{oa{sa{sv}}})"),
                          G_DBUS_CALL_FLAGS_NONE, CALL_MS, NULL, on_objects, wanted);
}

GVariant *
fake_monitors_describe (void)
{
  static const char *const types[] = { "or_patterns", NULL };
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (&builder, "{sv}", "SupportedMonitorTypes", g_variant_new_strv (types, -1));
  g_variant_builder_add (&builder, "{sv}", "SupportedFeatures", g_variant_new_strv (NULL, 0));
  return g_variant_builder_end (&builder);
}

static GVariant *
on_get (GDBusConnection *connection, const char *sender, const char *path, const char *interface,
        const char *property, GError **error, gpointer user_data)
{
  g_autoptr (GVariant) all = g_variant_ref_sink (fake_monitors_describe ());

  return g_variant_lookup_value (all, property, NULL);
}

void
fake_monitors_init (FakeAdapter *adapter)
{
  static const GDBusInterfaceVTable vtable
      = { .method_call = on_method_call, .get_property = on_get };

  adapter->monitors = g_ptr_array_new_with_free_func (monitor_free);
  if (adapter->bluez->options.monitors)
    adapter->monitors_id
        = g_dbus_connection_register_object (adapter->bluez->connection, adapter->path,
                                             fake_object_get_interface (FAKE_IFACE_MONITORS),
                                             &vtable, adapter, NULL, NULL);
}

void
fake_monitors_clear (FakeAdapter *adapter)
{
  if (adapter->monitors_id != 0 && adapter->bluez->connection != NULL)
    g_dbus_connection_unregister_object (adapter->bluez->connection, adapter->monitors_id);
  adapter->monitors_id = 0;
  g_clear_pointer (&adapter->monitors, g_ptr_array_unref);
}

void
fake_monitors_client_gone (FakeAdapter *adapter, const char *sender)
{
  guint index;

  while (find_monitor (adapter, sender, NULL, &index) != NULL)
    remove_at (adapter, index);
}
