/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-payload.h"

#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

#define TOPIC_ROOT        "mitherm/"
#define ID_PREFIX         "mitherm_"
#define EXPIRE_AFTER_S    3600
#define BATTERY_UNKNOWN   255
#define RSSI_UNKNOWN      127
#define BATTERY_LOW       10
#define BATTERY_FINE      15
#define VOLTAGE_LOW       2.2
#define VOLTAGE_FINE      2.4
#define NAME_MAX_CHARS    64
#define PROBLEM_MAX_BYTES 4096

static const char *const topic_names[BRIDGE_N_TOPICS] = {
  [BRIDGE_TOPIC_STATE] = "state",
  [BRIDGE_TOPIC_UPDATE] = "update",
  [BRIDGE_TOPIC_PROBLEM] = "problem",
  [BRIDGE_TOPIC_AVAILABILITY] = "availability",
};

gboolean
bridge_id_from_address (const char *address, char *id)
{
  if (strlen (address) != 17)
    return FALSE;
  for (guint i = 0, n = 0; i < 17; i++)
    if (i % 3 == 2 ? address[i] != ':' : !g_ascii_isxdigit (address[i]))
      return FALSE;
    else if (i % 3 != 2)
      id[n++] = g_ascii_tolower (address[i]);
  id[BRIDGE_ID_LEN] = '\0';
  return TRUE;
}

gboolean
bridge_thermometer_init (BridgeThermometer *self, const char *address)
{
  memset (self, 0, sizeof *self);
  if (!bridge_id_from_address (address, self->id))
    return FALSE;
  self->address = g_ascii_strup (address, -1);
  self->name = g_strdup ("");
  self->model = g_strdup ("");
  self->hardware = g_strdup ("");
  self->firmware = g_strdup ("");
  self->update_version = g_strdup ("");
  self->key_state = g_strdup ("none");
  self->last_error = g_strdup ("");
  self->summary = g_strdup ("");
  self->temperature = self->humidity = self->voltage = NAN;
  self->battery = BATTERY_UNKNOWN;
  self->rssi = RSSI_UNKNOWN;
  self->progress = -1;
  return TRUE;
}

void
bridge_thermometer_clear (BridgeThermometer *self)
{
  g_clear_pointer (&self->address, g_free);
  g_clear_pointer (&self->name, g_free);
  g_clear_pointer (&self->model, g_free);
  g_clear_pointer (&self->hardware, g_free);
  g_clear_pointer (&self->firmware, g_free);
  g_clear_pointer (&self->update_version, g_free);
  g_clear_pointer (&self->key_state, g_free);
  g_clear_pointer (&self->last_error, g_free);
  g_clear_pointer (&self->summary, g_free);
}

void
bridge_set_text (char **field, const char *value)
{
  if (g_strcmp0 (*field, value) == 0)
    return;
  g_free (*field);
  *field = g_strdup (value != NULL ? value : "");
}

void
bridge_thermometer_judge_battery (BridgeThermometer *self)
{
  if (self->battery <= 100)
    self->low_battery = self->battery <= (self->low_battery ? BATTERY_FINE - 1 : BATTERY_LOW);
  else if (self->voltage > 0)
    self->low_battery = self->voltage < (self->low_battery ? VOLTAGE_FINE : VOLTAGE_LOW);
}

char *
bridge_topic (const char *id, BridgeTopic topic)
{
  return g_strconcat (TOPIC_ROOT, id, "/", topic_names[topic], NULL);
}

char *
bridge_config_topic (const char *prefix, const char *id)
{
  return g_strconcat (prefix, "/device/" ID_PREFIX, id, "/config", NULL);
}

/* Shows names from the air as they are, but for control characters and endless length. */
static char *
clean (const char *text, glong max_chars)
{
  GString *out = g_string_new (NULL);
  glong n = 0;

  for (const char *p = text; *p != '\0' && n < max_chars; p = g_utf8_next_char (p), n++)
    {
      gunichar c = g_utf8_get_char_validated (p, -1);

      if (c == (gunichar) -1 || c == (gunichar) -2)
        break;
      g_string_append_unichar (out, g_unichar_iscntrl (c) ? ' ' : c);
    }
  return g_string_free (out, FALSE);
}

/* Many thermometers of one model advertise the model as their name: tell them apart. */
static char *
display_name (const BridgeThermometer *self)
{
  g_autofree char *name = clean (self->name, NAME_MAX_CHARS);
  g_autofree char *model = clean (self->model, NAME_MAX_CHARS);
  g_autofree char *last = g_ascii_strup (self->id + BRIDGE_ID_LEN - 6, -1);

  g_strstrip (name);
  if (*name != '\0' && strstr (name, last) != NULL)
    return g_steal_pointer (&name);
  if (*name != '\0' && g_strcmp0 (name, model) != 0)
    return g_strdup_printf ("%s %s", name, last);
  return g_strdup_printf ("%s %s", *model != '\0' ? model : "Thermometer", last);
}

