/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "app.h"
#include "output.h"
#include "sensor.h"

#include <stdio.h>

static int
by_path (gconstpointer a, gconstpointer b)
{
  return g_strcmp0 (g_dbus_object_get_object_path (G_DBUS_OBJECT (a)),
                    g_dbus_object_get_object_path (G_DBUS_OBJECT (b)));
}

static const char *
or_dash (const char *text)
{
  return text == NULL || *text == '\0' ? "-" : text;
}

/* KEYS: also whether they open what it sends. */
static const char *
keys_text (MithermDBusDevice1 *device, MithermDBusSensor1 *sensor)
{
  if (!mitherm_dbus_device1_get_has_keys (device))
    return "no";
  if (sensor != NULL && g_strcmp0 (mitherm_dbus_sensor1_get_key_state (sensor), "mismatch") == 0)
    return "mismatch";
  return "yes";
}

static void
add_device (Table *table, MithermDBusDevice1 *device, MithermDBusSensor1 *sensor)
{
  g_autofree char *seen = output_age (mitherm_dbus_device1_get_last_seen (device));
  gint rssi = mitherm_dbus_device1_get_rssi (device);
  g_autofree char *level = rssi == 127 ? g_strdup ("-") : g_strdup_printf ("%d dBm", rssi);
  g_autofree char *temperature = sensor_temperature (sensor);
  g_autofree char *humidity = sensor_humidity (sensor);
  g_autofree char *battery = sensor_battery (sensor);
  g_autofree char *age = sensor_age (sensor);

  table_add (table, mitherm_dbus_device1_get_address (device),
             or_dash (mitherm_dbus_device1_get_name (device)),
             or_dash (mitherm_dbus_device1_get_model (device)),
             or_dash (mitherm_dbus_device1_get_firmware (device)),
             or_dash (mitherm_dbus_device1_get_bound (device)), keys_text (device, sensor),
             temperature, humidity, battery, age, level, seen, NULL);
}

static void
print_devices (App *app)
{
  g_autolist (GDBusObject) objects
      = g_list_sort (g_dbus_object_manager_get_objects (app->objects), by_path);
  g_autoptr (Table) table = table_new (12);
  GVariantBuilder all;
  guint count = 0;

  g_variant_builder_init (&all, G_VARIANT_TYPE ("aa{sv}"));
  table_add (table, "ADDRESS", "NAME", "MODEL", "FIRMWARE", "BOUND", "KEYS", "TEMP", "HUMIDITY",
             "BATTERY", "AGE", "RSSI", "SEEN", NULL);
  for (GList *l = objects; l != NULL; l = l->next)
    {
      g_autoptr (MithermDBusDevice1) device = mitherm_dbus_object_get_device1 (l->data);
      g_autoptr (MithermDBusSensor1) sensor = mitherm_dbus_object_get_sensor1 (l->data);

      if (device == NULL)
        continue;
      count++;
      add_device (table, device, sensor);
      g_variant_builder_add_value (&all, sensor_describe (device, sensor));
    }
  if (app->json)
    output_json (g_variant_builder_end (&all));
  else
    {
      g_variant_builder_clear (&all);
      table_print (table);
      if (count == 0)
        fprintf (stderr,
                 "No thermometer has been heard yet; they speak every few seconds at most.\n");
    }
}

static ExitStatus
run_list (App *app, int argc, char **argv)
{
  ExitStatus status;

  app_parse (app, &cmd_list, NULL, &argc, &argv);
  if (argc > 1)
    return app_usage (&cmd_list, "list takes no argument");
  if (!app_connect (app, &status))
    return status;
  app_wait_for_any (app);
  print_devices (app);
  return EXIT_DONE;
}

const Command cmd_list
    = { "list", "", "show all thermometers",
        "BOUND is yes or no only where the thermometer itself has told it; KEYS "
        "tells whether\nkeys are stored here, and whether they open what it sends. AGE is that "
        "of the values,\nSEEN that of the last advertisement.",
        run_list };

static MithermDBusSensor1 *
get_sensor (App *app, MithermDBusDevice1 *device)
{
  g_autoptr (GDBusInterface) interface = g_dbus_object_manager_get_interface (
      app->objects, g_dbus_proxy_get_object_path (G_DBUS_PROXY (device)), "org.mitherm.Sensor1");

  return interface != NULL ? MITHERM_DBUS_SENSOR1 (g_steal_pointer (&interface)) : NULL;
}

static ExitStatus
run_info (App *app, int argc, char **argv)
{
  gboolean read = FALSE;
  const GOptionEntry entries[] = { { "read", 'r', 0, G_OPTION_ARG_NONE, &read,
                                     "Connect and read it from the thermometer first", NULL },
                                   G_OPTION_ENTRY_NULL };
  g_autoptr (MithermDBusDevice1) device = NULL;
  g_autoptr (MithermDBusSensor1) sensor = NULL;
  g_autoptr (GVariant) facts = NULL;
  ExitStatus status;

  app_parse (app, &cmd_info, entries, &argc, &argv);
  if (argc > 2)
    return app_usage (&cmd_info, "info takes one thermometer at most");
  device = app_find_device (app, argc > 1 ? argv[1] : NULL, &status);
  if (device == NULL)
    return status;
  if (read)
    {
      g_autofree char *job = NULL;
      g_autoptr (GError) error = NULL;

      if (!mitherm_dbus_device1_call_read_info_sync (
              device, G_DBUS_CALL_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION, -1, &job, NULL, &error))
        return app_report (app, error);
      return app_follow_job (app, job);
    }
  sensor = get_sensor (app, device);
  facts = g_variant_ref_sink (sensor_describe (device, sensor));
  if (app->json)
    output_json (facts);
  else
    output_facts (facts, 0);
  return EXIT_DONE;
}

const Command cmd_info
    = { "info", "[DEV]", "show what is known of a thermometer",
        "DEV is an address, a unique name, or nothing when there is only one.\n"
        "Firmware and hardware are what was read last; --read connects and reads "
        "them now.",
        run_info };
