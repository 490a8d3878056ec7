/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-bluez.h"

#include "mitherm-bluez-private.h"
#include "mitherm-error.h"

#include <string.h>

#define BLUEZ_NAME           "org.bluez"
#define OBJECT_MANAGER_IFACE "org.freedesktop.DBus.ObjectManager"
#define PROPERTIES_IFACE     "org.freedesktop.DBus.Properties"
#define OBJECTS_LIMIT_MS     30000
#define OBJECTS_RETRY_S      3
#define SETTLE_LIMIT_MS      10000

static void mitherm_bluez_radio_init (MithermRadioInterface *iface);
static void read_objects (MithermBluez *self);
static void check_settles (MithermBluez *self);

G_DEFINE_FINAL_TYPE_WITH_CODE (MithermBluez, mitherm_bluez, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (MITHERM_TYPE_RADIO, mitherm_bluez_radio_init))

/*
 * No GDBusObjectManagerClient: it keeps a proxy with a copy of every property for each object, and
 * every advertisement would go through two of its signals. A few fields per device are enough.
 */

/* -- Adapters ------------------------------------------------------------------------------- */

void
mitherm_bluez_changed (MithermBluez *self)
{
  if (self->changed != NULL)
    self->changed (MITHERM_RADIO (self), self->user_data);
}

static void
adapter_free (gpointer data)
{
  MithermAdapter *self = data;

  g_clear_handle_id (&self->retry_id, g_source_remove);
  g_clear_handle_id (&self->watch_id, g_source_remove);
  g_clear_handle_id (&self->duty_id, g_source_remove);
  mitherm_monitor_unexport (self);
  g_cancellable_cancel (self->calls);
  g_object_unref (self->calls);
  g_queue_clear (&self->waiting);
  g_free (self->path);
  g_free (self);
}

static MithermAdapter *
find_adapter (MithermBluez *self, const char *path)
{
  for (guint i = 0; i < self->adapters->len; i++)
    {
      MithermAdapter *adapter = self->adapters->pdata[i];

      if (g_str_equal (adapter->path, path))
        return adapter;
    }
  return NULL;
}

/* Ends everything that goes on at @adapter. */
static void
stop_adapter (MithermBluez *self, MithermAdapter *adapter)
{
  g_autoptr (GPtrArray) lost = g_ptr_array_new_with_free_func (g_object_unref);
  GHashTableIter iter;
  gpointer path = NULL, link = NULL;

  adapter->powered = FALSE;
  mitherm_discovery_reset (adapter);
  g_hash_table_iter_init (&iter, self->links);
  while (g_hash_table_iter_next (&iter, &path, &link))
    if (g_str_has_prefix (path, adapter->path) && ((char *) path)[strlen (adapter->path)] == '/')
      g_ptr_array_add (lost, g_object_ref (link));
  for (guint i = 0; i < lost->len; i++)
    mitherm_link_lost (lost->pdata[i], "the adapter was switched off or has gone");
  mitherm_connect_on_adapter_gone (adapter);
}

static void
set_powered (MithermBluez *self, MithermAdapter *adapter, gboolean powered)
{
  if (adapter->powered == powered)
    return;
  g_debug ("%s: power %s", adapter->name, powered ? "on" : "off");
  if (powered)
    {
      adapter->powered = TRUE;
      mitherm_discovery_begin (adapter);
      mitherm_connect_on_adapter_usable (self);
    }
  else
    stop_adapter (self, adapter);
  mitherm_bluez_changed (self);
}

static gboolean
is_allowed (MithermBluez *self, MithermAdapter *adapter)
{
  return self->allowed == NULL
         || g_strv_contains ((const char *const *) self->allowed, adapter->name);
}

static void
update_adapter (MithermBluez *self, MithermAdapter *adapter, GVariant *properties)
{
  gboolean value = FALSE;

  if (g_variant_lookup (properties, "Powered", "b", &value))
    set_powered (self, adapter, value && is_allowed (self, adapter));
  if (g_variant_lookup (properties, "Discovering", "b", &value))
    mitherm_discovery_observe (adapter, value);
}

/* @monitors: it can scan passively for us */
static void
add_adapter (MithermBluez *self, const char *path, GVariant *properties, gboolean monitors)
{
  MithermAdapter *adapter = find_adapter (self, path);

  if (adapter == NULL)
    {
      adapter = g_new0 (MithermAdapter, 1);
      adapter->bluez = self;
      adapter->path = g_strdup (path);
      adapter->name = strrchr (adapter->path, '/') + 1;
      adapter->calls = g_cancellable_new ();
      g_queue_init (&adapter->waiting);
      g_ptr_array_add (self->adapters, adapter);
    }
  adapter->monitor_offered |= monitors;
  update_adapter (self, adapter, properties);
}