static void
add_text (JsonBuilder *json, const char *key, const char *value)
{
  json_builder_set_member_name (json, key);
  json_builder_add_string_value (json, value);
}

/* Leaves out what is unknown. */
static void
add_known_text (JsonBuilder *json, const char *key, const char *value)
{
  g_autofree char *cleaned = clean (value, BRIDGE_TEXT_MAX);

  if (*cleaned != '\0')
    add_text (json, key, cleaned);
}

static void
add_flag (JsonBuilder *json, const char *key, gboolean value)
{
  json_builder_set_member_name (json, key);
  json_builder_add_boolean_value (json, value);
}

static void
add_integer (JsonBuilder *json, const char *key, gint64 value)
{
  json_builder_set_member_name (json, key);
  json_builder_add_int_value (json, value);
}

static void
add_known_number (JsonBuilder *json, const char *key, double value)
{
  if (!isfinite (value))
    return;
  json_builder_set_member_name (json, key);
  json_builder_add_double_value (json, value);
}

static void
add_own_topic (JsonBuilder *json, const char *key, const BridgeThermometer *self, const char *name)
{
  g_autofree char *topic = g_strconcat (TOPIC_ROOT, self->id, "/", name, NULL);

  add_text (json, key, topic);
}

static char *
finish (JsonBuilder *json)
{
  g_autoptr (JsonNode) root = json_builder_get_root (json);

  return json_to_string (root, FALSE);
}

typedef struct
{
  const char *key;
  const char *name; /* NULL: the device class names it */
  const char *device_class;
  const char *unit;
  int precision; /* negative: none suggested */
  gboolean diagnostic;
  gboolean hidden; /* disabled until the user asks for it */
} Sensor;

static const Sensor sensors[] = {
  { "temperature", NULL, "temperature", "°C", 1, FALSE, FALSE },
  { "humidity", NULL, "humidity", "%", 0, FALSE, FALSE },
  { "battery", NULL, "battery", "%", -1, TRUE, FALSE },
  { "voltage", NULL, "voltage", "V", 2, TRUE, TRUE },
  { "rssi", NULL, "signal_strength", "dBm", -1, TRUE, TRUE },
};

/* Opens the component's object and adds what every component has. */
static void
begin_component (JsonBuilder *json, const BridgeThermometer *self, const char *key,
                 const char *platform)
{
  g_autofree char *unique_id = g_strconcat (ID_PREFIX, self->id, "_", key, NULL);

  json_builder_set_member_name (json, key);
  json_builder_begin_object (json);
  add_text (json, "p", platform);
  add_text (json, "unique_id", unique_id);
}

static void
add_value_template (JsonBuilder *json, const char *key)
{
  /* A value that the state leaves out is unknown, and no error in Home Assistant's log. */
  g_autofree char *template = g_strdup_printf ("{{ value_json.%s | default(None) }}", key);

  add_text (json, "value_template", template);
}

static void
add_sensor (JsonBuilder *json, const BridgeThermometer *self, const Sensor *sensor)
{
  begin_component (json, self, sensor->key, "sensor");
  add_text (json, "device_class", sensor->device_class);
  add_text (json, "state_class", "measurement");
  add_text (json, "unit_of_measurement", sensor->unit);
  if (sensor->precision >= 0)
    add_integer (json, "suggested_display_precision", sensor->precision);
  add_value_template (json, sensor->key);
  add_integer (json, "expire_after", EXPIRE_AFTER_S);
  if (sensor->diagnostic)
    add_text (json, "entity_category", "diagnostic");
  if (sensor->hidden)
    add_flag (json, "enabled_by_default", FALSE);
  json_builder_end_object (json);
}

static void
add_last_seen (JsonBuilder *json, const BridgeThermometer *self)
{
  begin_component (json, self, "last_seen", "sensor");
  add_text (json, "name", "Last seen");
  add_text (json, "device_class", "timestamp");
  add_text (json, "entity_category", "diagnostic");
  add_value_template (json, "last_seen");
  json_builder_end_object (json);
}

static void
add_firmware (JsonBuilder *json, const BridgeThermometer *self)
{
  begin_component (json, self, "firmware", "update");
  add_text (json, "name", "Firmware");
  add_text (json, "device_class", "firmware");
  add_text (json, "entity_category", "config");
  add_own_topic (json, "state_topic", self, "update");
  add_own_topic (json, "command_topic", self, "update/set");
  add_text (json, "payload_install", BRIDGE_PAYLOAD_INSTALL);
  json_builder_end_object (json);
}

