/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sensor.h"

#include "output.h"

#include <math.h>

#define BATTERY_UNKNOWN 255

static char *
number (MithermDBusSensor1 *sensor, double (*get) (MithermDBusSensor1 *), const char *unit,
        int digits)
{
  double value = sensor != NULL ? get (sensor) : NAN;

  return isnan (value) ? g_strdup ("-") : g_strdup_printf ("%.*f %s", digits, value, unit);
}

char *
sensor_temperature (MithermDBusSensor1 *sensor)
{
  return number (sensor, mitherm_dbus_sensor1_get_temperature, "\302\260C", 1);
}

char *
sensor_humidity (MithermDBusSensor1 *sensor)
{
  return number (sensor, mitherm_dbus_sensor1_get_humidity, "%", 1);
}

char *
sensor_voltage (MithermDBusSensor1 *sensor)
{
  return number (sensor, mitherm_dbus_sensor1_get_voltage, "V", 2);
}

char *
sensor_battery (MithermDBusSensor1 *sensor)
{
  guint percent = sensor != NULL ? mitherm_dbus_sensor1_get_battery (sensor) : BATTERY_UNKNOWN;

  return percent == BATTERY_UNKNOWN ? g_strdup ("-") : g_strdup_printf ("%u %%", percent);
}

char *
sensor_age (MithermDBusSensor1 *sensor)
{
  guint64 updated = sensor != NULL ? mitherm_dbus_sensor1_get_updated (sensor) : 0;
  g_autofree char *age = NULL;

  if (updated == 0)
    return g_strdup ("-");
  age = output_age (updated);
  return g_strdup_printf ("%s%s", age, mitherm_dbus_sensor1_get_stale (sensor) ? " (stale)" : "");
}

const char *
sensor_trouble (MithermDBusSensor1 *sensor)
{
  if (sensor == NULL)
    return "";
  if (g_strcmp0 (mitherm_dbus_sensor1_get_key_state (sensor), "mismatch") == 0)
    return "key mismatch";
  return mitherm_dbus_sensor1_get_stale (sensor) ? "stale" : "";
}

GVariant *
sensor_values (MithermDBusSensor1 *sensor)
{
  g_autoptr (GVariant) all = g_variant_ref_sink (output_properties (G_DBUS_PROXY (sensor)));
  GVariantBuilder builder;
  GVariantIter iter;
  const char *name;
  GVariant *value;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_VARDICT);
  g_variant_iter_init (&iter, all);
  while (g_variant_iter_loop (&iter, "{&sv}", &name, &value))
    {
      gboolean heard = !g_str_equal (name, "Battery")
                       || mitherm_dbus_sensor1_get_battery (sensor) != BATTERY_UNKNOWN;

      g_variant_builder_add (&builder, "{sv}", name,
                             heard ? value : g_variant_new_maybe (G_VARIANT_TYPE_BYTE, NULL));
    }
  return g_variant_builder_end (&builder);
}

GVariant *
sensor_describe (MithermDBusDevice1 *device, MithermDBusSensor1 *sensor)
{
  g_autoptr (GVariant) all = g_variant_ref_sink (output_properties (G_DBUS_PROXY (device)));
  GVariantBuilder builder;
  GVariantIter iter;
  const char *name;
  GVariant *value;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_VARDICT);
  g_variant_iter_init (&iter, all);
  while (g_variant_iter_loop (&iter, "{&sv}", &name, &value))
    g_variant_builder_add (&builder, "{sv}", name, value);
  if (sensor != NULL)
    g_variant_builder_add (&builder, "{sv}", "Sensor", sensor_values (sensor));
  return g_variant_builder_end (&builder);
}
