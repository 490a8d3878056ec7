/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-fake-private.h"

#define IFACE_PROPERTIES     "org.freedesktop.DBus.Properties"
#define IFACE_OBJECT_MANAGER "org.freedesktop.DBus.ObjectManager"

static const char introspection_xml[]
    = "<node>"
      "<interface name='org.freedesktop.DBus.ObjectManager'>"
      "<method name='GetManagedObjects'>"
      "<arg name='objects' type='a{oa{sa{sv}}}' direction='out'/></method>"
      "<signal name='InterfacesAdded'>"
      "<arg name='object' type='o'/><arg name='interfaces' type='a{sa{sv}}'/></signal>"
      "<signal name='InterfacesRemoved'>"
      "<arg name='object' type='o'/><arg name='interfaces' type='as'/></signal>"
      "</interface>"
      "<interface name='org.bluez.Adapter1'>"
      "<method name='StartDiscovery'/><method name='StopDiscovery'/>"
      "<method name='SetDiscoveryFilter'>"
      "<arg name='properties' type='a{sv}' direction='in'/></method>"
      "<method name='GetDiscoveryFilters'>"
      "<arg name='filters' type='as' direction='out'/></method>"
      "<method name='RemoveDevice'><arg name='device' type='o' direction='in'/></method>"
      "<property name='Address' type='s' access='read'/>"
      "<property name='AddressType' type='s' access='read'/>"
      "<property name='Name' type='s' access='read'/>"
      "<property name='Alias' type='s' access='readwrite'/>"
      "<property name='Powered' type='b' access='readwrite'/>"
      "<property name='Discoverable' type='b' access='readwrite'/>"
      "<property name='Discovering' type='b' access='read'/>"
      "<property name='UUIDs' type='as' access='read'/>"
      "<property name='Roles' type='as' access='read'/>"
      "</interface>"
      "<interface name='org.bluez.AdvertisementMonitorManager1'>"
      "<method name='RegisterMonitor'><arg name='application' type='o' direction='in'/></method>"
      "<method name='UnregisterMonitor'><arg name='application' type='o' direction='in'/></method>"
      "<property name='SupportedMonitorTypes' type='as' access='read'/>"
      "<property name='SupportedFeatures' type='as' access='read'/>"
      "</interface>"
      "<interface name='org.bluez.Device1'>"
      "<method name='Connect'/><method name='Disconnect'/>"
      "<property name='Address' type='s' access='read'/>"
      "<property name='AddressType' type='s' access='read'/>"
      "<property name='Name' type='s' access='read'/>"
      "<property name='Alias' type='s' access='read'/>"
      "<property name='Paired' type='b' access='read'/>"
      "<property name='Bonded' type='b' access='read'/>"
      "<property name='Trusted' type='b' access='readwrite'/>"
      "<property name='Blocked' type='b' access='read'/>"
      "<property name='LegacyPairing' type='b' access='read'/>"
      "<property name='RSSI' type='n' access='read'/>"
      "<property name='Connected' type='b' access='read'/>"
      "<property name='UUIDs' type='as' access='read'/>"
      "<property name='Adapter' type='o' access='read'/>"
      "<property name='ServiceData' type='a{sv}' access='read'/>"
      "<property name='ServicesResolved' type='b' access='read'/>"
      "</interface>"
      "<interface name='org.bluez.GattService1'>"
      "<property name='UUID' type='s' access='read'/>"
      "<property name='Device' type='o' access='read'/>"
      "<property name='Primary' type='b' access='read'/>"
      "<property name='Includes' type='ao' access='read'/>"
      "</interface>"
      "<interface name='org.bluez.GattCharacteristic1'>"
      "<method name='ReadValue'><arg name='options' type='a{sv}' direction='in'/>"
      "<arg name='value' type='ay' direction='out'/></method>"
      "<method name='WriteValue'><arg name='value' type='ay' direction='in'/>"
      "<arg name='options' type='a{sv}' direction='in'/></method>"
      "<method name='AcquireWrite'><arg name='options' type='a{sv}' direction='in'/>"
      "<arg name='fd' type='h' direction='out'/><arg name='mtu' type='q' direction='out'/></method>"
      "<method name='AcquireNotify'><arg name='options' type='a{sv}' direction='in'/>"
      "<arg name='fd' type='h' direction='out'/><arg name='mtu' type='q' direction='out'/></method>"
      "<method name='StartNotify'/><method name='StopNotify'/>"
      "<property name='UUID' type='s' access='read'/>"
      "<property name='Service' type='o' access='read'/>"
      "<property name='Value' type='ay' access='read'/>"
      "<property name='Notifying' type='b' access='read'/>"
      "<property name='Flags' type='as' access='read'/>"
      "<property name='WriteAcquired' type='b' access='read'/>"
      "<property name='NotifyAcquired' type='b' access='read'/>"
      "<property name='MTU' type='q' access='read'/>"
      "</interface>"
      "</node>";

