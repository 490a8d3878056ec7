/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-config.h"
#include "bridge-payload.h"

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

#define ADDRESS "A4:C1:38:00:00:01"
#define ID      "a4c138000001"

/*
 * Home Assistant's documented rules for MQTT device discovery and for the state of an update
 * entity, as a checker: every payload that the bridge can build must pass it.
 */

static JsonObject *
parse (const char *text, JsonParser **parser)
{
  g_autoptr (GError) error = NULL;

  *parser = json_parser_new ();
  g_assert_true (json_parser_load_from_data (*parser, text, -1, &error));
  g_assert_no_error (error);
  return json_node_get_object (json_parser_get_root (*parser));
}

static const char *
text_of (JsonObject *object, const char *key)
{
  JsonNode *node = json_object_get_member (object, key);

  g_assert_nonnull (node);
  g_assert_cmpuint (json_node_get_value_type (node), ==, G_TYPE_STRING);
  return json_node_get_string (node);
}

static gboolean
is_one_of (const char *text, const char *const *allowed)
{
  return g_strv_contains (allowed, text);
}

static void
check_only_keys (JsonObject *object, const char *const *allowed)
{
  g_autoptr (GList) keys = json_object_get_members (object);

  for (GList *l = keys; l != NULL; l = l->next)
    if (!is_one_of (l->data, allowed))
      g_error ("unexpected key %s", (const char *) l->data);
}

/* Topics have no wildcards and no empty end. */
static void
check_topic (const char *topic)
{
  g_assert_true (strpbrk (topic, "+#") == NULL);
  g_assert_cmpuint (strlen (topic), >, 0);
  g_assert_false (g_str_has_suffix (topic, "/"));
}

/* What each platform wants besides platform and unique_id, and what it may have. */
typedef struct
{
  const char *platform;
  const char *required[5];
  const char *allowed[12];
} PlatformRules;

static const PlatformRules platforms[] = {
  { "sensor",
    { "value_template", NULL },
    { "name", "device_class", "state_class", "unit_of_measurement", "value_template",
      "suggested_display_precision", "expire_after", "entity_category", "enabled_by_default",
      NULL } },
  { "update",
    { "state_topic", "command_topic", "payload_install", NULL },
    { "name", "device_class", "state_topic", "command_topic", "payload_install", "entity_category",
      NULL } },
  { "button",
    { "command_topic", "payload_press", NULL },
    { "name", "command_topic", "payload_press", "entity_category", NULL } },
  { "binary_sensor",
    { "state_topic", "value_template", NULL },
    { "name", "device_class", "state_topic", "json_attributes_topic", "value_template",
      "entity_category", NULL } },
};

typedef struct
{
  const char *key;
  const char *platform;
  const char *device_class; /* NULL: none */
  const char *unit;         /* NULL: none */
  const char *category;     /* NULL: none */
} Entity;

/* contract: the keys are part of the entities' identity and never change. */
static const Entity entities[] = {
  { "temperature", "sensor", "temperature", "°C", NULL },
  { "humidity", "sensor", "humidity", "%", NULL },
  { "battery", "sensor", "battery", "%", "diagnostic" },
  { "voltage", "sensor", "voltage", "V", "diagnostic" },
  { "rssi", "sensor", "signal_strength", "dBm", "diagnostic" },
  { "last_seen", "sensor", "timestamp", NULL, "diagnostic" },
  { "firmware", "update", "firmware", NULL, "config" },
  { "clock", "button", NULL, NULL, "config" },
  { "problem", "binary_sensor", "problem", NULL, "diagnostic" },
};

static const PlatformRules *
rules_of (const char *platform)
{
  for (gsize i = 0; i < G_N_ELEMENTS (platforms); i++)
    if (g_str_equal (platforms[i].platform, platform))
      return &platforms[i];
  g_error ("no platform %s", platform);
}

static void
check_optional (JsonObject *object, const char *key, const char *expected)
{
  if (expected == NULL)
    g_assert_false (json_object_has_member (object, key));
  else
    g_assert_cmpstr (text_of (object, key), ==, expected);
}

