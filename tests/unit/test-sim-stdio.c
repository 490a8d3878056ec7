/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-options.h"
#include "sim-stdio.h"

#include <json-glib/json-glib.h>
#include <string.h>

#define GROUP "A4:C1:38:00:00:01"

typedef struct
{
  SimRandom random;
  SimDevice *device;
  SimStdio stdio;
  JsonNode *answer;
} Fixture;

static void
set_up (Fixture *self, gconstpointer data)
{
  static const char config[] = "[" GROUP "]\nModel=LYWSD03MMC\nAuthVersion=1\n";
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (GError) error = NULL;

  g_assert_true (g_key_file_load_from_data (file, config, strlen (config), G_KEY_FILE_NONE, NULL));
  sim_random_init (&self->random, 1);
  self->device = sim_device_new (file, GROUP, sim_random_draw, &self->random, &error);
  g_assert_no_error (error);
  self->stdio = (SimStdio){ self->device, 0 };
}

static void
tear_down (Fixture *self, gconstpointer data)
{
  g_clear_pointer (&self->answer, json_node_unref);
  sim_device_free (self->device);
}

/* Every answer is one line, an object with the usual keys. */
static JsonObject *
ask_bytes (Fixture *self, const char *line, gsize len)
{
  static const char *const keys[] = { "notify", "value", "connected", "deadline", "events" };
  g_autofree char *text = sim_stdio_answer (&self->stdio, line, len);
  g_autoptr (GError) error = NULL;
  JsonObject *object;

  g_assert_null (strchr (text, '\n'));
  g_clear_pointer (&self->answer, json_node_unref);
  self->answer = json_from_string (text, &error);
  g_assert_no_error (error);
  object = json_node_get_object (self->answer);
  for (gsize i = 0; i < G_N_ELEMENTS (keys); i++)
    g_assert_true (json_object_has_member (object, keys[i]));
  return object;
}

static JsonObject *
ask (Fixture *self, const char *line)
{
  return ask_bytes (self, line, strlen (line));
}

static void
ask_good (Fixture *self, const char *line)
{
  g_assert_false (json_object_has_member (ask (self, line), "error"));
}

static void
test_session (Fixture *self, gconstpointer data)
{
  JsonObject *answer;
  JsonObject *note;

  answer = ask (self, "{\"do\":\"connect\",\"att\":20}");
  g_assert_true (json_object_get_boolean_member (answer, "connected"));
  g_assert_true (json_object_get_null_member (answer, "deadline"));
  answer = ask (self, "{\"do\":\"write\",\"ch\":\"0010\",\"data\":\"a2000000\"}");
  g_assert_cmpint (json_object_get_int_member (answer, "deadline"), ==, 10);
  answer = ask (self, "{\"do\":\"tick\",\"ms\":10}");
  note = json_array_get_object_element (json_object_get_array_member (answer, "notify"), 0);
  g_assert_cmpstr (json_object_get_string_member (note, "ch"), ==, "0019");
  g_assert_cmpstr (json_object_get_string_member (note, "data"), ==, "000000000100");
  answer = ask (self, "{\"do\":\"read\",\"ch\":\"2b12\"}");
  g_assert_cmpstr (json_object_get_string_member (answer, "value"), ==, "00");
  answer = ask (self, "{\"do\":\"disconnect\"}");
  g_assert_false (json_object_get_boolean_member (answer, "connected"));
  g_assert_false (json_object_has_member (answer, "error"));
}

