/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-stdio.h"

#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>

#define ATT_DEFAULT 20
#define ATT_MAX     512
#define TIME_MAX    (G_GINT64_CONSTANT (1) << 53) /* what every JSON reader holds exactly */
#define DEPTH_MAX   8

/* What one request brings beside the device's own outputs. */
typedef struct
{
  SimStdio *stdio;
  JsonObject *request;
  char *error;
  char *value; /* hex */
  gboolean wants_state;
} Turn;

static void G_GNUC_PRINTF (2, 3) fail (Turn *turn, const char *format, ...)
{
  va_list args;

  if (turn->error != NULL)
    return;
  va_start (args, format);
  turn->error = g_strdup_vprintf (format, args);
  va_end (args);
}

static void
take_error (Turn *turn, GError *error)
{
  fail (turn, "%s", error != NULL ? error->message : "unknown error");
  g_clear_error (&error);
}

/* Members of the request */

static const char *
get_string (Turn *turn, const char *name)
{
  JsonNode *node = json_object_get_member (turn->request, name);

  if (node != NULL && JSON_NODE_HOLDS_VALUE (node)
      && json_node_get_value_type (node) == G_TYPE_STRING)
    return json_node_get_string (node);
  fail (turn, "\"%s\" is not a string", name);
  return NULL;
}

/* 20, and 20.0 as some languages write it */
static gboolean
get_whole (JsonNode *node, gint64 *out)
{
  double value;

  if (node == NULL || !JSON_NODE_HOLDS_VALUE (node))
    return FALSE;
  if (json_node_get_value_type (node) == G_TYPE_INT64)
    {
      *out = json_node_get_int (node);
      return TRUE;
    }
  if (json_node_get_value_type (node) != G_TYPE_DOUBLE)
    return FALSE;
  value = json_node_get_double (node);
  if (!(value >= -(double) TIME_MAX && value <= (double) TIME_MAX)
      || value != (double) (gint64) value)
    return FALSE;
  *out = (gint64) value;
  return TRUE;
}

