/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bus.h"
#include "mitherm-agent.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gio/gunixfdlist.h>
#include <json-glib/json-glib.h>

#include "mitherm-error.h"

/* The JSON of credential agents, and agents on a private bus. */

#define DEVICE     "/org/mitherm/device/A4_C1_38_00_00_01"
#define AGENT_PATH "/agent"
#define LIMIT_MS   20000

#define SIGNATURE                                                                                  \
  "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"                               \
  "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
#define GOOD                                                                                       \
  "{\"did\":\"blt.6.1abc\",\"signature\":\"" SIGNATURE                                             \
  "\",\"utc\":1700000000,\"certificate\":\"3082AAbb\"}\n"

static const MiKeys keys = {
  .token = { 0xa1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 },
  .bind_key = { 0xb1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
};

/* JSON */

static JsonObject *
parse (JsonParser *parser, const char *text)
{
  g_autoptr (GError) error = NULL;

  json_parser_load_from_data (parser, text, -1, &error);
  g_assert_no_error (error);
  return json_node_get_object (json_parser_get_root (parser));
}

static void
test_request (void)
{
  MithermCredentialRequest request = { "A4:C1:38:00:00:01", "x.sensor_ht.t2", 0x055b, &keys, 1234 };
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autofree char *text = mitherm_credential_request_to_json (&request);
  JsonObject *object = parse (parser, text);

  g_assert_null (strchr (text, '\n'));
  g_assert_cmpuint (json_object_get_size (object), ==, 8);
  g_assert_cmpint (json_object_get_int_member (object, "version"), ==, 1);
  g_assert_cmpstr (json_object_get_string_member (object, "address"), ==, "A4:C1:38:00:00:01");
  g_assert_cmpstr (json_object_get_string_member (object, "model"), ==, "x.sensor_ht.t2");
  g_assert_cmpint (json_object_get_int_member (object, "product_id"), ==, 0x055b);
  g_assert_true (json_object_get_null_member (object, "did"));
  g_assert_cmpstr (json_object_get_string_member (object, "token"), ==, "a102030405060708090a0b0c");
  g_assert_cmpstr (json_object_get_string_member (object, "bind_key"), ==,
                   "b102030405060708090a0b0c0d0e0f10");
  g_assert_cmpint (json_object_get_int_member (object, "deadline_ms"), ==, 1234);
}

static void
test_request_did (void)
{
  MiKeys own = keys;
  MithermCredentialRequest request = { "A4:C1:38:00:00:01", NULL, 0, &own, 1 };
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autofree char *text = NULL;
  JsonObject *object;

  own.has_did = TRUE;
  memcpy (own.did + 1, "blt.6.1fg3jsorosg00", 19);
  text = mitherm_credential_request_to_json (&request);
  object = parse (parser, text);
  g_assert_cmpstr (json_object_get_string_member (object, "did"), ==, "blt.6.1fg3jsorosg00");
  g_assert_cmpstr (json_object_get_string_member (object, "model"), ==, "");
}

static void
test_answer (void)
{
  static const guint8 did[MI_DID_LEN] = "\0\0\0\0\0\0\0\0\0\0blt.6.1abc";
  static const guint8 certificate[] = { 0x30, 0x82, 0xaa, 0xbb };
  g_autoptr (GError) error = NULL;
  MiCredential *credential = mitherm_credential_from_json (GOOD, strlen (GOOD), &error);

  g_assert_no_error (error);
  g_assert_cmpmem (credential->did, MI_DID_LEN, did, MI_DID_LEN);
  g_assert_cmpuint (credential->signature[0], ==, 0);
  g_assert_cmpuint (credential->signature[63], ==, 0x3f);
  g_assert_cmpuint (credential->utc, ==, 1700000000);
  g_assert_cmpmem (credential->certificate, credential->certificate_len, certificate,
                   sizeof certificate);
  mitherm_credential_free (credential);
}

typedef struct
{
  const char *name;
  const char *text;
  const char *told; /* part of the message */
} BadAnswer;

#define WITH(did, signature, utc, certificate)                                                     \
  "{\"did\":" did ",\"signature\":" signature ",\"utc\":" utc ",\"certificate\":" certificate "}"
#define Q(text) "\"" text "\""

static const BadAnswer bad_answers[] = {
  { "empty", "", "empty" },
  { "rubbish", "credential", "no JSON" },
  { "list", "[]", "no JSON object" },
  { "null", "null", "no JSON object" },
  { "nothing-in-it", "{}", "did" },
  { "no-did", WITH ("null", Q (SIGNATURE), "1", Q ("30")), "did" },
  { "empty-did", WITH (Q (""), Q (SIGNATURE), "1", Q ("30")), "did" },
  { "long-did", WITH (Q ("blt.6.1abcdefghijklmn"), Q (SIGNATURE), "1", Q ("30")), "did" },
  { "number-did", WITH ("6", Q (SIGNATURE), "1", Q ("30")), "did" },
  { "empty-signature", WITH (Q ("blt"), Q (""), "1", Q ("30")), "signature" },
  { "short-signature", WITH (Q ("blt"), Q ("00"), "1", Q ("30")), "signature" },
  { "long-signature", WITH (Q ("blt"), Q (SIGNATURE "00"), "1", Q ("30")), "signature" },
  { "text-utc", WITH (Q ("blt"), Q (SIGNATURE), Q ("1"), Q ("30")), "utc" },
  { "negative-utc", WITH (Q ("blt"), Q (SIGNATURE), "-1", Q ("30")), "utc" },
  { "large-utc", WITH (Q ("blt"), Q (SIGNATURE), "4294967296", Q ("30")), "utc" },
  { "fraction-utc", WITH (Q ("blt"), Q (SIGNATURE), "1.5", Q ("30")), "utc" },
  { "empty-certificate", WITH (Q ("blt"), Q (SIGNATURE), "1", Q ("")), "certificate" },
  { "odd-certificate", WITH (Q ("blt"), Q (SIGNATURE), "1", Q ("308")), "certificate" },
  { "object-certificate", WITH (Q ("blt"), Q (SIGNATURE), "1", "{}"), "certificate" },
  { "error", "{\"error\":\"refused\",\"message\":\"no such\\nmodel.\"}",
    "(refused): no such model." },
  { "error-beside-a-credential", "{\"error\":\"network\",\"did\":\"blt\"}", "(network)." },
  { "error-of-no-text", "{\"error\":{},\"message\":7}", "no reason" },
};

static void
test_bad_answer (gconstpointer data)
{
  const BadAnswer *bad = data;
  g_autoptr (GError) error = NULL;

  g_assert_null (mitherm_credential_from_json (bad->text, strlen (bad->text), &error));
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED);
  g_assert_nonnull (strstr (error->message, bad->told));
}

