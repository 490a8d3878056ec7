/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-peripheral-private.h"

#include <glib-unix.h>
#include <signal.h>
#include <string.h>

#define IFACE_ADAPTER       "org.bluez.Adapter1"
#define IFACE_DEVICE        "org.bluez.Device1"
#define IFACE_GATT_MANAGER  "org.bluez.GattManager1"
#define DEFAULT_ATT_PAYLOAD 20

void
peripheral_fail (Peripheral *self, const char *what, const GError *error)
{
  g_warning ("%s: %s", what, error->message);
  self->status = 1;
  g_main_loop_quit (self->loop);
}

gboolean
peripheral_may_advertise (Peripheral *self)
{
  return self->central == NULL && self->app_state == PERIPHERAL_ON && !self->table_changed;
}

void
peripheral_advertises (Peripheral *self)
{
  if (!self->is_ready)
    sim_control_ready (self->control);
  self->is_ready = TRUE;
}

/* --- the application --- */

static void
on_app_registered (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Peripheral *self = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);

  if (reply == NULL)
    {
      peripheral_fail (self, "RegisterApplication", error);
      return;
    }
  self->app_state = PERIPHERAL_ON;
  peripheral_pump (self);
}

static void
register_app (Peripheral *self)
{
  self->app = peripheral_app_new (self);
  self->app_state = PERIPHERAL_REGISTERING;
  self->table_changed = FALSE;
  g_dbus_connection_call (self->connection, BLUEZ_NAME, self->adapter_path, IFACE_GATT_MANAGER,
                          "RegisterApplication",
                          g_variant_new ("(oa{sv})", peripheral_app_get_path (self->app), NULL),
                          NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, on_app_registered, self);
}

static void
on_app_unregistered (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Peripheral *self = user_data;
  GVariant *reply = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, NULL);

  /* An error says that it was not registered any more: as wanted. */
  g_clear_pointer (&reply, g_variant_unref);
  g_clear_pointer (&self->app, peripheral_app_free);
  register_app (self);
}

/* The table of a thermometer changes when it boots another image: nobody is connected then. */
static void
update_app (Peripheral *self)
{
  if (!self->table_changed || self->central != NULL || self->app_state != PERIPHERAL_ON)
    return;
  self->app_state = PERIPHERAL_UNREGISTERING;
  g_dbus_connection_call (self->connection, BLUEZ_NAME, self->adapter_path, IFACE_GATT_MANAGER,
                          "UnregisterApplication",
                          g_variant_new ("(o)", peripheral_app_get_path (self->app)), NULL,
                          G_DBUS_CALL_FLAGS_NONE, -1, NULL, on_app_unregistered, self);
}

/* --- the device's outputs --- */

/* bluetoothd takes two seconds for this. */
static void
drop_link (Peripheral *self)
{
  if (self->central != NULL)
    g_dbus_connection_call (self->connection, BLUEZ_NAME, self->central, IFACE_DEVICE, "Disconnect",
                            NULL, NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, NULL, NULL);
}

static void
take_output (Peripheral *self, const SimOutput *output)
{
  switch (output->kind)
    {
    case SIM_OUTPUT_NOTIFY:
      if (self->app != NULL)
        peripheral_app_notify (self->app, output->channel, output->data, output->len);
      break;
    case SIM_OUTPUT_EVENT:
      sim_control_event (self->control, sim_device_get_address (self->sim), output->json);
      break;
    case SIM_OUTPUT_DISCONNECTED:
      drop_link (self);
      break;
    case SIM_OUTPUT_ADVERT:
      break; /* looked at after each pump */
    case SIM_OUTPUT_GATT:
      self->table_changed = TRUE;
      break;
    default:
      g_return_if_reached ();
    }
}

static gboolean
is_advert_stale (Peripheral *self)
{
  SimAdvert advert;
  gboolean is_wanted = peripheral_may_advertise (self)
                       && sim_device_get_advert (self->sim, sim_now_ms (), &advert);

  return is_wanted != (self->advert_state == PERIPHERAL_ON);
}

void
peripheral_pump (Peripheral *self)
{
  SimOutput output;
  gint64 deadline;

  if (self->pumping) /* the loop below goes on */
    return;
  self->pumping = TRUE;
  while (sim_device_pop (self->sim, &output))
    take_output (self, &output);
  self->pumping = FALSE;
  deadline = sim_device_deadline (self->sim);
  if (deadline < 0)
    sim_timer_stop (self->schedule, &self->tick_timer);
  else
    sim_timer_start (self->schedule, &self->tick_timer, deadline);
  update_app (self);
  if (is_advert_stale (self))
    peripheral_advert_update (self);
}

static void
on_tick (gpointer user_data)
{
  Peripheral *self = user_data;

  sim_device_tick (self->sim, sim_now_ms ());
  peripheral_pump (self);
}

static void
on_renew (gpointer user_data)
{
  peripheral_advert_update (user_data);
}

/* --- the central --- */

