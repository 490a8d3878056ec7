/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "advert-vectors.h"

#include "mi-advert.h"
#include "mi-bytes.h"

#include <math.h>
#include <string.h>

#define TOLERANCE   0.005
#define ROUNDING    1e-9 /* of the two numbers themselves */
#define RELATIVE    1e-12
#define SECONDS_MAX 1e12

const AdvertKind advert_kinds[3] = {
  { "vectors", advert_check_vector },
  { "adv_vectors", advert_check_split },
  { "sequences", advert_check_sequence },
};

const char *
advert_get_text (JsonObject *item, const char *name)
{
  JsonNode *node = json_object_get_member (item, name);

  if (node == NULL || !JSON_NODE_HOLDS_VALUE (node)
      || json_node_get_value_type (node) != G_TYPE_STRING)
    return NULL;
  return json_node_get_string (node);
}

GByteArray *
advert_get_hex (JsonObject *item, const char *name)
{
  const char *hex = advert_get_text (item, name);
  guint8 *bytes;
  gsize len = 0;

  if (hex == NULL || *hex == '\0')
    return g_byte_array_new ();
  bytes = mi_hex_decode_alloc (hex, &len);
  return bytes != NULL ? g_byte_array_new_take (bytes, len) : NULL;
}

static char *
describe (JsonNode *node)
{
  return node != NULL ? json_to_string (node, FALSE) : g_strdup ("nothing");
}

static gboolean
is_number (JsonNode *node)
{
  GType type = json_node_get_value_type (node);

  return type == G_TYPE_INT64 || type == G_TYPE_DOUBLE;
}

static gboolean nodes_match (JsonNode *a, JsonNode *b);

static gboolean
arrays_match (JsonArray *a, JsonArray *b)
{
  if (json_array_get_length (a) != json_array_get_length (b))
    return FALSE;
  for (guint i = 0; i < json_array_get_length (a); i++)
    if (!nodes_match (json_array_get_element (a, i), json_array_get_element (b, i)))
      return FALSE;
  return TRUE;
}

static gboolean
objects_match (JsonObject *a, JsonObject *b)
{
  g_autoptr (GList) names = json_object_get_members (a);

  if (json_object_get_size (a) != json_object_get_size (b))
    return FALSE;
  for (GList *name = names; name != NULL; name = name->next)
    if (!json_object_has_member (b, name->data)
        || !nodes_match (json_object_get_member (a, name->data),
                         json_object_get_member (b, name->data)))
      return FALSE;
  return TRUE;
}

/* Huge values come as a number and a power of ten, which has less digits than a double. */
static gboolean
numbers_match (double a, double b)
{
  return fabs (a - b) <= MAX (TOLERANCE + ROUNDING, fabs (a) * RELATIVE);
}

/* Hex may be written in either case. */
static gboolean
is_hex (const char *text)
{
  return *text != '\0' && strspn (text, "0123456789abcdefABCDEF") == strlen (text);
}

static gboolean
texts_match (JsonNode *a, JsonNode *b)
{
  const char *x = json_node_get_string (a), *y = json_node_get_string (b);

  return is_hex (x) && is_hex (y) ? g_ascii_strcasecmp (x, y) == 0 : strcmp (x, y) == 0;
}

static gboolean
is_text (JsonNode *node)
{
  return json_node_get_value_type (node) == G_TYPE_STRING;
}

/* Equal; numbers within TOLERANCE. */
static gboolean
nodes_match (JsonNode *a, JsonNode *b)
{
  if (json_node_get_node_type (a) != json_node_get_node_type (b))
    return FALSE;
  if (JSON_NODE_HOLDS_ARRAY (a))
    return arrays_match (json_node_get_array (a), json_node_get_array (b));
  if (JSON_NODE_HOLDS_OBJECT (a))
    return objects_match (json_node_get_object (a), json_node_get_object (b));
  if (is_number (a) && is_number (b))
    return numbers_match (json_node_get_double (a), json_node_get_double (b));
  if (is_text (a) && is_text (b))
    return texts_match (a, b);
  return json_node_equal (a, b);
}