static void
test_state (Fixture *self, gconstpointer data)
{
  JsonObject *state = json_object_get_object_member (ask (self, "{\"do\":\"state\"}"), "state");
  JsonArray *banks = json_object_get_array_member (state, "banks");
  JsonObject *bank = json_array_get_object_element (banks, 0);

  g_assert_cmpstr (json_object_get_string_member (state, "firmware"), ==, "1.0.0_0130");
  g_assert_cmpstr (json_object_get_string_member (state, "version"), ==, "1.0.0_0130");
  g_assert_false (json_object_get_boolean_member (state, "registered"));
  g_assert_true (json_object_get_null_member (state, "token"));
  g_assert_true (json_object_get_null_member (state, "bind_key"));
  g_assert_true (json_object_get_null_member (state, "did"));
  g_assert_cmpint (json_object_get_int_member (state, "running"), ==, 0);
  g_assert_cmpuint (json_array_get_length (banks), ==, 1);
  g_assert_cmpint (json_object_get_int_member (bank, "address"), ==, 0);
  g_assert_cmpint (json_object_get_int_member (bank, "size"), ==, 4100);
  g_assert_cmpint (json_object_get_int_member (bank, "written"), ==, 4100);
  g_assert_cmpuint (strlen (json_object_get_string_member (bank, "sha256")), ==, 64);
}

static const char *
event_name (JsonObject *answer, guint index)
{
  JsonArray *events = json_object_get_array_member (answer, "events");

  if (index >= json_array_get_length (events))
    return NULL;
  return json_object_get_string_member (json_array_get_object_element (events, index), "event");
}

static void
test_battery (Fixture *self, gconstpointer data)
{
  JsonObject *answer;

  ask_good (self, "{\"do\":\"connect\"}");
  answer = ask (self, "{\"do\":\"battery\"}");
  g_assert_cmpstr (event_name (answer, 0), ==, "disconnect");
  g_assert_false (json_object_get_boolean_member (answer, "connected"));
  g_assert_true (json_object_has_member (ask (self, "{\"do\":\"connect\"}"), "error"));
  answer = ask (self, "{\"do\":\"tick\",\"ms\":5000}");
  g_assert_cmpstr (event_name (answer, 0), ==, "reboot");
  ask_good (self, "{\"do\":\"connect\"}");
}

static void
test_fault (Fixture *self, gconstpointer data)
{
  JsonObject *answer;

  ask_good (self, "{\"do\":\"fault\",\"spec\":\">cut@1\"}");
  ask_good (self, "{\"do\":\"connect\"}");
  answer = ask (self, "{\"do\":\"write\",\"ch\":\"0010\",\"data\":\"24\"}");
  g_assert_false (json_object_get_boolean_member (answer, "connected"));
}

/* Lines that cannot be done, on a connected device whose clock says 1000. */
static const struct
{
  const char *name;
  const char *line;
} bad[] = {
  { "empty", "" },
  { "no-json", "connect" },
  { "cut-off", "{\"do\":\"state\"" },
  { "an-array", "[]" },
  { "a-number", "1" },
  { "null", "null" },
  { "two-objects", "{\"do\":\"state\"} {\"do\":\"state\"}" },
  { "single-quotes", "{'do':'state'}" },
  { "a-comment", "{\"do\":\"state\"} // now" },
  { "a-hex-number", "{\"do\":\"tick\",\"ms\":0x1000}" },
  { "an-octal-number", "{\"do\":\"tick\",\"ms\":02000}" },
  { "a-comma-too-many", "{\"do\":\"state\",}" },
  { "no-do", "{}" },
  { "do-is-a-number", "{\"do\":1}" },
  { "do-is-null", "{\"do\":null}" },
  { "do-is-an-object", "{\"do\":{}}" },
  { "do-is-unknown", "{\"do\":\"dance\"}" },
  { "connected-already", "{\"do\":\"connect\",\"att\":20}" },
  { "att-too-small", "{\"do\":\"connect\",\"att\":19}" },
  { "att-too-large", "{\"do\":\"connect\",\"att\":513}" },
  { "att-is-text", "{\"do\":\"connect\",\"att\":\"20\"}" },
  { "no-channel", "{\"do\":\"write\",\"data\":\"00\"}" },
  { "channel-of-three-digits", "{\"do\":\"write\",\"ch\":\"010\",\"data\":\"00\"}" },
  { "channel-is-a-number", "{\"do\":\"write\",\"ch\":10,\"data\":\"00\"}" },
  { "channel-is-no-hex", "{\"do\":\"write\",\"ch\":\"00zz\",\"data\":\"00\"}" },
  { "channel-is-unknown", "{\"do\":\"write\",\"ch\":\"dead\",\"data\":\"00\"}" },
  { "channel-is-not-writable", "{\"do\":\"write\",\"ch\":\"2a24\",\"data\":\"00\"}" },
  { "channel-needs-a-login", "{\"do\":\"write\",\"ch\":\"0017\",\"data\":\"010000\"}" },
  { "no-data", "{\"do\":\"write\",\"ch\":\"0010\"}" },
  { "data-is-no-hex", "{\"do\":\"write\",\"ch\":\"0010\",\"data\":\"xx\"}" },
  { "data-is-odd", "{\"do\":\"write\",\"ch\":\"0010\",\"data\":\"000\"}" },
  { "data-is-null", "{\"do\":\"write\",\"ch\":\"0010\",\"data\":null}" },
  { "data-exceeds-the-att-payload",
    "{\"do\":\"write\",\"ch\":\"0019\",\"data\":\"000000000000000000000000000000000000000000\"}" },
  { "read-of-unknown-channel", "{\"do\":\"read\",\"ch\":\"dead\"}" },
  { "read-of-unreadable-channel", "{\"do\":\"read\",\"ch\":\"0019\"}" },
  { "no-ms", "{\"do\":\"tick\"}" },
  { "ms-is-text", "{\"do\":\"tick\",\"ms\":\"1\"}" },
  { "ms-is-a-fraction", "{\"do\":\"tick\",\"ms\":2000.5}" },
  { "ms-is-negative", "{\"do\":\"tick\",\"ms\":-1}" },
  { "ms-is-huge", "{\"do\":\"tick\",\"ms\":9223372036854775807}" },
  { "time-goes-backwards", "{\"do\":\"tick\",\"ms\":999}" },
  { "fault-without-spec", "{\"do\":\"fault\"}" },
  { "fault-is-unknown", "{\"do\":\"fault\",\"spec\":\"explode@1\"}" },
};

