/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-sensor.h"

#include <math.h>
#include <string.h>

#include "mi-bytes.h"
#include "mi-crypto.h"
#include "mi-models.h"
#include "mitherm-links.h"
#include "mitherm-log.h"
#include "mitherm-properties.h"

#define BATTERY_UNKNOWN 255
/* A sensor that speaks seldom is stale after this many of its gaps. */
#define STALE_GAPS 3
/* The usual gap follows slowly, and one long silence counts as a few gaps at most. */
#define GAP_WEIGHT 8
#define GAP_GROWTH 4
/* New counts of known reasons alone are signalled this seldom, changes of the key logged so. */
#define DROPPED_SIGNAL_US (60 * G_USEC_PER_SEC)
#define KEY_LOG_US        (G_TIME_SPAN_HOUR)
/* So long the same bytes need no second look; well below the life of a packet id. */
#define REPEAT_US (10 * G_USEC_PER_SEC)

typedef enum
{
  KEY_NONE,
  KEY_OK,
  KEY_MISMATCH,
} KeyState;

/* Reasons beyond the decoder's errors. */
enum
{
  DROP_REPLAY = MI_ADVERT_N_ERRORS,
  DROP_LATE,
  DROP_IMPLAUSIBLE,
  N_DROPS,
};

typedef enum
{
  PROP_TEMPERATURE,
  PROP_HUMIDITY,
  PROP_BATTERY,
  PROP_VOLTAGE,
  PROP_FORMAT,
  PROP_ENCRYPTED,
  PROP_UPDATED,
  PROP_KEY_STATE,
  PROP_STALE,
  PROP_DROPPED,
  N_PROPERTIES,
} Property;

static const char *const property_names[] = {
  "Temperature", "Humidity", "Battery",  "Voltage", "Format",
  "Encrypted",   "Updated",  "KeyState", "Stale",   "Dropped",
};
G_STATIC_ASSERT (G_N_ELEMENTS (property_names) == N_PROPERTIES);

/* The last frame under one UUID. */
typedef struct
{
  gint64 since_us; /* monotonic time of its first report, 0: none */
  guint32 hash;
  guint16 uuid;
  guint8 known : 1;     /* nothing new would come of it */
  guint8 uncounted : 1; /* nothing but its bytes tells it from the next */
} Frame;

struct _MithermSensor
{
  MithermDevice *device; /* not owned: it owns the sensor */
  MithermSensorWatch *watch;
  MiAdvertKey *key; /* nullable */
  guint8 address[6];
  guint8 bind_key[MI_BIND_KEY_LEN]; /* what @key was made of */
  guint8 format;                    /* MiAdvertFormat */
  guint8 battery;
  guint8 key_state; /* KeyState */
  guint8 encrypted : 1;
  guint8 stale : 1;
  guint8 trigger_based : 1;
  guint8 key_known : 1; /* the store was asked */
  guint8 shown : 1;
  guint16 changed; /* bits of Property */
  guint32 dropped[N_DROPS];
  guint gap_ms; /* usual time between two values, 0: unknown */
  double temperature;
  double humidity;
  double voltage;
  gint64 value_us;   /* monotonic time of the last value, 0: none */
  gint64 updated_us; /* the same, UTC */
  gint64 dropped_us; /* when counts were signalled */
  gint64 logged_us;  /* when a change of the key was logged */
  Frame frames[MI_ADVERT_FILTER_UUIDS];
  MiAdvertFilter filter;
  GList link; /* in the watch, while not stale */
};

struct _MithermSensorWatch
{
  GQueue sensors; /* the one without a value for longest first */
  guint stale_s;
  guint source;
  MithermSensorStaleFunc func;
  gpointer user_data;
};

/* Staleness */

static gint64
stale_us (MithermSensor *self)
{
  gint64 limit_us = MAX ((gint64) self->watch->stale_s * G_USEC_PER_SEC,
                         STALE_GAPS * (gint64) self->gap_ms * 1000);

  return self->value_us + limit_us;
}

static gboolean on_watch (gpointer user_data);

static void
watch_until (MithermSensorWatch *self, gint64 due_us)
{
  gint64 left_us = MAX (due_us - g_get_monotonic_time (), 0);

  if (self->source == 0)
    self->source = g_timeout_add_seconds ((guint) (left_us / G_USEC_PER_SEC) + 1, on_watch, self);
}

