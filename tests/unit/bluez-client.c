/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bluez-client.h"

#include <gio/gunixfdlist.h>
#include <json-glib/json-glib.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define LIMIT_US (60 * G_USEC_PER_SEC)

static void
signal_free (gpointer data)
{
  Signal *signal = data;

  g_free (signal->path);
  g_free (signal->interface);
  g_free (signal->name);
  g_variant_unref (signal->parameters);
  g_free (signal);
}

static void
on_signal (GDBusConnection *connection, const char *sender, const char *path, const char *interface,
           const char *name, GVariant *parameters, gpointer user_data)
{
  World *world = user_data;
  Signal *signal = g_new0 (Signal, 1);

  signal->path = g_strdup (path);
  signal->name = g_strdup (name);
  signal->parameters = g_variant_ref (parameters);
  if (g_str_equal (name, "PropertiesChanged"))
    g_variant_get_child (parameters, 0, "s", &signal->interface);
  else if (g_str_has_prefix (name, "Interfaces"))
    {
      g_clear_pointer (&signal->path, g_free);
      g_variant_get_child (parameters, 0, "o", &signal->path);
    }
  g_ptr_array_add (world->signals, signal);
}

GDBusConnection *
world_connect (World *world)
{
  g_autoptr (GError) error = NULL;
  GDBusConnection *connection = g_dbus_connection_new_for_address_sync (
      world->address,
      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT
          | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
      NULL, NULL, &error);

  g_assert_no_error (error);
  return connection;
}

/* No child outlives a test that crashed. */
static void
on_child_setup (gpointer user_data)
{
  prctl (PR_SET_PDEATHSIG, SIGTERM);
}

static GSubprocess *
spawn (GSubprocessFlags flags, const char *const *argv)
{
  g_autoptr (GSubprocessLauncher) launcher = g_subprocess_launcher_new (flags);
  g_autoptr (GError) error = NULL;
  GSubprocess *child;

  g_subprocess_launcher_set_child_setup (launcher, on_child_setup, NULL, NULL);
  child = g_subprocess_launcher_spawnv (launcher, argv, &error);
  g_assert_no_error (error);
  return child;
}

static char *
read_line (GDataInputStream *lines)
{
  g_autoptr (GError) error = NULL;
  char *line = g_data_input_stream_read_line_utf8 (lines, NULL, NULL, &error);

  g_assert_no_error (error);
  g_assert_nonnull (line);
  return line;
}

static void
start_bus (World *world)
{
  static const char *const argv[]
      = { "dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=1", NULL };
  g_autoptr (GDataInputStream) lines = NULL;

  world->bus = spawn (G_SUBPROCESS_FLAGS_STDOUT_PIPE, argv);
  lines = g_data_input_stream_new (g_subprocess_get_stdout_pipe (world->bus));
  world->address = read_line (lines);
}

/* Returns: (transfer full): the option that names the thermometers */
static char *
write_devices (World *world, const char *devices)
{
  g_autoptr (GError) error = NULL;
  int fd;

  if (devices == NULL)
    return g_strdup ("--count=1");
  fd = g_file_open_tmp ("devices-XXXXXX", &world->devices_file, &error);
  g_assert_no_error (error);
  close (fd);
  g_assert_true (g_file_set_contents (world->devices_file, devices, -1, &error));
  return g_strconcat ("--devices=", world->devices_file, NULL);
}

World *
world_new (const char *devices)
{
  World *world = g_new0 (World, 1);
  g_autofree char *bus = NULL;
  g_autofree char *which = write_devices (world, devices);
  g_autofree char *ready = NULL;

  start_bus (world);
  bus = g_strconcat ("--bus=", world->address, NULL);
  world->sim = spawn (G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE,
                      (const char *[]){ g_getenv ("MITHERM_SIM"), "--fake-bluez", bus, which,
                                        "--control", "--seed=7", "--disconnect-delay=100", NULL });
  world->lines = g_data_input_stream_new (g_subprocess_get_stdout_pipe (world->sim));
  ready = read_line (world->lines);
  g_assert_cmpstr (ready, ==, "{\"event\":\"ready\"}");
  world->signals = g_ptr_array_new_with_free_func (signal_free);
  world->connection = world_connect (world);
  world->subscription
      = g_dbus_connection_signal_subscribe (world->connection, "org.bluez", NULL, NULL, NULL, NULL,
                                            G_DBUS_SIGNAL_FLAGS_NONE, on_signal, world, NULL);
  return world;
}

