/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-device.h"

G_BEGIN_DECLS

/*
 * What one thermometer measures, as org.mitherm.Sensor1 shows it: advertisements go in, values,
 * the state of the key and counts of what was not taken come out. Nothing here looks at any other
 * thermometer, writes to disk or allocates for frames that are not new.
 */
typedef struct _MithermSensor MithermSensor;

/* Seconds without a value after which the last one counts as stale, at the earliest. */
#define MITHERM_SENSOR_STALE_S 900

/**
 * MithermSensorWatch:
 *
 * One timer for all sensors: it finds those whose values have become stale.
 */
typedef struct _MithermSensorWatch MithermSensorWatch;

typedef void (*MithermSensorStaleFunc) (MithermDevice *device, gpointer user_data);

/* @stale_s: see %MITHERM_SENSOR_STALE_S; @func: called for each sensor that has become stale */
MithermSensorWatch *mitherm_sensor_watch_new (guint stale_s, MithermSensorStaleFunc func,
                                              gpointer user_data);
/* After the last of its sensors. */
void mitherm_sensor_watch_free (MithermSensorWatch *self);

/* Whether service data of @uuid may hold measurements. */
gboolean mitherm_sensor_has_format (guint16 uuid);

/* @device: borrowed; it owns the sensor */
MithermSensor *mitherm_sensor_new (MithermDevice *device, MithermSensorWatch *watch);
void mitherm_sensor_free (MithermSensor *self);

/**
 * mitherm_sensor_heard:
 *
 * Returns: (transfer floating) (nullable): a{sv} for the signal Measurement, if @advert is new and
 *   holds values
 */
GVariant *mitherm_sensor_heard (MithermSensor *self, const MithermAdvert *advert);
/* The stored keys have changed: the bind key is looked up again, and KeyState may have changed. */
void mitherm_sensor_keys_changed (MithermSensor *self);

/* Whether there is something to show: a value, or an advertisement that had to be dropped. */
gboolean mitherm_sensor_is_shown (MithermSensor *self);
/* (transfer floating) (nullable) */
GVariant *mitherm_sensor_get_property (MithermSensor *self, const char *name);
/* (transfer floating): a{sv} */
GVariant *mitherm_sensor_get_properties (MithermSensor *self);
gboolean mitherm_sensor_has_changes (MithermSensor *self);
/* (transfer floating): a{sv} of what has changed since it was called last */
GVariant *mitherm_sensor_take_changes (MithermSensor *self);

typedef enum
{
  MITHERM_OPENS_NOTHING, /* nothing encrypted in it */
  MITHERM_OPENS_NO,      /* encrypted by another key, or damaged */
  MITHERM_OPENS_YES,     /* authentic under this key */
} MithermOpens;

/* Whether @bind_key is the one by which @advert was encrypted; changes nothing. */
MithermOpens mitherm_sensor_try_key (const MithermAdvert *advert,
                                     const guint8 bind_key[MI_BIND_KEY_LEN]);

G_END_DECLS
