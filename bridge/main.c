/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge.h"

#include <glib-unix.h>
#include <locale.h>
#include <malloc.h>
#include <stdio.h>

#define EXIT_USAGE_ERROR 2
#define EXIT_REFUSED     3
/* Big messages of others go back to the system at once, instead of staying with us. */
#define BIG_ALLOCATION (128 * 1024)

typedef struct
{
  GMainLoop *loop;
  Bridge *bridge;
  gboolean stopping;
  int status;
} Program;

static gboolean
on_stopped (gpointer data)
{
  Program *program = data;

  g_main_loop_quit (program->loop);
  return G_SOURCE_REMOVE;
}

static gboolean
on_signal (gpointer data)
{
  Program *program = data;

  if (!program->stopping)
    {
      program->stopping = TRUE;
      bridge_stop (program->bridge, on_stopped, program);
    }
  return G_SOURCE_CONTINUE;
}

static gboolean
on_refused (gpointer data)
{
  Program *program = data;

  program->status = EXIT_REFUSED;
  return on_signal (program);
}

static void
on_bus_closed (GDBusConnection *connection, gboolean vanished, GError *error, Program *program)
{
  g_warning ("the bus is gone%s%s", error != NULL ? ": " : "", error != NULL ? error->message : "");
  program->status = EXIT_FAILURE;
  on_signal (program);
}

static GDBusConnection *
connect_bus (const char *bus, GError **error)
{
  if (bus == NULL)
    bus = g_getenv ("MITHERM_BUS");
  if (bus == NULL || g_str_equal (bus, "system"))
    return g_bus_get_sync (G_BUS_TYPE_SYSTEM, NULL, error);
  if (g_str_equal (bus, "session"))
    return g_bus_get_sync (G_BUS_TYPE_SESSION, NULL, error);
  return g_dbus_connection_new_for_address_sync (
      bus,
      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT
          | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
      NULL, NULL, error);
}

static int
run (const char *config_path, const char *bus, gboolean exit_when_refused)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (BridgeConfig) config = bridge_config_load (config_path, &error);
  g_autoptr (GDBusConnection) connection = NULL;
  g_autoptr (Bridge) bridge = NULL;
  g_autoptr (GMainLoop) loop = g_main_loop_new (NULL, FALSE);
  Program program = { .loop = loop, .status = EXIT_SUCCESS };
  guint term_id, int_id;
  gulong closed_id;

  if (config == NULL)
    {
      fprintf (stderr, "mitherm-mqtt: %s\n", error->message);
      return EXIT_USAGE_ERROR;
    }
  connection = connect_bus (bus, &error);
  if (connection != NULL)
    bridge = bridge_new (config, connection, &error);
  if (bridge == NULL)
    {
      fprintf (stderr, "mitherm-mqtt: %s\n", error->message);
      return EXIT_FAILURE;
    }
  program.bridge = bridge;
  if (exit_when_refused)
    bridge_on_refused (bridge, on_refused, &program);
  g_dbus_connection_set_exit_on_close (connection, FALSE);
  closed_id = g_signal_connect (connection, "closed", G_CALLBACK (on_bus_closed), &program);
  term_id = g_unix_signal_add (SIGTERM, on_signal, &program);
  int_id = g_unix_signal_add (SIGINT, on_signal, &program);
  g_main_loop_run (loop);
  g_source_remove (term_id);
  g_source_remove (int_id);
  g_signal_handler_disconnect (connection, closed_id);
  return program.status;
}

int
main (int argc, char **argv)
{
  g_autofree char *config = NULL;
  g_autofree char *bus = NULL;
  gboolean verbose = FALSE, version = FALSE, exit_when_refused = FALSE;
  const GOptionEntry entries[]
      = { { "config", 'c', 0, G_OPTION_ARG_FILENAME, &config,
            "Configuration (" MITHERM_CONF_DIR "/mqtt.conf)", "FILE" },
          { "bus", 'b', 0, G_OPTION_ARG_STRING, &bus,
            "Bus of the daemon: system (default), session or an address", "BUS" },
          { "exit-when-refused", 0, 0, G_OPTION_ARG_NONE, &exit_when_refused,
            "End with status 3 when the broker refuses user and password", NULL },
          { "verbose", 'v', 0, G_OPTION_ARG_NONE, &verbose, "Log more", NULL },
          { "version", 0, 0, G_OPTION_ARG_NONE, &version, "Print the version", NULL },
          G_OPTION_ENTRY_NULL };
  g_autoptr (GOptionContext) context
      = g_option_context_new ("— thermometers of mithermd for MQTT and Home Assistant");
  g_autoptr (GError) error = NULL;

  setlocale (LC_ALL, "");
  mallopt (M_MMAP_THRESHOLD, BIG_ALLOCATION);
  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || argc > 1)
    {
      fprintf (stderr, "mitherm-mqtt: %s\nTry: mitherm-mqtt --help\n",
               error != NULL ? error->message : "too many arguments");
      return EXIT_USAGE_ERROR;
    }
  if (version)
    {
      printf ("mitherm-mqtt %s\n", MITHERM_VERSION);
      return EXIT_SUCCESS;
    }
  g_log_writer_default_set_use_stderr (TRUE);
  if (verbose)
    g_log_set_debug_enabled (TRUE);
  return run (config, bus, exit_when_refused);
}