static gboolean
is_at_adapter (gpointer path, gpointer peer, gpointer adapter)
{
  return ((MithermPeer *) peer)->adapter == adapter;
}

static void
remove_adapter (MithermBluez *self, const char *path)
{
  MithermAdapter *adapter = find_adapter (self, path);

  if (adapter == NULL)
    return;
  g_debug ("%s: gone", adapter->name);
  stop_adapter (self, adapter);
  g_hash_table_foreach_remove (self->peers, is_at_adapter, adapter);
  g_ptr_array_remove (self->adapters, adapter);
  check_settles (self);
  mitherm_bluez_changed (self);
}

/* -- Devices -------------------------------------------------------------------------------- */

static void
peer_free (gpointer data)
{
  MithermPeer *self = data;

  g_clear_pointer (&self->service_data, g_variant_unref);
  g_free (self->path);
  g_free (self->name);
  g_free (self);
}

MithermPeer *
mitherm_bluez_find_peer (MithermBluez *self, const char *path)
{
  return g_hash_table_lookup (self->peers, path);
}

char *
mitherm_bluez_peer_path (MithermAdapter *adapter, const char *address)
{
  g_autofree char *part = g_ascii_strup (address, -1);

  return g_strconcat (adapter->path, "/dev_", g_strdelimit (part, ":", '_'), NULL);
}

/* The 16-bit number of a UUID on the Bluetooth base, 0 for others. */
static guint16
short_uuid (const char *uuid)
{
  static const char base[] = "-0000-1000-8000-00805f9b34fb";
  guint value = 0;

  if (strlen (uuid) != 36 || strncmp (uuid, "0000", 4) != 0
      || g_ascii_strcasecmp (uuid + 8, base) != 0)
    return 0;
  for (int i = 4; i < 8; i++)
    {
      if (!g_ascii_isxdigit (uuid[i]))
        return 0;
      value = value << 4 | (guint) g_ascii_xdigit_value (uuid[i]);
    }
  return (guint16) value;
}

static gboolean
is_old (GVariant *earlier, const char *uuid, GVariant *value)
{
  g_autoptr (GVariant) old = earlier != NULL ? g_variant_lookup_value (earlier, uuid, NULL) : NULL;

  return old != NULL && g_variant_equal (old, value);
}

static gboolean
has_news (GVariant *earlier, GVariant *service_data)
{
  GVariantIter iter;
  const char *uuid = NULL;
  GVariant *boxed = NULL;
  gboolean news = FALSE;

  g_variant_iter_init (&iter, service_data);
  while (g_variant_iter_loop (&iter, "{&sv}", &uuid, &boxed))
    news |= !is_old (earlier, uuid, boxed);
  return news;
}

/*
 * Passes each service data on by its own. bluetoothd keeps what it heard earlier under other UUIDs:
 * of several entries only those that have changed are what was heard now.
 *
 * @repeated: unchanged data, too, was heard again
 */
static gboolean
advertise_data (MithermBluez *self, MithermPeer *peer, MithermAdvert *advert,
                GVariant *service_data, gboolean repeated)
{
  g_autoptr (GVariant) earlier = g_steal_pointer (&peer->service_data);
  gboolean only_news
      = !repeated || (g_variant_n_children (service_data) > 1 && has_news (earlier, service_data));
  gboolean passed = FALSE;
  GVariantIter iter;
  const char *uuid = NULL;
  GVariant *boxed = NULL;

  peer->service_data = g_variant_ref (service_data);
  g_variant_iter_init (&iter, service_data);
  while (g_variant_iter_loop (&iter, "{&sv}", &uuid, &boxed))
    {
      advert->uuid = short_uuid (uuid);
      if (advert->uuid == 0 || !g_variant_is_of_type (boxed, G_VARIANT_TYPE_BYTESTRING)
          || (only_news && is_old (earlier, uuid, boxed)))
        continue;
      advert->data = g_variant_get_fixed_array (boxed, &advert->len, 1);
      self->advert (MITHERM_RADIO (self), advert, self->user_data);
      passed = TRUE;
    }
  return passed;
}

