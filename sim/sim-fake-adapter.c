/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-fake-private.h"

#include <string.h>

/* What one bus client wants to hear; lives until the client leaves the bus. */
typedef struct
{
  char *sender;
  gboolean discovering;
  gboolean has_filter;
  gboolean has_uuids; /* UUID lists of advertisements, never service data: thermometers send none */
  gboolean no_le;
  gboolean duplicate_data;
  gint16 min_rssi; /* G_MININT16: any */
  char *pattern;
} FakeClient;

static void
client_free (gpointer data)
{
  FakeClient *client = data;

  g_free (client->sender);
  g_free (client->pattern);
  g_free (client);
}

static FakeClient *
get_client (FakeAdapter *adapter, const char *sender)
{
  FakeClient *client;

  for (guint i = 0; i < adapter->clients->len; i++)
    {
      client = adapter->clients->pdata[i];
      if (g_str_equal (client->sender, sender))
        return client;
    }
  client = g_new0 (FakeClient, 1);
  client->sender = g_strdup (sender);
  client->min_rssi = G_MININT16;
  g_ptr_array_add (adapter->clients, client);
  return client;
}

static gboolean
client_wants (const FakeClient *client, FakePeer *peer, const SimAdvert *advert)
{
  if (!client->discovering || client->has_uuids || client->no_le || advert->rssi < client->min_rssi)
    return FALSE;
  return client->pattern == NULL || g_str_has_prefix (peer->address, client->pattern)
         || (advert->name != NULL && g_str_has_prefix (advert->name, client->pattern));
}

gboolean
fake_adapter_is_wanted (FakeAdapter *adapter, FakePeer *peer, const SimAdvert *advert)
{
  if (!adapter->powered || !fake_adapter_is_scanning (adapter))
    return FALSE;
  if (fake_monitors_match (adapter, advert))
    return TRUE;
  for (guint i = 0; i < adapter->clients->len; i++)
    if (client_wants (adapter->clients->pdata[i], peer, advert))
      return TRUE;
  return FALSE;
}

/* --- sessions --- */

gboolean
fake_adapter_is_scanning (FakeAdapter *adapter)
{
  return adapter->powered && (adapter->n_sessions > 0 || adapter->monitors->len > 0);
}

void
fake_adapter_scanning_changed (FakeAdapter *adapter, gboolean before)
{
  FakeBluez *bluez = adapter->bluez;
  gboolean scanning = fake_adapter_is_scanning (adapter);

  if (scanning == before)
    return;
  bluez->discovering += scanning ? 1 : -1;
  for (guint i = 0; i < bluez->peers->len; i++)
    fake_peer_update_advert (bluez->peers->pdata[i]);
}

static void
discovering_changed (FakeAdapter *adapter)
{
  FakeBluez *bluez = adapter->bluez;

  for (guint i = 0; i < bluez->peers->len && adapter->n_sessions == 0; i++)
    {
      FakePeer *peer = bluez->peers->pdata[i];
      FakeDevice *device = peer->devices->pdata[adapter->index];

      if (device != NULL)
        fake_device_forget_rssi (device);
    }
  fake_object_changed (adapter->object, "Discovering", NULL);
}

static void
update_sessions (FakeAdapter *adapter)
{
  guint before = adapter->n_sessions;
  gboolean scanned = fake_adapter_is_scanning (adapter);

  adapter->n_sessions = 0;
  adapter->duplicate_data = FALSE;
  adapter->every_rssi = FALSE;
  for (guint i = 0; i < adapter->clients->len; i++)
    {
      FakeClient *client = adapter->clients->pdata[i];

      if (!client->discovering)
        continue;
      adapter->n_sessions++;
      adapter->duplicate_data |= client->duplicate_data;
      adapter->every_rssi |= client->has_filter;
    }
  fake_adapter_scanning_changed (adapter, scanned);
  if ((before > 0) != (adapter->n_sessions > 0))
    discovering_changed (adapter);
}

void
fake_adapter_client_gone (FakeAdapter *adapter, const char *sender)
{
  fake_monitors_client_gone (adapter, sender);
  for (guint i = 0; i < adapter->clients->len; i++)
    {
      FakeClient *client = adapter->clients->pdata[i];

      if (!g_str_equal (client->sender, sender))
        continue;
      g_ptr_array_remove_index (adapter->clients, i);
      update_sessions (adapter);
      return;
    }
}

static void
start_discovery (FakeAdapter *adapter, const char *sender, GDBusMethodInvocation *invocation)
{
  FakeClient *client = get_client (adapter, sender);

  if (!adapter->powered)
    {
      fake_error (invocation, "NotReady", "Resource Not Ready");
      return;
    }
  if (client->discovering)
    {
      fake_error (invocation, "InProgress", "Operation already in progress");
      return;
    }
  client->discovering = TRUE;
  update_sessions (adapter);
  g_dbus_method_invocation_return_value (invocation, NULL);
}