/* Flags and lists that are left out when there is nothing to tell may be written out, too. */
static gboolean
says_nothing (const char *name, JsonNode *node)
{
  if (g_str_equal (name, "rejected") && JSON_NODE_HOLDS_ARRAY (node))
    return json_array_get_length (json_node_get_array (node)) == 0;
  return (g_str_equal (name, "partial") || g_str_equal (name, "truncated")
          || g_str_equal (name, "short_service_data"))
         && json_node_get_value_type (node) == G_TYPE_BOOLEAN && !json_node_get_boolean (node);
}

/* Returns: (transfer full) (nullable): NULL, or the first member in which they differ */
static char *
compare (JsonObject *expected, JsonObject *produced)
{
  g_autoptr (GList) wanted = json_object_get_members (expected);
  g_autoptr (GList) given = json_object_get_members (produced);

  for (GList *name = wanted; name != NULL; name = name->next)
    {
      JsonNode *a = json_object_get_member (expected, name->data);
      JsonNode *b = json_object_get_member (produced, name->data);
      g_autofree char *wanted_text = NULL, *given_text = NULL;

      if (b != NULL ? nodes_match (a, b) : says_nothing (name->data, a))
        continue;
      wanted_text = describe (a);
      given_text = describe (b);
      return g_strdup_printf ("%s: expected %s, got %s", (char *) name->data, wanted_text,
                              given_text);
    }
  for (GList *name = given; name != NULL; name = name->next)
    if (!json_object_has_member (expected, name->data))
      {
        g_autofree char *text = describe (json_object_get_member (produced, name->data));

        return g_strdup_printf ("%s: expected nothing, got %s", (char *) name->data, text);
      }
  return NULL;
}

static char *
name_of_reading (const MiReading *reading)
{
  const char *name = mi_reading_kind_get_name (reading->kind);

  return reading->ordinal < 2 ? g_strdup (name) : g_strdup_printf ("%s_%u", name, reading->ordinal);
}

/* "4.2.1.0": the most significant byte first. */
static char *
format_version (const MiReading *reading)
{
  GString *text = g_string_new (NULL);

  for (gint i = reading->raw_len - 1; i >= 0; i--)
    g_string_append_printf (text, "%u%s", (guint) (reading->value >> (8 * i)) & 0xff,
                            i > 0 ? "." : "");
  return g_string_free (text, FALSE);
}

static void
put_readings (JsonObject *json, const MiAdvert *advert)
{
  for (guint i = 0; i < advert->n_readings; i++)
    {
      const MiReading *reading = &advert->readings[i];
      g_autofree char *name = name_of_reading (reading);
      g_autofree char *version = NULL;

      if (reading->kind == MI_READING_FIRMWARE_VERSION)
        {
          version = format_version (reading);
          json_object_set_string_member (json, name, version);
        }
      else if (mi_reading_kind_is_boolean (reading->kind))
        json_object_set_boolean_member (json, name, reading->value != 0);
      else
        json_object_set_double_member (json, name, mi_reading_get_double (reading));
    }
}

static void
put_rejected (JsonObject *json, const MiAdvert *advert)
{
  JsonArray *names;

  if (advert->n_rejected == 0)
    return;
  names = json_array_new ();
  for (guint i = 0; i < advert->n_rejected; i++)
    {
      g_autofree char *name = name_of_reading (&advert->rejected[i].reading);

      json_array_add_string_element (names, name);
    }
  json_object_set_array_member (json, "rejected", names);
}

