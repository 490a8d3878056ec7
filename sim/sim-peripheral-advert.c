/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-peripheral-private.h"

#include <string.h>

#define IFACE_ADVERT  "org.bluez.LEAdvertisement1"
#define IFACE_MANAGER "org.bluez.LEAdvertisingManager1"
#define ADVERT_PATH   "/org/mitherm/sim/advertisement"
/*
 * A virtual controller reports an advertisement once, when it starts: it is taken back and
 * registered again at this pace, faster than bluetoothd restarts its scans. A changed property
 * would do, too, but bluetoothd 5.66 takes it up without an answer, and crashes when the kernel
 * refuses it as busy or the advertisement has gone meanwhile.
 */
#define RENEW_MS 1000
/* The kernel is busy for a moment after an advertisement was taken back. */
#define RETRY_MS 250
/* How long the end of the program waits for the answer to a registration. */
#define SETTLE_MS 2000

static const char introspection_xml[] = "<node><interface name='org.bluez.LEAdvertisement1'>"
                                        "<method name='Release'/>"
                                        "<property name='Type' type='s' access='read'/>"
                                        "<property name='LocalName' type='s' access='read'/>"
                                        "<property name='ServiceData' type='a{sv}' access='read'/>"
                                        "<property name='Discoverable' type='b' access='read'/>"
                                        "</interface></node>";

static GVariant *
get_service_data (Peripheral *self)
{
  g_autofree char *uuid = g_strdup_printf ("%04x", self->uuid);
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_VARDICT);
  if (self->uuid != 0)
    g_variant_builder_add (&builder, "{sv}", uuid,
                           g_variant_new_from_bytes (G_VARIANT_TYPE_BYTESTRING, self->data, TRUE));
  return g_variant_builder_end (&builder);
}

static GVariant *
get_property (GDBusConnection *connection, const char *sender, const char *path,
              const char *interface, const char *property, GError **error, gpointer user_data)
{
  Peripheral *self = user_data;

  if (g_str_equal (property, "Type"))
    return g_variant_new_string ("peripheral");
  if (g_str_equal (property, "LocalName") && self->name != NULL)
    return g_variant_new_string (self->name);
  if (g_str_equal (property, "ServiceData"))
    return get_service_data (self);
  if (g_str_equal (property, "Discoverable"))
    return g_variant_new_boolean (TRUE); /* the flags 06 */
  g_set_error (error, G_DBUS_ERROR, G_DBUS_ERROR_INVALID_ARGS, "No such property '%s'", property);
  return NULL;
}

static void
on_method_call (GDBusConnection *connection, const char *sender, const char *path,
                const char *interface, const char *method, GVariant *parameters,
                GDBusMethodInvocation *invocation, gpointer user_data)
{
  Peripheral *self = user_data;

  self->advert_state = PERIPHERAL_OFF; /* Release: bluetoothd has dropped it */
  g_dbus_method_invocation_return_value (invocation, NULL);
}

gboolean
peripheral_advert_init (Peripheral *self, GError **error)
{
  static const GDBusInterfaceVTable vtable
      = { .method_call = on_method_call, .get_property = get_property };
  g_autoptr (GDBusNodeInfo) node = g_dbus_node_info_new_for_xml (introspection_xml, error);

  if (node == NULL)
    return FALSE;
  self->advert_object
      = g_dbus_connection_register_object (self->connection, ADVERT_PATH,
                                           g_dbus_node_info_lookup_interface (node, IFACE_ADVERT),
                                           &vtable, self, NULL, error);
  return self->advert_object != 0;
}

/* The name as GAP service has it after connecting; bluetoothd takes it from the adapter. */
static void
set_alias (Peripheral *self)
{
  g_dbus_connection_call (
      self->connection, BLUEZ_NAME, self->adapter_path, "org.freedesktop.DBus.Properties", "Set",
      g_variant_new ("(ssv)", "org.bluez.Adapter1", "Alias", g_variant_new_string (self->name)),
      NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, NULL, NULL);
}

static void
take_content (Peripheral *self, const SimAdvert *advert)
{
  g_clear_pointer (&self->data, g_bytes_unref);
  self->uuid = advert->uuid;
  self->data = g_bytes_new (advert->data, advert->len);
  if (advert->name == NULL || g_strcmp0 (advert->name, self->name) == 0)
    return;
  g_free (self->name);
  self->name = g_strdup (advert->name);
  set_alias (self);
}

static void
on_registered (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Peripheral *self = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);

  if (reply == NULL)
    {
      self->advert_state = PERIPHERAL_OFF;
      /* Busy, or the adapter is off. */
      g_debug ("advertisement: %s", error->message);
      sim_timer_start (self->schedule, &self->renew_timer, sim_now_ms () + RETRY_MS);
      return;
    }
  self->advert_state = PERIPHERAL_ON;
  self->renew_at_ms = sim_now_ms () + RENEW_MS;
  peripheral_advertises (self);
  peripheral_advert_update (self);
}

static void
on_unregistered (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Peripheral *self = user_data;
  GVariant *reply = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, NULL);

  /* An error says that it was not registered any more: as wanted. */
  g_clear_pointer (&reply, g_variant_unref);
  self->advert_state = PERIPHERAL_OFF;
  peripheral_advert_update (self);
}

static void
start (Peripheral *self)
{
  self->advert_state = PERIPHERAL_REGISTERING;
  g_dbus_connection_call (self->connection, BLUEZ_NAME, self->adapter_path, IFACE_MANAGER,
                          "RegisterAdvertisement", g_variant_new ("(oa{sv})", ADVERT_PATH, NULL),
                          NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, on_registered, self);
}

static void
stop (Peripheral *self)
{
  self->advert_state = PERIPHERAL_UNREGISTERING;
  g_dbus_connection_call (self->connection, BLUEZ_NAME, self->adapter_path, IFACE_MANAGER,
                          "UnregisterAdvertisement", g_variant_new ("(o)", ADVERT_PATH), NULL,
                          G_DBUS_CALL_FLAGS_NONE, -1, NULL, on_unregistered, self);
}

void
peripheral_advert_update (Peripheral *self)
{
  SimAdvert advert;
  gboolean is_wanted = peripheral_may_advertise (self)
                       && sim_device_get_advert (self->sim, sim_now_ms (), &advert);

  if (is_wanted)
    take_content (self, &advert);
  switch (self->advert_state)
    {
    case PERIPHERAL_OFF:
      sim_timer_stop (self->schedule, &self->renew_timer);
      if (is_wanted)
        start (self);
      break;
    case PERIPHERAL_ON:
      if (is_wanted && sim_now_ms () < self->renew_at_ms)
        sim_timer_start (self->schedule, &self->renew_timer, self->renew_at_ms);
      else
        stop (self);
      break;
    case PERIPHERAL_REGISTERING:
    case PERIPHERAL_UNREGISTERING:
      break; /* the answer comes back here */
    default:
      g_return_if_reached ();
    }
}

void
peripheral_advert_settle (Peripheral *self)
{
  gint64 until_ms = sim_now_ms () + SETTLE_MS;

  while (self->advert_state == PERIPHERAL_REGISTERING && sim_now_ms () < until_ms)
    if (!g_main_context_iteration (NULL, FALSE))
      g_usleep (G_USEC_PER_SEC / 100);
}
