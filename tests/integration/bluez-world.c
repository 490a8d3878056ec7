/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bluez-world.h"

#include <glib/gstdio.h>
#include <string.h>

static gboolean
on_limit (gpointer user_data)
{
  g_error ("waited for more than %d ms", WORLD_LIMIT_MS);
  return G_SOURCE_REMOVE;
}

void
world_until (World *world, WorldCondition condition, gconstpointer data)
{
  guint limit = g_timeout_add (WORLD_LIMIT_MS, on_limit, NULL);

  while (!condition (world, data))
    g_main_context_iteration (NULL, TRUE);
  g_source_remove (limit);
}

static gboolean
is_set (World *world, gconstpointer flag)
{
  return *(const gboolean *) flag;
}

void
world_until_flag (World *world, gboolean *flag)
{
  world_until (world, is_set, flag);
}

/* -- The simulator ---------------------------------------------------------------------------- */

typedef struct
{
  gboolean over;
  char *line;
} Line;

static void
on_line (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Line *line = user_data;

  line->line = g_data_input_stream_read_line_finish_utf8 (G_DATA_INPUT_STREAM (source), result,
                                                          NULL, NULL);
  line->over = TRUE;
}

/* The next line that is an answer, or the readiness. */
static JsonNode *
read_answer (World *world, gboolean ready)
{
  for (;;)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (JsonNode) node = NULL;
      g_autofree char *text = NULL;
      Line line = { FALSE, NULL };
      JsonObject *object = NULL;

      g_data_input_stream_read_line_async (world->sim_out, G_PRIORITY_DEFAULT, NULL, on_line,
                                           &line);
      world_until_flag (world, &line.over);
      text = line.line;
      g_assert_nonnull (text);
      g_test_message ("simulator: %s", text);
      node = json_from_string (text, &error);
      g_assert_no_error (error);
      object = json_node_get_object (node);
      if (json_object_has_member (object, "event") == ready)
        return g_steal_pointer (&node);
    }
}

JsonNode *
world_control (World *world, const char *line)
{
  GOutputStream *in = g_subprocess_get_stdin_pipe (world->sim);
  g_autofree char *text = g_strconcat (line, "\n", NULL);

  g_assert_true (g_output_stream_write_all (in, text, strlen (text), NULL, NULL, NULL));
  return read_answer (world, FALSE);
}

void
world_do (World *world, const char *line)
{
  g_autoptr (JsonNode) answer = world_control (world, line);

  g_assert_false (json_object_has_member (json_node_get_object (answer), "error"));
}

char *
world_state (World *world, const char *address, const char *member)
{
  g_autofree char *line = g_strdup_printf ("{\"do\":\"state\",\"device\":\"%s\"}", address);
  g_autoptr (JsonNode) answer = world_control (world, line);
  JsonObject *state = json_object_get_object_member (json_node_get_object (answer), "state");
  JsonNode *node = json_object_get_member (state, member);

  g_assert_nonnull (node);
  return json_node_is_null (node) ? g_strdup ("") : json_node_dup_string (node);
}

static void
start_simulator (World *world, const char *config, guint adapters)
{
  g_autofree char *path = NULL;
  g_autofree char *bus = g_strconcat ("--bus=", g_test_dbus_get_bus_address (world->dbus), NULL);
  g_autofree char *count = g_strdup_printf ("--adapters=%u", adapters);
  g_autofree char *devices = NULL;
  g_autoptr (GError) error = NULL;
  int fd = g_file_open_tmp ("mitherm-test-XXXXXX.conf", &path, &error);

  g_assert_no_error (error);
  g_close (fd, NULL);
  g_assert_true (g_file_set_contents (path, config, -1, &error));
  devices = g_strconcat ("--devices=", path, NULL);
  world->sim = g_subprocess_new (G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE,
                                 &error, g_getenv ("MITHERM_SIM"), "--fake-bluez", "--control", bus,
                                 devices, count, NULL);
  g_assert_no_error (error);
  world->sim_out = g_data_input_stream_new (g_subprocess_get_stdout_pipe (world->sim));
  json_node_unref (read_answer (world, TRUE));
  g_unlink (path);
}

