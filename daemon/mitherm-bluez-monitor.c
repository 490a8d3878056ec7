/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mi-advert.h"
#include "mitherm-bluez-private.h"

/*
 * Passive scanning: bluetoothd (with its option -E) listens for patterns and says nothing on the
 * air. The monitor is an object of ours, for which bluetoothd asks; each adapter has its own, so
 * that we know which one bluetoothd releases.
 */

#define ROOT_PREFIX     "/org/mitherm/monitor/"
#define MONITOR_NAME    "/thermometers"
#define MONITOR_IFACE   "org.bluez.AdvertisementMonitor1"
#define AD_SERVICE_DATA 0x16
/*
 * Thresholds that every device passes. Without any, bluetoothd calls DeviceFound for each
 * advertisement; with them once, and DeviceLost after a silence. A controller that compares the
 * patterns itself must be told to report every advertisement, and takes no silence beyond 60 s.
 */
#define RSSI_ANY_DBM        (-127)
#define RSSI_FOUND_AFTER_S  1
#define RSSI_LOST_AFTER_S   60
#define RSSI_SAMPLING_EVERY 0

static const char monitor_xml[]
    = "<node><interface name='org.freedesktop.DBus.ObjectManager'>"
      "<method name='GetManagedObjects'>"
      "<arg type='a{oa{sa{sv}}}' name='objects' direction='out'/></method></interface>"
      "<interface name='" MONITOR_IFACE "'>"
      "<method name='Release'/><method name='Activate'/>"
      "<method name='DeviceFound'><arg type='o' name='device' direction='in'/></method>"
      "<method name='DeviceLost'><arg type='o' name='device' direction='in'/></method>"
      "<property name='Type' type='s' access='read'/>"
      "<property name='Patterns' type='a(yyay)' access='read'/>"
      "<property name='RSSIHighThreshold' type='n' access='read'/>"
      "<property name='RSSIHighTimeout' type='q' access='read'/>"
      "<property name='RSSILowThreshold' type='n' access='read'/>"
      "<property name='RSSILowTimeout' type='q' access='read'/>"
      "<property name='RSSISamplingPeriod' type='q' access='read'/>"
      "</interface></node>";

/* Service data of every format, whatever is in it. */
static GVariant *
make_patterns (void)
{
  static const guint16 uuids[]
      = { MI_ADVERT_UUID_MIBEACON, MI_ADVERT_UUID_CUSTOM,  MI_ADVERT_UUID_BTHOME1,
          MI_ADVERT_UUID_BTHOME1E, MI_ADVERT_UUID_BTHOME2, MI_ADVERT_UUID_QINGPING };
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("a(yyay)"));
  for (gsize i = 0; i < G_N_ELEMENTS (uuids); i++)
    {
      guint8 bytes[] = { (guint8) uuids[i], (guint8) (uuids[i] >> 8) };

      g_variant_builder_add (&builder, "(yy@ay)", 0, AD_SERVICE_DATA,
                             g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, bytes, sizeof bytes,
                                                        1));
    }
  return g_variant_builder_end (&builder);
}

/* Returns: (transfer floating): all properties of the monitor, a{sv} */
static GVariant *
make_properties (void)
{
  GVariantDict dict;

  g_variant_dict_init (&dict, NULL);
  g_variant_dict_insert (&dict, "Type", "s", "or_patterns");
  g_variant_dict_insert_value (&dict, "Patterns", make_patterns ());
  g_variant_dict_insert (&dict, "RSSIHighThreshold", "n", (gint16) RSSI_ANY_DBM);
  g_variant_dict_insert (&dict, "RSSIHighTimeout", "q", (guint16) RSSI_FOUND_AFTER_S);
  g_variant_dict_insert (&dict, "RSSILowThreshold", "n", (gint16) RSSI_ANY_DBM);
  g_variant_dict_insert (&dict, "RSSILowTimeout", "q", (guint16) RSSI_LOST_AFTER_S);
  g_variant_dict_insert (&dict, "RSSISamplingPeriod", "q", (guint16) RSSI_SAMPLING_EVERY);
  return g_variant_dict_end (&dict);
}

static GVariant *
get_property (GDBusConnection *bus, const char *sender, const char *path, const char *interface,
              const char *property, GError **error, gpointer user_data)
{
  g_autoptr (GVariant) properties = g_variant_ref_sink (make_properties ());

  return g_variant_lookup_value (properties, property, NULL);
}

static char *
make_path (MithermAdapter *self, const char *name)
{
  return g_strconcat (ROOT_PREFIX, self->name, name, NULL);
}

/* Returns: (transfer floating): a{oa{sa{sv}}} */
static GVariant *
list_objects (MithermAdapter *self)
{
  g_autofree char *path = make_path (self, MONITOR_NAME);
  GVariantBuilder objects;

  g_variant_builder_init (&objects, G_VARIANT_TYPE ("a{oa{sa{sv}}}"));
  g_variant_builder_open (&objects, G_VARIANT_TYPE ("{oa{sa{sv}}}"));
  g_variant_builder_add (&objects, "o", path);
  g_variant_builder_open (&objects, G_VARIANT_TYPE ("a{sa{sv}}"));
  g_variant_builder_add (&objects, "{s@a{sv}}", MONITOR_IFACE, make_properties ());
  g_variant_builder_close (&objects);
  g_variant_builder_close (&objects);
  return g_variant_builder_end (&objects);
}

