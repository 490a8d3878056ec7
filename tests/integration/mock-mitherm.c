/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <gio/gio.h>
#include <gio/gunixinputstream.h>
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * org.mitherm as a puppet: mock-mitherm BUS-ADDRESS XML... obeys JSON lines on standard input and
 * prints every method call as a JSON line. Properties get their types from the interfaces' XML.
 *   {"do":"set","path":P,"interface":I,"properties":{...}}   adds the interface or changes it
 *   {"do":"remove","path":P}
 *   {"do":"signal","path":P,"interface":"org.mitherm.Sensor1","name":"Measurement",
 *    "values":{"temperature":21.5}}
 *   {"do":"answer","method":M,"path":JOB} or {"do":"answer","method":M,"error":NAME}
 *   {"do":"own"}, {"do":"disown"}                             the bus name
 */

#define BUS_NAME       "org.mitherm"
#define ROOT_PATH      "/org/mitherm"
#define OBJECT_MANAGER "org.freedesktop.DBus.ObjectManager"

typedef struct
{
  GMainLoop *loop;
  GDBusConnection *connection;
  GPtrArray *nodes;    /* GDBusNodeInfo */
  GHashTable *objects; /* path: hash table of interface: hash table of property: GVariant */
  GHashTable *answers; /* method: JsonObject */
  guint own_id;
  GDataInputStream *in;
} Mock;

static void
print_line (JsonBuilder *json)
{
  g_autoptr (JsonNode) root = json_builder_get_root (json);
  g_autofree char *text = json_to_string (root, FALSE);

  printf ("%s\n", text);
  fflush (stdout);
}

static void
print_event (const char *event, const char *detail, const char *path)
{
  g_autoptr (JsonBuilder) json = json_builder_new ();

  json_builder_begin_object (json);
  json_builder_set_member_name (json, "event");
  json_builder_add_string_value (json, event);
  json_builder_set_member_name (json, "detail");
  json_builder_add_string_value (json, detail);
  json_builder_set_member_name (json, "path");
  json_builder_add_string_value (json, path);
  json_builder_end_object (json);
  print_line (json);
}

static const char *
signature_of (Mock *mock, const char *interface, const char *property)
{
  for (guint i = 0; i < mock->nodes->len; i++)
    {
      GDBusInterfaceInfo *info
          = g_dbus_node_info_lookup_interface (mock->nodes->pdata[i], interface);
      GDBusPropertyInfo *found
          = info != NULL ? g_dbus_interface_info_lookup_property (info, property) : NULL;

      if (found != NULL)
        return found->signature;
    }
  g_error ("%s has no property %s", interface, property);
}

static GVariant *
properties_variant (GHashTable *properties)
{
  GVariantBuilder builder = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE_VARDICT);
  GHashTableIter iter;
  gpointer name, value;

  g_hash_table_iter_init (&iter, properties);
  while (g_hash_table_iter_next (&iter, &name, &value))
    g_variant_builder_add (&builder, "{sv}", name, value);
  return g_variant_builder_end (&builder);
}

static GVariant *
interfaces_variant (GHashTable *interfaces)
{
  GVariantBuilder builder = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE ("a{sa{sv}}"));
  GHashTableIter iter;
  gpointer name, properties;

  g_hash_table_iter_init (&iter, interfaces);
  while (g_hash_table_iter_next (&iter, &name, &properties))
    g_variant_builder_add (&builder, "{s@a{sv}}", name, properties_variant (properties));
  return g_variant_builder_end (&builder);
}

static GVariant *
objects_variant (Mock *mock)
{
  GVariantBuilder builder = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE ("a{oa{sa{sv}}}"));
  GHashTableIter iter;
  gpointer path, interfaces;

  g_hash_table_iter_init (&iter, mock->objects);
  while (g_hash_table_iter_next (&iter, &path, &interfaces))
    g_variant_builder_add (&builder, "{o@a{sa{sv}}}", path, interfaces_variant (interfaces));
  return g_variant_new ("(@a{oa{sa{sv}}})", g_variant_builder_end (&builder));
}

static void
emit (Mock *mock, const char *path, const char *interface, const char *name, GVariant *parameters)
{
  g_autoptr (GError) error = NULL;

  if (!g_dbus_connection_emit_signal (mock->connection, NULL, path, interface, name, parameters,
                                      &error))
    g_error ("%s", error->message);
}

static GHashTable *
child_table (GHashTable *table, const char *key, GDestroyNotify free_value, gboolean *is_new)
{
  GHashTable *child = g_hash_table_lookup (table, key);

  *is_new = child == NULL;
  if (child == NULL)
    {
      child = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, free_value);
      g_hash_table_insert (table, g_strdup (key), child);
    }
  return child;
}