static void
stop (GSubprocess *child, gboolean must_be_clean)
{
  g_autoptr (GError) error = NULL;

  g_subprocess_send_signal (child, SIGTERM);
  if (must_be_clean)
    g_subprocess_wait_check (child, NULL, &error);
  else
    g_subprocess_wait (child, NULL, &error);
  g_assert_no_error (error);
}

void
world_free (World *world)
{
  g_dbus_connection_signal_unsubscribe (world->connection, world->subscription);
  g_dbus_connection_close_sync (world->connection, NULL, NULL);
  g_clear_object (&world->connection);
  stop (world->sim, TRUE);
  stop (world->bus, FALSE);
  g_clear_object (&world->lines);
  g_clear_object (&world->sim);
  g_clear_object (&world->bus);
  g_ptr_array_unref (world->signals);
  if (world->devices_file != NULL)
    unlink (world->devices_file);
  g_free (world->devices_file);
  g_free (world->address);
  g_free (world);
}

void
world_order (World *world, const char *line)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *text = g_strconcat (line, "\n", NULL);

  g_output_stream_write_all (g_subprocess_get_stdin_pipe (world->sim), text, strlen (text), NULL,
                             NULL, &error);
  g_assert_no_error (error);
  while (TRUE)
    {
      g_autofree char *answer = read_line (world->lines);

      if (strstr (answer, "\"event\":") != NULL)
        continue;
      g_assert_null (strstr (answer, "\"error\""));
      return;
    }
}

/* --- calls --- */

static GVariant *
try_call (World *world, const char *path, const char *interface, const char *method,
          GVariant *parameters, GError **error)
{
  return g_dbus_connection_call_sync (world->connection, "org.bluez", path, interface, method,
                                      parameters, NULL, G_DBUS_CALL_FLAGS_NONE, 60000, NULL, error);
}

GVariant *
world_call (World *world, const char *path, const char *interface, const char *method,
            GVariant *parameters)
{
  g_autoptr (GError) error = NULL;
  GVariant *answer = try_call (world, path, interface, method, parameters, &error);

  g_assert_no_error (error);
  return answer;
}

void
world_call_fails (World *world, const char *path, const char *interface, const char *method,
                  GVariant *parameters, const char *name, const char *text)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) answer = try_call (world, path, interface, method, parameters, &error);
  g_autofree char *remote = NULL;

  g_assert_null (answer);
  remote = g_dbus_error_get_remote_error (error);
  if (name != NULL)
    g_assert_cmpstr (remote, ==, name);
  g_dbus_error_strip_remote_error (error);
  if (text != NULL)
    g_assert_cmpstr (error->message, ==, text);
}

GVariant *
world_get (World *world, const char *path, const char *interface, const char *property)
{
  g_autoptr (GVariant) answer = try_call (world, path, "org.freedesktop.DBus.Properties", "Get",
                                          g_variant_new ("(ss)", interface, property), NULL);
  GVariant *value = NULL;

  if (answer != NULL)
    g_variant_get (answer, "(v)", &value);
  return value;
}

gboolean
world_get_boolean (World *world, const char *path, const char *interface, const char *property)
{
  g_autoptr (GVariant) value = world_get (world, path, interface, property);

  g_assert_nonnull (value);
  return g_variant_get_boolean (value);
}

GVariant *
world_no_options (void)
{
  return g_variant_new ("(a{sv})", NULL);
}

GVariant *
world_write_args (const guint8 *data, gsize len, const char *type)
{
  GVariantBuilder options;

  g_variant_builder_init (&options, G_VARIANT_TYPE_VARDICT);
  if (type != NULL)
    g_variant_builder_add (&options, "{sv}", "type", g_variant_new_string (type));
  return g_variant_new ("(@aya{sv})", g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, len, 1),
                        &options);
}

/* --- signals --- */

static gboolean
on_timeout (gpointer user_data)
{
  *(gboolean *) user_data = TRUE;
  return G_SOURCE_REMOVE;
}

void
world_spin (World *world, guint ms)
{
  gboolean is_over = FALSE;

  g_timeout_add (ms, on_timeout, &is_over);
  while (!is_over)
    g_main_context_iteration (NULL, TRUE);
}

static gboolean
signal_changes (const Signal *signal, const char *path, const char *property, GVariant **value)
{
  g_autoptr (GVariant) changed = NULL;

  if (!g_str_equal (signal->name, "PropertiesChanged") || !g_str_equal (signal->path, path))
    return FALSE;
  changed = g_variant_get_child_value (signal->parameters, 1);
  *value = g_variant_lookup_value (changed, property, NULL);
  return *value != NULL;
}