/* bluetoothd cannot serve it any more: active discovery takes over. */
static void
on_released (MithermAdapter *self)
{
  /* It says so, too, when we no longer want it. */
  if (self->monitor == MITHERM_DISCOVERY_STOPPING)
    return;
  g_debug ("%s: bluetoothd no longer scans passively", self->name);
  self->monitor_offered = FALSE;
  mitherm_discovery_update (self);
}

static void
on_method_call (GDBusConnection *bus, const char *sender, const char *path, const char *interface,
                const char *method, GVariant *parameters, GDBusMethodInvocation *invocation,
                gpointer user_data)
{
  MithermAdapter *self = user_data;

  if (g_strcmp0 (sender, self->bluez->owner) != 0)
    {
      g_dbus_method_invocation_return_error_literal (
          invocation, G_DBUS_ERROR, G_DBUS_ERROR_ACCESS_DENIED, "for bluetoothd only");
      return;
    }
  if (g_str_equal (method, "GetManagedObjects"))
    {
      g_dbus_method_invocation_return_value (invocation, g_variant_new ("(@a{oa{sa{sv}}})",
                                                                        list_objects (self)));
      return;
    }
  g_dbus_method_invocation_return_value (invocation, NULL);
  /* What it finds comes as properties of devices, too. */
  if (g_str_equal (method, "Release"))
    on_released (self);
}

static const GDBusInterfaceVTable vtable
    = { .method_call = on_method_call, .get_property = get_property };

static gboolean
export_monitor (MithermAdapter *self)
{
  g_autoptr (GDBusNodeInfo) info = NULL;
  g_autofree char *root = make_path (self, NULL);
  g_autofree char *monitor = make_path (self, MONITOR_NAME);

  if (self->monitor_ids[1] != 0)
    return TRUE;
  info = g_dbus_node_info_new_for_xml (monitor_xml, NULL);
  self->monitor_ids[0] = g_dbus_connection_register_object (
      self->bluez->bus, root, info->interfaces[0], &vtable, self, NULL, NULL);
  self->monitor_ids[1] = g_dbus_connection_register_object (
      self->bluez->bus, monitor, info->interfaces[1], &vtable, self, NULL, NULL);
  return self->monitor_ids[1] != 0;
}

void
mitherm_monitor_unexport (MithermAdapter *self)
{
  for (gsize i = 0; i < G_N_ELEMENTS (self->monitor_ids); i++)
    {
      if (self->monitor_ids[i] != 0)
        g_dbus_connection_unregister_object (self->bluez->bus, self->monitor_ids[i]);
      self->monitor_ids[i] = 0;
    }
}

static void
call (MithermAdapter *self, const char *method, GAsyncReadyCallback callback)
{
  g_autofree char *root = make_path (self, NULL);

  g_dbus_connection_call (self->bluez->bus, self->bluez->owner, self->path, BLUEZ_MONITOR_IFACE,
                          method, g_variant_new ("(o)", root), NULL,
                          G_DBUS_CALL_FLAGS_NO_AUTO_START, BLUEZ_CALL_LIMIT_MS, self->calls,
                          callback, self);
}

static void
set_monitor (MithermAdapter *self, MithermDiscovery state)
{
  gboolean was_on = self->monitor == MITHERM_DISCOVERY_ON;

  self->monitor = state;
  if (was_on != (state == MITHERM_DISCOVERY_ON))
    mitherm_bluez_changed (self->bluez);
}

static gboolean
is_there_already (const GError *error)
{
  g_autofree char *name = g_dbus_error_get_remote_error (error);

  return g_strcmp0 (name, "org.bluez.Error.AlreadyExists") == 0;
}

static void
on_registered (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  MithermAdapter *self = user_data;

  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  /* From a call whose reply was lost with the adapter's power. */
  if (reply == NULL && is_there_already (error))
    g_clear_error (&error);
  if (error != NULL)
    {
      g_debug ("%s: no passive scanning: %s", self->name, error->message);
      self->monitor_offered = FALSE;
      set_monitor (self, MITHERM_DISCOVERY_OFF);
      mitherm_connect_on_quiet (self);
    }
  else
    set_monitor (self, MITHERM_DISCOVERY_ON);
  mitherm_discovery_update (self);
}

static void
on_unregistered (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  MithermAdapter *self = user_data;

  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  if (reply == NULL)
    g_debug ("%s: ending passive scanning: %s", self->name, error->message);
  set_monitor (self, MITHERM_DISCOVERY_OFF);
  mitherm_connect_on_quiet (self);
  mitherm_discovery_update (self);
}

void
mitherm_monitor_reset (MithermAdapter *self)
{
  /* One that bluetoothd has survives that the adapter is off. */
  if (self->monitor != MITHERM_DISCOVERY_ON)
    self->monitor = MITHERM_DISCOVERY_OFF;
}

void
mitherm_monitor_update (MithermAdapter *self)
{
  /* It takes air time from connections, as discovery does. */
  gboolean wanted = self->monitor_offered && self->bluez->settings.passive
                    && self->bluez->discovery_wanted && !self->quiet && self->links == 0;

  if (self->bluez->owner == NULL)
    return;
  if (wanted && self->powered && self->monitor == MITHERM_DISCOVERY_OFF && export_monitor (self))
    {
      set_monitor (self, MITHERM_DISCOVERY_STARTING);
      call (self, "RegisterMonitor", on_registered);
    }
  else if (!wanted && self->monitor == MITHERM_DISCOVERY_ON)
    {
      set_monitor (self, MITHERM_DISCOVERY_STOPPING);
      call (self, "UnregisterMonitor", on_unregistered);
    }
}