static gint64
get_int (Turn *turn, const char *name, gint64 min, gint64 max)
{
  JsonNode *node = json_object_get_member (turn->request, name);
  gint64 value = 0;

  if (!get_whole (node, &value))
    {
      fail (turn, "\"%s\" is not a whole number", name);
      return min;
    }
  if (value < min || value > max)
    fail (turn, "\"%s\" is not %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT, name, min, max);
  return value;
}

static guint16
get_channel (Turn *turn)
{
  const char *text = get_string (turn, "ch");
  guint8 bytes[2] = { 0 };

  if (text != NULL && !mi_hex_decode (text, bytes, sizeof bytes))
    fail (turn, "\"ch\" is not four hex digits");
  return (guint16) (bytes[0] << 8 | bytes[1]);
}

/* Requests */

static void
do_connect (Turn *turn)
{
  gint64 att = ATT_DEFAULT;
  GError *error = NULL;

  if (json_object_has_member (turn->request, "att"))
    att = get_int (turn, "att", ATT_DEFAULT, ATT_MAX);
  if (turn->error == NULL
      && !sim_device_connect (turn->stdio->device, turn->stdio->now_ms, (guint16) att, &error))
    take_error (turn, error);
}

static void
do_disconnect (Turn *turn)
{
  SimStdio *self = turn->stdio;

  if (sim_device_is_connected (self->device))
    sim_device_disconnect (self->device, self->now_ms);
  else
    fail (turn, "not connected");
}

static void
do_write (Turn *turn)
{
  SimStdio *self = turn->stdio;
  guint16 channel = get_channel (turn);
  const char *text = get_string (turn, "data");
  g_autofree guint8 *data = NULL;
  gsize len = 0;
  GError *error = NULL;

  if (turn->error != NULL)
    return;
  data = mi_hex_decode_alloc (text, &len);
  if (data == NULL)
    fail (turn, "\"data\" is not hex");
  else if (!sim_device_write (self->device, self->now_ms, channel, data, len, &error))
    take_error (turn, error);
}

static void
do_read (Turn *turn)
{
  SimStdio *self = turn->stdio;
  guint16 channel = get_channel (turn);
  guint8 data[SIM_PACKET_MAX];
  gsize len = 0;
  GError *error = NULL;

  if (turn->error != NULL)
    return;
  if (sim_device_read (self->device, self->now_ms, channel, data, &len, &error))
    turn->value = mi_hex_encode (data, len);
  else
    take_error (turn, error);
}

static void
do_tick (Turn *turn)
{
  SimStdio *self = turn->stdio;
  gint64 ms = get_int (turn, "ms", 0, TIME_MAX);

  if (turn->error != NULL)
    return;
  if (ms < self->now_ms)
    {
      fail (turn, "time does not go backwards: it is %" G_GINT64_FORMAT, self->now_ms);
      return;
    }
  self->now_ms = ms;
  sim_device_tick (self->device, ms);
}

static void
do_fault (Turn *turn)
{
  const char *spec = get_string (turn, "spec");
  GError *error = NULL;

  if (spec != NULL && !sim_device_arm_fault (turn->stdio->device, spec, &error))
    take_error (turn, error);
}

static void
do_battery (Turn *turn)
{
  sim_device_battery (turn->stdio->device, turn->stdio->now_ms);
}

static void
do_state (Turn *turn)
{
  turn->wants_state = TRUE;
}

static const struct
{
  const char *name;
  void (*func) (Turn *turn);
} requests[] = {
  { "connect", do_connect }, { "disconnect", do_disconnect },
  { "write", do_write },     { "read", do_read },
  { "tick", do_tick },       { "state", do_state },
  { "fault", do_fault },     { "battery", do_battery },
};

static void
carry_out (Turn *turn)
{
  const char *what = get_string (turn, "do");

  if (what == NULL)
    return;
  for (gsize i = 0; i < G_N_ELEMENTS (requests); i++)
    if (g_str_equal (requests[i].name, what))
      {
        requests[i].func (turn);
        return;
      }
  fail (turn, "unknown \"do\": \"%s\"", what);
}

/* Answer */

static void
add_notification (JsonBuilder *json, const SimOutput *output)
{
  g_autofree char *channel = g_strdup_printf ("%04x", output->channel);
  g_autofree char *data = mi_hex_encode (output->data, output->len);

  json_builder_begin_object (json);
  json_builder_set_member_name (json, "ch");
  json_builder_add_string_value (json, channel);
  json_builder_set_member_name (json, "data");
  json_builder_add_string_value (json, data);
  json_builder_end_object (json);
}

static void
add_parsed (JsonBuilder *json, const char *text)
{
  JsonNode *node = json_from_string (text, NULL);

  if (node != NULL)
    json_builder_add_value (json, node);
  else
    json_builder_add_null_value (json);
}

/* Takes every output of the device: notifications go into @json, events into @events. */
static void
add_outputs (JsonBuilder *json, GPtrArray *events, SimDevice *device)
{
  SimOutput output;

  json_builder_set_member_name (json, "notify");
  json_builder_begin_array (json);
  while (sim_device_pop (device, &output))
    {
      if (output.kind == SIM_OUTPUT_NOTIFY)
        add_notification (json, &output);
      else if (output.kind == SIM_OUTPUT_EVENT)
        g_ptr_array_add (events, g_strdup (output.json));
    }
  json_builder_end_array (json);
}

static void
add_string_or_null (JsonBuilder *json, const char *name, const char *value)
{
  json_builder_set_member_name (json, name);
  if (value != NULL)
    json_builder_add_string_value (json, value);
  else
    json_builder_add_null_value (json);
}

static void
add_status (JsonBuilder *json, SimDevice *device)
{
  gint64 deadline = sim_device_deadline (device);

  json_builder_set_member_name (json, "connected");
  json_builder_add_boolean_value (json, sim_device_is_connected (device));
  json_builder_set_member_name (json, "deadline");
  if (deadline >= 0)
    json_builder_add_int_value (json, deadline);
  else
    json_builder_add_null_value (json);
}

static void
add_events (JsonBuilder *json, GPtrArray *events)
{
  json_builder_set_member_name (json, "events");
  json_builder_begin_array (json);
  for (guint i = 0; i < events->len; i++)
    add_parsed (json, g_ptr_array_index (events, i));
  json_builder_end_array (json);
}

static char *
write_answer (Turn *turn)
{
  SimDevice *device = turn->stdio->device;
  g_autoptr (JsonBuilder) json = json_builder_new ();
  g_autoptr (GPtrArray) events = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (JsonNode) root = NULL;

  json_builder_begin_object (json);
  add_outputs (json, events, device);
  add_string_or_null (json, "value", turn->value);
  add_status (json, device);
  add_events (json, events);
  if (turn->wants_state)
    {
      g_autofree char *state = sim_device_get_state_json (device);

      json_builder_set_member_name (json, "state");
      add_parsed (json, state);
    }
  if (turn->error != NULL)
    add_string_or_null (json, "error", turn->error);
  json_builder_end_object (json);
  root = json_builder_get_root (json);
  return json_to_string (root, FALSE);
}

/* What may stand outside strings; the parser knows more: comments, hex and octal, single quotes. */
static gboolean
is_json_token (const char *line, gsize i)
{
  gboolean after_digit = i > 0 && (g_ascii_isdigit (line[i - 1]) || line[i - 1] == '.');

  if (line[i] == '0' && !after_digit && g_ascii_isdigit (line[i + 1]))
    return FALSE;
  return strchr ("{}[]:,+-.0123456789eEtrufalsn", line[i]) != NULL;
}

/*
 * One object and nothing after it, and not deep: the parser behind this takes several values one
 * after the other and is recursive, and a line may be hostile. @line ends with a zero byte.
 */
static gboolean
is_one_flat_value (const char *line, gsize len)
{
  gboolean quoted = FALSE, ended = FALSE;
  guint depth = 0;

  for (gsize i = 0; i < len; i++)
    {
      if ((guchar) line[i] < ' ' && (quoted || line[i] != '\t'))
        return FALSE;
      if (quoted && line[i] == '\\')
        i++;
      else if (line[i] == '"')
        quoted = !quoted;
      if (quoted || line[i] == '"' || line[i] == ' ' || line[i] == '\t')
        continue;
      if (ended || !is_json_token (line, i))
        return FALSE;
      if ((line[i] == '{' || line[i] == '[') && ++depth > DEPTH_MAX)
        return FALSE;
      if ((line[i] == '}' || line[i] == ']') && (depth == 0 || --depth == 0))
        ended = TRUE;
    }
  return ended;
}

static void
parse_and_carry_out (Turn *turn, const char *line, gsize len)
{
  g_autoptr (JsonParser) parser = json_parser_new_immutable ();
  JsonNode *root;

  if (len > SIM_STDIO_LINE_MAX || !is_one_flat_value (line, len)
      || !g_utf8_validate_len (line, len, NULL)
      || !json_parser_load_from_data (parser, line, (gssize) len, NULL))
    {
      fail (turn, "not JSON");
      return;
    }
  root = json_parser_get_root (parser);
  if (root == NULL || !JSON_NODE_HOLDS_OBJECT (root))
    {
      fail (turn, "not a JSON object");
      return;
    }
  turn->request = json_node_get_object (root);
  carry_out (turn);
}

char *
sim_stdio_answer (SimStdio *self, const char *line, gsize len)
{
  Turn turn = { .stdio = self };
  char *answer;

  parse_and_carry_out (&turn, line, len);
  answer = write_answer (&turn);
  g_free (turn.error);
  g_free (turn.value);
  return answer;
}

/* Returns: whether the line is complete; an overlong one is read to its end and emptied */
static gboolean
read_line (GString *line, gboolean *overlong)
{
  int c;

  g_string_truncate (line, 0);
  *overlong = FALSE;
  for (c = getchar (); c != EOF && c != '\n'; c = getchar ())
    {
      if (line->len <= SIM_STDIO_LINE_MAX)
        g_string_append_c (line, (char) c);
      else
        *overlong = TRUE;
    }
  return c != EOF || line->len > 0;
}

int
sim_stdio_run (SimDevice *device)
{
  g_autoptr (GString) line = g_string_new (NULL);
  SimStdio self = { device, 0 };
  gboolean overlong;

  while (read_line (line, &overlong))
    {
      g_autofree char *answer = NULL;

      if (line->len > 0 && line->str[line->len - 1] == '\r')
        g_string_truncate (line, line->len - 1);
      answer = sim_stdio_answer (&self, line->str, line->len);
      if (puts (answer) == EOF || fflush (stdout) == EOF)
        return 1;
    }
  return 0;
}