/* Passes one report on: its service data, or that there was one without. */
static void
advertise (MithermBluez *self, MithermPeer *peer, GVariant *service_data, gboolean repeated)
{
  MithermAdvert advert = { .adapter = peer->adapter->name,
                           .address = peer->address,
                           .random_address = peer->random,
                           .name = peer->name,
                           .rssi = peer->rssi };

  if (self->advert == NULL
      || (service_data != NULL && advertise_data (self, peer, &advert, service_data, repeated)))
    return;
  advert.uuid = 0;
  self->advert (MITHERM_RADIO (self), &advert, self->user_data);
}

static void
set_connected (MithermBluez *self, MithermPeer *peer, gboolean connected)
{
  MithermLink *link = g_hash_table_lookup (self->links, peer->path);

  peer->connected = connected != FALSE;
  if (connected)
    return;
  peer->resolved = FALSE;
  if (link != NULL)
    mitherm_link_lost (link, "the device disconnected");
}

static void
set_name (MithermPeer *peer, const char *name)
{
  if (g_strcmp0 (peer->name, name) == 0)
    return;
  g_free (peer->name);
  peer->name = g_strdup (name);
}

/* One property. Returns: whether it tells of the connection */
static gboolean
update_property (MithermBluez *self, MithermPeer *peer, const char *key, GVariant *value)
{
  gboolean is_bool = g_variant_is_of_type (value, G_VARIANT_TYPE_BOOLEAN);

  if (g_str_equal (key, "Connected") && is_bool)
    set_connected (self, peer, g_variant_get_boolean (value));
  else if (g_str_equal (key, "ServicesResolved") && is_bool)
    peer->resolved = g_variant_get_boolean (value) != FALSE;
  else if (g_str_equal (key, "Paired") && is_bool)
    peer->paired = g_variant_get_boolean (value) != FALSE;
  else if (g_str_equal (key, "Trusted") && is_bool)
    peer->trusted = g_variant_get_boolean (value) != FALSE;
  else if (g_str_equal (key, "Name") && g_variant_is_of_type (value, G_VARIANT_TYPE_STRING))
    set_name (peer, g_variant_get_string (value, NULL));
  else if (g_str_equal (key, "AddressType") && g_variant_is_of_type (value, G_VARIANT_TYPE_STRING))
    peer->random = g_str_equal (g_variant_get_string (value, NULL), "random");
  else if (g_str_equal (key, "RSSI") && g_variant_is_of_type (value, G_VARIANT_TYPE_INT16))
    peer->rssi = g_variant_get_int16 (value);
  return g_str_equal (key, "Connected") || g_str_equal (key, "ServicesResolved");
}

/*
 * @fresh: from a PropertiesChanged signal: service data in it was heard now. Elsewhere it may be
 * old; then an RSSI is what tells that the device is on the air.
 */
void
mitherm_bluez_peer_update (MithermBluez *self, MithermPeer *peer, GVariant *properties,
                           gboolean fresh)
{
  g_autoptr (GVariant) service_data
      = g_variant_lookup_value (properties, "ServiceData", G_VARIANT_TYPE_VARDICT);
  gboolean heard = fresh && service_data != NULL, connection = FALSE;
  GVariantIter iter;
  const char *key = NULL;
  GVariant *value = NULL;

  g_variant_iter_init (&iter, properties);
  while (g_variant_iter_loop (&iter, "{&sv}", &key, &value))
    {
      connection |= update_property (self, peer, key, value);
      heard |= g_str_equal (key, "RSSI");
    }
  if (heard)
    peer->seen_us = g_get_monotonic_time ();
  if (heard || connection)
    mitherm_connect_on_peer (peer, heard);
  if (connection)
    check_settles (self);
  if (heard)
    advertise (self, peer, service_data, fresh);
}

/* The adapter to which the object at @path belongs. */
static MithermAdapter *
adapter_of (MithermBluez *self, const char *path)
{
  g_autofree char *parent = g_path_get_dirname (path);

  return find_adapter (self, parent);
}

static void
add_peer (MithermBluez *self, const char *path, GVariant *properties)
{
  MithermPeer *peer = mitherm_bluez_find_peer (self, path);
  MithermAdapter *adapter = adapter_of (self, path);
  const char *address = NULL;

  if (adapter == NULL || !g_variant_lookup (properties, "Address", "&s", &address)
      || strlen (address) >= sizeof peer->address)
    return;
  if (peer == NULL)
    {
      peer = g_new0 (MithermPeer, 1);
      peer->path = g_strdup (path);
      peer->adapter = adapter;
      peer->id = ++self->next_id;
      peer->rssi = 127;
      g_strlcpy (peer->address, address, sizeof peer->address);
      g_hash_table_insert (self->peers, peer->path, peer);
    }
  mitherm_bluez_peer_update (self, peer, properties, FALSE);
}