static void
add_clock (JsonBuilder *json, const BridgeThermometer *self)
{
  begin_component (json, self, "clock", "button");
  add_text (json, "name", "Set clock");
  add_text (json, "entity_category", "config");
  add_own_topic (json, "command_topic", self, "clock/set");
  add_text (json, "payload_press", BRIDGE_PAYLOAD_PRESS);
  json_builder_end_object (json);
}

static void
add_problem (JsonBuilder *json, const BridgeThermometer *self)
{
  begin_component (json, self, "problem", "binary_sensor");
  add_text (json, "device_class", "problem");
  add_text (json, "entity_category", "diagnostic");
  add_own_topic (json, "state_topic", self, "problem");
  add_own_topic (json, "json_attributes_topic", self, "problem");
  add_text (json, "value_template", "{{ value_json.problem }}");
  json_builder_end_object (json);
}

static void
add_device (JsonBuilder *json, const BridgeThermometer *self)
{
  g_autofree char *identifier = g_strconcat (ID_PREFIX, self->id, NULL);
  g_autofree char *serial = g_ascii_strup (self->id, -1);
  g_autofree char *name = display_name (self);

  json_builder_set_member_name (json, "dev");
  json_builder_begin_object (json);
  json_builder_set_member_name (json, "ids");
  json_builder_begin_array (json);
  json_builder_add_string_value (json, identifier);
  json_builder_end_array (json);
  json_builder_set_member_name (json, "cns");
  json_builder_begin_array (json);
  json_builder_begin_array (json);
  json_builder_add_string_value (json, "bluetooth");
  json_builder_add_string_value (json, self->address);
  json_builder_end_array (json);
  json_builder_end_array (json);
  add_text (json, "name", name);
  add_text (json, "mf", "Xiaomi");
  add_known_text (json, "mdl", self->model);
  add_known_text (json, "mdl_id", self->model);
  add_known_text (json, "sw", self->firmware);
  add_known_text (json, "hw", self->hardware);
  add_text (json, "sn", serial);
  json_builder_end_object (json);
}

static void
add_availability (JsonBuilder *json, const BridgeThermometer *self)
{
  json_builder_set_member_name (json, "availability");
  json_builder_begin_array (json);
  json_builder_begin_object (json);
  add_text (json, "topic", BRIDGE_AVAILABILITY_TOPIC);
  json_builder_end_object (json);
  json_builder_begin_object (json);
  add_own_topic (json, "topic", self, "availability");
  json_builder_end_object (json);
  json_builder_end_array (json);
  add_text (json, "availability_mode", "all");
}

char *
bridge_payload_discovery (const BridgeThermometer *self)
{
  g_autoptr (JsonBuilder) json = json_builder_new ();

  json_builder_begin_object (json);
  add_device (json, self);
  json_builder_set_member_name (json, "o");
  json_builder_begin_object (json);
  add_text (json, "name", "mitherm");
  add_text (json, "sw", MITHERM_VERSION);
  json_builder_end_object (json);
  add_availability (json, self);
  add_own_topic (json, "state_topic", self, "state");
  add_integer (json, "qos", 1);
  json_builder_set_member_name (json, "cmps");
  json_builder_begin_object (json);
  for (gsize i = 0; i < G_N_ELEMENTS (sensors); i++)
    add_sensor (json, self, &sensors[i]);
  add_last_seen (json, self);
  add_firmware (json, self);
  add_clock (json, self);
  add_problem (json, self);
  json_builder_end_object (json);
  json_builder_end_object (json);
  return finish (json);
}

char *
bridge_payload_state (const BridgeThermometer *self)
{
  g_autoptr (JsonBuilder) json = json_builder_new ();
  g_autoptr (GDateTime) seen = g_date_time_new_from_unix_utc (self->last_seen / G_USEC_PER_SEC);
  g_autofree char *seen_text = NULL;

  json_builder_begin_object (json);
  if (!self->stale)
    {
      add_known_number (json, "temperature", self->temperature);
      add_known_number (json, "humidity", self->humidity);
      /* What runs on a battery and speaks has some. */
      if (self->voltage > 0)
        add_known_number (json, "voltage", self->voltage);
      if (self->battery <= 100)
        add_integer (json, "battery", self->battery);
    }
  if (self->rssi != RSSI_UNKNOWN)
    add_integer (json, "rssi", self->rssi);
  if (self->last_seen > 0 && seen != NULL)
    {
      seen_text = g_date_time_format (seen, "%Y-%m-%dT%H:%M:%S+00:00");
      add_text (json, "last_seen", seen_text);
    }
  json_builder_end_object (json);
  return finish (json);
}

/*
 * Home Assistant checks the whole object: an unknown key, a null but in update_percentage, or a
 * percentage out of range makes it drop the message.
 */
