/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "app.h"
#include "output.h"
#include "sensor.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define REDRAW_MS 1000
/* Cursor to the corner; forget the rest of a line, of the screen. */
#define TERM_HOME "\033[H"
#define TERM_EOL  "\033[K"
#define TERM_REST "\033[J"
/* No cursor, and no second line for what is wider than the terminal; and back again. */
#define TERM_BEGIN "\033[?25l\033[?7l"
#define TERM_END   "\033[?7h\033[?25h"

typedef struct
{
  App *app;
  GMainLoop *loop;
} Monitor;

/* Lines of JSON: one object for each thing that happens. */

/* (nullable): "A4:C1:38:00:00:01" */
static char *
address_of (const char *path)
{
  static const char prefix[] = "/org/mitherm/device/";

  if (!g_str_has_prefix (path, prefix))
    return NULL;
  return g_strdelimit (g_strdup (path + strlen (prefix)), "_", ':');
}

static void
begin_event (GVariantBuilder *line, const char *event, const char *path)
{
  g_autofree char *address = address_of (path);

  g_variant_builder_init (line, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (line, "{sv}", "event", g_variant_new_string (event));
  g_variant_builder_add (line, "{sv}", "object", g_variant_new_string (path));
  if (address != NULL)
    g_variant_builder_add (line, "{sv}", "address", g_variant_new_string (address));
}

static void
print_event (const char *event, const char *path, const char *interface, GVariant *properties)
{
  GVariantBuilder line;

  begin_event (&line, event, path);
  if (interface != NULL)
    g_variant_builder_add (&line, "{sv}", "interface", g_variant_new_string (interface));
  if (properties != NULL)
    g_variant_builder_add (&line, "{sv}", "properties", properties);
  output_json (g_variant_builder_end (&line));
}

/* Those that go on changing with every advertisement; measurements tell them better. */
static gboolean
is_noise (const char *property)
{
  static const char *const noise[]
      = { "Adapter", "Battery",     "Encrypted", "Format",  "Humidity", "LastSeen",
          "Rssi",    "Temperature", "Updated",   "Voltage", NULL };

  return g_strv_contains (noise, property);
}

static void
on_interface_changed (GDBusObjectManagerClient *objects, GDBusObjectProxy *object,
                      GDBusProxy *proxy, GVariant *changed, const char *const *invalidated,
                      gpointer data)
{
  g_auto (GVariantBuilder) news = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE_VARDICT);
  GVariantIter iter;
  const char *name;
  GVariant *value;
  gboolean any = FALSE;

  g_variant_iter_init (&iter, changed);
  while (g_variant_iter_loop (&iter, "{&sv}", &name, &value))
    {
      if (is_noise (name))
        continue;
      g_variant_builder_add (&news, "{sv}", name, value);
      any = TRUE;
    }
  if (any)
    print_event ("changed", g_dbus_proxy_get_object_path (proxy),
                 g_dbus_proxy_get_interface_name (proxy), g_variant_builder_end (&news));
}

static void
print_added (GDBusProxy *proxy)
{
  print_event ("added", g_dbus_proxy_get_object_path (proxy),
               g_dbus_proxy_get_interface_name (proxy),
               MITHERM_DBUS_IS_SENSOR1 (proxy) ? sensor_values (MITHERM_DBUS_SENSOR1 (proxy))
                                               : output_properties (proxy));
}

static void
on_object_added (GDBusObjectManager *objects, GDBusObject *object, gpointer data)
{
  g_autolist (GDBusInterface) interfaces = g_dbus_object_get_interfaces (object);

  for (GList *l = interfaces; l != NULL; l = l->next)
    print_added (l->data);
}

static void
on_interface_added (GDBusObjectManager *objects, GDBusObject *object, GDBusInterface *interface,
                    gpointer data)
{
  print_added (G_DBUS_PROXY (interface));
}

static void
on_object_removed (GDBusObjectManager *objects, GDBusObject *object, gpointer data)
{
  print_event ("removed", g_dbus_object_get_object_path (object), NULL, NULL);
}