static void
remove_peer (MithermBluez *self, const char *path)
{
  MithermPeer *peer = mitherm_bluez_find_peer (self, path);

  if (peer == NULL)
    return;
  set_connected (self, peer, FALSE);
  mitherm_connect_on_peer (peer, FALSE);
  g_hash_table_remove (self->peers, path);
  check_settles (self);
}

/* -- Signals of bluetoothd ------------------------------------------------------------------ */

/* @interfaces: a{sa{sv}} of one object. */
static void
add_object (MithermBluez *self, const char *path, GVariant *interfaces, gboolean adapters,
            gboolean devices)
{
  g_autoptr (GVariant) adapter = NULL;
  g_autoptr (GVariant) device = NULL;
  g_autoptr (GVariant) monitor = NULL;

  if (!g_str_has_prefix (path, "/org/bluez/"))
    return;
  if (adapters)
    adapter = g_variant_lookup_value (interfaces, BLUEZ_ADAPTER_IFACE, G_VARIANT_TYPE_VARDICT);
  if (devices)
    device = g_variant_lookup_value (interfaces, BLUEZ_DEVICE_IFACE, G_VARIANT_TYPE_VARDICT);
  if (adapter != NULL)
    {
      monitor = g_variant_lookup_value (interfaces, BLUEZ_MONITOR_IFACE, G_VARIANT_TYPE_VARDICT);
      add_adapter (self, path, adapter, monitor != NULL);
    }
  if (device != NULL)
    add_peer (self, path, device);
}

static void
on_interfaces_added (GDBusConnection *bus, const char *sender, const char *object_path,
                     const char *interface, const char *signal, GVariant *parameters,
                     gpointer user_data)
{
  g_autoptr (MithermBluez) self = g_object_ref (user_data);
  g_autoptr (GVariant) interfaces = NULL;
  const char *path = NULL;

  if (!g_variant_is_of_type (parameters, G_VARIANT_TYPE ("(oa{sa{sv}})")))
    return;
  g_variant_get (parameters, "(&o@a{sa{sv}})", &path, &interfaces);
  add_object (self, path, interfaces, TRUE, TRUE);
}

static void
on_interfaces_removed (GDBusConnection *bus, const char *sender, const char *object_path,
                       const char *interface, const char *signal, GVariant *parameters,
                       gpointer user_data)
{
  g_autoptr (MithermBluez) self = g_object_ref (user_data);
  g_autofree const char **interfaces = NULL;
  const char *path = NULL;

  if (!g_variant_is_of_type (parameters, G_VARIANT_TYPE ("(oas)")))
    return;
  g_variant_get (parameters, "(&o^a&s)", &path, &interfaces);
  if (g_strv_contains (interfaces, BLUEZ_DEVICE_IFACE))
    remove_peer (self, path);
  if (g_strv_contains (interfaces, BLUEZ_ADAPTER_IFACE))
    remove_adapter (self, path);
}

static void
on_device_changed (GDBusConnection *bus, const char *sender, const char *path,
                   const char *interface, const char *signal, GVariant *parameters,
                   gpointer user_data)
{
  g_autoptr (MithermBluez) self = g_object_ref (user_data);
  g_autoptr (GVariant) changed = NULL;
  MithermPeer *peer = mitherm_bluez_find_peer (self, path);

  if (peer == NULL || !g_variant_is_of_type (parameters, G_VARIANT_TYPE ("(sa{sv}as)")))
    return;
  changed = g_variant_get_child_value (parameters, 1);
  mitherm_bluez_peer_update (self, peer, changed, TRUE);
}

static void
on_adapter_changed (GDBusConnection *bus, const char *sender, const char *path,
                    const char *interface, const char *signal, GVariant *parameters,
                    gpointer user_data)
{
  g_autoptr (MithermBluez) self = g_object_ref (user_data);
  g_autoptr (GVariant) changed = NULL;
  MithermAdapter *adapter = find_adapter (self, path);

  if (adapter == NULL || !g_variant_is_of_type (parameters, G_VARIANT_TYPE ("(sa{sv}as)")))
    return;
  changed = g_variant_get_child_value (parameters, 1);
  update_adapter (self, adapter, changed);
}

static guint
subscribe (MithermBluez *self, const char *interface, const char *signal, const char *arg0,
           GDBusSignalCallback callback)
{
  return g_dbus_connection_signal_subscribe (self->bus, self->owner, interface, signal, NULL, arg0,
                                             G_DBUS_SIGNAL_FLAGS_NONE, callback, self, NULL);
}