GDBusInterfaceInfo *
fake_object_get_interface (const char *name)
{
  static GDBusNodeInfo *node;
  GDBusInterfaceInfo *info;

  if (node == NULL)
    node = g_dbus_node_info_new_for_xml (introspection_xml, NULL);
  g_return_val_if_fail (node != NULL, NULL);
  info = g_dbus_node_info_lookup_interface (node, name);
  g_return_val_if_fail (info != NULL, NULL);
  return info;
}

void
fake_error (GDBusMethodInvocation *invocation, const char *name, const char *message)
{
  g_autofree char *full
      = strchr (name, '.') != NULL ? g_strdup (name) : g_strconcat ("org.bluez.Error.", name, NULL);

  g_dbus_method_invocation_return_dbus_error (invocation, full, message);
}

void
fake_failed (GDBusMethodInvocation *invocation, const char *message)
{
  fake_error (invocation, "Failed", message);
}

void
fake_att_error (GDBusMethodInvocation *invocation, FakeAttError code)
{
  g_autofree char *text = NULL;

  switch (code)
    {
    case FAKE_ATT_READ_NOT_PERMITTED:
      fake_error (invocation, "NotPermitted", "Read not permitted");
      return;
    case FAKE_ATT_WRITE_NOT_PERMITTED:
      fake_error (invocation, "NotPermitted", "Write not permitted");
      return;
    case FAKE_ATT_REQUEST_NOT_SUPPORTED:
      fake_error (invocation, "NotSupported", "Operation is not supported");
      return;
    case FAKE_ATT_OK:
    case FAKE_ATT_INVALID_HANDLE:
    case FAKE_ATT_UNLIKELY:
    case FAKE_ATT_NO_ANSWER:
    default:
      break;
    }
  text = g_strdup_printf ("Operation failed with ATT error: 0x%02x", (guint) code);
  fake_failed (invocation, text);
}

/* --- paths known to the connection's thread --- */

typedef struct
{
  GMutex mutex;
  GHashTable *paths;
} KnownPaths;

static void
known_paths_clear (gpointer data)
{
  KnownPaths *known = data;

  g_mutex_clear (&known->mutex);
  g_hash_table_unref (known->paths);
}

static void
known_paths_unref (gpointer data)
{
  g_atomic_rc_box_release_full (data, known_paths_clear);
}

static void
set_path_known (FakeBluez *bluez, const char *path, gboolean is_known)
{
  KnownPaths *known = bluez->known_paths;

  g_mutex_lock (&known->mutex);
  if (is_known)
    g_hash_table_add (known->paths, g_strdup (path));
  else
    g_hash_table_remove (known->paths, path);
  g_mutex_unlock (&known->mutex);
}

/* Runs in the connection's own thread. */
static GDBusMessage *
on_message (GDBusConnection *connection, GDBusMessage *message, gboolean incoming,
            gpointer user_data)
{
  KnownPaths *known = user_data;
  const char *path = g_dbus_message_get_path (message);
  g_autoptr (GDBusMessage) reply = NULL;
  gboolean is_known;

  if (!incoming || g_dbus_message_get_message_type (message) != G_DBUS_MESSAGE_TYPE_METHOD_CALL)
    return message;
  g_mutex_lock (&known->mutex);
  is_known = g_hash_table_contains (known->paths, path);
  g_mutex_unlock (&known->mutex);
  if (is_known)
    return message;
  if ((g_dbus_message_get_flags (message) & G_DBUS_MESSAGE_FLAGS_NO_REPLY_EXPECTED) == 0)
    {
      reply = g_dbus_message_new_method_error (
          message, "org.freedesktop.DBus.Error.UnknownObject",
          "Method \"%s\" with signature \"%s\" on interface \"%s\" doesn't exist\n",
          g_dbus_message_get_member (message), g_dbus_message_get_signature (message),
          g_dbus_message_get_interface (message));
      g_dbus_connection_send_message (connection, reply, G_DBUS_SEND_MESSAGE_FLAGS_NONE, NULL,
                                      NULL);
    }
  g_object_unref (message);
  return NULL;
}

guint
fake_object_add_filter (FakeBluez *bluez)
{
  KnownPaths *known = g_atomic_rc_box_new0 (KnownPaths);

  g_mutex_init (&known->mutex);
  known->paths = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  bluez->known_paths = known; /* valid as long as the filter, which owns it */
  set_path_known (bluez, "/", TRUE);
  set_path_known (bluez, "/org", TRUE);
  set_path_known (bluez, "/org/bluez", TRUE);
  return g_dbus_connection_add_filter (bluez->connection, on_message, known, known_paths_unref);
}

/* --- ObjectManager --- */

static GVariant *
get_properties (FakeObject *object)
{
  GDBusPropertyInfo **info = fake_object_get_interface (object->interface)->properties;
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_VARDICT);
  for (; info != NULL && *info != NULL; info++)
    {
      GVariant *value = object->get (object->data, (*info)->name);

      if (value != NULL)
        g_variant_builder_add (&builder, "{sv}", (*info)->name, value);
    }
  return g_variant_builder_end (&builder);
}