static void
on_interface_signal (GDBusObjectManagerClient *objects, GDBusObjectProxy *object, GDBusProxy *proxy,
                     const char *sender, const char *signal, GVariant *parameters, gpointer data)
{
  g_autoptr (GVariant) values = NULL;
  GVariantBuilder line;
  GVariantIter iter;
  const char *name;
  GVariant *value;

  if (!g_str_equal (signal, "Measurement")
      || !g_variant_is_of_type (parameters, G_VARIANT_TYPE ("(a{sv})")))
    return;
  values = g_variant_get_child_value (parameters, 0);
  begin_event (&line, "measurement", g_dbus_proxy_get_object_path (proxy));
  g_variant_iter_init (&iter, values);
  while (g_variant_iter_loop (&iter, "{&sv}", &name, &value))
    g_variant_builder_add (&line, "{sv}", name, value);
  output_json (g_variant_builder_end (&line));
}

static void
watch_as_lines (Monitor *monitor)
{
  GDBusObjectManager *objects = monitor->app->objects;
  g_autolist (GDBusObject) all = g_dbus_object_manager_get_objects (objects);

  for (GList *l = all; l != NULL; l = l->next)
    on_object_added (objects, l->data, monitor);
  g_signal_connect (objects, "interface-proxy-properties-changed",
                    G_CALLBACK (on_interface_changed), monitor);
  g_signal_connect (objects, "interface-proxy-signal", G_CALLBACK (on_interface_signal), monitor);
  g_signal_connect (objects, "object-added", G_CALLBACK (on_object_added), monitor);
  g_signal_connect (objects, "interface-added", G_CALLBACK (on_interface_added), monitor);
  g_signal_connect (objects, "object-removed", G_CALLBACK (on_object_removed), monitor);
}

/* A table that is drawn anew each second. */

static int
by_path (gconstpointer a, gconstpointer b)
{
  return g_strcmp0 (g_dbus_object_get_object_path (G_DBUS_OBJECT (a)),
                    g_dbus_object_get_object_path (G_DBUS_OBJECT (b)));
}

static void
add_row (Table *table, MithermDBusDevice1 *device, MithermDBusSensor1 *sensor)
{
  const char *name = mitherm_dbus_device1_get_name (device);
  gint rssi = mitherm_dbus_device1_get_rssi (device);
  g_autofree char *level = rssi == 127 ? g_strdup ("-") : g_strdup_printf ("%d dBm", rssi);
  g_autofree char *temperature = sensor_temperature (sensor);
  g_autofree char *humidity = sensor_humidity (sensor);
  g_autofree char *battery = sensor_battery (sensor);
  g_autofree char *voltage = sensor_voltage (sensor);
  g_autofree char *seen = output_age (mitherm_dbus_device1_get_last_seen (device));
  g_autofree char *age = sensor_age (sensor);

  table_add (table, mitherm_dbus_device1_get_address (device),
             name != NULL && *name != '\0' ? name : "-", temperature, humidity, battery, voltage,
             age, level, seen, sensor_trouble (sensor), NULL);
}