static void
put_objects (JsonObject *json, const MiAdvert *advert)
{
  gint digits = advert->format == MI_ADVERT_FORMAT_MIBEACON ? 4 : 2;
  JsonArray *objects;

  if ((advert->fields & MI_ADVERT_HAS_OBJECTS) == 0)
    return;
  objects = json_array_new ();
  for (guint i = 0; i < advert->n_objects; i++)
    {
      const MiAdvertObject *object = &advert->objects[i];
      g_autofree char *id = g_strdup_printf ("%0*x", digits, object->id);
      g_autofree char *data = mi_hex_encode (advert->plain + object->offset, object->len);
      JsonObject *entry = json_object_new ();

      json_object_set_string_member (entry, "id", id);
      json_object_set_string_member (entry, "data", data);
      json_array_add_object_element (objects, entry);
    }
  json_object_set_array_member (json, "objects", objects);
}

static void
put_frame_control (JsonObject *json, const MiAdvert *advert)
{
  json_object_set_int_member (json, "auth_mode", advert->auth_mode);
  json_object_set_boolean_member (json, "registered", advert->registered);
  json_object_set_boolean_member (json, "solicited", advert->solicited);
  json_object_set_string_member (json, "bind_state", mi_bind_state_get_name (advert->bind_state));
}

static void
put_integers (JsonObject *json, const MiAdvert *advert)
{
  const struct
  {
    guint field;
    const char *name;
    gint64 value;
  } members[] = {
    { MI_ADVERT_HAS_VERSION, "version", advert->version },
    { MI_ADVERT_HAS_PRODUCT_ID, "product_id", advert->product_id },
    { MI_ADVERT_HAS_PACKET_ID, "packet_id", advert->packet_id },
    { MI_ADVERT_HAS_COUNTER, "counter", advert->counter },
    { MI_ADVERT_HAS_CAPABILITY, "capability", advert->capability },
    { MI_ADVERT_HAS_IO_CAPABILITY, "io_capability", advert->io_capability },
    { MI_ADVERT_HAS_OPENING, "trigger_flags", advert->trigger_flags },
  };

  for (guint i = 0; i < G_N_ELEMENTS (members); i++)
    if ((advert->fields & members[i].field) != 0)
      json_object_set_int_member (json, members[i].name, members[i].value);
}

static void
put_booleans (JsonObject *json, const MiAdvert *advert)
{
  if ((advert->fields & MI_ADVERT_HAS_ENCRYPTED) != 0)
    json_object_set_boolean_member (json, "encrypted", advert->encrypted);
  if ((advert->fields & MI_ADVERT_HAS_TRIGGER_BASED) != 0)
    json_object_set_boolean_member (json, "trigger_based", advert->trigger_based);
  if ((advert->fields & MI_ADVERT_HAS_OPENING) != 0)
    json_object_set_boolean_member (json, "opening", advert->opening);
  if ((advert->fields & MI_ADVERT_HAS_TRIGGER_OUTPUT) != 0)
    json_object_set_boolean_member (json, "trigger_output", advert->trigger_output);
  if (advert->partial)
    json_object_set_boolean_member (json, "partial", TRUE);
}

/* Everything that @advert tells, under the names of the schema. */
static JsonObject *
to_json (const MiAdvert *advert)
{
  JsonObject *json = json_object_new ();

  json_object_set_string_member (json, "status", mi_advert_status_get_name (advert->status));
  if (advert->status == MI_ADVERT_STATUS_ERROR)
    json_object_set_string_member (json, "error", mi_advert_error_get_name (advert->error));
  put_integers (json, advert);
  put_booleans (json, advert);
  if ((advert->fields & MI_ADVERT_HAS_FRAME_CONTROL) != 0)
    put_frame_control (json, advert);
  put_readings (json, advert);
  put_rejected (json, advert);
  put_objects (json, advert);
  return json;
}

/* "fe95", or "m038f" for manufacturer data, which has the layout of fe95. */
static gboolean
parse_uuid (JsonObject *item, guint16 *uuid)
{
  const char *text = advert_get_text (item, "uuid");
  guint8 bytes[2];

  if (text == NULL)
    return FALSE;
  if (g_ascii_strcasecmp (text, "m038f") == 0)
    *uuid = MI_ADVERT_UUID_MIBEACON;
  else if (strlen (text) == 4 && mi_hex_decode (text, bytes, sizeof bytes))
    *uuid = (guint16) (bytes[0] << 8 | bytes[1]);
  else
    return FALSE;
  return TRUE;
}