static GVariant *
get_interfaces (FakeObject *object)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("a{sa{sv}}"));
  g_variant_builder_add (&builder, "{s@a{sv}}", object->interface, get_properties (object));
  if (g_str_equal (object->interface, FAKE_IFACE_ADAPTER) && object->bluez->options.monitors)
    g_variant_builder_add (&builder, "{s@a{sv}}", FAKE_IFACE_MONITORS, fake_monitors_describe ());
  return g_variant_builder_end (&builder);
}

static void
on_root_call (GDBusConnection *connection, const char *sender, const char *path,
              const char *interface, const char *method, GVariant *parameters,
              GDBusMethodInvocation *invocation, gpointer user_data)
{
  FakeBluez *bluez = user_data;
  GVariantBuilder builder;
  GHashTableIter iter;
  gpointer value;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("a{oa{sa{sv}}}"));
  g_hash_table_iter_init (&iter, bluez->objects);
  while (g_hash_table_iter_next (&iter, NULL, &value))
    {
      FakeObject *object = value;

      g_variant_builder_add (&builder, "{o@a{sa{sv}}}", object->path, get_interfaces (object));
    }
  g_dbus_method_invocation_return_value (invocation, g_variant_new ("(a{oa{sa{sv}}})", &builder));
}

void
fake_object_register_root (FakeBluez *bluez)
{
  static const GDBusInterfaceVTable vtable = { .method_call = on_root_call };
  g_autoptr (GError) error = NULL;

  bluez->root = g_dbus_connection_register_object (bluez->connection, "/",
                                                   fake_object_get_interface (IFACE_OBJECT_MANAGER),
                                                   &vtable, bluez, NULL, &error);
  if (bluez->root == 0)
    g_warning ("object manager: %s", error->message);
}

/* --- objects --- */

static void
emit (FakeBluez *bluez, const char *path, const char *interface, const char *signal,
      GVariant *parameters)
{
  g_autoptr (GVariant) sunk = g_variant_ref_sink (parameters);

  if (bluez->connection != NULL)
    g_dbus_connection_emit_signal (bluez->connection, NULL, path, interface, signal, sunk, NULL);
}

void
fake_object_announce (FakeObject *object)
{
  emit (object->bluez, "/", IFACE_OBJECT_MANAGER, "InterfacesAdded",
        g_variant_new ("(o@a{sa{sv}})", object->path, get_interfaces (object)));
}

FakeObject *
fake_object_new (FakeBluez *bluez, const FakeClass *klass, const char *path, gpointer data,
                 gboolean announce)
{
  FakeObject *object = g_new0 (FakeObject, 1);
  g_autoptr (GError) error = NULL;

  object->bluez = bluez;
  object->path = g_strdup (path);
  object->interface = klass->interface;
  object->get = klass->get;
  object->data = data;
  object->registration
      = g_dbus_connection_register_object (bluez->connection, path,
                                           fake_object_get_interface (klass->interface),
                                           &klass->vtable, object, NULL, &error);
  if (object->registration == 0)
    g_warning ("%s: %s", path, error->message);
  g_hash_table_insert (bluez->objects, object->path, object);
  set_path_known (bluez, path, TRUE);
  if (announce)
    fake_object_announce (object);
  return object;
}

void
fake_object_free (FakeObject *object)
{
  FakeBluez *bluez = object->bluez;
  const char *interfaces[] = { object->interface, NULL };

  g_hash_table_remove (bluez->objects, object->path);
  if (bluez->connection != NULL)
    {
      set_path_known (bluez, object->path, FALSE);
      g_dbus_connection_unregister_object (bluez->connection, object->registration);
      emit (bluez, "/", IFACE_OBJECT_MANAGER, "InterfacesRemoved",
            g_variant_new ("(o^as)", object->path, interfaces));
    }
  g_free (object->path);
  g_free (object);
}

void
fake_object_changed (FakeObject *object, const char *property, ...)
{
  GVariantBuilder changed;
  GVariantBuilder invalidated;
  va_list args;

  g_variant_builder_init (&changed, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_init (&invalidated, G_VARIANT_TYPE_STRING_ARRAY);
  va_start (args, property);
  for (; property != NULL; property = va_arg (args, const char *))
    {
      GVariant *value = object->get (object->data, property);

      if (value != NULL)
        g_variant_builder_add (&changed, "{sv}", property, value);
      else
        g_variant_builder_add (&invalidated, "s", property);
    }
  va_end (args);
  emit (object->bluez, object->path, IFACE_PROPERTIES, "PropertiesChanged",
        g_variant_new ("(sa{sv}as)", object->interface, &changed, &invalidated));
}

GVariant *
fake_object_get_property (GDBusConnection *connection, const char *sender, const char *path,
                          const char *interface, const char *property, GError **error,
                          gpointer user_data)
{
  FakeObject *object = user_data;
  GVariant *value = object->get (object->data, property);

  if (value == NULL)
    {
      g_set_error (error, G_DBUS_ERROR, G_DBUS_ERROR_INVALID_ARGS, "No such property '%s'",
                   property);
      return NULL;
    }
  return value;
}