static void
check_component (JsonObject *component, const Entity *entity)
{
  const PlatformRules *rules = rules_of (text_of (component, "p"));
  g_autofree char *unique_id = g_strconcat ("mitherm_" ID "_", entity->key, NULL);
  g_autoptr (GList) keys = json_object_get_members (component);

  g_assert_cmpstr (rules->platform, ==, entity->platform);
  g_assert_cmpstr (text_of (component, "unique_id"), ==, unique_id);
  for (guint i = 0; rules->required[i] != NULL; i++)
    text_of (component, rules->required[i]);
  for (GList *l = keys; l != NULL; l = l->next)
    {
      const char *key = l->data;

      g_assert_true (g_str_equal (key, "p") || g_str_equal (key, "unique_id")
                     || is_one_of (key, rules->allowed));
      if (g_str_has_suffix (key, "_topic"))
        check_topic (text_of (component, key));
    }
  check_optional (component, "device_class", entity->device_class);
  check_optional (component, "unit_of_measurement", entity->unit);
  check_optional (component, "entity_category", entity->category);
  if (entity->unit != NULL)
    g_assert_cmpstr (text_of (component, "state_class"), ==, "measurement");
}

static void
check_device (JsonObject *device)
{
  static const char *const allowed[]
      = { "ids", "cns", "name", "mf", "mdl", "mdl_id", "sw", "hw", "sn", NULL };
  JsonArray *ids = json_object_get_array_member (device, "ids");
  JsonArray *connections = json_object_get_array_member (device, "cns");
  JsonArray *first = json_array_get_array_element (connections, 0);
  g_autoptr (GList) values = json_object_get_values (device);

  check_only_keys (device, allowed);
  g_assert_cmpuint (json_array_get_length (ids), ==, 1);
  g_assert_cmpstr (json_array_get_string_element (ids, 0), ==, "mitherm_" ID);
  g_assert_cmpuint (json_array_get_length (first), ==, 2);
  g_assert_cmpstr (json_array_get_string_element (first, 0), ==, "bluetooth");
  g_assert_cmpstr (json_array_get_string_element (first, 1), ==, ADDRESS);
  for (GList *l = values; l != NULL; l = l->next)
    g_assert_false (JSON_NODE_HOLDS_NULL (l->data));
  g_assert_cmpuint (strlen (text_of (device, "name")), >, 0);
}

static void
check_discovery (const char *text)
{
  static const char *const allowed[]
      = { "dev", "o", "availability", "availability_mode", "state_topic", "qos", "cmps", NULL };
  g_autoptr (JsonParser) parser = NULL;
  JsonObject *root = parse (text, &parser);
  JsonArray *availability = json_object_get_array_member (root, "availability");
  JsonObject *components = json_object_get_object_member (root, "cmps");

  check_only_keys (root, allowed);
  check_device (json_object_get_object_member (root, "dev"));
  g_assert_cmpstr (text_of (json_object_get_object_member (root, "o"), "name"), ==, "mitherm");
  g_assert_cmpuint (json_array_get_length (availability), ==, 2);
  g_assert_cmpstr (text_of (json_array_get_object_element (availability, 0), "topic"), ==,
                   "mitherm/bridge/availability");
  g_assert_cmpstr (text_of (json_array_get_object_element (availability, 1), "topic"), ==,
                   "mitherm/" ID "/availability");
  g_assert_cmpstr (text_of (root, "availability_mode"), ==, "all");
  g_assert_cmpstr (text_of (root, "state_topic"), ==, "mitherm/" ID "/state");
  g_assert_cmpint (json_object_get_int_member (root, "qos"), ==, 1);
  g_assert_cmpuint (json_object_get_size (components), ==, G_N_ELEMENTS (entities));
  for (gsize i = 0; i < G_N_ELEMENTS (entities); i++)
    check_component (json_object_get_object_member (components, entities[i].key), &entities[i]);
}