/* -- bluetoothd comes and goes -------------------------------------------------------------- */

static gboolean
on_objects_retry (gpointer user_data)
{
  MithermBluez *self = user_data;

  self->retry_id = 0;
  read_objects (self);
  return G_SOURCE_REMOVE;
}

static void
on_objects (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  g_autoptr (GVariant) objects = NULL;
  MithermBluez *self = user_data;

  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  if (reply == NULL)
    {
      g_message ("cannot read the objects of bluetoothd: %s", error->message);
      self->retry_id = g_timeout_add_seconds (OBJECTS_RETRY_S, on_objects_retry, self);
      return;
    }
  objects = g_variant_get_child_value (reply, 0);
  /* Adapters first: a device needs the one that it belongs to. */
  for (int pass = 0; pass < 2; pass++)
    {
      GVariantIter iter;
      const char *path = NULL;
      GVariant *interfaces = NULL;

      g_variant_iter_init (&iter, objects);
      while (g_variant_iter_loop (&iter, "{&o@a{sa{sv}}}", &path, &interfaces))
        add_object (self, path, interfaces, pass == 0, pass == 1);
    }
}

static void
read_objects (MithermBluez *self)
{
  g_dbus_connection_call (self->bus, self->owner, "/", OBJECT_MANAGER_IFACE, "GetManagedObjects",
                          NULL, G_VARIANT_TYPE ("(a{oa{sa{sv}}})"), G_DBUS_CALL_FLAGS_NO_AUTO_START,
                          OBJECTS_LIMIT_MS, self->calls, on_objects, self);
}

static void
on_appeared (GDBusConnection *bus, const char *name, const char *owner, gpointer user_data)
{
  MithermBluez *self = user_data;

  g_debug ("bluetoothd is %s", owner);
  g_free (self->owner);
  /* By its unique name, so that no late message of an earlier bluetoothd is taken for its own. */
  self->owner = g_strdup (owner);
  self->calls = g_cancellable_new ();
  self->subscriptions[0]
      = subscribe (self, OBJECT_MANAGER_IFACE, "InterfacesAdded", NULL, on_interfaces_added);
  self->subscriptions[1]
      = subscribe (self, OBJECT_MANAGER_IFACE, "InterfacesRemoved", NULL, on_interfaces_removed);
  self->subscriptions[2] = subscribe (self, PROPERTIES_IFACE, "PropertiesChanged",
                                      BLUEZ_DEVICE_IFACE, on_device_changed);
  self->subscriptions[3] = subscribe (self, PROPERTIES_IFACE, "PropertiesChanged",
                                      BLUEZ_ADAPTER_IFACE, on_adapter_changed);
  read_objects (self);
}

static void
unsubscribe (MithermBluez *self)
{
  for (gsize i = 0; i < G_N_ELEMENTS (self->subscriptions); i++)
    {
      if (self->subscriptions[i] != 0)
        g_dbus_connection_signal_unsubscribe (self->bus, self->subscriptions[i]);
      self->subscriptions[i] = 0;
    }
  g_clear_handle_id (&self->retry_id, g_source_remove);
  g_cancellable_cancel (self->calls);
  g_clear_object (&self->calls);
}

static void
on_vanished (GDBusConnection *bus, const char *name, gpointer user_data)
{
  MithermBluez *self = user_data;

  if (self->owner == NULL)
    return;
  g_message ("bluetoothd has gone");
  unsubscribe (self);
  while (self->adapters->len > 0)
    {
      MithermAdapter *adapter = self->adapters->pdata[0];

      remove_adapter (self, adapter->path);
    }
  g_clear_pointer (&self->owner, g_free);
  g_hash_table_remove_all (self->peers);
  check_settles (self);
}

/* -- Links ---------------------------------------------------------------------------------- */

typedef struct
{
  MithermBluez *bluez;
  char *adapter_path;
  char *path;
  gboolean dropping;
} LinkWatch;

