/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mi-bytes.h"
#include "sim-fake-private.h"

#include <glib-unix.h>
#include <signal.h>
#include <string.h>

#define BLUEZ_NAME         "org.bluez"
#define DEFAULT_RESTART_MS 500
#define MAX_ADAPTERS       16
#define MAX_COUNT          65535

/* --- on the bus --- */

static void
on_name_owner_changed (GDBusConnection *connection, const char *sender, const char *path,
                       const char *interface, const char *signal, GVariant *parameters,
                       gpointer user_data)
{
  FakeBluez *bluez = user_data;
  const char *name;
  const char *new_owner;

  g_variant_get (parameters, "(&s&s&s)", &name, NULL, &new_owner);
  if (name[0] != ':' || new_owner[0] != '\0')
    return;
  for (guint i = 0; i < bluez->adapters->len; i++)
    if (bluez->adapters->pdata[i] != NULL)
      fake_adapter_client_gone (bluez->adapters->pdata[i], name);
  for (guint i = 0; i < bluez->peers->len; i++)
    {
      FakePeer *peer = bluez->peers->pdata[i];

      for (guint j = 0; j < peer->devices->len; j++)
        if (peer->devices->pdata[j] != NULL)
          fake_device_client_gone (peer->devices->pdata[j], name);
    }
}

static void
on_closed (GDBusConnection *connection, gboolean remote_vanished, GError *error, gpointer user_data)
{
  FakeBluez *bluez = user_data;

  if (!remote_vanished && error == NULL) /* we closed it */
    return;
  g_warning ("the bus has gone: %s", error != NULL ? error->message : "closed");
  bluez->status = 1;
  g_main_loop_quit (bluez->loop);
}

static GDBusConnection *
connect_to_bus (const char *bus, GError **error)
{
  g_autofree char *address = NULL;

  if (g_strcmp0 (bus, "system") == 0)
    address = g_dbus_address_get_for_bus_sync (G_BUS_TYPE_SYSTEM, NULL, error);
  else if (bus == NULL || g_str_equal (bus, "session"))
    address = g_dbus_address_get_for_bus_sync (G_BUS_TYPE_SESSION, NULL, error);
  else
    address = g_strdup (bus);
  if (address == NULL)
    return NULL;
  return g_dbus_connection_new_for_address_sync (
      address,
      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT
          | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
      NULL, NULL, error);
}

static gboolean
own_name (FakeBluez *bluez, GError **error)
{
  const guint32 do_not_queue = 4; /* D-Bus specification, RequestName */
  const guint32 primary_owner = 1;
  guint32 reply = 0;
  g_autoptr (GVariant) result = g_dbus_connection_call_sync (
      bluez->connection, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
      "RequestName", g_variant_new ("(su)", BLUEZ_NAME, do_not_queue), G_VARIANT_TYPE ("(u)"),
      G_DBUS_CALL_FLAGS_NONE, -1, NULL, error);

  if (result == NULL)
    return FALSE;
  g_variant_get (result, "(u)", &reply);
  if (reply != primary_owner)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS, "%s is already owned on this bus",
                   BLUEZ_NAME);
      return FALSE;
    }
  return TRUE;
}

static gboolean
start_service (FakeBluez *bluez, GError **error)
{
  bluez->connection = connect_to_bus (bluez->options.bus, error);
  if (bluez->connection == NULL)
    return FALSE;
  g_dbus_connection_set_exit_on_close (bluez->connection, FALSE);
  g_signal_connect (bluez->connection, "closed", G_CALLBACK (on_closed), bluez);
  bluez->filter = fake_object_add_filter (bluez);
  bluez->name_watch = g_dbus_connection_signal_subscribe (
      bluez->connection, "org.freedesktop.DBus", "org.freedesktop.DBus", "NameOwnerChanged",
      "/org/freedesktop/DBus", NULL, G_DBUS_SIGNAL_FLAGS_NONE, on_name_owner_changed, bluez, NULL);
  fake_object_register_root (bluez);
  for (guint i = 0; i < bluez->options.adapters; i++)
    bluez->adapters->pdata[i] = fake_adapter_new (bluez, i);
  return own_name (bluez, error);
}