static void
test_bad_line (Fixture *self, gconstpointer data)
{
  const char *line = data;
  JsonObject *answer;

  ask_good (self, "{\"do\":\"connect\",\"att\":20}");
  ask_good (self, "{\"do\":\"tick\",\"ms\":1000}");
  answer = ask (self, line);
  g_assert_true (json_object_has_member (answer, "error"));
  g_assert_cmpuint (strlen (json_object_get_string_member (answer, "error")), >, 0);
  /* nothing has changed */
  g_assert_true (json_object_get_boolean_member (answer, "connected"));
  ask_good (self, "{\"do\":\"write\",\"ch\":\"0010\",\"data\":\"a2\"}");
  ask_good (self, "{\"do\":\"tick\",\"ms\":1010}");
}

static void
test_not_connected (Fixture *self, gconstpointer data)
{
  static const char *const lines[]
      = { "{\"do\":\"write\",\"ch\":\"0010\",\"data\":\"a2\"}", "{\"do\":\"read\",\"ch\":\"2a24\"}",
          "{\"do\":\"disconnect\"}" };

  for (gsize i = 0; i < G_N_ELEMENTS (lines); i++)
    g_assert_true (json_object_has_member (ask (self, lines[i]), "error"));
}

static void
test_hostile_bytes (Fixture *self, gconstpointer data)
{
  static const char nul[] = "{\"do\":\0\"state\"}";
  static const char latin[] = "{\"do\":\"st\xe4te\"}";
  g_autofree char *deep = g_strnfill (SIM_STDIO_LINE_MAX, '[');
  g_autofree char *nested = g_strnfill (100000, '{');

  g_assert_true (json_object_has_member (ask_bytes (self, nul, sizeof nul - 1), "error"));
  g_assert_true (json_object_has_member (ask_bytes (self, latin, sizeof latin - 1), "error"));
  g_assert_true (json_object_has_member (ask (self, deep), "error"));
  g_assert_true (json_object_has_member (ask (self, nested), "error"));
}