static void
test_deep_answer (void)
{
  g_autofree char *deep = g_strnfill (MITHERM_CREDENTIAL_MAX, '[');
  g_autofree char *hidden = g_strconcat ("{\"a\":\"]]]]\",\"b\":", deep, NULL);
  g_autoptr (GError) error = NULL;

  g_assert_null (mitherm_credential_from_json (deep, strlen (deep), &error));
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED);
  g_clear_error (&error);
  g_assert_null (mitherm_credential_from_json (hidden, 10000, &error));
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED);
}

/* Agents on a bus */

typedef enum
{
  ANSWER_FILE,
  ANSWER_PIPE,
  ANSWER_OPEN_PIPE, /* never closed */
  ANSWER_ENDLESS,   /* a pipe that is always full */
  ANSWER_DEVICE,    /* /dev/zero */
  ANSWER_ERROR,
  ANSWER_NEVER,
  ANSWER_LEAVE, /* the bus */
} Manner;

typedef struct
{
  GDBusConnection *connection;
  Manner manner;
  guint asked, cancelled, released;
  char *request;
  int pipe; /* its end of an open pipe, or -1 */
  GDBusMethodInvocation *waiting;
} Client;

typedef struct
{
  GTestDBus *bus;
  GDBusConnection *daemon;
  MithermAgents *agents;
  Client clients[2];
  MiCredential *credential;
  GError *error;
  gboolean done;
} Fixture;