static void
link_watch_free (LinkWatch *watch)
{
  g_object_unref (watch->bluez);
  g_free (watch->adapter_path);
  g_free (watch->path);
  g_free (watch);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (LinkWatch, link_watch_free)

/* "/org/bluez/hci0/dev_A4_C1_38_00_00_01" -> "A4:C1:38:00:00:01" */
static char *
address_of (const char *path)
{
  return g_strdelimit (g_strdup (strrchr (path, '/') + strlen ("/dev_")), "_", ':');
}

static void
on_link_closed (MithermLink *link, LinkWatch *closed)
{
  g_autoptr (LinkWatch) watch = closed;
  MithermBluez *self = watch->bluez;
  MithermAdapter *adapter = find_adapter (self, watch->adapter_path);

  mitherm_link_set_state_func (link, NULL, NULL);
  if (mitherm_link_is_outdated (link))
    g_hash_table_add (self->stale, address_of (watch->path));
  g_hash_table_remove (self->links, watch->path);
  /* An adapter ends its links before it goes, so this is still the same one. */
  if (adapter != NULL)
    {
      adapter->links--;
      adapter->dropping -= watch->dropping ? 1 : 0;
      mitherm_connect_next (adapter);
      mitherm_discovery_update (adapter);
    }
  check_settles (self);
}

static void
on_link_state (MithermLink *link, MithermLinkState state, gpointer user_data)
{
  LinkWatch *watch = user_data;
  MithermAdapter *adapter = find_adapter (watch->bluez, watch->adapter_path);

  if (state == MITHERM_LINK_CLOSED)
    on_link_closed (link, watch);
  else if (state == MITHERM_LINK_DROPPING && !watch->dropping && adapter != NULL)
    {
      watch->dropping = TRUE;
      adapter->dropping++;
    }
}

MithermLink *
mitherm_bluez_add_link (MithermBluez *self, MithermAdapter *adapter, const char *path,
                        GPtrArray *characteristics)
{
  MithermLink *link = mitherm_link_new (self->bus, self->owner, path, characteristics);
  LinkWatch *watch = g_new0 (LinkWatch, 1);

  watch->bluez = g_object_ref (self);
  watch->adapter_path = g_strdup (adapter->path);
  watch->path = g_strdup (path);
  mitherm_link_set_state_func (link, on_link_state, watch);
  g_hash_table_insert (self->links, watch->path, link);
  adapter->links++;
  return link;
}

/* -- MithermRadio --------------------------------------------------------------------------- */

static void
radio_set_callbacks (MithermRadio *radio, MithermAdvertFunc advert, MithermRadioChangedFunc changed,
                     gpointer user_data)
{
  MithermBluez *self = MITHERM_BLUEZ (radio);

  self->advert = advert;
  self->changed = changed;
  self->user_data = user_data;
}

static char **
radio_dup_adapters (MithermRadio *radio)
{
  MithermBluez *self = MITHERM_BLUEZ (radio);
  g_autoptr (GStrvBuilder) names = g_strv_builder_new ();

  for (guint i = 0; i < self->adapters->len; i++)
    {
      MithermAdapter *adapter = self->adapters->pdata[i];

      if (adapter->powered)
        g_strv_builder_add (names, adapter->name);
    }
  return g_strv_builder_end (names);
}

static gboolean
radio_is_discovering (MithermRadio *radio)
{
  MithermBluez *self = MITHERM_BLUEZ (radio);

  for (guint i = 0; i < self->adapters->len; i++)
    if (mitherm_discovery_is_listening (self->adapters->pdata[i]))
      return TRUE;
  return FALSE;
}

static void
radio_set_discovery (MithermRadio *radio, gboolean on)
{
  MithermBluez *self = MITHERM_BLUEZ (radio);

  self->discovery_wanted = on;
  /*
   * At the end bluetoothd does the rest when our connection closes. To stop and leave at once would
   * leave a filter behind for a moment (see mitherm-bluez-discovery.c).
   */
  if (self->advert == NULL && !on)
    return;
  for (guint i = 0; i < self->adapters->len; i++)
    mitherm_discovery_begin (self->adapters->pdata[i]);
  mitherm_bluez_changed (self);
}

static void
radio_connect_async (MithermRadio *radio, const char *address, const char *adapter,
                     MithermConnectStepFunc step, gpointer step_data, GCancellable *cancellable,
                     GAsyncReadyCallback callback, gpointer user_data)
{
  GTask *task = g_task_new (radio, cancellable, callback, user_data);

  g_task_set_source_tag (task, radio_connect_async);
  /* A link that was made in time is handed over, cancelled or not: else nobody would end it. */
  g_task_set_check_cancellable (task, FALSE);
  mitherm_connect_start (MITHERM_BLUEZ (radio), address, adapter, step, step_data, task);
}

static MiLink *
radio_connect_finish (MithermRadio *radio, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, radio), NULL);

  return g_task_propagate_pointer (G_TASK (result), error);
}

typedef struct
{
  char *address;
  guint timer_id;
} Settle;

static void
settle_free (gpointer data)
{
  Settle *self = data;

  g_clear_handle_id (&self->timer_id, g_source_remove);
  g_free (self->address);
  g_free (self);
}