/* Random bytes and random well-formed lines: always an answer, and the device goes on. */
static void
test_anything_is_answered (Fixture *self, gconstpointer data)
{
  static const char *const channels[]
      = { "0010", "0019", "2b12", "ccb7", "ccd8", "0004", "2a26", "ccc1", "ccc8" };
  g_autoptr (GRand) rand = g_rand_new_with_seed (7);
  gint64 ms = 0;

  for (guint i = 0; i < 20000; i++)
    {
      g_autoptr (GString) line = g_string_new (NULL);
      guint8 bytes[20];
      g_autofree char *hex = NULL;

      for (gsize k = 0; k < sizeof bytes; k++)
        bytes[k] = (guint8) (g_rand_boolean (rand) ? g_rand_int_range (rand, 0, 4)
                                                   : g_rand_int_range (rand, 0, 256));
      if (g_rand_int_range (rand, 0, 3) == 0)
        bytes[0] = (guint8[]){ 0x15, 0x24, 0xa2, 0xa4 }[g_rand_int_range (rand, 0, 4)];
      hex = mi_hex_encode (bytes, (gsize) g_rand_int_range (rand, 0, sizeof bytes + 1));
      switch (g_rand_int_range (rand, 0, 8))
        {
        case 0:
          g_string_assign (line, "{\"do\":\"connect\",\"att\":20}");
          break;
        case 1:
          ms += g_rand_int_range (rand, 0, 500);
          g_string_printf (line, "{\"do\":\"tick\",\"ms\":%" G_GINT64_FORMAT "}", ms);
          break;
        case 2:
          g_string_printf (line, "{\"do\":\"read\",\"ch\":\"%s\"}",
                           channels[g_rand_int_range (rand, 0, G_N_ELEMENTS (channels))]);
          break;
        default:
          g_string_printf (line, "{\"do\":\"write\",\"ch\":\"%s\",\"data\":\"%s\"}",
                           channels[g_rand_int_range (rand, 0, G_N_ELEMENTS (channels))], hex);
          break;
        }
      if (i % 50 == 49)
        line->str[g_rand_int_range (rand, 0, (gint32) line->len)]
            = (char) g_rand_int_range (rand, 1, 256);
      ask_bytes (self, line->str, line->len);
    }
}

static void
test_seed_is_deterministic (void)
{
  SimRandom a, b, c;
  guint8 first[100], second[100], third[100], expected[32];
  const guint8 block[16] = { 5 };

  sim_random_init (&a, 5);
  sim_random_init (&b, 5);
  sim_random_init (&c, 6);
  g_assert_true (sim_random_draw (first, sizeof first, &a));
  for (gsize i = 0; i < sizeof second; i++)
    g_assert_true (sim_random_draw (second + i, 1, &b));
  g_assert_true (sim_random_draw (third, sizeof third, &c));
  g_assert_cmpmem (first, sizeof first, second, sizeof second);
  g_assert_cmpint (memcmp (first, third, sizeof first), !=, 0);
  /* as documented: SHA-256 of seed and counter */
  g_assert_true (mi_crypto_sha256 (block, sizeof block, expected, NULL));
  g_assert_cmpmem (first, 32, expected, 32);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add ("/sim-stdio/a-session", Fixture, NULL, set_up, test_session, tear_down);
  g_test_add ("/sim-stdio/state-tells-everything", Fixture, NULL, set_up, test_state, tear_down);
  g_test_add ("/sim-stdio/the-battery-restarts", Fixture, NULL, set_up, test_battery, tear_down);
  g_test_add ("/sim-stdio/faults-are-armed", Fixture, NULL, set_up, test_fault, tear_down);
  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      g_autofree char *path = g_strconcat ("/sim-stdio/refused/", bad[i].name, NULL);

      g_test_add (path, Fixture, bad[i].line, set_up, test_bad_line, tear_down);
    }
  g_test_add ("/sim-stdio/refused/not-connected", Fixture, NULL, set_up, test_not_connected,
              tear_down);
  g_test_add ("/sim-stdio/refused/hostile-bytes", Fixture, NULL, set_up, test_hostile_bytes,
              tear_down);
  g_test_add ("/sim-stdio/anything-is-answered", Fixture, NULL, set_up, test_anything_is_answered,
              tear_down);
  g_test_add_func ("/sim-stdio/a-seed-makes-it-deterministic", test_seed_is_deterministic);
  return g_test_run ();
}