static void
do_set (Mock *mock, JsonObject *line)
{
  const char *path = json_object_get_string_member (line, "path");
  const char *interface = json_object_get_string_member (line, "interface");
  JsonObject *values = json_object_get_object_member (line, "properties");
  gboolean is_new;
  GHashTable *interfaces
      = child_table (mock->objects, path, (GDestroyNotify) g_hash_table_unref, &is_new);
  GHashTable *properties
      = child_table (interfaces, interface, (GDestroyNotify) g_variant_unref, &is_new);
  g_autoptr (GHashTable) changed = g_hash_table_new (g_str_hash, g_str_equal);
  g_autoptr (GList) names = json_object_get_members (values);
  GVariantBuilder added = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE ("a{sa{sv}}"));

  for (GList *l = names; l != NULL; l = l->next)
    {
      g_autoptr (GError) error = NULL;
      GVariant *value = json_gvariant_deserialize (json_object_get_member (values, l->data),
                                                   signature_of (mock, interface, l->data), &error);

      if (value == NULL)
        g_error ("%s: %s", (const char *) l->data, error->message);
      g_variant_ref_sink (value);
      g_hash_table_insert (properties, g_strdup (l->data), value);
      g_hash_table_insert (changed, l->data, value);
    }
  if (is_new)
    {
      g_variant_builder_add (&added, "{s@a{sv}}", interface, properties_variant (properties));
      emit (mock, ROOT_PATH, OBJECT_MANAGER, "InterfacesAdded",
            g_variant_new ("(oa{sa{sv}})", path, &added));
      return;
    }
  g_variant_builder_clear (&added);
  emit (mock, path, "org.freedesktop.DBus.Properties", "PropertiesChanged",
        g_variant_new ("(s@a{sv}as)", interface, properties_variant (changed), NULL));
}

static void
do_remove (Mock *mock, JsonObject *line)
{
  const char *path = json_object_get_string_member (line, "path");
  GHashTable *interfaces = g_hash_table_lookup (mock->objects, path);
  GVariantBuilder names = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE ("as"));
  g_autoptr (GList) keys = g_hash_table_get_keys (interfaces);

  for (GList *l = keys; l != NULL; l = l->next)
    g_variant_builder_add (&names, "s", l->data);
  emit (mock, ROOT_PATH, OBJECT_MANAGER, "InterfacesRemoved",
        g_variant_new ("(oas)", path, &names));
  g_hash_table_remove (mock->objects, path);
}

/* Measurement carries plain types by the names of org.mitherm.Sensor1. */
static GVariant *
measured (const char *name, JsonNode *node)
{
  if (g_str_equal (name, "battery"))
    return g_variant_new_byte ((guint8) json_node_get_int (node));
  if (g_str_equal (name, "rssi"))
    return g_variant_new_int16 ((gint16) json_node_get_int (node));
  if (g_str_equal (name, "time"))
    return g_variant_new_uint64 ((guint64) json_node_get_int (node));
  if (g_str_equal (name, "format"))
    return g_variant_new_string (json_node_get_string (node));
  return g_variant_new_double (json_node_get_double (node));
}

static void
do_signal (Mock *mock, JsonObject *line)
{
  JsonObject *values = json_object_get_object_member (line, "values");
  g_autoptr (GList) names = json_object_get_members (values);
  GVariantBuilder builder = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE_VARDICT);

  for (GList *l = names; l != NULL; l = l->next)
    g_variant_builder_add (&builder, "{sv}", l->data,
                           measured (l->data, json_object_get_member (values, l->data)));
  emit (mock, json_object_get_string_member (line, "path"),
        json_object_get_string_member (line, "interface"),
        json_object_get_string_member (line, "name"), g_variant_new ("(a{sv})", &builder));
}

static void
on_acquired (GDBusConnection *connection, const char *name, gpointer data)
{
  print_event ("owned", name, ROOT_PATH);
}

static void
on_lost (GDBusConnection *connection, const char *name, gpointer data)
{
  print_event ("lost", name, ROOT_PATH);
}

static void
do_own (Mock *mock)
{
  mock->own_id = g_bus_own_name_on_connection (
      mock->connection, BUS_NAME, G_BUS_NAME_OWNER_FLAGS_NONE, on_acquired, on_lost, mock, NULL);
}

static void
obey (Mock *mock, JsonObject *line)
{
  const char *what = json_object_get_string_member (line, "do");

  if (g_str_equal (what, "set"))
    do_set (mock, line);
  else if (g_str_equal (what, "remove"))
    do_remove (mock, line);
  else if (g_str_equal (what, "signal"))
    do_signal (mock, line);
  else if (g_str_equal (what, "answer"))
    g_hash_table_insert (mock->answers, g_strdup (json_object_get_string_member (line, "method")),
                         json_object_ref (line));
  else if (g_str_equal (what, "own"))
    do_own (mock);
  else if (g_str_equal (what, "disown"))
    g_clear_handle_id (&mock->own_id, g_bus_unown_name);
  else
    g_error ("cannot do %s", what);
}