/* Any breach makes Home Assistant drop the whole message. */
static void
check_update (const char *text)
{
  static const char *const allowed[] = { "installed_version", "latest_version",    "title",
                                         "release_summary",   "release_url",       "entity_picture",
                                         "in_progress",       "update_percentage", NULL };
  g_autoptr (JsonParser) parser = NULL;
  JsonObject *root = parse (text, &parser);
  g_autoptr (GList) keys = json_object_get_members (root);

  check_only_keys (root, allowed);
  for (GList *l = keys; l != NULL; l = l->next)
    {
      const char *key = l->data;
      JsonNode *node = json_object_get_member (root, key);

      if (g_str_equal (key, "in_progress"))
        g_assert_cmpuint (json_node_get_value_type (node), ==, G_TYPE_BOOLEAN);
      else if (!g_str_equal (key, "update_percentage"))
        g_assert_cmpuint (g_utf8_strlen (text_of (root, key), -1), <=, 255);
      else if (!JSON_NODE_HOLDS_NULL (node))
        {
          g_assert_cmpuint (json_node_get_value_type (node), ==, G_TYPE_INT64);
          g_assert_cmpint (json_node_get_int (node), >=, 0);
          g_assert_cmpint (json_node_get_int (node), <=, 100);
        }
    }
  /* The end of an update must be told as such. */
  g_assert_true (json_object_has_member (root, "in_progress"));
  g_assert_true (json_object_has_member (root, "update_percentage"));
}

/* --- thermometers --------------------------------------------------------------------------- */

static void
fill (BridgeThermometer *t)
{
  g_assert_true (bridge_thermometer_init (t, ADDRESS));
  bridge_set_text (&t->name, "LYWSD03MMC");
  bridge_set_text (&t->model, "LYWSD03MMC");
  bridge_set_text (&t->hardware, "B1.9");
  bridge_set_text (&t->firmware, "1.0.0_0130");
  t->temperature = 21.5;
  t->humidity = 45;
  t->battery = 80;
  t->voltage = 2.9;
  t->rssi = -60;
  t->last_seen = 1700000000 * G_GINT64_CONSTANT (1000000);
}

static void
test_discovery (void)
{
  BridgeThermometer t;
  g_autofree char *text = NULL;

  fill (&t);
  text = bridge_payload_discovery (&t);
  check_discovery (text);
  g_assert_nonnull (strstr (text, "\"sw\":\"1.0.0_0130\""));
  bridge_thermometer_clear (&t);
}

static void
test_discovery_unknown (void)
{
  BridgeThermometer t;
  g_autofree char *text = NULL;

  g_assert_true (bridge_thermometer_init (&t, "a4:c1:38:00:00:01"));
  text = bridge_payload_discovery (&t);
  check_discovery (text);
  g_assert_null (strstr (text, "\"mdl\""));
  g_assert_null (strstr (text, "\"hw\""));
  bridge_thermometer_clear (&t);
}

static void
test_discovery_hostile (void)
{
  static const char *const names[] = { "\"},\"x\":{\"", "a\nb\x01", "\xf0\x9f\x8c\xa1", "{{ 1 }}" };
  g_autofree char *longest = g_strnfill (100000, 'x');

  for (gsize i = 0; i <= G_N_ELEMENTS (names); i++)
    {
      const char *name = i < G_N_ELEMENTS (names) ? names[i] : longest;
      BridgeThermometer t;
      g_autofree char *config = NULL;
      g_autofree char *update = NULL;

      fill (&t);
      bridge_set_text (&t.name, name);
      bridge_set_text (&t.model, name);
      bridge_set_text (&t.firmware, name);
      bridge_set_text (&t.update_version, name);
      config = bridge_payload_discovery (&t);
      update = bridge_payload_update (&t);
      check_discovery (config);
      check_update (update);
      g_assert_cmpuint (strlen (config), <, 8192);
      bridge_thermometer_clear (&t);
    }
}