static const char agent_xml[]
    = "<node><interface name='org.mitherm.CredentialAgent1'><method name='RequestCredential'>"
      "<arg type='o' direction='in'/><arg type='h' direction='in'/>"
      "<arg type='a{sv}' direction='in'/><arg type='h' direction='out'/></method>"
      "<method name='Cancel'><arg type='o' direction='in'/></method>"
      "<method name='Release'/></interface></node>";

static int
make_file (const char *text)
{
  int fd = memfd_create ("answer", MFD_CLOEXEC);

  g_assert_cmpint (write (fd, text, strlen (text)), ==, (gssize) strlen (text));
  return fd; /* not rewound: it is read from its beginning all the same */
}

static int
make_pipe (Client *client, const char *text)
{
  int ends[2];

  g_assert_cmpint (pipe (ends), ==, 0);
  g_assert_cmpint (write (ends[1], text, strlen (text)), ==, (gssize) strlen (text));
  client->pipe = ends[1];
  return ends[0];
}

static void
close_pipe (Client *client)
{
  if (client->pipe >= 0)
    close (client->pipe);
  client->pipe = -1;
}

static int
make_answer (Client *client)
{
  g_autofree char *much = NULL;

  switch (client->manner)
    {
    case ANSWER_FILE:
      return make_file (GOOD);
    case ANSWER_PIPE:
    case ANSWER_OPEN_PIPE:
      return make_pipe (client, GOOD);
    case ANSWER_ENDLESS:
      much = g_strnfill (2 * MITHERM_CREDENTIAL_MAX, ' ');
      return make_pipe (client, much);
    case ANSWER_DEVICE:
      return open ("/dev/zero", O_RDONLY | O_CLOEXEC);
    case ANSWER_ERROR:
    case ANSWER_NEVER:
    case ANSWER_LEAVE:
    default:
      g_assert_not_reached ();
    }
}

static void
answer (Client *client, GDBusMethodInvocation *invocation)
{
  g_autoptr (GUnixFDList) fds = NULL;
  int fd;

  if (client->manner == ANSWER_ERROR)
    {
      g_dbus_method_invocation_return_dbus_error (invocation, "org.example.No", "not today");
      return;
    }
  if (client->manner >= ANSWER_NEVER)
    {
      client->waiting = invocation;
      if (client->manner == ANSWER_LEAVE)
        g_dbus_connection_close (client->connection, NULL, NULL, NULL);
      return;
    }
  fd = make_answer (client);
  fds = g_unix_fd_list_new_from_array (&fd, 1);
  g_dbus_method_invocation_return_value_with_unix_fd_list (invocation, g_variant_new ("(h)", 0),
                                                           fds);
  if (client->manner == ANSWER_PIPE)
    close_pipe (client);
}

static char *
read_request (GDBusMethodInvocation *invocation)
{
  GDBusMessage *message = g_dbus_method_invocation_get_message (invocation);
  int fd = g_unix_fd_list_get (g_dbus_message_get_unix_fd_list (message), 0, NULL);
  char buffer[2048] = "";
  ssize_t n = read (fd, buffer, sizeof buffer - 1); /* as a program reads its standard input */

  g_assert_cmpint (n, >, 0);
  close (fd);
  return g_strdup (buffer);
}

static void
on_call (GDBusConnection *connection, const char *sender, const char *path, const char *interface,
         const char *method, GVariant *parameters, GDBusMethodInvocation *invocation,
         gpointer user_data)
{
  Client *client = user_data;
  const char *device;

  if (g_str_equal (method, "RequestCredential"))
    {
      g_variant_get_child (parameters, 0, "&o", &device);
      g_assert_cmpstr (device, ==, DEVICE);
      client->asked++;
      g_free (client->request);
      client->request = read_request (invocation);
      answer (client, invocation);
      return;
    }
  if (g_str_equal (method, "Cancel"))
    client->cancelled++;
  else
    client->released++;
  g_dbus_method_invocation_return_value (invocation, NULL);
}