void
peripheral_saw_central (Peripheral *self, const char *path)
{
  g_autoptr (GError) error = NULL;

  if (self->central != NULL)
    return;
  self->central = g_strdup (path);
  if (self->app != NULL)
    peripheral_app_reset (self->app);
  if (!sim_device_connect (self->sim, sim_now_ms (), self->att_payload, &error))
    {
      g_message ("%s: %s", path, error->message);
      drop_link (self);
    }
  peripheral_pump (self);
}

static void
lost_central (Peripheral *self, const char *path)
{
  if (g_strcmp0 (self->central, path) != 0)
    return;
  g_clear_pointer (&self->central, g_free);
  if (sim_device_is_connected (self->sim))
    sim_device_disconnect (self->sim, sim_now_ms ());
  peripheral_pump (self);
}

static gboolean
is_ours (Peripheral *self, const char *path)
{
  gsize len = strlen (self->adapter_path);

  return strncmp (path, self->adapter_path, len) == 0 && g_str_has_prefix (path + len, "/dev_");
}

static void
take_device_properties (Peripheral *self, const char *path, GVariant *properties)
{
  gboolean connected;

  if (!is_ours (self, path) || !g_variant_lookup (properties, "Connected", "b", &connected))
    return;
  if (connected)
    peripheral_saw_central (self, path);
  else
    lost_central (self, path);
}

static void
on_properties_changed (GDBusConnection *connection, const char *sender, const char *path,
                       const char *interface, const char *signal, GVariant *parameters,
                       gpointer user_data)
{
  g_autoptr (GVariant) changed = g_variant_get_child_value (parameters, 1);

  take_device_properties (user_data, path, changed);
}

static void
on_interfaces_added (GDBusConnection *connection, const char *sender, const char *root,
                     const char *interface, const char *signal, GVariant *parameters,
                     gpointer user_data)
{
  g_autoptr (GVariant) interfaces = NULL;
  g_autoptr (GVariant) properties = NULL;
  const char *path;

  g_variant_get (parameters, "(&o@a{sa{sv}})", &path, &interfaces);
  properties = g_variant_lookup_value (interfaces, IFACE_DEVICE, G_VARIANT_TYPE_VARDICT);
  if (properties != NULL)
    take_device_properties (user_data, path, properties);
}

static void
on_interfaces_removed (GDBusConnection *connection, const char *sender, const char *root,
                       const char *interface, const char *signal, GVariant *parameters,
                       gpointer user_data)
{
  g_autofree const char **interfaces = NULL;
  const char *path;

  g_variant_get (parameters, "(&o^a&s)", &path, &interfaces);
  if (g_strv_contains (interfaces, IFACE_DEVICE))
    lost_central (user_data, path);
}

static void
on_bluez_vanished (GDBusConnection *connection, const char *name, gpointer user_data)
{
  Peripheral *self = user_data;

  g_warning ("%s has left the bus", name);
  self->status = 1;
  g_main_loop_quit (self->loop);
}

/* --- control --- */

static JsonNode *
on_control (JsonObject *request, gpointer user_data)
{
  Peripheral *self = user_data;
  JsonNode *answer;

  if (g_str_equal (sim_control_get_string (request, "do", ""), "lose-link"))
    {
      drop_link (self);
      return sim_control_ok ();
    }
  answer = sim_control_answer (self->sim, sim_now_ms (), request);
  peripheral_pump (self);
  return answer != NULL ? answer : sim_control_error ("unknown \"do\"");
}

/* --- starting --- */

static gboolean
connect_to_bus (Peripheral *self, const char *bus, GError **error)
{
  g_autofree char *address = NULL;

  if (bus == NULL || g_str_equal (bus, "system"))
    address = g_dbus_address_get_for_bus_sync (G_BUS_TYPE_SYSTEM, NULL, error);
  else if (g_str_equal (bus, "session"))
    address = g_dbus_address_get_for_bus_sync (G_BUS_TYPE_SESSION, NULL, error);
  else
    address = g_strdup (bus);
  if (address == NULL)
    return FALSE;
  self->connection = g_dbus_connection_new_for_address_sync (
      address,
      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT
          | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
      NULL, NULL, error);
  return self->connection != NULL;
}

/* Returns: (transfer full): the adapter's address */
static char *
read_address (Peripheral *self, GError **error)
{
  g_autoptr (GVariant) reply = g_dbus_connection_call_sync (
      self->connection, BLUEZ_NAME, self->adapter_path, "org.freedesktop.DBus.Properties", "Get",
      g_variant_new ("(ss)", IFACE_ADAPTER, "Address"), G_VARIANT_TYPE ("(v)"),
      G_DBUS_CALL_FLAGS_NONE, -1, NULL, error);
  g_autoptr (GVariant) value = NULL;

  if (reply == NULL)
    {
      g_prefix_error (error, "%s: ", self->adapter_path);
      return NULL;
    }
  g_variant_get (reply, "(v)", &value);
  if (!g_variant_is_of_type (value, G_VARIANT_TYPE_STRING))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s has no address",
                   self->adapter_path);
      return NULL;
    }
  return g_variant_dup_string (value, NULL);
}