static void
test_discovery_model_for_a_name (void)
{
  g_autofree char *model = g_strnfill (100000, 'x');
  BridgeThermometer t;
  g_autofree char *text = NULL;
  g_autoptr (JsonParser) parser = NULL;
  const char *name;

  fill (&t);
  model[3] = '\n';
  bridge_set_text (&t.name, "");
  bridge_set_text (&t.model, model);
  text = bridge_payload_discovery (&t);
  check_discovery (text);
  name = text_of (json_object_get_object_member (parse (text, &parser), "dev"), "name");
  g_assert_cmpuint (strlen (name), <, 128);
  g_assert_null (strchr (name, '\n'));
  bridge_thermometer_clear (&t);
}

static void
test_names_differ (void)
{
  static const struct
  {
    const char *name, *model, *shown;
  } cases[] = {
    { "LYWSD03MMC", "LYWSD03MMC", "LYWSD03MMC 000001" },
    { "ATC_000001", "LYWSD03MMC", "ATC_000001" },
    { "Bedroom", "LYWSD03MMC", "Bedroom 000001" },
    { "", "LYWSD03MMC", "LYWSD03MMC 000001" },
    { "", "", "Thermometer 000001" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      BridgeThermometer t;
      g_autofree char *text = NULL;
      g_autoptr (JsonParser) parser = NULL;

      fill (&t);
      bridge_set_text (&t.name, cases[i].name);
      bridge_set_text (&t.model, cases[i].model);
      text = bridge_payload_discovery (&t);
      g_assert_cmpstr (text_of (json_object_get_object_member (parse (text, &parser), "dev"),
                                "name"),
                       ==, cases[i].shown);
      bridge_thermometer_clear (&t);
    }
}

static void
test_state (void)
{
  BridgeThermometer t;
  g_autofree char *text = NULL;
  g_autoptr (JsonParser) parser = NULL;
  JsonObject *root;

  fill (&t);
  text = bridge_payload_state (&t);
  root = parse (text, &parser);
  g_assert_cmpfloat (json_object_get_double_member (root, "temperature"), ==, 21.5);
  g_assert_cmpfloat (json_object_get_double_member (root, "humidity"), ==, 45);
  g_assert_cmpint (json_object_get_int_member (root, "battery"), ==, 80);
  g_assert_cmpfloat (json_object_get_double_member (root, "voltage"), ==, 2.9);
  g_assert_cmpint (json_object_get_int_member (root, "rssi"), ==, -60);
  g_assert_cmpstr (text_of (root, "last_seen"), ==, "2023-11-14T22:13:20+00:00");
  bridge_thermometer_clear (&t);
}

static void
test_state_unknown (void)
{
  BridgeThermometer t;
  g_autofree char *nothing = NULL;
  g_autofree char *stale = NULL;

  g_assert_true (bridge_thermometer_init (&t, ADDRESS));
  nothing = bridge_payload_state (&t);
  g_assert_cmpstr (nothing, ==, "{}");
  bridge_thermometer_clear (&t);
  fill (&t);
  t.stale = TRUE;
  stale = bridge_payload_state (&t);
  g_assert_cmpstr (stale, ==, "{\"rssi\":-60,\"last_seen\":\"2023-11-14T22:13:20+00:00\"}");
  bridge_thermometer_clear (&t);
}

typedef struct
{
  const char *firmware, *update_version;
  gboolean updating;
  double progress;
  const char *expected;
} UpdateCase;

static const UpdateCase update_cases[] = {
  { "", "", FALSE, -1,
    "{\"title\":\"LYWSD03MMC "
    "firmware\",\"release_summary\":\"\",\"in_progress\":false,\"update_percentage\":null}" },
  { "V5.8", "", FALSE, -1,
    "{\"installed_version\":\"V5.8\",\"latest_version\":\"V5.8\",\"title\":\"LYWSD03MMC "
    "firmware\",\"release_summary\":\"\","
    "\"in_progress\":false,\"update_percentage\":null}" },
  { "1.0", "2.0", TRUE, 0.379,
    "{\"installed_version\":\"1.0\",\"latest_version\":\"2.0\",\"title\":\"LYWSD03MMC "
    "firmware\",\"release_summary\":\"\","
    "\"in_progress\":true,\"update_percentage\":37}" },
  { "1.0", "2.0", TRUE, -1,
    "{\"installed_version\":\"1.0\",\"latest_version\":\"2.0\",\"title\":\"LYWSD03MMC "
    "firmware\",\"release_summary\":\"\","
    "\"in_progress\":true,\"update_percentage\":null}" },
  { "1.0", "2.0", FALSE, 0.5,
    "{\"installed_version\":\"1.0\",\"latest_version\":\"2.0\",\"title\":\"LYWSD03MMC "
    "firmware\",\"release_summary\":\"\","
    "\"in_progress\":false,\"update_percentage\":null}" },
  { "1.0", "2.0", TRUE, 7,
    "{\"installed_version\":\"1.0\",\"latest_version\":\"2.0\",\"title\":\"LYWSD03MMC "
    "firmware\",\"release_summary\":\"\","
    "\"in_progress\":true,\"update_percentage\":100}" },
  { "1.0", "2.0", TRUE, NAN,
    "{\"installed_version\":\"1.0\",\"latest_version\":\"2.0\",\"title\":\"LYWSD03MMC "
    "firmware\",\"release_summary\":\"\","
    "\"in_progress\":true,\"update_percentage\":null}" },
};

static void
test_update (gconstpointer data)
{
  const UpdateCase *c = data;
  BridgeThermometer t;
  g_autofree char *text = NULL;

  fill (&t);
  bridge_set_text (&t.firmware, c->firmware);
  bridge_set_text (&t.update_version, c->update_version);
  t.updating = c->updating;
  t.progress = c->progress;
  text = bridge_payload_update (&t);
  check_update (text);
  g_assert_cmpstr (text, ==, c->expected);
  bridge_thermometer_clear (&t);
}

static void
test_problem (void)
{
  BridgeThermometer t;
  g_autofree char *fine = NULL;
  g_autofree char *bad = NULL;
  gboolean has_keys = FALSE;

  fill (&t);
  fine = bridge_payload_problem (&t);
  g_assert_cmpstr (fine, ==,
                   "{\"problem\":\"OFF\",\"key_mismatch\":false,\"low_battery\":false,"
                   "\"has_keys\":false,\"last_error\":\"\"}");
  bridge_set_text (&t.key_state, "mismatch");
  t.has_keys = TRUE;
  bad = bridge_payload_problem (&t);
  g_assert_nonnull (strstr (bad, "\"problem\":\"ON\",\"key_mismatch\":true"));
  g_assert_true (bridge_problem_has_keys (bad, strlen (bad), &has_keys));
  g_assert_true (has_keys);
  g_assert_true (bridge_problem_has_keys (fine, strlen (fine), &has_keys));
  g_assert_false (has_keys);
  bridge_thermometer_clear (&t);
}

static void
test_problem_of_others (void)
{
  static const char *const texts[] = { "",
                                       "{}",
                                       "[]",
                                       "null",
                                       "{\"has_keys\":1}",
                                       "{\"has_keys\":",
                                       "1",
                                       "{\"has_keys\":null}",
                                       "{\"has_keys\":[true]}" };
  gboolean has_keys;

  for (gsize i = 0; i < G_N_ELEMENTS (texts); i++)
    g_assert_false (bridge_problem_has_keys (texts[i], strlen (texts[i]), &has_keys));
}

static void
test_battery (void)
{
  static const struct
  {
    guint battery;
    double voltage;
    gboolean low;
  } steps[] = { { 80, 3.0, FALSE }, { 11, 2.0, FALSE },  { 10, 3.0, TRUE },
                { 14, 3.0, TRUE },  { 15, 3.0, FALSE },  { 255, 2.1, TRUE },
                { 255, 2.3, TRUE }, { 255, 2.4, FALSE }, { 255, NAN, FALSE } };
  BridgeThermometer t;

  fill (&t);
  for (gsize i = 0; i < G_N_ELEMENTS (steps); i++)
    {
      t.battery = steps[i].battery;
      t.voltage = steps[i].voltage;
      bridge_thermometer_judge_battery (&t);
      g_assert_cmpint (t.low_battery, ==, steps[i].low);
    }
  bridge_thermometer_clear (&t);
}

static void
test_addresses (void)
{
  static const char *const bad[] = { "",
                                     "A4:C1:38:00:00",
                                     "A4:C1:38:00:00:0g",
                                     "A4-C1-38-00-00-01",
                                     "A4:C1:38:00:00:01:",
                                     "a4c138000001",
                                     "A4:C1:38:00:00:0#" };
  char id[BRIDGE_ID_LEN + 1];

  g_assert_true (bridge_id_from_address (ADDRESS, id));
  g_assert_cmpstr (id, ==, ID);
  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++)
    g_assert_false (bridge_id_from_address (bad[i], id));
}