/* Looks at those without a value for @stale_s only: the few that are slow, and the stale ones. */
static gboolean
on_watch (gpointer user_data)
{
  MithermSensorWatch *self = user_data;
  gint64 now_us = g_get_monotonic_time (), least_us = (gint64) self->stale_s * G_USEC_PER_SEC;
  gint64 due_us = now_us + least_us;
  GList *item = self->sensors.head;

  self->source = 0;
  while (item != NULL)
    {
      MithermSensor *sensor = item->data;

      /* None of those behind it can be stale any earlier, whatever their own gaps are. */
      if (sensor->value_us + least_us > now_us)
        {
          due_us = MIN (due_us, sensor->value_us + least_us);
          break;
        }
      if (stale_us (sensor) > now_us)
        due_us = MIN (due_us, stale_us (sensor));
      item = item->next;
      if (stale_us (sensor) > now_us)
        continue;
      g_queue_unlink (&self->sensors, &sensor->link);
      sensor->stale = TRUE;
      sensor->changed |= 1u << PROP_STALE;
      self->func (sensor->device, self->user_data);
    }
  if (self->sensors.head != NULL)
    watch_until (self, due_us);
  return G_SOURCE_REMOVE;
}

static void
rewatch (MithermSensor *self)
{
  mitherm_links_remove (&self->watch->sensors, &self->link);
  if (self->trigger_based) /* silence is what is usual */
    return;
  g_queue_push_tail_link (&self->watch->sensors, &self->link);
  watch_until (self->watch, self->value_us + (gint64) self->watch->stale_s * G_USEC_PER_SEC);
}

MithermSensorWatch *
mitherm_sensor_watch_new (guint stale_s, MithermSensorStaleFunc func, gpointer user_data)
{
  MithermSensorWatch *self = g_new0 (MithermSensorWatch, 1);

  g_queue_init (&self->sensors);
  self->stale_s = stale_s;
  self->func = func;
  self->user_data = user_data;
  return self;
}

void
mitherm_sensor_watch_free (MithermSensorWatch *self)
{
  if (self == NULL)
    return;
  g_clear_handle_id (&self->source, g_source_remove);
  g_free (self);
}

/* The key */

static void
drop_key (MithermSensor *self)
{
  g_clear_pointer (&self->key, mi_advert_key_free);
  explicit_bzero (self->bind_key, sizeof self->bind_key);
}

/* (nullable): the current set, else the newest one that the thermometer may hold */
static const MithermKeySet *
find_key_set (MithermSensor *self)
{
  const MithermRecord *record = mitherm_device_get_record (self->device);
  const MithermKeySet *found = NULL;

  for (guint i = 0; record != NULL && i < record->keys->len; i++)
    {
      const MithermKeySet *set = g_ptr_array_index (record->keys, i);

      if (!set->has_bind_key || set->state == MITHERM_KEY_OLD)
        continue;
      if (set->state == MITHERM_KEY_CURRENT)
        return set;
      if (found == NULL)
        found = set;
    }
  return found;
}

static const char *
key_state_name (guint8 state)
{
  static const char *const names[]
      = { [KEY_NONE] = "none", [KEY_OK] = "ok", [KEY_MISMATCH] = "mismatch" };

  return names[state];
}

static void
set_key_state (MithermSensor *self, KeyState state)
{
  gint64 now_us = g_get_monotonic_time ();

  if (self->key_state == state)
    return;
  /* Anybody on the air can make it change: once an hour is enough to read. */
  if ((state == KEY_MISMATCH || self->key_state == KEY_MISMATCH)
      && (self->logged_us == 0 || now_us - self->logged_us >= KEY_LOG_US))
    {
      mitherm_log_device (G_LOG_LEVEL_MESSAGE, mitherm_device_get_address (self->device),
                          state == KEY_MISMATCH
                              ? "the stored bind key does not open its advertisements any more"
                              : "the stored bind key opens its advertisements again");
      self->logged_us = now_us;
    }
  self->key_state = state;
  self->changed |= 1u << PROP_KEY_STATE;
}

