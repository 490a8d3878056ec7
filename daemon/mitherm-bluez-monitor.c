/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mi-advert.h"
#include "mitherm-bluez-private.h"

/*
 * Passive scanning: bluetoothd (with its option -E) listens for patterns and says nothing on the
 * air. One monitor serves all adapters; it is our object, which bluetoothd asks for.
 */

#define ROOT_PATH       "/org/mitherm/monitor"
#define MONITOR_PATH    ROOT_PATH "/thermometers"
#define MONITOR_IFACE   "org.bluez.AdvertisementMonitor1"
#define AD_SERVICE_DATA 0x16

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

static GVariant *
get_property (GDBusConnection *bus, const char *sender, const char *path, const char *interface,
              const char *property, GError **error, gpointer user_data)
{
  if (g_str_equal (property, "Type"))
    return g_variant_ref_sink (g_variant_new_string ("or_patterns"));
  return g_variant_ref_sink (make_patterns ());
}

static GVariant *
list_objects (void)
{
  GVariantBuilder objects, interfaces, properties;

  g_variant_builder_init (&properties, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (&properties, "{sv}", "Type", g_variant_new_string ("or_patterns"));
  g_variant_builder_add (&properties, "{sv}", "Patterns", make_patterns ());
  g_variant_builder_init (&interfaces, G_VARIANT_TYPE ("a{sa{sv}}"));
  g_variant_builder_add (&interfaces, "{sa{sv}}", MONITOR_IFACE, &properties);
  g_variant_builder_init (&objects, G_VARIANT_TYPE ("a{oa{sa{sv}}}"));
  g_variant_builder_add (&objects, "{oa{sa{sv}}}", MONITOR_PATH, &interfaces);
  return g_variant_builder_end (&objects);
}

/* bluetoothd cannot serve it any more: active discovery takes over. */
static void
on_released (MithermBluez *self)
{
  for (guint i = 0; i < self->adapters->len; i++)
    {
      MithermAdapter *adapter = self->adapters->pdata[i];

      adapter->monitor = MITHERM_DISCOVERY_OFF;
      adapter->monitor_offered = FALSE;
      mitherm_discovery_update (adapter);
    }
}

static void
on_method_call (GDBusConnection *bus, const char *sender, const char *path, const char *interface,
                const char *method, GVariant *parameters, GDBusMethodInvocation *invocation,
                gpointer user_data)
{
  MithermBluez *self = user_data;

  if (g_strcmp0 (sender, self->owner) != 0)
    {
      g_dbus_method_invocation_return_error_literal (
          invocation, G_DBUS_ERROR, G_DBUS_ERROR_ACCESS_DENIED, "for bluetoothd only");
      return;
    }
  if (g_str_equal (method, "GetManagedObjects"))
    {
      g_dbus_method_invocation_return_value (invocation,
                                             g_variant_new ("(@a{oa{sa{sv}}})", list_objects ()));
      return;
    }
  g_dbus_method_invocation_return_value (invocation, NULL);
  /* What it finds comes as properties of devices, too. */
  if (g_str_equal (method, "Release"))
    on_released (self);
}

static const GDBusInterfaceVTable vtable
    = { .method_call = on_method_call, .get_property = get_property };

static gboolean export(MithermBluez *self)
{
  g_autoptr (GDBusNodeInfo) info = NULL;

  if (self->monitor_ids[1] != 0)
    return TRUE;
  info = g_dbus_node_info_new_for_xml (monitor_xml, NULL);
  self->monitor_ids[0] = g_dbus_connection_register_object (
      self->bus, ROOT_PATH, info->interfaces[0], &vtable, self, NULL, NULL);
  self->monitor_ids[1] = g_dbus_connection_register_object (
      self->bus, MONITOR_PATH, info->interfaces[1], &vtable, self, NULL, NULL);
  return self->monitor_ids[1] != 0;
}

void
mitherm_monitor_unexport (MithermBluez *self)
{
  for (gsize i = 0; i < G_N_ELEMENTS (self->monitor_ids); i++)
    {
      if (self->monitor_ids[i] != 0)
        g_dbus_connection_unregister_object (self->bus, self->monitor_ids[i]);
      self->monitor_ids[i] = 0;
    }
}

static void
call (MithermAdapter *self, const char *method, GAsyncReadyCallback callback)
{
  g_dbus_connection_call (self->bluez->bus, self->bluez->owner, self->path, BLUEZ_MONITOR_IFACE,
                          method, g_variant_new ("(o)", ROOT_PATH), NULL,
                          G_DBUS_CALL_FLAGS_NO_AUTO_START, BLUEZ_CALL_LIMIT_MS,
                          callback != NULL ? self->calls : NULL, callback, self);
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
  /* It survives that the adapter was switched off. */
  if (reply == NULL && is_there_already (error))
    g_clear_error (&error);
  self->monitor = error == NULL ? MITHERM_DISCOVERY_ON : MITHERM_DISCOVERY_OFF;
  if (error != NULL)
    {
      g_debug ("%s: no passive scanning: %s", self->name, error->message);
      self->monitor_offered = FALSE;
    }
  mitherm_discovery_update (self);
  mitherm_bluez_changed (self->bluez);
}

void
mitherm_monitor_update (MithermAdapter *self)
{
  gboolean wanted = self->powered && self->monitor_offered && self->bluez->settings.passive
                    && self->bluez->discovery_wanted && self->bluez->owner != NULL;

  if (wanted && self->monitor == MITHERM_DISCOVERY_OFF && export(self->bluez))
    {
      self->monitor = MITHERM_DISCOVERY_STARTING;
      call (self, "RegisterMonitor", on_registered);
    }
  else if (!wanted && self->monitor == MITHERM_DISCOVERY_ON)
    {
      self->monitor = MITHERM_DISCOVERY_OFF;
      if (self->bluez->owner != NULL)
        call (self, "UnregisterMonitor", NULL);
    }
}