typedef struct
{
  const char *topic, *payload;
  gboolean retained;
  BridgeCommand command;
  const char *reason;
} CommandCase;

static const CommandCase command_cases[] = {
  { "mitherm/" ID "/update/set", "install", FALSE, BRIDGE_COMMAND_INSTALL, NULL },
  { "mitherm/" ID "/clock/set", "PRESS", FALSE, BRIDGE_COMMAND_CLOCK, NULL },
  { "mitherm/" ID "/update/set", "install", TRUE, BRIDGE_COMMAND_NONE, "retained" },
  { "mitherm/" ID "/update/set", "INSTALL", FALSE, BRIDGE_COMMAND_NONE, "wrong-payload" },
  { "mitherm/" ID "/update/set", "install ", FALSE, BRIDGE_COMMAND_NONE, "wrong-payload" },
  { "mitherm/" ID "/update/set", "", FALSE, BRIDGE_COMMAND_NONE, "wrong-payload" },
  { "mitherm/" ID "/clock/set", "install", FALSE, BRIDGE_COMMAND_NONE, "wrong-payload" },
  { "mitherm/" ID "/update", "install", FALSE, BRIDGE_COMMAND_NONE, "wrong-topic" },
  { "mitherm/" ID "/update/set/x", "install", FALSE, BRIDGE_COMMAND_NONE, "wrong-topic" },
  { "mitherm/A4C138000001/update/set", "install", FALSE, BRIDGE_COMMAND_NONE, "wrong-topic" },
  { "mitherm/a4c1380000/update/set", "install", FALSE, BRIDGE_COMMAND_NONE, "wrong-topic" },
  { "mitherm/", "install", FALSE, BRIDGE_COMMAND_NONE, "wrong-topic" },
  { "", "install", FALSE, BRIDGE_COMMAND_NONE, "wrong-topic" },
};