/* What the decoder is called with, besides the data. */
typedef struct
{
  guint16 uuid;
  guint8 address[6];
  gboolean has_address;
  MiAdvertKey *key;
} Setup;

static void
setup_clear (Setup *self)
{
  g_clear_pointer (&self->key, mi_advert_key_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Setup, setup_clear)

/* Returns: (transfer full) (nullable): what is wrong with @item */
static char *
setup_init (Setup *self, JsonObject *item)
{
  const char *mac = advert_get_text (item, "mac");
  g_autoptr (GByteArray) key = advert_get_hex (item, "key_hex");

  if (!parse_uuid (item, &self->uuid))
    return g_strdup ("uuid is missing or no UUID");
  self->has_address = mac != NULL;
  if (mac != NULL && !mi_address_parse (mac, self->address))
    return g_strdup_printf ("mac is no address: %s", mac);
  if (key == NULL)
    return g_strdup ("key_hex is no hex");
  if (advert_get_text (item, "key_hex") != NULL)
    self->key = mi_advert_key_new (key->data, key->len);
  return NULL;
}

static void
setup_decode (const Setup *self, GByteArray *data, MiAdvert *out)
{
  mi_advert_decode (self->uuid, self->has_address ? self->address : NULL, data->data, data->len,
                    self->key, out);
}

/* adv_hex, if there is one, holds the service data. */
static char *
check_contained (JsonObject *item, GByteArray *data)
{
  g_autoptr (GByteArray) whole = advert_get_hex (item, "adv_hex");
  const char *uuid = advert_get_text (item, "uuid");
  MiAdvertElement element;

  if (whole == NULL)
    return g_strdup ("adv_hex is no hex");
  if (whole->len == 0)
    return NULL;
  for (MiAdvertSplit split = MI_ADVERT_SPLIT (whole->data, whole->len);
       mi_advert_split_next (&split, &element);)
    {
      g_autofree char *text
          = g_strdup_printf ("%s%04x", element.manufacturer ? "m" : "", element.uuid);

      if (g_ascii_strcasecmp (text, uuid) == 0 && element.len == data->len
          && (data->len == 0 || memcmp (element.data, data->data, data->len) == 0))
        return NULL;
    }
  return g_strdup ("adv_hex: the service data was not found in it");
}

char *
advert_check_vector (JsonObject *item)
{
  g_autoptr (GByteArray) data = advert_get_hex (item, "service_data_hex");
  g_auto (Setup) setup = { 0 };
  g_autoptr (JsonObject) produced = NULL;
  g_autofree MiAdvert *advert = g_new (MiAdvert, 1);
  JsonNode *expected = json_object_get_member (item, "expected");
  char *problem = setup_init (&setup, item);

  if (problem != NULL)
    return problem;
  if (data == NULL || advert_get_text (item, "service_data_hex") == NULL)
    return g_strdup ("service_data_hex is missing or no hex");
  if (expected == NULL || !JSON_NODE_HOLDS_OBJECT (expected))
    return g_strdup ("expected is missing");
  memset (advert, 0xa5, sizeof *advert);
  setup_decode (&setup, data, advert);
  produced = to_json (advert);
  problem = compare (json_node_get_object (expected), produced);
  return problem != NULL ? problem : check_contained (item, data);
}

static JsonObject *
split_to_json (GByteArray *whole)
{
  MiAdvertSplit split = MI_ADVERT_SPLIT (whole->data, whole->len);
  JsonObject *json = json_object_new ();
  JsonArray *list = json_array_new ();
  MiAdvertElement element;

  while (mi_advert_split_next (&split, &element))
    {
      g_autofree char *uuid
          = g_strdup_printf ("%s%04x", element.manufacturer ? "m" : "", element.uuid);
      g_autofree char *data = mi_hex_encode (element.data, element.len);
      JsonObject *entry = json_object_new ();

      json_object_set_string_member (entry, "uuid", uuid);
      json_object_set_string_member (entry, "hex", data);
      json_array_add_object_element (list, entry);
    }
  json_object_set_array_member (json, "service_data", list);
  if (split.truncated)
    json_object_set_boolean_member (json, "truncated", TRUE);
  if (split.short_service_data)
    json_object_set_boolean_member (json, "short_service_data", TRUE);
  return json;
}

char *
advert_check_split (JsonObject *item)
{
  g_autoptr (GByteArray) whole = advert_get_hex (item, "adv_hex");
  g_autoptr (JsonObject) produced = NULL;
  JsonNode *expected = json_object_get_member (item, "expected");

  if (whole == NULL || advert_get_text (item, "adv_hex") == NULL)
    return g_strdup ("adv_hex is missing or no hex");
  if (expected == NULL || !JSON_NODE_HOLDS_OBJECT (expected))
    return g_strdup ("expected is missing");
  produced = split_to_json (whole);
  return compare (json_node_get_object (expected), produced);
}

/* Seconds to microseconds. Returns: %FALSE without a sensible number */
static gboolean
get_time (JsonObject *step, gint64 *time_us)
{
  JsonNode *node = json_object_get_member (step, "t");
  double seconds;

  if (node == NULL || !JSON_NODE_HOLDS_VALUE (node) || !is_number (node))
    return FALSE;
  seconds = json_node_get_double (node);
  if (!(fabs (seconds) < SECONDS_MAX))
    return FALSE;
  *time_us = (gint64) (seconds * G_USEC_PER_SEC + 0.5);
  return TRUE;
}

/* Returns: (transfer full) (nullable): what differs in step number @index */
static char *
check_step (const Setup *setup, MiAdvertFilter *filter, JsonObject *step, guint index)
{
  g_autoptr (GByteArray) data = advert_get_hex (step, "service_data_hex");
  g_autofree MiAdvert *advert = g_new (MiAdvert, 1);
  g_autofree char *produced = NULL;
  const char *expected = advert_get_text (step, "expected");
  MiAdvertVerdict verdict;
  gint64 now_us;

  if (data == NULL || advert_get_text (step, "service_data_hex") == NULL || expected == NULL
      || !get_time (step, &now_us))
    return g_strdup_printf ("step %u: t, service_data_hex or expected is missing", index);
  setup_decode (setup, data, advert);
  verdict = mi_advert_filter_check (filter, advert, data->data, data->len, now_us);
  produced = verdict == MI_ADVERT_VERDICT_ERROR
                 ? g_strdup_printf ("error:%s", mi_advert_error_get_name (advert->error))
                 : g_strdup (mi_advert_verdict_get_name (verdict));
  if (strcmp (produced, expected) == 0)
    return NULL;
  return g_strdup_printf ("step %u: expected %s, got %s", index, expected, produced);
}

static gboolean
is_true (JsonObject *item, const char *name)
{
  JsonNode *node = json_object_get_member (item, name);

  return node != NULL && JSON_NODE_HOLDS_VALUE (node)
         && json_node_get_value_type (node) == G_TYPE_BOOLEAN && json_node_get_boolean (node);
}

char *
advert_check_sequence (JsonObject *item)
{
  g_auto (Setup) setup = { 0 };
  MiAdvertFilter filter = { .strict = is_true (item, "strict") };
  JsonNode *node = json_object_get_member (item, "steps");
  char *problem = setup_init (&setup, item);
  JsonArray *steps;

  if (problem != NULL)
    return problem;
  if (node == NULL || !JSON_NODE_HOLDS_ARRAY (node))
    return g_strdup ("steps is missing");
  steps = json_node_get_array (node);
  for (guint i = 0; problem == NULL && i < json_array_get_length (steps); i++)
    {
      JsonNode *step = json_array_get_element (steps, i);

      problem = JSON_NODE_HOLDS_OBJECT (step)
                    ? check_step (&setup, &filter, json_node_get_object (step), i)
                    : g_strdup_printf ("step %u: no object", i);
    }
  return problem;
}