static void
stop_discovery (FakeAdapter *adapter, const char *sender, GDBusMethodInvocation *invocation)
{
  FakeClient *client = get_client (adapter, sender);

  if (!adapter->powered)
    {
      fake_error (invocation, "NotReady", "Resource Not Ready");
      return;
    }
  if (!client->discovering)
    {
      fake_failed (invocation, "No discovery started");
      return;
    }
  client->discovering = FALSE;
  update_sessions (adapter);
  g_dbus_method_invocation_return_value (invocation, NULL);
}

/* --- filter --- */

static const struct
{
  const char *name;
  const char *type;
} filter_keys[] = {
  { "UUIDs", "as" },        { "RSSI", "n" },         { "Pathloss", "q" }, { "Transport", "s" },
  { "DuplicateData", "b" }, { "Discoverable", "b" }, { "Pattern", "s" },
};

static gboolean
is_filter_valid (GVariant *filter)
{
  GVariantIter iter;
  const char *key;
  GVariant *value;

  g_variant_iter_init (&iter, filter);
  while (g_variant_iter_loop (&iter, "{&sv}", &key, &value))
    {
      gsize i = 0;

      while (i < G_N_ELEMENTS (filter_keys) && !g_str_equal (key, filter_keys[i].name))
        i++;
      if (i == G_N_ELEMENTS (filter_keys)
          || !g_variant_is_of_type (value, G_VARIANT_TYPE (filter_keys[i].type)))
        {
          g_variant_unref (value);
          return FALSE;
        }
    }
  return TRUE;
}

static void
set_filter (FakeAdapter *adapter, const char *sender, GVariant *parameters,
            GDBusMethodInvocation *invocation)
{
  g_autoptr (GVariant) filter = g_variant_get_child_value (parameters, 0);
  FakeClient *client = get_client (adapter, sender);
  g_autofree const char **uuids = NULL;
  const char *transport = NULL;

  if (!is_filter_valid (filter))
    {
      fake_error (invocation, "InvalidArguments", "Invalid arguments in method call");
      return;
    }
  client->has_filter = g_variant_n_children (filter) > 0;
  client->has_uuids = g_variant_lookup (filter, "UUIDs", "^a&s", &uuids) && uuids[0] != NULL;
  g_variant_lookup (filter, "Transport", "&s", &transport);
  client->no_le = g_strcmp0 (transport, "bredr") == 0;
  client->min_rssi = G_MININT16;
  g_variant_lookup (filter, "RSSI", "n", &client->min_rssi);
  client->duplicate_data = FALSE;
  g_variant_lookup (filter, "DuplicateData", "b", &client->duplicate_data);
  g_clear_pointer (&client->pattern, g_free);
  g_variant_lookup (filter, "Pattern", "s", &client->pattern);
  update_sessions (adapter);
  g_dbus_method_invocation_return_value (invocation, NULL);
}

static GVariant *
get_filter_names (void)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("as"));
  for (gsize i = 0; i < G_N_ELEMENTS (filter_keys); i++)
    g_variant_builder_add (&builder, "s", filter_keys[i].name);
  return g_variant_builder_end (&builder);
}

/* --- devices --- */

static FakeDevice *
find_device (FakeAdapter *adapter, const char *path)
{
  FakeObject *object = g_hash_table_lookup (adapter->bluez->objects, path);
  FakeDevice *device;

  if (object == NULL || !g_str_equal (object->interface, FAKE_IFACE_DEVICE))
    return NULL;
  device = object->data;
  return device->adapter == adapter ? device : NULL;
}

static void
remove_device (FakeAdapter *adapter, GVariant *parameters, GDBusMethodInvocation *invocation)
{
  const char *path = NULL;
  FakeDevice *device;

  g_variant_get (parameters, "(&o)", &path);
  device = find_device (adapter, path);
  if (device == NULL)
    {
      fake_error (invocation, "DoesNotExist", "Does Not Exist");
      return;
    }
  if (!adapter->powered)
    {
      fake_error (invocation, "NotReady", "Resource Not Ready");
      return;
    }
  if (device->connected)
    {
      device->removing = TRUE;
      fake_device_start_disconnect (device, invocation);
      return;
    }
  fake_device_free (device);
  g_dbus_method_invocation_return_value (invocation, NULL);
}

/* --- the object --- */

static void
on_method_call (GDBusConnection *connection, const char *sender, const char *path,
                const char *interface, const char *method, GVariant *parameters,
                GDBusMethodInvocation *invocation, gpointer user_data)
{
  FakeAdapter *adapter = ((FakeObject *) user_data)->data;

  if (g_str_equal (method, "StartDiscovery"))
    start_discovery (adapter, sender, invocation);
  else if (g_str_equal (method, "StopDiscovery"))
    stop_discovery (adapter, sender, invocation);
  else if (g_str_equal (method, "SetDiscoveryFilter"))
    set_filter (adapter, sender, parameters, invocation);
  else if (g_str_equal (method, "RemoveDevice"))
    remove_device (adapter, parameters, invocation);
  else
    g_dbus_method_invocation_return_value (invocation,
                                           g_variant_new ("(@as)", get_filter_names ()));
}