static void
export_agent (Client *client, const char *path)
{
  static const GDBusInterfaceVTable vtable = { .method_call = on_call };
  g_autoptr (GDBusNodeInfo) info = g_dbus_node_info_new_for_xml (agent_xml, NULL);

  g_assert_cmpuint (g_dbus_connection_register_object (
                        client->connection, path, info->interfaces[0], &vtable, client, NULL, NULL),
                    !=, 0);
}

static void
set_up (Fixture *f, gconstpointer data)
{
  f->bus = g_test_dbus_new (G_TEST_DBUS_NONE);
  g_test_dbus_up (f->bus);
  f->daemon = bus_connect (f->bus);
  f->agents = mitherm_agents_new (f->daemon);
  for (gsize i = 0; i < G_N_ELEMENTS (f->clients); i++)
    {
      f->clients[i].connection = bus_connect (f->bus);
      f->clients[i].pipe = -1;
      export_agent (&f->clients[i], AGENT_PATH);
      export_agent (&f->clients[i], AGENT_PATH "2");
    }
}

/* What is on its way arrives while there is somebody for it. */
static void
settle (void)
{
  for (guint i = 0; i < 20; i++)
    {
      while (g_main_context_iteration (NULL, FALSE))
        ;
      g_usleep (1000);
    }
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  mitherm_agents_free (f->agents);
  settle ();
  for (gsize i = 0; i < G_N_ELEMENTS (f->clients); i++)
    {
      close_pipe (&f->clients[i]);
      g_clear_object (&f->clients[i].waiting);
      g_dbus_connection_close_sync (f->clients[i].connection, NULL, NULL);
      g_object_unref (f->clients[i].connection);
      g_free (f->clients[i].request);
    }
  g_dbus_connection_close_sync (f->daemon, NULL, NULL);
  settle ();
  g_object_unref (f->daemon);
  g_test_dbus_down (f->bus);
  g_object_unref (f->bus);
  mitherm_credential_free (f->credential);
  g_clear_error (&f->error);
}

static const char *
name_of (Fixture *f, guint client)
{
  return g_dbus_connection_get_unique_name (f->clients[client].connection);
}

static void
enrol (Fixture *f, guint client, const char *path)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (mitherm_agents_register (f->agents, name_of (f, client), path, &error));
  g_assert_no_error (error);
}

static void
on_end (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Fixture *f = user_data;

  f->credential = mitherm_agents_request_finish (result, &f->error);
  f->done = TRUE;
}

static void
begin (Fixture *f, const char *caller, guint limit_ms, GCancellable *cancellable)
{
  MithermCredentialRequest request = { "A4:C1:38:00:00:01", "model", 1, &keys, limit_ms };

  g_clear_pointer (&f->credential, mitherm_credential_free);
  g_clear_error (&f->error);
  f->done = FALSE;
  mitherm_agents_request_async (f->agents, caller, DEVICE, &request, cancellable, on_end, f);
}

#define WAIT_FOR(condition)                                                                        \
  G_STMT_START                                                                                     \
  {                                                                                                \
    gint64 until_us = g_get_monotonic_time () + LIMIT_MS * 1000;                                   \
                                                                                                   \
    while (!(condition))                                                                           \
      {                                                                                            \
        g_assert_cmpint (g_get_monotonic_time (), <, until_us);                                    \
        if (!g_main_context_iteration (NULL, FALSE))                                               \
          g_usleep (500);                                                                          \
      }                                                                                            \
  }                                                                                                \
  G_STMT_END

static void
ask (Fixture *f, const char *caller)
{
  begin (f, caller, LIMIT_MS, NULL);
  WAIT_FOR (f->done);
}