static void
on_line (GObject *source, GAsyncResult *result, gpointer data)
{
  Mock *mock = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autofree char *line = g_data_input_stream_read_line_finish (mock->in, result, NULL, &error);

  if (line == NULL)
    {
      g_main_loop_quit (mock->loop);
      return;
    }
  if (!json_parser_load_from_data (parser, line, -1, &error))
    g_error ("%s: %s", line, error->message);
  obey (mock, json_node_get_object (json_parser_get_root (parser)));
  g_data_input_stream_read_line_async (mock->in, G_PRIORITY_DEFAULT, NULL, on_line, mock);
}

static void
answer (Mock *mock, GDBusMessage *call)
{
  const char *member = g_dbus_message_get_member (call);
  JsonObject *answer_line = g_hash_table_lookup (mock->answers, member);
  g_autoptr (GDBusMessage) reply = NULL;
  g_autoptr (GError) error = NULL;

  if (g_str_equal (member, "GetManagedObjects") && answer_line == NULL)
    {
      reply = g_dbus_message_new_method_reply (call);
      g_dbus_message_set_body (reply, objects_variant (mock));
    }
  else
    print_event ("call", member, g_dbus_message_get_path (call));
  if (reply == NULL && answer_line != NULL && json_object_has_member (answer_line, "path"))
    {
      reply = g_dbus_message_new_method_reply (call);
      g_dbus_message_set_body (
          reply, g_variant_new ("(o)", json_object_get_string_member (answer_line, "path")));
    }
  if (reply == NULL)
    reply = g_dbus_message_new_method_error_literal (
        call,
        answer_line != NULL ? json_object_get_string_member (answer_line, "error")
                            : "org.freedesktop.DBus.Error.UnknownMethod",
        "the mock refuses");
  if (!g_dbus_connection_send_message (mock->connection, reply, G_DBUS_SEND_MESSAGE_FLAGS_NONE,
                                       NULL, &error))
    g_error ("%s", error->message);
}

typedef struct
{
  Mock *mock;
  GDBusMessage *call;
} Incoming;

static gboolean
on_incoming (gpointer data)
{
  g_autofree Incoming *incoming = data;

  answer (incoming->mock, incoming->call);
  g_object_unref (incoming->call);
  return G_SOURCE_REMOVE;
}

/* In the connection's thread: takes the calls that GDBus itself has no answer for. */
static GDBusMessage *
filter (GDBusConnection *connection, GDBusMessage *message, gboolean incoming, gpointer data)
{
  const char *path = g_dbus_message_get_path (message);
  Incoming *taken;

  if (!incoming || g_dbus_message_get_message_type (message) != G_DBUS_MESSAGE_TYPE_METHOD_CALL
      || path == NULL || !g_str_has_prefix (path, ROOT_PATH))
    return message;
  taken = g_new0 (Incoming, 1);
  taken->mock = data;
  taken->call = message;
  g_main_context_invoke (NULL, on_incoming, taken);
  return NULL;
}

static void
load_interfaces (Mock *mock, char **paths)
{
  for (; *paths != NULL; paths++)
    {
      g_autoptr (GError) error = NULL;
      g_autofree char *xml = NULL;
      GDBusNodeInfo *node = NULL;

      if (g_file_get_contents (*paths, &xml, NULL, &error))
        node = g_dbus_node_info_new_for_xml (xml, &error);
      if (node == NULL)
        g_error ("%s: %s", *paths, error->message);
      g_ptr_array_add (mock->nodes, node);
    }
}

int
main (int argc, char **argv)
{
  Mock mock = { 0 };
  g_autoptr (GError) error = NULL;
  g_autoptr (GInputStream) raw = g_unix_input_stream_new (STDIN_FILENO, FALSE);

  if (argc < 3)
    g_error ("usage: mock-mitherm BUS XML...");
  mock.loop = g_main_loop_new (NULL, FALSE);
  mock.nodes = g_ptr_array_new_with_free_func ((GDestroyNotify) g_dbus_node_info_unref);
  mock.objects = g_hash_table_new_full (g_str_hash, g_str_equal, g_free,
                                        (GDestroyNotify) g_hash_table_unref);
  mock.answers
      = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, (GDestroyNotify) json_object_unref);
  load_interfaces (&mock, argv + 2);
  mock.connection = g_dbus_connection_new_for_address_sync (
      argv[1],
      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT
          | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
      NULL, NULL, &error);
  if (mock.connection == NULL)
    g_error ("%s", error->message);
  g_dbus_connection_add_filter (mock.connection, filter, &mock, NULL);
  mock.in = g_data_input_stream_new (raw);
  g_data_input_stream_read_line_async (mock.in, G_PRIORITY_DEFAULT, NULL, on_line, &mock);
  g_main_loop_run (mock.loop);
  g_clear_handle_id (&mock.own_id, g_bus_unown_name);
  g_dbus_connection_close_sync (mock.connection, NULL, NULL);
  g_object_unref (mock.connection);
  g_object_unref (mock.in);
  g_hash_table_unref (mock.objects);
  g_hash_table_unref (mock.answers);
  g_ptr_array_unref (mock.nodes);
  g_main_loop_unref (mock.loop);
  return 0;
}
