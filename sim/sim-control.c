/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-control.h"

#include <gio/gio.h>
#include <gio/gunixinputstream.h>
#include <stdio.h>
#include <unistd.h>

struct _SimControl
{
  gboolean interactive;
  SimControlFunc func;
  gpointer user_data;
  GDataInputStream *input;
  GCancellable *cancellable;
};

static void
print_node (JsonNode *node)
{
  g_autofree char *text = json_to_string (node, FALSE);

  puts (text);
  fflush (stdout);
}

static JsonNode *
take_object (JsonObject *object)
{
  JsonNode *node = json_node_new (JSON_NODE_OBJECT);

  json_node_take_object (node, object);
  return node;
}

JsonNode *
sim_control_error (const char *message)
{
  JsonObject *object = json_object_new ();

  json_object_set_string_member (object, "error", message);
  return take_object (object);
}

JsonNode *
sim_control_ok (void)
{
  JsonObject *object = json_object_new ();

  json_object_set_boolean_member (object, "ok", TRUE);
  return take_object (object);
}

static JsonNode *
get_value (JsonObject *request, const char *name)
{
  JsonNode *node = json_object_get_member (request, name);

  return node != NULL && JSON_NODE_HOLDS_VALUE (node) ? node : NULL;
}

const char *
sim_control_get_string (JsonObject *request, const char *name, const char *fallback)
{
  JsonNode *node = get_value (request, name);

  if (node == NULL || json_node_get_value_type (node) != G_TYPE_STRING)
    return fallback;
  return json_node_get_string (node);
}

gint64
sim_control_get_int (JsonObject *request, const char *name, gint64 fallback)
{
  JsonNode *node = get_value (request, name);

  if (node == NULL || json_node_get_value_type (node) != G_TYPE_INT64)
    return fallback;
  return json_node_get_int (node);
}

gboolean
sim_control_get_boolean (JsonObject *request, const char *name, gboolean fallback)
{
  JsonNode *node = get_value (request, name);

  if (node == NULL || json_node_get_value_type (node) != G_TYPE_BOOLEAN)
    return fallback;
  return json_node_get_boolean (node);
}

void
sim_control_ready (SimControl *self)
{
  puts ("{\"event\":\"ready\"}");
  fflush (stdout);
}

static void
copy_member (JsonObject *object, const char *name, JsonNode *node, gpointer user_data)
{
  json_object_set_member (user_data, name, json_node_copy (node));
}

void
sim_control_event (SimControl *self, const char *address, const char *json)
{
  g_autoptr (JsonNode) parsed = NULL;
  g_autoptr (JsonNode) line = NULL;
  JsonObject *object;

  if (!self->interactive)
    return;
  parsed = json_from_string (json, NULL);
  if (parsed == NULL || !JSON_NODE_HOLDS_OBJECT (parsed))
    {
      g_warning ("event of %s is not an object", address);
      return;
    }
  object = json_object_new ();
  json_object_set_string_member (object, "device", address);
  json_object_foreach_member (json_node_get_object (parsed), copy_member, object);
  line = take_object (object);
  print_node (line);
}

/* The keys that every answer about a device has, as with --stdio. */
static JsonObject *
new_device_answer (SimDevice *device)
{
  JsonObject *object = json_object_new ();
  gint64 deadline = sim_device_deadline (device);

  json_object_set_string_member (object, "device", sim_device_get_address (device));
  json_object_set_array_member (object, "notify", json_array_new ());
  json_object_set_null_member (object, "value");
  json_object_set_boolean_member (object, "connected", sim_device_is_connected (device));
  if (deadline >= 0)
    json_object_set_int_member (object, "deadline", deadline);
  else
    json_object_set_null_member (object, "deadline");
  json_object_set_array_member (object, "events", json_array_new ());
  return object;
}

static JsonNode *
answer_state (SimDevice *device)
{
  JsonObject *object = new_device_answer (device);
  g_autofree char *text = sim_device_get_state_json (device);
  JsonNode *state = json_from_string (text, NULL);

  if (state != NULL)
    json_object_set_member (object, "state", state);
  return take_object (object);
}

static JsonNode *
answer_fault (SimDevice *device, JsonObject *request)
{
  const char *spec = sim_control_get_string (request, "spec", NULL);
  g_autoptr (GError) error = NULL;
  JsonObject *object;

  if (spec == NULL)
    return sim_control_error ("fault: \"spec\" is missing");
  object = new_device_answer (device);
  if (!sim_device_arm_fault (device, spec, &error))
    json_object_set_string_member (object, "error", error->message);
  return take_object (object);
}

JsonNode *
sim_control_answer (SimDevice *device, gint64 now_ms, JsonObject *request)
{
  const char *what = sim_control_get_string (request, "do", "");

  if (g_str_equal (what, "state"))
    return answer_state (device);
  if (g_str_equal (what, "fault"))
    return answer_fault (device, request);
  if (g_str_equal (what, "battery"))
    {
      sim_device_battery (device, now_ms);
      return take_object (new_device_answer (device));
    }
  return NULL;
}

static JsonNode *
answer_line (SimControl *self, const char *line)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonNode) request = json_from_string (line, &error);

  if (error != NULL)
    return sim_control_error (error->message);
  if (request == NULL || !JSON_NODE_HOLDS_OBJECT (request))
    return sim_control_error ("not an object");
  return self->func (json_node_get_object (request), self->user_data);
}

static void
on_line_read (GObject *source, GAsyncResult *result, gpointer user_data)
{
  SimControl *self = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonNode) answer = NULL;
  g_autofree char *line = NULL;

  line = g_data_input_stream_read_line_finish_utf8 (G_DATA_INPUT_STREAM (source), result, NULL,
                                                    &error);
  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  if (error != NULL)
    {
      g_warning ("standard input: %s", error->message);
      return;
    }
  if (line == NULL) /* end of file: nobody gives orders any more, the devices stay */
    return;
  if (*line != '\0')
    {
      answer = answer_line (self, line);
      print_node (answer);
    }
  g_data_input_stream_read_line_async (self->input, G_PRIORITY_DEFAULT, self->cancellable,
                                       on_line_read, self);
}

SimControl *
sim_control_new (gboolean interactive, SimControlFunc func, gpointer user_data)
{
  SimControl *self = g_new0 (SimControl, 1);

  self->interactive = interactive;
  self->func = func;
  self->user_data = user_data;
  if (interactive)
    {
      g_autoptr (GInputStream) stdin_stream = g_unix_input_stream_new (STDIN_FILENO, FALSE);

      self->cancellable = g_cancellable_new ();
      self->input = g_data_input_stream_new (stdin_stream);
      g_data_input_stream_read_line_async (self->input, G_PRIORITY_DEFAULT, self->cancellable,
                                           on_line_read, self);
    }
  return self;
}

void
sim_control_free (SimControl *self)
{
  if (self == NULL)
    return;
  if (self->cancellable != NULL)
    g_cancellable_cancel (self->cancellable);
  g_clear_object (&self->cancellable);
  g_clear_object (&self->input);
  g_free (self);
}