/* -- The radio -------------------------------------------------------------------------------- */

static void
on_advert (MithermRadio *radio, const MithermAdvert *advert, gpointer user_data)
{
  World *world = user_data;
  guint n = GPOINTER_TO_UINT (g_hash_table_lookup (world->adverts, advert->address));

  g_assert_true (g_str_has_prefix (advert->adapter, "hci"));
  g_assert_cmpint (advert->rssi, !=, 127);
  g_hash_table_replace (world->adverts, g_strdup (advert->address), GUINT_TO_POINTER (n + 1));
  if (advert->uuid == 0)
    return;
  g_assert_cmpuint (advert->len, >, 0);
  world->last_uuid = advert->uuid;
  g_free (world->last_name);
  world->last_name = g_strdup (advert->name);
}

static void
on_changed (MithermRadio *radio, gpointer user_data)
{
  ((World *) user_data)->changes++;
}

static void
on_step (const char *step, gpointer user_data)
{
  g_string_append_printf (((World *) user_data)->steps, "%s;", step);
}

World *
world_new (const char *config, guint adapters)
{
  World *world = g_new0 (World, 1);
  g_autoptr (GError) error = NULL;

  world->dbus = g_test_dbus_new (G_TEST_DBUS_NONE);
  g_test_dbus_up (world->dbus);
  world->adverts = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  world->steps = g_string_new (NULL);
  start_simulator (world, config, adapters);
  /* 2 s as with bluetoothd would only make the tests slow. */
  world_do (world, "{\"do\":\"bluez\",\"what\":\"disconnect-delay\",\"ms\":100}");
  world->bus = g_dbus_connection_new_for_address_sync (
      g_test_dbus_get_bus_address (world->dbus),
      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT
          | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
      NULL, NULL, &error);
  g_assert_no_error (error);
  world->radio = mitherm_bluez_new (world->bus);
  mitherm_radio_set_callbacks (world->radio, on_advert, on_changed, world);
  mitherm_radio_set_discovery (world->radio, TRUE);
  return world;
}

void
world_free (World *world)
{
  /* The daemon goes first, as in life. */
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_assert_finalize_object (world->radio);
  g_assert_true (g_dbus_connection_close_sync (world->bus, NULL, NULL));
  g_object_unref (world->bus);
  g_subprocess_send_signal (world->sim, SIGTERM);
  g_assert_true (g_subprocess_wait (world->sim, NULL, NULL));
  g_assert_true (g_subprocess_get_successful (world->sim));
  g_object_unref (world->sim_out);
  g_object_unref (world->sim);
  g_test_dbus_down (world->dbus);
  g_object_unref (world->dbus);
  g_hash_table_unref (world->adverts);
  g_string_free (world->steps, TRUE);
  g_free (world->last_name);
  g_free (world);
}

typedef struct
{
  const char *address;
  guint n;
} Heard;

static guint
count_adverts (World *world, const char *address)
{
  return GPOINTER_TO_UINT (g_hash_table_lookup (world->adverts, address));
}

static gboolean
is_heard (World *world, gconstpointer data)
{
  const Heard *heard = data;

  return count_adverts (world, heard->address) > heard->n;
}

void
world_until_heard (World *world, const char *address)
{
  Heard heard = { address, count_adverts (world, address) };

  world_until (world, is_heard, &heard);
}

/* -- Links ------------------------------------------------------------------------------------ */

static void
on_link_closed (MiLink *link, gpointer user_data)
{
  ((WorldLink *) user_data)->closed++;
}

