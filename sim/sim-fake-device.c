/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-fake-private.h"

#include <string.h>

/* How long bluetoothd keeps a device that it neither hears nor is connected to. */
#define TEMPORARY_MS (30 * 1000)
/* How long Connect() waits for an advertisement. */
#define CONNECT_MS (40 * 1000)
/* Without a filter, smaller changes of RSSI are not signalled. */
#define RSSI_THRESHOLD 8

char *
fake_device_dup_path (FakeAdapter *adapter, FakePeer *peer)
{
  g_autofree char *address = g_strdelimit (g_strdup (peer->address), ":", '_');

  return g_strconcat (adapter->path, "/dev_", address, NULL);
}

/* --- properties --- */

static GVariant *
get_service_data (FakeDevice *device)
{
  GVariantBuilder builder;
  GHashTableIter iter;
  gpointer key;
  gpointer value;

  if (g_hash_table_size (device->service_data) == 0)
    return NULL;
  g_variant_builder_init (&builder, G_VARIANT_TYPE_VARDICT);
  g_hash_table_iter_init (&iter, device->service_data);
  while (g_hash_table_iter_next (&iter, &key, &value))
    g_variant_builder_add (&builder, "{sv}", key,
                           g_variant_new_from_bytes (G_VARIANT_TYPE_BYTESTRING, value, TRUE));
  return g_variant_builder_end (&builder);
}

static GVariant *
get_uuids (FakeDevice *device)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_STRING_ARRAY);
  for (guint i = 0; device->services != NULL && i < device->services->len; i++)
    g_variant_builder_add (&builder, "s", ((FakeService *) device->services->pdata[i])->uuid);
  return g_variant_builder_end (&builder);
}

static GVariant *
get_alias (FakeDevice *device)
{
  if (device->name != NULL)
    return g_variant_new_string (device->name);
  return g_variant_new_take_string (g_strdelimit (g_strdup (device->peer->address), ":", '-'));
}

static GVariant *
get_property (gpointer data, const char *property)
{
  FakeDevice *device = data;

  if (g_str_equal (property, "Address"))
    return g_variant_new_string (device->peer->address);
  if (g_str_equal (property, "AddressType"))
    return g_variant_new_string ("public");
  if (g_str_equal (property, "Name"))
    return device->name != NULL ? g_variant_new_string (device->name) : NULL;
  if (g_str_equal (property, "Alias"))
    return get_alias (device);
  if (g_str_equal (property, "RSSI"))
    return device->has_rssi ? g_variant_new_int16 (device->rssi) : NULL;
  if (g_str_equal (property, "Connected"))
    return g_variant_new_boolean (device->connected);
  if (g_str_equal (property, "ServicesResolved"))
    return g_variant_new_boolean (device->resolved);
  if (g_str_equal (property, "Trusted"))
    return g_variant_new_boolean (device->trusted);
  if (g_str_equal (property, "UUIDs"))
    return get_uuids (device);
  if (g_str_equal (property, "Adapter"))
    return g_variant_new_object_path (device->adapter->path);
  if (g_str_equal (property, "ServiceData"))
    return get_service_data (device);
  return g_variant_new_boolean (FALSE); /* Paired, Bonded, Blocked, LegacyPairing */
}

static gboolean
set_property (GDBusConnection *connection, const char *sender, const char *path,
              const char *interface, const char *property, GVariant *value, GError **error,
              gpointer user_data)
{
  FakeDevice *device = ((FakeObject *) user_data)->data;

  device->trusted = g_variant_get_boolean (value); /* the only writable one */
  fake_object_changed (device->object, property, NULL);
  return TRUE;
}

/* --- advertisements --- */

/* Returns: whether the data of this UUID changed */
static gboolean
take_service_data (FakeDevice *device, const SimAdvert *advert)
{
  g_autofree char *uuid = NULL;
  g_autoptr (GBytes) data = NULL;
  GBytes *old;

  if (advert->uuid == 0)
    return FALSE;
  uuid = g_strdup_printf ("%08x-0000-1000-8000-00805f9b34fb", advert->uuid);
  old = g_hash_table_lookup (device->service_data, uuid);
  if (old != NULL && g_bytes_get_size (old) == advert->len
      && memcmp (g_bytes_get_data (old, NULL), advert->data, advert->len) == 0)
    return FALSE;
  data = g_bytes_new (advert->data, advert->len);
  g_hash_table_replace (device->service_data, g_steal_pointer (&uuid), g_steal_pointer (&data));
  return TRUE;
}

/* The further an adapter, the weaker it hears. */
static gint16
get_rssi (FakeDevice *device, const SimAdvert *advert)
{
  return (gint16) MAX (advert->rssi - 7 * (gint) device->adapter->index, -127);
}