static GVariant *
get_property (gpointer data, const char *property)
{
  static const char *const roles[] = { "central", "peripheral", NULL };
  FakeAdapter *adapter = data;

  if (g_str_equal (property, "Address"))
    return g_variant_new_string (adapter->address);
  if (g_str_equal (property, "AddressType"))
    return g_variant_new_string ("public");
  if (g_str_equal (property, "Name"))
    return g_variant_new_string ("mitherm-sim");
  if (g_str_equal (property, "Alias"))
    return g_variant_new_string (adapter->alias);
  if (g_str_equal (property, "Powered"))
    return g_variant_new_boolean (adapter->powered);
  if (g_str_equal (property, "Discoverable"))
    return g_variant_new_boolean (adapter->discoverable);
  if (g_str_equal (property, "Discovering"))
    return g_variant_new_boolean (adapter->n_sessions > 0);
  if (g_str_equal (property, "UUIDs"))
    return g_variant_new_strv (NULL, 0);
  if (g_str_equal (property, "Roles"))
    return g_variant_new_strv (roles, -1);
  return NULL;
}

static gboolean
set_property (GDBusConnection *connection, const char *sender, const char *path,
              const char *interface, const char *property, GVariant *value, GError **error,
              gpointer user_data)
{
  FakeAdapter *adapter = ((FakeObject *) user_data)->data;

  if (g_str_equal (property, "Powered"))
    {
      fake_adapter_set_powered (adapter, g_variant_get_boolean (value));
      return TRUE;
    }
  if (g_str_equal (property, "Discoverable"))
    adapter->discoverable = g_variant_get_boolean (value);
  else
    {
      g_free (adapter->alias);
      adapter->alias = g_variant_dup_string (value, NULL);
    }
  fake_object_changed (adapter->object, property, NULL);
  return TRUE;
}

static void
power_off_device (FakeDevice *device)
{
  /* What pending calls get from bluetoothd was not observed; this is its usual text. */
  fake_device_cancel_connect (device, "le-connection-abort-by-local");
  if (device->connected)
    fake_peer_drop_link (device->peer);
}

static void
power_off_devices (FakeAdapter *adapter)
{
  GPtrArray *peers = adapter->bluez->peers;

  for (guint i = 0; i < peers->len; i++)
    {
      FakePeer *peer = peers->pdata[i];

      if (peer->devices->pdata[adapter->index] != NULL)
        power_off_device (peer->devices->pdata[adapter->index]);
    }
}

void
fake_adapter_set_powered (FakeAdapter *adapter, gboolean powered)
{
  gboolean scanned = fake_adapter_is_scanning (adapter);

  if (adapter->powered == powered)
    return;
  adapter->powered = powered;
  fake_adapter_scanning_changed (adapter, scanned);
  if (!powered)
    {
      for (guint i = 0; i < adapter->clients->len; i++)
        ((FakeClient *) adapter->clients->pdata[i])->discovering = FALSE;
      update_sessions (adapter);
      power_off_devices (adapter);
    }
  fake_object_changed (adapter->object, "Powered", NULL);
}

FakeAdapter *
fake_adapter_new (FakeBluez *bluez, guint index)
{
  static const FakeClass klass = {
    .interface = FAKE_IFACE_ADAPTER,
    .get = get_property,
    .vtable = { .method_call = on_method_call,
                .get_property = fake_object_get_property,
                .set_property = set_property },
  };
  FakeAdapter *adapter = g_new0 (FakeAdapter, 1);

  adapter->bluez = bluez;
  adapter->index = index;
  adapter->name = g_strdup_printf ("hci%u", index);
  adapter->path = g_strdup_printf ("/org/bluez/hci%u", index);
  adapter->address = g_strdup_printf ("00:AA:01:%02X:00:%02X", index & 0xff, index & 0xff);
  adapter->alias = g_strdup ("mitherm-sim");
  adapter->powered = TRUE;
  adapter->clients = g_ptr_array_new_with_free_func (client_free);
  fake_monitors_init (adapter);
  adapter->object = fake_object_new (bluez, &klass, adapter->path, adapter, TRUE);
  return adapter;
}

void
fake_adapter_free (FakeAdapter *adapter)
{
  GPtrArray *peers = adapter->bluez->peers;

  if (fake_adapter_is_scanning (adapter))
    adapter->bluez->discovering--;
  adapter->n_sessions = 0;
  g_ptr_array_set_size (adapter->monitors, 0);
  for (guint i = 0; i < peers->len; i++)
    {
      FakePeer *peer = peers->pdata[i];
      FakeDevice *device = peer->devices->pdata[adapter->index];

      if (device == NULL)
        continue;
      power_off_device (device);
      /* Its removal may have waited for the link to drop. */
      device = peer->devices->pdata[adapter->index];
      if (device != NULL)
        fake_device_free (device);
    }
  fake_object_free (adapter->object);
  fake_monitors_clear (adapter);
  g_ptr_array_unref (adapter->clients);
  g_free (adapter->name);
  g_free (adapter->path);
  g_free (adapter->address);
  g_free (adapter->alias);
  g_free (adapter);
}