GVariant *
world_wait_change (World *world, const char *path, const char *property)
{
  gint64 until = g_get_monotonic_time () + LIMIT_US;

  while (TRUE)
    {
      GVariant *value = NULL;

      for (guint i = 0; i < world->signals->len; i++)
        if (signal_changes (world->signals->pdata[i], path, property, &value))
          {
            g_ptr_array_remove_range (world->signals, 0, i + 1);
            return value;
          }
      g_assert_cmpint (g_get_monotonic_time (), <, until);
      world_spin (world, 5);
    }
}

void
world_forget (World *world)
{
  while (g_main_context_iteration (NULL, FALSE))
    continue;
  g_ptr_array_set_size (world->signals, 0);
}

guint
world_count_changes (World *world, const char *path, const char *property)
{
  guint n = 0;

  for (guint i = 0; i < world->signals->len; i++)
    {
      g_autoptr (GVariant) value = NULL;

      n += signal_changes (world->signals->pdata[i], path, property, &value);
    }
  return n;
}

gboolean
world_saw (World *world, const char *name, const char *path)
{
  for (guint i = 0; i < world->signals->len; i++)
    {
      Signal *signal = world->signals->pdata[i];

      if (g_str_equal (signal->name, name) && g_str_equal (signal->path, path))
        return TRUE;
    }
  return FALSE;
}

/* --- thermometers --- */

void
world_find (World *world)
{
  gint64 until = g_get_monotonic_time () + LIMIT_US;

  g_variant_unref (world_call (world, WORLD_ADAPTER, "org.bluez.Adapter1", "StartDiscovery", NULL));
  while (!world_saw (world, "InterfacesAdded", WORLD_DEVICE))
    {
      g_assert_cmpint (g_get_monotonic_time (), <, until);
      world_spin (world, 5);
    }
  g_variant_unref (world_call (world, WORLD_ADAPTER, "org.bluez.Adapter1", "StopDiscovery", NULL));
}

void
world_join (World *world)
{
  world_forget (world);
  g_variant_unref (world_call (world, WORLD_DEVICE, "org.bluez.Device1", "Connect", NULL));
  while (!world_get_boolean (world, WORLD_DEVICE, "org.bluez.Device1", "ServicesResolved"))
    world_spin (world, 5);
}

char *
world_chrc (World *world, const char *part)
{
  g_autoptr (GVariant) answer
      = world_call (world, "/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", NULL);
  g_autoptr (GVariant) objects = g_variant_get_child_value (answer, 0);
  GVariantIter iter;
  const char *path;
  GVariant *interfaces;
  char *found = NULL;

  g_variant_iter_init (&iter, objects);
  while (g_variant_iter_next (&iter, "{&o@a{sa{sv}}}", &path, &interfaces))
    {
      g_autoptr (GVariant) owned = interfaces;
      g_autoptr (GVariant) chrc
          = g_variant_lookup_value (owned, "org.bluez.GattCharacteristic1", G_VARIANT_TYPE_VARDICT);
      const char *uuid;

      if (found == NULL && chrc != NULL && g_variant_lookup (chrc, "UUID", "&s", &uuid)
          && strstr (uuid, part) != NULL)
        found = g_strdup (path);
    }
  return found;
}

GBytes *
world_read (World *world, const char *chrc)
{
  g_autoptr (GVariant) answer
      = world_call (world, chrc, "org.bluez.GattCharacteristic1", "ReadValue", world_no_options ());
  g_autoptr (GVariant) value = g_variant_get_child_value (answer, 0);

  return g_variant_get_data_as_bytes (value);
}

int
world_acquire (World *world, const char *chrc, const char *method, guint16 *mtu)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GUnixFDList) list = NULL;
  g_autoptr (GVariant) answer = g_dbus_connection_call_with_unix_fd_list_sync (
      world->connection, "org.bluez", chrc, "org.bluez.GattCharacteristic1", method,
      world_no_options (), G_VARIANT_TYPE ("(hq)"), G_DBUS_CALL_FLAGS_NONE, -1, NULL, &list, NULL,
      &error);
  guint16 got;
  int fd;

  g_assert_no_error (error);
  g_variant_get (answer, "(hq)", NULL, &got);
  if (mtu != NULL)
    *mtu = got;
  fd = g_unix_fd_list_get (list, 0, &error);
  g_assert_no_error (error);
  return fd;
}