void
fake_device_heard (FakeDevice *device, const SimAdvert *advert)
{
  FakeAdapter *adapter = device->adapter;
  gint16 rssi = get_rssi (device, advert);
  gboolean data_changed = take_service_data (device, advert) || adapter->duplicate_data;
  gboolean rssi_changed
      = adapter->every_rssi || !device->has_rssi || ABS (rssi - device->rssi) >= RSSI_THRESHOLD;

  device->last_seen_ms = sim_now_ms ();
  if (rssi_changed)
    {
      device->rssi = rssi;
      device->has_rssi = TRUE;
    }
  if (advert->name != NULL && g_strcmp0 (advert->name, device->name) != 0)
    {
      g_free (device->name);
      device->name = g_strdup (advert->name);
      fake_object_changed (device->object, "Name", "Alias", NULL);
    }
  if (data_changed && rssi_changed)
    fake_object_changed (device->object, "RSSI", "ServiceData", NULL);
  else if (data_changed)
    fake_object_changed (device->object, "ServiceData", NULL);
  else if (rssi_changed)
    fake_object_changed (device->object, "RSSI", NULL);
}

void
fake_device_forget_rssi (FakeDevice *device)
{
  if (!device->has_rssi)
    return;
  device->has_rssi = FALSE;
  fake_object_changed (device->object, "RSSI", NULL);
}

static void
on_expired (gpointer user_data)
{
  FakeDevice *device = user_data;
  gint64 due = device->last_seen_ms + TEMPORARY_MS;

  if (device->connected || device->connecting != NULL || device->trusted)
    due = sim_now_ms () + TEMPORARY_MS;
  if (due > sim_now_ms ())
    sim_timer_start (device->adapter->bluez->schedule, &device->expire_timer, due);
  else
    fake_device_free (device);
}

/* --- connecting --- */

static void
end_connect_wait (FakeDevice *device)
{
  sim_timer_stop (device->adapter->bluez->schedule, &device->connect_timer);
  device->peer->n_connecting--;
  fake_peer_update_advert (device->peer);
}

void
fake_device_cancel_connect (FakeDevice *device, const char *message)
{
  GDBusMethodInvocation *invocation = g_steal_pointer (&device->connecting);

  if (invocation == NULL)
    return;
  end_connect_wait (device);
  fake_failed (invocation, message);
}

static void
on_connect_timeout (gpointer user_data)
{
  FakeDevice *device = user_data;

  device->last_seen_ms = sim_now_ms ();
  fake_device_cancel_connect (device, "le-connection-abort-by-local");
}

static void
on_resolved (gpointer user_data)
{
  FakeDevice *device = user_data;

  if (device->services == NULL)
    {
      fake_gatt_discover (device);
      fake_object_changed (device->object, "UUIDs", NULL);
    }
  device->resolved = TRUE;
  fake_gatt_connected (device);
  fake_object_changed (device->object, "ServicesResolved", NULL);
}

void
fake_device_try_connect (FakeDevice *device)
{
  FakeBluez *bluez = device->adapter->bluez;
  GDBusMethodInvocation *invocation;
  gint64 resolve_ms;

  if (device->connecting == NULL || !fake_peer_connect (device->peer, device))
    return;
  invocation = g_steal_pointer (&device->connecting);
  device->connected = TRUE;
  end_connect_wait (device);
  if (!bluez->mischief.silent_connected)
    fake_object_changed (device->object, "Connected", NULL);
  g_dbus_method_invocation_return_value (invocation, NULL);
  resolve_ms = fake_link_resolve_ms (device->peer->link, device->services != NULL);
  sim_timer_start (bluez->schedule, &device->resolve_timer, sim_now_ms () + resolve_ms);
  fake_peer_pump (device->peer);
}

static gboolean
fail_on_purpose (FakeBluez *bluez, GDBusMethodInvocation *invocation)
{
  FakeMischief *mischief = &bluez->mischief;

  if (mischief->fail_connects == 0)
    return FALSE;
  mischief->fail_connects--;
  fake_error (invocation, mischief->fail_name, mischief->fail_message);
  return TRUE;
}

static void
connect_device (FakeDevice *device, GDBusMethodInvocation *invocation)
{
  FakeBluez *bluez = device->adapter->bluez;

  if (!device->adapter->powered)
    fake_failed (invocation, "Input/output error");
  else if (device->connected) /* also when it is about to be disconnected */
    g_dbus_method_invocation_return_value (invocation, NULL);
  else if (device->connecting != NULL)
    fake_failed (invocation, "Operation already in progress");
  else if (!fail_on_purpose (bluez, invocation))
    {
      device->connecting = invocation;
      device->peer->n_connecting++;
      sim_timer_start (bluez->schedule, &device->connect_timer, sim_now_ms () + CONNECT_MS);
      fake_peer_update_advert (device->peer);
    }
}