static gboolean
make_device (Peripheral *self, const SimPeripheralOptions *options, GError **error)
{
  gsize n;
  g_auto (GStrv) groups = g_key_file_get_groups (options->devices, &n);
  g_autofree char *address = NULL;
  int att;

  if (n != 1)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                   "the devices file has %zu groups, an adapter can be one thermometer", n);
      return FALSE;
    }
  address = read_address (self, error);
  if (address == NULL)
    return FALSE;
  self->sim
      = sim_device_new (options->devices, groups[0], options->random, options->random_data, error);
  if (self->sim == NULL)
    return FALSE;
  sim_device_set_models (self->sim, options->models);
  sim_device_set_address (self->sim, address);
  att = g_key_file_get_integer (options->devices, groups[0], "Att", NULL);
  self->att_payload
      = att >= DEFAULT_ATT_PAYLOAD && att <= SIM_PACKET_MAX ? (guint16) att : DEFAULT_ATT_PAYLOAD;
  return TRUE;
}

static void
watch_bluez (Peripheral *self)
{
  g_dbus_connection_signal_subscribe (self->connection, BLUEZ_NAME,
                                      "org.freedesktop.DBus.Properties", "PropertiesChanged", NULL,
                                      IFACE_DEVICE, G_DBUS_SIGNAL_FLAGS_NONE, on_properties_changed,
                                      self, NULL);
  g_dbus_connection_signal_subscribe (self->connection, BLUEZ_NAME,
                                      "org.freedesktop.DBus.ObjectManager", "InterfacesAdded", NULL,
                                      NULL, G_DBUS_SIGNAL_FLAGS_NONE, on_interfaces_added, self,
                                      NULL);
  g_dbus_connection_signal_subscribe (self->connection, BLUEZ_NAME,
                                      "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved",
                                      NULL, NULL, G_DBUS_SIGNAL_FLAGS_NONE, on_interfaces_removed,
                                      self, NULL);
}

static gboolean
on_terminated (gpointer user_data)
{
  Peripheral *self = user_data;

  g_main_loop_quit (self->loop);
  return G_SOURCE_CONTINUE;
}

static Peripheral *
peripheral_new (const SimPeripheralOptions *options)
{
  Peripheral *self = g_new0 (Peripheral, 1);

  self->loop = g_main_loop_new (NULL, FALSE);
  self->schedule = sim_schedule_new ();
  self->adapter_path = g_strdup_printf ("/org/bluez/%s", options->adapter);
  sim_timer_init (&self->tick_timer, on_tick, self);
  sim_timer_init (&self->renew_timer, on_renew, self);
  self->control = sim_control_new (options->control, on_control, self);
  return self;
}

static void
peripheral_free (Peripheral *self)
{
  sim_timer_stop (self->schedule, &self->tick_timer);
  sim_timer_stop (self->schedule, &self->renew_timer);
  peripheral_advert_settle (self);
  g_clear_pointer (&self->app, peripheral_app_free);
  if (self->advert_object != 0)
    g_dbus_connection_unregister_object (self->connection, self->advert_object);
  if (self->connection != NULL)
    g_dbus_connection_close_sync (self->connection, NULL, NULL); /* bluetoothd cleans up */
  g_clear_object (&self->connection);
  sim_device_free (self->sim);
  sim_control_free (self->control);
  sim_schedule_free (self->schedule);
  g_main_loop_unref (self->loop);
  g_clear_pointer (&self->data, g_bytes_unref);
  g_free (self->name);
  g_free (self->central);
  g_free (self->adapter_path);
  g_free (self);
}

static void
serve (Peripheral *self)
{
  guint watch
      = g_bus_watch_name_on_connection (self->connection, BLUEZ_NAME, G_BUS_NAME_WATCHER_FLAGS_NONE,
                                        NULL, on_bluez_vanished, self, NULL);
  guint sigint = g_unix_signal_add (SIGINT, on_terminated, self);
  guint sigterm = g_unix_signal_add (SIGTERM, on_terminated, self);

  watch_bluez (self);
  register_app (self);
  g_main_loop_run (self->loop);
  g_source_remove (sigint);
  g_source_remove (sigterm);
  g_bus_unwatch_name (watch);
}

int
sim_peripheral_run (const SimPeripheralOptions *options, GError **error)
{
  Peripheral *self = peripheral_new (options);
  int status = 1;

  if (!g_variant_is_object_path (self->adapter_path))
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "\"%s\" is no adapter",
                 options->adapter);
  else if (connect_to_bus (self, options->bus, error) && make_device (self, options, error)
           && peripheral_advert_init (self, error))
    {
      g_dbus_connection_set_exit_on_close (self->connection, FALSE);
      serve (self);
      status = self->status;
    }
  peripheral_free (self);
  return status;
}