static gboolean
is_settled (MithermBluez *self, const char *address)
{
  for (guint i = 0; i < self->adapters->len; i++)
    {
      g_autofree char *path = mitherm_bluez_peer_path (self->adapters->pdata[i], address);
      MithermPeer *peer = mitherm_bluez_find_peer (self, path);

      if (g_hash_table_contains (self->links, path) || (peer != NULL && peer->connected))
        return FALSE;
    }
  return TRUE;
}

static void
check_settles (MithermBluez *self)
{
  for (guint i = self->settles->len; i > 0; i--)
    {
      GTask *task = self->settles->pdata[i - 1];
      Settle *settle = g_task_get_task_data (task);

      if (is_settled (self, settle->address))
        {
          g_autoptr (GTask) done = g_object_ref (task);

          g_clear_handle_id (&settle->timer_id, g_source_remove);
          g_ptr_array_remove_index (self->settles, i - 1);
          g_task_return_boolean (done, TRUE);
          /* The callback may have done anything to the list. */
          i = self->settles->len + 1;
        }
    }
}

static gboolean
on_settle_limit (gpointer user_data)
{
  g_autoptr (GTask) task = g_object_ref (user_data);
  MithermBluez *self = g_task_get_source_object (task);
  Settle *settle = g_task_get_task_data (task);

  settle->timer_id = 0;
  g_ptr_array_remove (self->settles, task);
  g_task_return_new_error (task, MITHERM_ERROR, MITHERM_ERROR_TIMEOUT,
                           "%s is still connected after %d s", settle->address,
                           SETTLE_LIMIT_MS / 1000);
  return G_SOURCE_REMOVE;
}

static void
radio_settle_async (MithermRadio *radio, const char *address, GCancellable *cancellable,
                    GAsyncReadyCallback callback, gpointer user_data)
{
  MithermBluez *self = MITHERM_BLUEZ (radio);
  GTask *task = g_task_new (self, cancellable, callback, user_data);
  Settle *settle = g_new0 (Settle, 1);

  g_task_set_source_tag (task, radio_settle_async);
  settle->address = g_strdup (address);
  g_task_set_task_data (task, settle, settle_free);
  settle->timer_id = g_timeout_add (SETTLE_LIMIT_MS, on_settle_limit, task);
  g_ptr_array_add (self->settles, task);
  check_settles (self);
}

static gboolean
radio_settle_finish (MithermRadio *radio, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, radio), FALSE);

  return g_task_propagate_boolean (G_TASK (result), error);
}

typedef struct
{
  GTask *task;
  char *path;
  guint id;
} Forget;

static void
forget_free (Forget *forget)
{
  g_object_unref (forget->task);
  g_free (forget->path);
  g_free (forget);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Forget, forget_free)

/* The task is done when the last call has let go of it. */
static void
on_removed (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (Forget) forget = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  MithermBluez *self = g_task_get_source_object (forget->task);
  guint *left = g_task_get_task_data (forget->task);
  MithermPeer *peer = mitherm_bluez_find_peer (self, forget->path);

  if (reply == NULL)
    g_debug ("%s: removing: %s", forget->path, error->message);
  /* Its signal may come after the reply, but a connect must not meet the old object. */
  else if (peer != NULL && peer->id == forget->id)
    remove_peer (self, forget->path);
  if (--*left == 0)
    g_task_return_boolean (forget->task, TRUE);
}

static void
call_remove (MithermBluez *self, MithermPeer *peer, GTask *task)
{
  Forget *forget = g_new0 (Forget, 1);
  guint *left = g_task_get_task_data (task);

  forget->task = g_object_ref (task);
  forget->path = g_strdup (peer->path);
  forget->id = peer->id;
  ++*left;
  g_dbus_connection_call (self->bus, self->owner, peer->adapter->path, BLUEZ_ADAPTER_IFACE,
                          "RemoveDevice", g_variant_new ("(o)", peer->path), NULL,
                          G_DBUS_CALL_FLAGS_NO_AUTO_START, BLUEZ_CALL_LIMIT_MS, NULL, on_removed,
                          forget);
}