static void
look_up_key (MithermSensor *self)
{
  const MithermKeySet *set = find_key_set (self);

  self->key_known = TRUE;
  if (set != NULL && self->key != NULL
      && mi_crypto_equal (set->keys.bind_key, self->bind_key, sizeof self->bind_key))
    return;
  drop_key (self);
  mi_advert_filter_reset (&self->filter);
  memset (self->frames, 0, sizeof self->frames);
  set_key_state (self, KEY_NONE);
  if (set == NULL)
    return;
  memcpy (self->bind_key, set->keys.bind_key, sizeof self->bind_key);
  self->key = mi_advert_key_new (self->bind_key, sizeof self->bind_key);
}

void
mitherm_sensor_keys_changed (MithermSensor *self)
{
  look_up_key (self);
}

MithermOpens
mitherm_sensor_try_key (const MithermAdvert *advert, const guint8 bind_key[MI_BIND_KEY_LEN])
{
  g_autoptr (MiAdvertKey) key = mi_advert_key_new (bind_key, MI_BIND_KEY_LEN);
  guint8 address[6];
  MiAdvert decoded;

  if (!mi_address_parse (advert->address, address))
    return MITHERM_OPENS_NOTHING;
  mi_advert_decode (advert->uuid, address, advert->data, advert->len, key, &decoded);
  if (decoded.error == MI_ADVERT_ERROR_AUTH_FAILED)
    return MITHERM_OPENS_NO;
  if (decoded.status == MI_ADVERT_STATUS_ERROR && decoded.error != MI_ADVERT_ERROR_MALFORMED)
    return MITHERM_OPENS_NOTHING;
  return decoded.encrypted ? MITHERM_OPENS_YES : MITHERM_OPENS_NOTHING;
}

/* What was not taken */

static const char *
drop_name (guint reason)
{
  if (reason < MI_ADVERT_N_ERRORS)
    return mi_advert_error_get_name ((MiAdvertError) reason);
  if (reason == DROP_REPLAY)
    return "replay";
  return reason == DROP_LATE ? "late" : "implausible";
}

static void
count_drop (MithermSensor *self, guint reason)
{
  gint64 now_us = g_get_monotonic_time ();

  self->shown = TRUE;
  if (self->dropped[reason] == G_MAXUINT32)
    return;
  if (self->dropped[reason]++ > 0 && now_us - self->dropped_us < DROPPED_SIGNAL_US)
    return;
  self->dropped_us = now_us;
  self->changed |= 1u << PROP_DROPPED;
}

static GVariant *
dropped_variant (MithermSensor *self)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("a{su}"));
  for (guint i = 0; i < N_DROPS; i++)
    if (self->dropped[i] > 0)
      g_variant_builder_add (&builder, "{su}", drop_name (i), self->dropped[i]);
  return g_variant_builder_end (&builder);
}

/* Values */

/* Some have names of their own here; numbers, unless they are boolean. */
static const char *
value_name (MiReadingKind kind)
{
  switch (kind)
    {
    case MI_READING_TEMPERATURE:
      return "temperature";
    case MI_READING_HUMIDITY:
      return "humidity";
    case MI_READING_BATTERY:
      return "battery";
    case MI_READING_VOLTAGE:
      return "voltage";
    default:
      return mi_reading_kind_get_name (kind);
    }
}

static guint8
percent (double value)
{
  return (guint8) (CLAMP (value, 0, 100) + 0.5);
}

static GVariant *
version_text (const MiReading *reading)
{
  GString *text = g_string_new (NULL);

  for (guint i = MIN (reading->raw_len, sizeof reading->value); i-- > 0;)
    g_string_append_printf (text, "%u%s", (guint) (reading->value >> (8 * i)) & 0xff,
                            i > 0 ? "." : "");
  return g_variant_new_take_string (g_string_free (text, FALSE));
}

static GVariant *
value_variant (const MiReading *reading)
{
  MiReadingKind kind = (MiReadingKind) reading->kind;
  double value = mi_reading_get_double (reading);

  if (kind == MI_READING_BATTERY)
    return g_variant_new_byte (percent (value));
  if (kind == MI_READING_VOLTAGE)
    return g_variant_new_double (value / 1000);
  if (kind == MI_READING_FIRMWARE_VERSION)
    return version_text (reading);
  if (mi_reading_kind_is_boolean (kind))
    return g_variant_new_boolean (reading->value != 0);
  return g_variant_new_double (value);
}