static void
test_own_first (Fixture *f, gconstpointer data)
{
  enrol (f, 0, AGENT_PATH);
  enrol (f, 1, AGENT_PATH);
  ask (f, name_of (f, 0));
  g_assert_no_error (f->error);
  g_assert_nonnull (f->credential);
  g_assert_cmpuint (f->clients[0].asked, ==, 1);
  ask (f, ":1.9999");
  g_assert_cmpuint (f->clients[1].asked, ==, 1);
  ask (f, NULL);
  g_assert_cmpuint (f->clients[1].asked, ==, 2);
  g_assert_nonnull (strstr (f->clients[0].request, "a102030405060708090a0b0c"));
  g_assert_cmpuint (f->clients[0].cancelled + f->clients[1].cancelled, ==, 0);
}

static void
test_replaced (Fixture *f, gconstpointer data)
{
  enrol (f, 0, AGENT_PATH);
  enrol (f, 0, AGENT_PATH);
  g_assert_cmpuint (mitherm_agents_count (f->agents), ==, 1);
  enrol (f, 0, AGENT_PATH "2");
  g_assert_cmpuint (mitherm_agents_count (f->agents), ==, 1);
  WAIT_FOR (f->clients[0].released == 1);
  g_assert_true (mitherm_agents_unregister (f->agents, name_of (f, 0), AGENT_PATH "2", NULL));
  g_assert_cmpuint (mitherm_agents_count (f->agents), ==, 0);
}

static void
test_unregister (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  enrol (f, 0, AGENT_PATH);
  g_assert_false (mitherm_agents_unregister (f->agents, name_of (f, 1), AGENT_PATH, &error));
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND);
  g_clear_error (&error);
  g_assert_false (mitherm_agents_unregister (f->agents, name_of (f, 0), "/other", &error));
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND);
  g_assert_true (mitherm_agents_unregister (f->agents, name_of (f, 0), AGENT_PATH, NULL));
  ask (f, NULL);
  g_assert_error (f->error, MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED);
}

static void
test_leaves (Fixture *f, gconstpointer data)
{
  enrol (f, 0, AGENT_PATH);
  enrol (f, 1, AGENT_PATH);
  g_dbus_connection_close_sync (f->clients[1].connection, NULL, NULL);
  WAIT_FOR (mitherm_agents_count (f->agents) == 1);
  ask (f, NULL);
  g_assert_nonnull (f->credential);
  g_assert_cmpuint (f->clients[0].asked, ==, 1);
}

static void
test_dies (Fixture *f, gconstpointer data)
{
  f->clients[0].manner = ANSWER_LEAVE;
  enrol (f, 0, AGENT_PATH);
  ask (f, NULL);
  g_assert_error (f->error, MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED);
  WAIT_FOR (mitherm_agents_count (f->agents) == 0);
}

static void
test_refuses (Fixture *f, gconstpointer data)
{
  f->clients[0].manner = ANSWER_ERROR;
  enrol (f, 0, AGENT_PATH);
  ask (f, NULL);
  g_assert_error (f->error, MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED);
  g_assert_nonnull (strstr (f->error->message, "not today"));
}

static void
test_silent (Fixture *f, gconstpointer data)
{
  f->clients[0].manner = ANSWER_NEVER;
  enrol (f, 0, AGENT_PATH);
  begin (f, NULL, 200, NULL);
  WAIT_FOR (f->done);
  g_assert_error (f->error, MITHERM_ERROR, MITHERM_ERROR_TIMEOUT);
  WAIT_FOR (f->clients[0].cancelled == 1);
}

static void
test_cancelled (Fixture *f, gconstpointer data)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();

  f->clients[0].manner = ANSWER_NEVER;
  enrol (f, 0, AGENT_PATH);
  begin (f, NULL, LIMIT_MS, cancellable);
  WAIT_FOR (f->clients[0].asked == 1);
  g_cancellable_cancel (cancellable);
  WAIT_FOR (f->done);
  g_assert_error (f->error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  WAIT_FOR (f->clients[0].cancelled == 1);
}