static guint
terminal_rows (void)
{
  struct winsize size = { 0 };

  return ioctl (STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 2 ? size.ws_row : 24;
}

static gboolean
is_there (Monitor *monitor)
{
  g_autofree char *owner = g_dbus_object_manager_client_get_name_owner (
      G_DBUS_OBJECT_MANAGER_CLIENT (monitor->app->objects));

  return owner != NULL;
}

static gboolean
on_redraw (gpointer data)
{
  Monitor *monitor = data;
  g_autolist (GDBusObject) all
      = g_list_sort (g_dbus_object_manager_get_objects (monitor->app->objects), by_path);
  g_autoptr (Table) table = table_new (10);
  guint left = terminal_rows () - 2, hidden = 0;

  table_add (table, "ADDRESS", "NAME", "TEMP", "HUMIDITY", "BATTERY", "VOLTAGE", "AGE", "RSSI",
             "SEEN", "", NULL);
  for (GList *l = all; l != NULL; l = l->next)
    {
      g_autoptr (MithermDBusDevice1) device = mitherm_dbus_object_get_device1 (l->data);
      g_autoptr (MithermDBusSensor1) sensor = mitherm_dbus_object_get_sensor1 (l->data);

      if (device == NULL)
        continue;
      if (left == 0)
        hidden++;
      else
        {
          add_row (table, device, sensor);
          left--;
        }
    }
  fputs (TERM_HOME, stdout);
  table_print_with_end (table, TERM_EOL "\n");
  if (!is_there (monitor))
    fputs ("waiting for the daemon" TERM_EOL, stdout);
  else if (hidden > 0)
    printf ("... and %u more" TERM_EOL, hidden);
  fputs (TERM_REST, stdout);
  fflush (stdout);
  return G_SOURCE_CONTINUE;
}

/* Sources that draw the table; 0: none. */
typedef struct
{
  guint redraw;
  guint resize;
} Screen;

static Screen
watch_as_table (Monitor *monitor)
{
  Screen screen;

  fputs (TERM_BEGIN TERM_HOME TERM_REST, stdout);
  on_redraw (monitor);
  screen.redraw = g_timeout_add (REDRAW_MS, on_redraw, monitor);
  screen.resize = g_unix_signal_add (SIGWINCH, on_redraw, monitor);
  return screen;
}

static void
leave_screen (const Screen *screen)
{
  if (screen->redraw == 0)
    return;
  g_source_remove (screen->redraw);
  g_source_remove (screen->resize);
  fputs (TERM_END "\n", stdout);
}

static gboolean
on_interrupt (gpointer data)
{
  g_main_loop_quit (((Monitor *) data)->loop);
  return G_SOURCE_CONTINUE;
}

/* Nobody reads any more: GLib has SIGPIPE ignored, and the next line may be long in coming. */
static gboolean
on_output_closed (gint fd, GIOCondition condition, gpointer data)
{
  g_main_loop_quit (((Monitor *) data)->loop);
  return G_SOURCE_REMOVE;
}

static void
run_until_interrupted (Monitor *monitor)
{
  guint interrupt = g_unix_signal_add (SIGINT, on_interrupt, monitor);
  guint terminate = g_unix_signal_add (SIGTERM, on_interrupt, monitor);
  GSource *output = g_unix_fd_source_new (STDOUT_FILENO, G_IO_ERR | G_IO_HUP);

  g_source_set_callback (output, G_SOURCE_FUNC (on_output_closed), monitor, NULL);
  g_source_attach (output, NULL);
  g_main_loop_run (monitor->loop);
  g_source_destroy (output);
  g_source_unref (output);
  g_source_remove (interrupt);
  g_source_remove (terminate);
}

static ExitStatus
run_monitor (App *app, int argc, char **argv)
{
  g_autoptr (GMainLoop) loop = g_main_loop_new (NULL, FALSE);
  Monitor monitor = { app, loop };
  Screen screen = { 0 };
  ExitStatus status;

  app_parse (app, &cmd_monitor, NULL, &argc, &argv);
  if (argc > 1)
    return app_usage (&cmd_monitor, "monitor takes no argument");
  if (!app_connect (app, &status))
    return status;
  if (app->json || !isatty (STDOUT_FILENO))
    watch_as_lines (&monitor);
  else
    screen = watch_as_table (&monitor);
  run_until_interrupted (&monitor);
  g_signal_handlers_disconnect_by_data (app->objects, &monitor);
  leave_screen (&screen);
  return EXIT_DONE;
}

const Command cmd_monitor = {
  "monitor", "", "show what is measured, until interrupted",
  "A table on a terminal; elsewhere, and with --json, one JSON object a line: a measurement,\n"
  "or what has been added, changed or removed.",
  run_monitor
};