static GVariant *
describe (const MiAdvert *decoded, const MithermAdvert *advert, gint64 time_us)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_VARDICT);
  for (guint i = 0; i < decoded->n_readings; i++)
    {
      const MiReading *reading = &decoded->readings[i];
      const char *name = value_name ((MiReadingKind) reading->kind);
      g_autofree char *numbered
          = reading->ordinal > 1 ? g_strdup_printf ("%s_%u", name, reading->ordinal) : NULL;

      g_variant_builder_add (&builder, "{sv}", numbered != NULL ? numbered : name,
                             value_variant (reading));
    }
  if ((decoded->fields & MI_ADVERT_HAS_OPENING) != 0)
    g_variant_builder_add (&builder, "{sv}", "opening",
                           g_variant_new_boolean (decoded->opening != 0));
  if ((decoded->fields & MI_ADVERT_HAS_TRIGGER_OUTPUT) != 0)
    g_variant_builder_add (&builder, "{sv}", "trigger_output",
                           g_variant_new_boolean (decoded->trigger_output != 0));
  g_variant_builder_add (
      &builder, "{sv}", "format",
      g_variant_new_string (mi_advert_format_get_name ((MiAdvertFormat) decoded->format)));
  g_variant_builder_add (&builder, "{sv}", "encrypted",
                         g_variant_new_boolean (decoded->encrypted != 0));
  g_variant_builder_add (&builder, "{sv}", "rssi", g_variant_new_int16 (advert->rssi));
  g_variant_builder_add (&builder, "{sv}", "time", g_variant_new_uint64 ((guint64) time_us));
  return g_variant_builder_end (&builder);
}

static void
take_double (MithermSensor *self, const MiAdvert *decoded, MiReadingKind kind, double scale,
             double *own, Property property)
{
  const MiReading *reading = mi_advert_find (decoded, kind);
  double value;

  if (reading == NULL)
    return;
  value = mi_reading_get_double (reading) * scale;
  if (*own == value)
    return;
  *own = value;
  self->changed |= 1u << property;
}

static void
take_values (MithermSensor *self, const MiAdvert *decoded)
{
  const MiReading *battery = mi_advert_find (decoded, MI_READING_BATTERY);

  take_double (self, decoded, MI_READING_TEMPERATURE, 1, &self->temperature, PROP_TEMPERATURE);
  take_double (self, decoded, MI_READING_HUMIDITY, 1, &self->humidity, PROP_HUMIDITY);
  take_double (self, decoded, MI_READING_VOLTAGE, 0.001, &self->voltage, PROP_VOLTAGE);
  if (battery != NULL && percent (mi_reading_get_double (battery)) != self->battery)
    {
      self->battery = percent (mi_reading_get_double (battery));
      self->changed |= 1u << PROP_BATTERY;
    }
  if (self->format != decoded->format)
    self->changed |= 1u << PROP_FORMAT;
  if (self->encrypted != decoded->encrypted)
    self->changed |= 1u << PROP_ENCRYPTED;
  self->format = decoded->format;
  self->encrypted = decoded->encrypted;
}

/* Silence that made it stale counts, too: else one that always speaks so seldom stays unknown. */
static void
take_gap (MithermSensor *self, gint64 gap_us)
{
  gint64 usual_ms = self->gap_ms, gap_ms = gap_us / 1000;

  if (usual_ms == 0)
    usual_ms = MIN (gap_ms, GAP_GROWTH * 1000 * (gint64) self->watch->stale_s);
  else
    usual_ms = (usual_ms * (GAP_WEIGHT - 1) + MIN (gap_ms, usual_ms * GAP_GROWTH)) / GAP_WEIGHT + 1;
  self->gap_ms = (guint) CLAMP (usual_ms, 1, G_MAXINT);
}

static void
take_time (MithermSensor *self, gint64 now_us)
{
  if (self->value_us != 0)
    take_gap (self, now_us - self->value_us);
  if (self->stale)
    self->changed |= 1u << PROP_STALE;
  self->stale = FALSE;
  self->value_us = now_us;
  self->updated_us = g_get_real_time ();
  self->changed |= 1u << PROP_UPDATED;
  self->shown = TRUE;
  rewatch (self);
}

/* Advertisements */