static void
test_command (gconstpointer data)
{
  const CommandCase *c = data;
  char id[BRIDGE_ID_LEN + 1];
  const char *reason;

  g_assert_cmpint (bridge_command_parse (c->topic, c->payload, strlen (c->payload), c->retained, id,
                                         &reason),
                   ==, c->command);
  g_assert_cmpstr (reason, ==, c->reason);
  if (c->command != BRIDGE_COMMAND_NONE)
    g_assert_cmpstr (id, ==, ID);
}

/* --- configuration -------------------------------------------------------------------------- */

typedef struct
{
  const char *secret, *user, *password;
} SecretCase;

static const SecretCase secret_cases[] = {
  { "bridge:secret\n", "bridge", "secret" },
  { "bridge:se:cr et", "bridge", "se:cr et" },
  { "bridge\nse:cret\n", "bridge", "se:cret" },
  { "br:idge\r\nsecret\r\n", "br:idge", "secret" },
  { "bridge\n", "bridge", NULL },
};

static void
test_config (void)
{
  g_autofree char *dir = g_dir_make_tmp ("mitherm-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "mqtt.conf", NULL);
  g_autofree char *secret = g_build_filename (dir, "user", NULL);
  g_autofree char *text = g_strdup_printf ("[broker]\nHost=h\nTLS=true\nCAFile=/ca\nUserFile=%s\n"
                                           "[discovery]\nPrefix=a/b/\n",
                                           secret);

  g_assert_true (g_file_set_contents (path, text, -1, NULL));
  for (gsize i = 0; i < G_N_ELEMENTS (secret_cases); i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (BridgeConfig) config = NULL;

      g_assert_true (g_file_set_contents_full (secret, secret_cases[i].secret, -1,
                                               G_FILE_SET_CONTENTS_CONSISTENT, 0600, NULL));
      config = bridge_config_load (path, &error);
      g_assert_no_error (error);
      g_assert_cmpstr (config->host, ==, "h");
      g_assert_cmpuint (config->port, ==, 8883);
      g_assert_true (config->tls);
      g_assert_cmpstr (config->ca_file, ==, "/ca");
      g_assert_cmpstr (config->prefix, ==, "a/b");
      g_assert_cmpstr (config->user, ==, secret_cases[i].user);
      g_assert_cmpstr (config->password, ==, secret_cases[i].password);
    }
  g_unlink (path);
  g_unlink (secret);
  g_rmdir (dir);
}

static void
test_config_bad (void)
{
  static const char *const texts[] = { "[broker]\nPort=0\n",         "[broker]\nPort=x\n",
                                       "[broker]\nTLS=maybe\n",      "[brokers]\nHost=h\n",
                                       "[discovery]\nPrefix=a/#\n",  "[discovery]\nPrefix=/\n",
                                       "[broker]\nUserFile=/none\n", "Host=h\n" };
  g_autofree char *dir = g_dir_make_tmp ("mitherm-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "mqtt.conf", NULL);

  for (gsize i = 0; i < G_N_ELEMENTS (texts); i++)
    {
      g_autoptr (GError) error = NULL;

      g_assert_true (g_file_set_contents (path, texts[i], -1, NULL));
      g_assert_null (bridge_config_load (path, &error));
      g_assert_nonnull (error);
      g_assert_nonnull (strstr (error->message, path));
    }
  g_unlink (path);
  g_rmdir (dir);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/bridge/discovery/keeps-the-documented-schema", test_discovery);
  g_test_add_func ("/bridge/discovery/leaves-out-what-is-unknown", test_discovery_unknown);
  g_test_add_func ("/bridge/discovery/hostile-names-keep-the-schema", test_discovery_hostile);
  g_test_add_func ("/bridge/discovery/a-hostile-model-is-no-name", test_discovery_model_for_a_name);
  g_test_add_func ("/bridge/discovery/names-of-one-model-differ", test_names_differ);
  g_test_add_func ("/bridge/state/has-all-values", test_state);
  g_test_add_func ("/bridge/state/leaves-out-what-is-unknown-or-stale", test_state_unknown);
  for (gsize i = 0; i < G_N_ELEMENTS (update_cases); i++)
    {
      g_autofree char *path = g_strdup_printf ("/bridge/update/keeps-the-schema/%zu", i);

      g_test_add_data_func (path, &update_cases[i], test_update);
    }
  g_test_add_func ("/bridge/problem/names-its-causes", test_problem);
  g_test_add_func ("/bridge/problem/of-others-is-not-read", test_problem_of_others);
  g_test_add_func ("/bridge/battery/does-not-flutter", test_battery);
  g_test_add_func ("/bridge/address/becomes-an-id-or-nothing", test_addresses);
  for (gsize i = 0; i < G_N_ELEMENTS (command_cases); i++)
    {
      g_autofree char *path
          = g_strdup_printf ("/bridge/command/%s/%zu",
                             command_cases[i].reason != NULL ? command_cases[i].reason : "taken",
                             i);

      g_test_add_data_func (path, &command_cases[i], test_command);
    }
  g_test_add_func ("/bridge/config/is-read-with-user-and-password", test_config);
  g_test_add_func ("/bridge/config/what-makes-no-sense-is-refused", test_config_bad);
  return g_test_run ();
}