static void
radio_forget_async (MithermRadio *radio, const char *address, GCancellable *cancellable,
                    GAsyncReadyCallback callback, gpointer user_data)
{
  MithermBluez *self = MITHERM_BLUEZ (radio);
  g_autoptr (GTask) task = g_task_new (self, cancellable, callback, user_data);
  guint *left = g_new0 (guint, 1);
  gboolean known = FALSE;

  g_task_set_source_tag (task, radio_forget_async);
  g_task_set_task_data (task, left, g_free);
  for (guint i = 0; i < self->adapters->len; i++)
    {
      g_autofree char *path = mitherm_bluez_peer_path (self->adapters->pdata[i], address);
      MithermPeer *peer = mitherm_bluez_find_peer (self, path);

      if (peer == NULL)
        continue;
      known = TRUE;
      /* Those belong to the user. */
      if (!peer->paired && !peer->trusted)
        call_remove (self, peer, task);
    }
  /* The cache outlives the object: then it has to go when the device is back. */
  if (!known)
    g_hash_table_add (self->stale, g_ascii_strup (address, -1));
  if (*left == 0)
    g_task_return_boolean (task, TRUE);
}

static gboolean
radio_forget_finish (MithermRadio *radio, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, radio), FALSE);

  return g_task_propagate_boolean (G_TASK (result), error);
}

static void
mitherm_bluez_radio_init (MithermRadioInterface *iface)
{
  iface->set_callbacks = radio_set_callbacks;
  iface->dup_adapters = radio_dup_adapters;
  iface->is_discovering = radio_is_discovering;
  iface->set_discovery = radio_set_discovery;
  iface->connect_async = radio_connect_async;
  iface->connect_finish = radio_connect_finish;
  iface->settle_async = radio_settle_async;
  iface->settle_finish = radio_settle_finish;
  iface->forget_async = radio_forget_async;
  iface->forget_finish = radio_forget_finish;
}

/* -- The object ----------------------------------------------------------------------------- */

MithermRadio *
mitherm_bluez_new (GDBusConnection *connection)
{
  MithermBluez *self = NULL;

  g_return_val_if_fail (G_IS_DBUS_CONNECTION (connection), NULL);

  self = g_object_new (MITHERM_TYPE_BLUEZ, NULL);
  self->bus = g_object_ref (connection);
  self->name_watch = g_bus_watch_name_on_connection (
      connection, BLUEZ_NAME, G_BUS_NAME_WATCHER_FLAGS_NONE, on_appeared, on_vanished, self, NULL);
  return MITHERM_RADIO (self);
}

void
mitherm_bluez_set_adapters (MithermBluez *self, const char *const *names)
{
  g_return_if_fail (MITHERM_IS_BLUEZ (self));

  g_clear_pointer (&self->allowed, g_strfreev);
  if (names != NULL && names[0] != NULL)
    self->allowed = g_strdupv ((char **) names);
}

void
mitherm_bluez_set_discovery (MithermBluez *self, const MithermDiscoverySettings *settings)
{
  g_return_if_fail (MITHERM_IS_BLUEZ (self));

  self->settings = *settings;
}

static void
mitherm_bluez_dispose (GObject *object)
{
  MithermBluez *self = MITHERM_BLUEZ (object);

  self->advert = NULL;
  self->changed = NULL;
  if (self->name_watch != 0)
    g_bus_unwatch_name (self->name_watch);
  self->name_watch = 0;
  if (self->bus != NULL)
    unsubscribe (self);
  g_ptr_array_set_size (self->adapters, 0);
  G_OBJECT_CLASS (mitherm_bluez_parent_class)->dispose (object);
}

static void
mitherm_bluez_finalize (GObject *object)
{
  MithermBluez *self = MITHERM_BLUEZ (object);

  g_hash_table_unref (self->peers);
  g_hash_table_unref (self->links);
  g_hash_table_unref (self->stale);
  g_ptr_array_unref (self->adapters);
  g_ptr_array_unref (self->connects);
  g_ptr_array_unref (self->settles);
  g_clear_object (&self->bus);
  g_strfreev (self->allowed);
  g_free (self->owner);
  G_OBJECT_CLASS (mitherm_bluez_parent_class)->finalize (object);
}

static void
mitherm_bluez_class_init (MithermBluezClass *klass)
{
  G_OBJECT_CLASS (klass)->dispose = mitherm_bluez_dispose;
  G_OBJECT_CLASS (klass)->finalize = mitherm_bluez_finalize;
}

static void
mitherm_bluez_init (MithermBluez *self)
{
  self->settings = (MithermDiscoverySettings) MITHERM_DISCOVERY_SETTINGS_INIT;
  self->adapters = g_ptr_array_new_with_free_func (adapter_free);
  self->peers = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, peer_free);
  self->links = g_hash_table_new (g_str_hash, g_str_equal);
  self->stale = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  self->connects = g_ptr_array_new_with_free_func ((GDestroyNotify) mitherm_connect_unref);
  self->settles = g_ptr_array_new_with_free_func (g_object_unref);
}