gboolean
mitherm_sensor_has_format (guint16 uuid)
{
  switch (uuid)
    {
    case MI_ADVERT_UUID_MIBEACON:
    case MI_ADVERT_UUID_CUSTOM:
    case MI_ADVERT_UUID_BTHOME1:
    case MI_ADVERT_UUID_BTHOME1E:
    case MI_ADVERT_UUID_BTHOME2:
    case MI_ADVERT_UUID_QINGPING:
      return TRUE;
    default:
      return FALSE;
    }
}

static guint32
hash_frame (const MithermAdvert *advert)
{
  guint32 hash = 2166136261u; /* FNV-1a */

  for (gsize i = 0; i < advert->len; i++)
    hash = (hash ^ advert->data[i]) * 16777619u;
  return hash;
}

static Frame *
last_frame (MithermSensor *self, guint16 uuid)
{
  Frame *frame = self->frames;

  while (frame->uuid != 0 && frame->uuid != uuid)
    frame++; /* there are as many as mitherm_sensor_has_format() knows */
  frame->uuid = uuid;
  return frame;
}

static void
decode (MithermSensor *self, const MithermAdvert *advert, MiAdvert *decoded)
{
  const MithermFacts *facts = mitherm_device_get_facts (self->device);

  mi_advert_decode (advert->uuid, self->address, advert->data, advert->len, self->key, decoded);
  /*
   * A key of the stock firmware stays stored when custom firmware has replaced that, which then
   * speaks plainly. Only a version that was read from the device itself says so: what is advertised
   * anybody can send.
   */
  if (decoded->error == MI_ADVERT_ERROR_DOWNGRADE && mi_version_is_custom (facts->firmware))
    mi_advert_decode (advert->uuid, self->address, advert->data, advert->len, NULL, decoded);
}

static void
judge_key (MithermSensor *self, const MiAdvert *decoded)
{
  if (self->key == NULL)
    set_key_state (self, KEY_NONE);
  else if (mi_advert_filter_is_wrong_key (&self->filter))
    set_key_state (self, KEY_MISMATCH);
  else if (decoded->encrypted && decoded->status != MI_ADVERT_STATUS_ERROR)
    set_key_state (self, KEY_OK);
}

/* Stock firmware never goes back in its counter, but it has to be known that it is one. */
static gboolean
is_stock (MithermSensor *self)
{
  const char *firmware = mitherm_device_get_facts (self->device)->firmware;

  return firmware != NULL && !mi_version_is_custom (firmware)
         && !mitherm_device_is_custom (self->device);
}

/*
 * bluetoothd keeps the last frame of each UUID and may report all of them whenever it hears one:
 * that nobody has that key proves nothing more each time. @decoded: of the same bytes as before
 */
static gboolean
is_kept (MithermSensor *self, const MiAdvert *decoded)
{
  return decoded->error == MI_ADVERT_ERROR_AUTH_FAILED && self->frames[1].uuid != 0;
}

static void
count_drops (MithermSensor *self, const MiAdvert *decoded, MiAdvertVerdict verdict)
{
  if (verdict == MI_ADVERT_VERDICT_ERROR)
    count_drop (self, decoded->error);
  else if (verdict == MI_ADVERT_VERDICT_REPLAY)
    count_drop (self, DROP_REPLAY);
  else if (verdict == MI_ADVERT_VERDICT_STALE)
    count_drop (self, DROP_LATE);
  else if (verdict != MI_ADVERT_VERDICT_DUPLICATE && decoded->n_rejected > 0)
    count_drop (self, DROP_IMPLAUSIBLE);
}

static void
remember (Frame *frame, guint32 hash, const MiAdvert *decoded, MiAdvertVerdict verdict,
          gint64 now_us)
{
  if (frame->hash != hash || now_us - frame->since_us >= REPEAT_US)
    frame->since_us = now_us;
  frame->hash = hash;
  frame->known = verdict == MI_ADVERT_VERDICT_ACCEPT || verdict == MI_ADVERT_VERDICT_DUPLICATE
                 || (verdict == MI_ADVERT_VERDICT_IGNORED && decoded->n_rejected == 0);
  frame->uncounted = decoded->status == MI_ADVERT_STATUS_OK
                     && (decoded->fields & (MI_ADVERT_HAS_COUNTER | MI_ADVERT_HAS_PACKET_ID)) == 0;
}