static void
on_connected (GObject *source, GAsyncResult *result, gpointer user_data)
{
  WorldLink *self = user_data;

  self->link = mitherm_radio_connect_finish (MITHERM_RADIO (source), result, &self->error);
  self->took_us += g_get_monotonic_time ();
  self->over = TRUE;
  if (self->link != NULL)
    mi_link_set_callbacks (self->link, NULL, on_link_closed, self);
}

WorldLink *
world_connect_start (World *world, const char *address, const char *adapter)
{
  WorldLink *self = g_new0 (WorldLink, 1);

  self->cancellable = g_cancellable_new ();
  self->took_us = -g_get_monotonic_time ();
  mitherm_radio_connect_async (world->radio, address, adapter, on_step, world, self->cancellable,
                               on_connected, self);
  return self;
}

WorldLink *
world_connect (World *world, const char *address)
{
  WorldLink *self = world_connect_start (world, address, NULL);

  world_until_flag (world, &self->over);
  g_assert_no_error (self->error);
  g_assert_true (MI_IS_LINK (self->link));
  return self;
}

void
world_link_free (WorldLink *self)
{
  g_assert_true (self->over);
  if (self->link != NULL)
    mi_link_set_callbacks (self->link, NULL, NULL, NULL);
  g_clear_object (&self->link);
  g_clear_error (&self->error);
  g_object_unref (self->cancellable);
  g_free (self);
}

static gboolean
is_closed (World *world, gconstpointer data)
{
  return ((const WorldLink *) data)->closed > 0;
}

void
world_disconnect (World *world, WorldLink *self)
{
  mi_link_disconnect (self->link);
  world_until (world, is_closed, self);
  g_assert_true (mi_link_is_closed (self->link));
  g_assert_cmpuint (self->closed, ==, 1);
}

typedef struct
{
  gboolean over, ok;
  GBytes *value;
  GError *error;
} Result;

static void
on_read (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Result *self = user_data;

  self->value = mi_link_read_finish (MI_LINK (source), result, &self->error);
  self->over = TRUE;
}

char *
world_read (World *world, MiLink *link, guint16 channel, GError **error)
{
  Result result = { FALSE };
  g_autoptr (GBytes) value = NULL;
  const char *data = NULL;
  gsize len = 0;

  mi_link_read_async (link, channel, NULL, on_read, &result);
  world_until_flag (world, &result.over);
  value = result.value;
  if (value == NULL)
    {
      g_propagate_error (error, result.error);
      return NULL;
    }
  data = g_bytes_get_data (value, &len);
  return g_strndup (data, len);
}

static void
on_settled (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Result *self = user_data;

  self->ok = mitherm_radio_settle_finish (MITHERM_RADIO (source), result, &self->error);
  self->over = TRUE;
}

void
world_settle (World *world, const char *address)
{
  Result result = { FALSE };

  mitherm_radio_settle_async (world->radio, address, NULL, on_settled, &result);
  world_until_flag (world, &result.over);
  g_assert_no_error (result.error);
}

static void
on_forgotten (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Result *self = user_data;

  self->ok = mitherm_radio_forget_finish (MITHERM_RADIO (source), result, &self->error);
  self->over = TRUE;
}

void
world_forget (World *world, const char *address)
{
  Result result = { FALSE };

  mitherm_radio_forget_async (world->radio, address, NULL, on_forgotten, &result);
  world_until_flag (world, &result.over);
  g_assert_no_error (result.error);
}

static void
on_run (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Result *self = user_data;

  self->ok = mi_runner_run_finish (MI_RUNNER (source), result, &self->error);
  self->over = TRUE;
}

gboolean
world_run (World *world, MiRunner *runner, MiProcedure *procedure, GError **error)
{
  g_autoptr (MiProcedure) owned = procedure;
  Result result = { FALSE };

  mi_runner_run_async (runner, owned, NULL, on_run, &result);
  world_until_flag (world, &result.over);
  if (result.error != NULL)
    g_propagate_error (error, result.error);
  return result.ok;
}