static void
test_pipe (Fixture *f, gconstpointer data)
{
  f->clients[0].manner = ANSWER_PIPE;
  enrol (f, 0, AGENT_PATH);
  ask (f, NULL);
  g_assert_no_error (f->error);
  g_assert_cmpuint (f->credential->utc, ==, 1700000000);
}

static void
test_open_pipe (Fixture *f, gconstpointer data)
{
  f->clients[0].manner = ANSWER_OPEN_PIPE;
  enrol (f, 0, AGENT_PATH);
  begin (f, NULL, 500, NULL);
  WAIT_FOR (f->done);
  g_assert_error (f->error, MITHERM_ERROR, MITHERM_ERROR_TIMEOUT);
  WAIT_FOR (f->clients[0].cancelled == 1);
}

static void
test_open_pipe_cancelled (Fixture *f, gconstpointer data)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();

  f->clients[0].manner = ANSWER_OPEN_PIPE;
  enrol (f, 0, AGENT_PATH);
  begin (f, NULL, LIMIT_MS, cancellable);
  WAIT_FOR (f->clients[0].asked == 1);
  for (guint i = 0; i < 20; i++)
    {
      g_main_context_iteration (NULL, FALSE);
      g_usleep (1000);
    }
  g_cancellable_cancel (cancellable);
  WAIT_FOR (f->done);
  g_assert_error (f->error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  WAIT_FOR (f->clients[0].cancelled == 1);
}

static void
test_bad_descriptor (Fixture *f, gconstpointer data)
{
  f->clients[0].manner = (Manner) GPOINTER_TO_INT (data);
  enrol (f, 0, AGENT_PATH);
  ask (f, NULL);
  g_assert_error (f->error, MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED);
}

static void
test_released_at_the_end (Fixture *f, gconstpointer data)
{
  enrol (f, 0, AGENT_PATH);
  enrol (f, 1, AGENT_PATH);
  g_clear_pointer (&f->agents, mitherm_agents_free);
  WAIT_FOR (f->clients[0].released == 1 && f->clients[1].released == 1);
}

#define ADD(path, data, test) g_test_add ("/agent/" path, Fixture, data, set_up, test, tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/credential/request-holds-what-is-known", test_request);
  g_test_add_func ("/credential/request-names-the-did-of-the-device", test_request_did);
  g_test_add_func ("/credential/answer-is-taken", test_answer);
  for (gsize i = 0; i < G_N_ELEMENTS (bad_answers); i++)
    {
      g_autofree char *path = g_strconcat ("/credential/refused/", bad_answers[i].name, NULL);

      g_test_add_data_func (path, &bad_answers[i], test_bad_answer);
    }
  g_test_add_func ("/credential/refused/nested-without-end", test_deep_answer);
  ADD ("the-callers-own-goes-first-else-the-last", NULL, test_own_first);
  ADD ("a-callers-second-takes-the-place-of-its-first", NULL, test_replaced);
  ADD ("only-its-owner-unregisters-it", NULL, test_unregister);
  ADD ("who-leaves-the-bus-is-forgotten", NULL, test_leaves);
  ADD ("one-that-dies-while-asked-is-a-refusal", NULL, test_dies);
  ADD ("an-error-is-a-refusal-and-quoted", NULL, test_refuses);
  ADD ("a-silent-one-times-out-and-hears-cancel", NULL, test_silent);
  ADD ("a-cancelled-request-is-told", NULL, test_cancelled);
  ADD ("an-answer-comes-in-a-pipe", NULL, test_pipe);
  ADD ("a-pipe-that-never-ends-times-out", NULL, test_open_pipe);
  ADD ("a-pipe-is-left-when-cancelled", NULL, test_open_pipe_cancelled);
  ADD ("an-endless-answer-is-refused", GINT_TO_POINTER (ANSWER_ENDLESS), test_bad_descriptor);
  ADD ("a-descriptor-of-a-device-is-refused", GINT_TO_POINTER (ANSWER_DEVICE), test_bad_descriptor);
  ADD ("all-are-released-at-the-end", NULL, test_released_at_the_end);
  return g_test_run ();
}
