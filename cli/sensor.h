/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-dbus.h"

G_BEGIN_DECLS

/* Texts of a thermometer's values for tables: "-" while there is none, or without a sensor. */
char *sensor_temperature (MithermDBusSensor1 *sensor);
char *sensor_humidity (MithermDBusSensor1 *sensor);
char *sensor_battery (MithermDBusSensor1 *sensor);
char *sensor_voltage (MithermDBusSensor1 *sensor);
/* How old they are, and whether that is too old. */
char *sensor_age (MithermDBusSensor1 *sensor);
/* What is wrong with it, or empty. */
const char *sensor_trouble (MithermDBusSensor1 *sensor);

/*
 * Properties of Device1 as a{sv}, with those of Sensor1, if there is one, as Sensor; what has not
 * been heard is null there.
 */
GVariant *sensor_describe (MithermDBusDevice1 *device, MithermDBusSensor1 *sensor);
/* Those of Sensor1 alone. */
GVariant *sensor_values (MithermDBusSensor1 *sensor);

G_END_DECLS