static void
drop_everything (FakeBluez *bluez)
{
  for (guint i = 0; i < bluez->adapters->len; i++)
    g_clear_pointer ((FakeAdapter **) &bluez->adapters->pdata[i], fake_adapter_free);
}

/*
 * As if bluetoothd had died: the connection goes first, so that callers get NoReply from the bus
 * and nobody hears of the objects' end.
 */
static void
stop_service (FakeBluez *bluez)
{
  if (bluez->connection == NULL)
    return;
  g_signal_handlers_disconnect_by_data (bluez->connection, bluez);
  g_dbus_connection_close_sync (bluez->connection, NULL, NULL);
  drop_everything (bluez);
  g_dbus_connection_signal_unsubscribe (bluez->connection, bluez->name_watch);
  g_dbus_connection_unregister_object (bluez->connection, bluez->root);
  g_dbus_connection_remove_filter (bluez->connection, bluez->filter);
  bluez->known_paths = NULL;
  g_clear_object (&bluez->connection);
}

static void
on_restart (gpointer user_data)
{
  FakeBluez *bluez = user_data;
  g_autoptr (GError) error = NULL;

  if (start_service (bluez, &error))
    return;
  g_warning ("restart: %s", error->message);
  bluez->status = 1;
  g_main_loop_quit (bluez->loop);
}

/* --- control lines --- */

static JsonNode *
do_restart (FakeBluez *bluez, JsonObject *request)
{
  gint64 pause = sim_control_get_int (request, "ms", DEFAULT_RESTART_MS);

  stop_service (bluez);
  sim_timer_start (bluez->schedule, &bluez->restart, sim_now_ms () + CLAMP (pause, 0, 600000));
  return sim_control_ok ();
}

static guint
find_adapter (FakeBluez *bluez, JsonObject *request)
{
  const char *name = sim_control_get_string (request, "adapter", "hci0");
  guint64 index;

  if (!g_str_has_prefix (name, "hci")
      || !g_ascii_string_to_unsigned (name + 3, 10, 0, bluez->adapters->len - 1, &index, NULL))
    return G_MAXUINT;
  return (guint) index;
}

static JsonNode *
do_adapter (FakeBluez *bluez, const char *what, JsonObject *request)
{
  guint index = find_adapter (bluez, request);
  FakeAdapter *adapter;

  if (index == G_MAXUINT)
    return sim_control_error ("no such adapter");
  adapter = bluez->adapters->pdata[index];
  if (g_str_equal (what, "add-adapter"))
    {
      if (adapter != NULL)
        return sim_control_error ("the adapter is there");
      bluez->adapters->pdata[index] = fake_adapter_new (bluez, index);
      return sim_control_ok ();
    }
  if (adapter == NULL)
    return sim_control_error ("the adapter is not there");
  if (g_str_equal (what, "remove-adapter"))
    g_clear_pointer ((FakeAdapter **) &bluez->adapters->pdata[index], fake_adapter_free);
  else
    fake_adapter_set_powered (adapter, g_str_equal (what, "power-on"));
  return sim_control_ok ();
}

/* "error" is a text of org.bluez.Error.Failed, or "NAME: text" with a name of an error. */
static JsonNode *
do_fail_connect (FakeBluez *bluez, JsonObject *request)
{
  FakeMischief *mischief = &bluez->mischief;
  const char *text = sim_control_get_string (request, "error", "le-connection-abort-by-local");
  const char *colon = strstr (text, ": ");
  gint64 count = sim_control_get_int (request, "count", 1);

  g_free (mischief->fail_name);
  g_free (mischief->fail_message);
  mischief->fail_connects = (guint) CLAMP (count, 0, G_MAXINT);
  if (colon != NULL)
    {
      mischief->fail_name = g_strndup (text, (gsize) (colon - text));
      mischief->fail_message = g_strdup (colon + 2);
    }
  else
    {
      mischief->fail_name = g_strdup ("Failed");
      mischief->fail_message = g_strdup (text);
    }
  if (!g_dbus_is_interface_name (mischief->fail_name) && strchr (mischief->fail_name, '.') != NULL)
    {
      mischief->fail_connects = 0;
      return sim_control_error ("\"error\" has no valid error name");
    }
  return sim_control_ok ();
}