char *
bridge_payload_update (const BridgeThermometer *self)
{
  g_autoptr (JsonBuilder) json = json_builder_new ();
  const char *latest = *self->update_version != '\0' ? self->update_version : self->firmware;
  g_autofree char *title = *self->model != '\0' ? g_strconcat (self->model, " firmware", NULL)
                                                : g_strdup ("Thermometer firmware");
  g_autofree char *summary = clean (self->summary, BRIDGE_TEXT_MAX);

  json_builder_begin_object (json);
  add_known_text (json, "installed_version", self->firmware);
  add_known_text (json, "latest_version", latest);
  add_known_text (json, "title", title);
  /* Home Assistant keeps the last one that it was told, so that empty is told, too. */
  add_text (json, "release_summary", summary);
  add_flag (json, "in_progress", self->updating);
  json_builder_set_member_name (json, "update_percentage");
  if (self->updating && self->progress >= 0)
    json_builder_add_int_value (json, (gint64) floor (100 * fmin (self->progress, 1)));
  else
    json_builder_add_null_value (json);
  json_builder_end_object (json);
  return finish (json);
}

char *
bridge_payload_problem (const BridgeThermometer *self)
{
  g_autoptr (JsonBuilder) json = json_builder_new ();
  gboolean mismatch = g_strcmp0 (self->key_state, "mismatch") == 0;
  g_autofree char *error = clean (self->last_error, BRIDGE_TEXT_MAX);

  json_builder_begin_object (json);
  add_text (json, "problem", mismatch || self->low_battery ? "ON" : "OFF");
  add_flag (json, "key_mismatch", mismatch);
  add_flag (json, "low_battery", self->low_battery);
  add_flag (json, "has_keys", self->has_keys);
  add_text (json, "last_error", error);
  json_builder_end_object (json);
  return finish (json);
}

gboolean
bridge_problem_has_keys (const void *payload, gsize len, gboolean *has_keys)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  JsonNode *root, *member;

  if (len == 0 || len > PROBLEM_MAX_BYTES
      || !json_parser_load_from_data (parser, payload, (gssize) len, NULL))
    return FALSE;
  root = json_parser_get_root (parser);
  if (root == NULL || !JSON_NODE_HOLDS_OBJECT (root))
    return FALSE;
  member = json_object_get_member (json_node_get_object (root), "has_keys");
  if (member == NULL || !JSON_NODE_HOLDS_VALUE (member)
      || json_node_get_value_type (member) != G_TYPE_BOOLEAN)
    return FALSE;
  *has_keys = json_node_get_boolean (member);
  return TRUE;
}

/* mitherm/ID/@rest; our own ids are lower case. */
static gboolean
parse_topic (const char *topic, char *id, const char **rest)
{
  if (!g_str_has_prefix (topic, TOPIC_ROOT))
    return FALSE;
  topic += strlen (TOPIC_ROOT);
  for (guint i = 0; i < BRIDGE_ID_LEN; i++)
    if (!g_ascii_isxdigit (topic[i]) || g_ascii_isupper (topic[i]))
      return FALSE;
  if (topic[BRIDGE_ID_LEN] != '/')
    return FALSE;
  memcpy (id, topic, BRIDGE_ID_LEN);
  id[BRIDGE_ID_LEN] = '\0';
  *rest = topic + BRIDGE_ID_LEN + 1;
  return TRUE;
}

gboolean
bridge_problem_topic_parse (const char *topic, char *id)
{
  const char *rest;

  return parse_topic (topic, id, &rest) && g_str_equal (rest, topic_names[BRIDGE_TOPIC_PROBLEM]);
}

static gboolean
payload_is (const void *payload, gsize len, const char *text)
{
  return len == strlen (text) && memcmp (payload, text, len) == 0;
}

BridgeCommand
bridge_command_parse (const char *topic, const void *payload, gsize len, gboolean retained,
                      char *id, const char **reason)
{
  const char *rest;
  BridgeCommand command = BRIDGE_COMMAND_NONE;

  *reason = "wrong-topic";
  if (!parse_topic (topic, id, &rest))
    return BRIDGE_COMMAND_NONE;
  if (g_str_equal (rest, "update/set"))
    command = BRIDGE_COMMAND_INSTALL;
  else if (g_str_equal (rest, "clock/set"))
    command = BRIDGE_COMMAND_CLOCK;
  else
    return BRIDGE_COMMAND_NONE;
  *reason = "retained";
  if (retained)
    return BRIDGE_COMMAND_NONE;
  *reason = "wrong-payload";
  if (!payload_is (payload, len,
                   command == BRIDGE_COMMAND_INSTALL ? BRIDGE_PAYLOAD_INSTALL
                                                     : BRIDGE_PAYLOAD_PRESS))
    return BRIDGE_COMMAND_NONE;
  *reason = NULL;
  return command;
}