GVariant *
mitherm_sensor_heard (MithermSensor *self, const MithermAdvert *advert)
{
  gint64 now_us = g_get_monotonic_time ();
  Frame *frame = last_frame (self, advert->uuid);
  guint32 hash = hash_frame (advert);
  MiAdvertVerdict verdict;
  gboolean repeated;
  MiAdvert decoded;

  if (!self->key_known)
    look_up_key (self);
  repeated = frame->since_us != 0 && frame->hash == hash;
  if (repeated && frame->known && now_us - frame->since_us < REPEAT_US)
    {
      if (frame->uncounted)
        take_time (self, now_us);
      return NULL;
    }
  decode (self, advert, &decoded);
  self->filter.strict = is_stock (self);
  if (repeated && is_kept (self, &decoded))
    verdict = MI_ADVERT_VERDICT_ERROR;
  else
    verdict = mi_advert_filter_check (&self->filter, &decoded, advert->data, advert->len, now_us);
  judge_key (self, &decoded);
  count_drops (self, &decoded, verdict);
  remember (frame, hash, &decoded, verdict, now_us);
  if (verdict != MI_ADVERT_VERDICT_ACCEPT || decoded.status != MI_ADVERT_STATUS_OK)
    return NULL;
  self->trigger_based = decoded.trigger_based;
  take_time (self, now_us);
  if (repeated && frame->uncounted)
    return NULL;
  take_values (self, &decoded);
  return describe (&decoded, advert, self->updated_us);
}

/* Properties */

gboolean
mitherm_sensor_is_shown (MithermSensor *self)
{
  return self->shown;
}

static GVariant *
get_property (gpointer object, guint property)
{
  MithermSensor *self = object;

  switch ((Property) property)
    {
    case PROP_TEMPERATURE:
      return g_variant_new_double (self->temperature);
    case PROP_HUMIDITY:
      return g_variant_new_double (self->humidity);
    case PROP_BATTERY:
      return g_variant_new_byte (self->battery);
    case PROP_VOLTAGE:
      return g_variant_new_double (self->voltage);
    case PROP_FORMAT:
      return g_variant_new_string (self->format == MI_ADVERT_FORMAT_NONE
                                       ? ""
                                       : mi_advert_format_get_name ((MiAdvertFormat) self->format));
    case PROP_ENCRYPTED:
      return g_variant_new_boolean (self->encrypted != 0);
    case PROP_UPDATED:
      return g_variant_new_uint64 ((guint64) self->updated_us);
    case PROP_KEY_STATE:
      return g_variant_new_string (key_state_name (self->key_state));
    case PROP_STALE:
      return g_variant_new_boolean (self->stale != 0);
    case PROP_DROPPED:
      return dropped_variant (self);
    case N_PROPERTIES:
    default:
      g_return_val_if_reached (NULL);
    }
}

static const MithermProperties properties = { property_names, N_PROPERTIES, get_property };

GVariant *
mitherm_sensor_get_property (MithermSensor *self, const char *name)
{
  return mitherm_properties_get (&properties, self, name);
}

GVariant *
mitherm_sensor_get_properties (MithermSensor *self)
{
  return mitherm_properties_list (&properties, self, G_MAXUINT);
}

gboolean
mitherm_sensor_has_changes (MithermSensor *self)
{
  return self->changed != 0;
}

GVariant *
mitherm_sensor_take_changes (MithermSensor *self)
{
  guint changed = self->changed;

  self->changed = 0;
  return mitherm_properties_list (&properties, self, changed);
}

/* Construction */

MithermSensor *
mitherm_sensor_new (MithermDevice *device, MithermSensorWatch *watch)
{
  MithermSensor *self = g_new0 (MithermSensor, 1);

  self->device = device;
  self->watch = watch;
  self->temperature = self->humidity = self->voltage = NAN;
  self->battery = BATTERY_UNKNOWN;
  self->link.data = self;
  if (!mi_address_parse (mitherm_device_get_address (device), self->address))
    g_warn_if_reached (); /* addresses were parsed when the device was made */
  return self;
}

void
mitherm_sensor_free (MithermSensor *self)
{
  if (self == NULL)
    return;
  mitherm_links_remove (&self->watch->sensors, &self->link);
  drop_key (self);
  g_free (self);
}