static JsonNode *
do_bluez (FakeBluez *bluez, JsonObject *request)
{
  const char *what = sim_control_get_string (request, "what", "");
  gboolean on = sim_control_get_boolean (request, "on", TRUE);

  if (bluez->connection == NULL)
    return sim_control_error ("restarting");
  if (g_str_equal (what, "restart"))
    return do_restart (bluez, request);
  if (g_str_equal (what, "power-off") || g_str_equal (what, "power-on")
      || g_str_equal (what, "remove-adapter") || g_str_equal (what, "add-adapter"))
    return do_adapter (bluez, what, request);
  if (g_str_equal (what, "fail-connect"))
    return do_fail_connect (bluez, request);
  if (g_str_equal (what, "no-acquire"))
    bluez->mischief.no_acquire = on;
  else if (g_str_equal (what, "silent-connected"))
    bluez->mischief.silent_connected = on;
  else if (g_str_equal (what, "disconnect-delay"))
    bluez->options.disconnect_delay_ms
        = (guint) CLAMP (sim_control_get_int (request, "ms", 2000), 0, 600000);
  else
    return sim_control_error ("bluez: unknown \"what\"");
  return sim_control_ok ();
}

static FakePeer *
find_peer (FakeBluez *bluez, JsonObject *request)
{
  const char *address = sim_control_get_string (request, "device", NULL);

  if (address == NULL)
    return bluez->peers->len == 1 ? bluez->peers->pdata[0] : NULL;
  for (guint i = 0; i < bluez->peers->len; i++)
    {
      FakePeer *peer = bluez->peers->pdata[i];

      if (g_ascii_strcasecmp (peer->address, address) == 0)
        return peer;
    }
  return NULL;
}

/* As if somebody else, or an older self, had sent it. */
static JsonNode *
do_advert (FakePeer *peer, JsonObject *request)
{
  const char *uuid = sim_control_get_string (request, "uuid", "fe95");
  const char *hex = sim_control_get_string (request, "data", "");
  gsize len = strlen (hex) / 2;
  g_autofree guint8 *data = g_malloc (len + 1);
  guint64 number;

  if (!g_ascii_string_to_unsigned (uuid, 16, 1, G_MAXUINT16, &number, NULL)
      || !mi_hex_decode (hex, data, len))
    return sim_control_error ("advert: \"uuid\" or \"data\" is not hex");
  fake_peer_forge (peer, (guint16) number, data, len);
  return sim_control_ok ();
}

static JsonNode *
on_control (JsonObject *request, gpointer user_data)
{
  FakeBluez *bluez = user_data;
  const char *what = sim_control_get_string (request, "do", "");
  FakePeer *peer;
  JsonNode *answer;

  if (g_str_equal (what, "bluez"))
    return do_bluez (bluez, request);
  peer = find_peer (bluez, request);
  if (peer == NULL)
    return sim_control_error ("no such device");
  if (g_str_equal (what, "lose-link"))
    {
      fake_peer_drop_link (peer);
      return sim_control_ok ();
    }
  if (g_str_equal (what, "outdate"))
    {
      for (guint i = 0; i < peer->devices->len; i++)
        if (peer->devices->pdata[i] != NULL)
          fake_gatt_outdate (peer->devices->pdata[i]);
      return sim_control_ok ();
    }
  if (g_str_equal (what, "advert"))
    return do_advert (peer, request);
  answer = sim_control_answer (peer->sim, sim_now_ms (), request);
  fake_peer_pump (peer);
  return answer != NULL ? answer : sim_control_error ("unknown \"do\"");
}