/* --- disconnecting --- */

static void
on_disconnect (gpointer user_data)
{
  FakeDevice *device = user_data;

  fake_peer_drop_link (device->peer);
}

void
fake_device_start_disconnect (FakeDevice *device, GDBusMethodInvocation *invocation)
{
  FakeBluez *bluez = device->adapter->bluez;

  fake_device_cancel_connect (device, "br-connection-canceled");
  if (!device->connected)
    {
      g_dbus_method_invocation_return_value (invocation, NULL);
      return;
    }
  g_ptr_array_add (device->disconnecting, invocation);
  if (!sim_timer_is_running (&device->disconnect_timer))
    sim_timer_start (bluez->schedule, &device->disconnect_timer,
                     sim_now_ms () + bluez->options.disconnect_delay_ms);
}

void
fake_device_link_down (FakeDevice *device)
{
  FakeBluez *bluez = device->adapter->bluez;

  device->connected = FALSE;
  device->last_seen_ms = sim_now_ms ();
  sim_timer_stop (bluez->schedule, &device->resolve_timer);
  sim_timer_stop (bluez->schedule, &device->disconnect_timer);
  if (device->resolved)
    {
      device->resolved = FALSE;
      fake_object_changed (device->object, "ServicesResolved", NULL);
    }
  fake_object_changed (device->object, "Connected", NULL);
  fake_gatt_disconnected (device);
  for (guint i = 0; i < device->disconnecting->len; i++)
    g_dbus_method_invocation_return_value (device->disconnecting->pdata[i], NULL);
  g_ptr_array_set_size (device->disconnecting, 0);
  if (device->removing)
    fake_device_free (device);
}

void
fake_device_client_gone (FakeDevice *device, const char *sender)
{
  if (device->services != NULL)
    fake_gatt_client_gone (device, sender);
}

/* --- the object --- */

static void
on_method_call (GDBusConnection *connection, const char *sender, const char *path,
                const char *interface, const char *method, GVariant *parameters,
                GDBusMethodInvocation *invocation, gpointer user_data)
{
  FakeDevice *device = ((FakeObject *) user_data)->data;

  if (g_str_equal (method, "Connect"))
    connect_device (device, invocation);
  else
    fake_device_start_disconnect (device, invocation);
}

FakeDevice *
fake_device_new (FakeAdapter *adapter, FakePeer *peer, const SimAdvert *advert)
{
  static const FakeClass klass = {
    .interface = FAKE_IFACE_DEVICE,
    .get = get_property,
    .vtable = { .method_call = on_method_call,
                .get_property = fake_object_get_property,
                .set_property = set_property },
  };
  g_autofree char *path = fake_device_dup_path (adapter, peer);
  FakeDevice *device = g_new0 (FakeDevice, 1);

  device->adapter = adapter;
  device->peer = peer;
  device->name = g_strdup (advert->name);
  device->rssi = get_rssi (device, advert);
  device->has_rssi = TRUE;
  device->service_data
      = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, (GDestroyNotify) g_bytes_unref);
  take_service_data (device, advert);
  device->disconnecting = g_ptr_array_new ();
  device->last_seen_ms = sim_now_ms ();
  sim_timer_init (&device->connect_timer, on_connect_timeout, device);
  sim_timer_init (&device->disconnect_timer, on_disconnect, device);
  sim_timer_init (&device->resolve_timer, on_resolved, device);
  sim_timer_init (&device->expire_timer, on_expired, device);
  sim_timer_start (adapter->bluez->schedule, &device->expire_timer,
                   device->last_seen_ms + TEMPORARY_MS);
  device->object = fake_object_new (adapter->bluez, &klass, path, device, TRUE);
  peer->devices->pdata[adapter->index] = device;
  return device;
}

void
fake_device_free (FakeDevice *device)
{
  SimSchedule *schedule = device->adapter->bluez->schedule;

  g_return_if_fail (!device->connected);
  fake_device_cancel_connect (device, "br-connection-canceled");
  device->peer->devices->pdata[device->adapter->index] = NULL;
  sim_timer_stop (schedule, &device->expire_timer);
  sim_timer_stop (schedule, &device->resolve_timer);
  sim_timer_stop (schedule, &device->disconnect_timer);
  g_clear_pointer (&device->services, g_ptr_array_unref);
  fake_object_free (device->object);
  g_ptr_array_unref (device->disconnecting);
  g_hash_table_unref (device->service_data);
  g_free (device->name);
  g_free (device);
}