/* --- starting --- */

static GKeyFile *
make_default_devices (guint count)
{
  GKeyFile *config = g_key_file_new ();

  for (guint i = 1; i <= count; i++)
    {
      g_autofree char *group = g_strdup_printf ("A4:C1:38:00:%02X:%02X", i >> 8, i & 0xff);

      g_key_file_set_string (config, group, "Model", "LYWSD03MMC");
      g_key_file_set_string (config, group, "Firmware", "1.0.0_0130");
    }
  return config;
}

static gboolean
make_peers (FakeBluez *bluez, GError **error)
{
  g_autoptr (GKeyFile) defaults = NULL;
  GKeyFile *config = bluez->options.devices;
  g_auto (GStrv) groups = NULL;

  if (config == NULL)
    config = defaults = make_default_devices (bluez->options.count);
  groups = g_key_file_get_groups (config, NULL);
  for (guint i = 0; groups[i] != NULL; i++)
    {
      FakePeer *peer = fake_peer_new (bluez, config, groups[i], error);

      if (peer == NULL)
        {
          g_prefix_error (error, "[%s]: ", groups[i]);
          return FALSE;
        }
      g_ptr_array_add (bluez->peers, peer);
      fake_peer_pump (peer);
    }
  if (bluez->peers->len == 0)
    {
      g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "no thermometers");
      return FALSE;
    }
  return TRUE;
}

static gboolean
on_terminated (gpointer user_data)
{
  FakeBluez *bluez = user_data;

  g_main_loop_quit (bluez->loop);
  return G_SOURCE_CONTINUE;
}

static FakeBluez *
fake_bluez_new (const SimFakeBluezOptions *options)
{
  FakeBluez *bluez = g_new0 (FakeBluez, 1);

  bluez->options = *options;
  bluez->options.adapters = CLAMP (options->adapters, 1, MAX_ADAPTERS);
  bluez->options.count = MIN (options->count, MAX_COUNT);
  bluez->schedule = sim_schedule_new ();
  bluez->loop = g_main_loop_new (g_main_context_get_thread_default (), FALSE);
  bluez->rand = g_rand_new_with_seed (options->seed);
  bluez->objects = g_hash_table_new (g_str_hash, g_str_equal);
  bluez->peers = g_ptr_array_new_with_free_func ((GDestroyNotify) fake_peer_free);
  bluez->adapters = g_ptr_array_new ();
  g_ptr_array_set_size (bluez->adapters, (gint) bluez->options.adapters);
  sim_timer_init (&bluez->restart, on_restart, bluez);
  return bluez;
}

static void
fake_bluez_free (FakeBluez *bluez)
{
  stop_service (bluez);
  g_ptr_array_unref (bluez->peers);
  sim_timer_stop (bluez->schedule, &bluez->restart);
  sim_schedule_free (bluez->schedule);
  sim_control_free (bluez->control);
  g_ptr_array_unref (bluez->adapters);
  g_hash_table_unref (bluez->objects);
  g_rand_free (bluez->rand);
  g_main_loop_unref (bluez->loop);
  g_free (bluez->mischief.fail_name);
  g_free (bluez->mischief.fail_message);
  g_free (bluez);
}

int
sim_fake_bluez_run (const SimFakeBluezOptions *options, GError **error)
{
  FakeBluez *bluez = fake_bluez_new (options);
  guint sigint;
  guint sigterm;
  int status = 1;

  bluez->control = sim_control_new (options->control, on_control, bluez);
  if (make_peers (bluez, error) && start_service (bluez, error))
    {
      sim_control_ready (bluez->control);
      sigint = g_unix_signal_add (SIGINT, on_terminated, bluez);
      sigterm = g_unix_signal_add (SIGTERM, on_terminated, bluez);
      g_main_loop_run (bluez->loop);
      g_source_remove (sigint);
      g_source_remove (sigterm);
      status = bluez->status;
    }
  fake_bluez_free (bluez);
  return status;
}
