/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bus.h"
#include "mitherm-auth.h"

#include <unistd.h>

#include "mitherm-error.h"

/* A private bus with a service that asks mitherm_auth_check(), a caller, and a stand-in for polkit.
 */

#define PATH      "/test"
#define INTERFACE "test.Guarded"
#define LIMIT_MS  20000

static const char guarded_xml[]
    = "<node><interface name='" INTERFACE "'><method name='Change'/></interface></node>";
static const char polkit_xml[]
    = "<node><interface name='org.freedesktop.PolicyKit1.Authority'>"
      "<method name='CheckAuthorization'><arg type='(sa{sv})' direction='in'/>"
      "<arg type='s' direction='in'/><arg type='a{ss}' direction='in'/>"
      "<arg type='u' direction='in'/><arg type='s' direction='in'/>"
      "<arg type='(bba{ss})' direction='out'/></method></interface></node>";

typedef enum
{
  ANSWER_YES,
  ANSWER_NO,
  ANSWER_CHALLENGE,
  ANSWER_ERROR,
} Answer;

typedef struct
{
  GTestDBus *bus;
  GDBusConnection *service;
  GDBusConnection *caller;
  GDBusConnection *polkit; /* nullable */
  MithermAuth *auth;
  Answer answer;
  guint asked;
  guint flags;
  char *action;
  char *subject;
  gboolean done;
  GError *error;
} Fixture;

static void
changed (GDBusMethodInvocation *invocation, GObject *object)
{
  g_dbus_method_invocation_return_value (invocation, NULL);
}

static void
on_change (GDBusConnection *connection, const char *sender, const char *path, const char *interface,
           const char *method, GVariant *parameters, GDBusMethodInvocation *invocation,
           gpointer user_data)
{
  Fixture *f = user_data;

  mitherm_auth_check (f->auth, invocation, "update", changed, G_OBJECT (connection));
}

static void
on_polkit (GDBusConnection *connection, const char *sender, const char *path, const char *interface,
           const char *method, GVariant *parameters, GDBusMethodInvocation *invocation,
           gpointer user_data)
{
  Fixture *f = user_data;
  g_autoptr (GVariant) details = NULL;
  const char *kind, *action;

  f->asked++;
  g_variant_get (parameters, "((&s@a{sv})&s@a{ss}u&s)", &kind, &details, &action, NULL, &f->flags,
                 NULL);
  g_assert_cmpstr (kind, ==, "system-bus-name");
  g_free (f->subject);
  g_assert_true (g_variant_lookup (details, "name", "s", &f->subject));
  g_free (f->action);
  f->action = g_strdup (action);
  if (f->answer == ANSWER_ERROR)
    g_dbus_method_invocation_return_dbus_error (
        invocation, "org.freedesktop.PolicyKit1.Error.NotAuthorized", "Only trusted callers");
  else
    g_dbus_method_invocation_return_value (invocation,
                                           g_variant_new ("((bba{ss}))", f->answer == ANSWER_YES,
                                                          f->answer == ANSWER_CHALLENGE, NULL));
}

static const GDBusInterfaceVTable guarded_vtable = { .method_call = on_change };
static const GDBusInterfaceVTable polkit_vtable = { .method_call = on_polkit };

static void export(GDBusConnection *connection, const char *xml, const char *path,
                   const GDBusInterfaceVTable *vtable, Fixture *f)
{
  g_autoptr (GDBusNodeInfo) info = g_dbus_node_info_new_for_xml (xml, NULL);

  g_assert_cmpuint (g_dbus_connection_register_object (connection, path, info->interfaces[0],
                                                       vtable, f, NULL, NULL),
                    >, 0);
}

static void
start_polkit (Fixture *f)
{
  g_autoptr (GVariant) reply = NULL;

  f->polkit = bus_connect (f->bus);
  export(f->polkit, polkit_xml, "/org/freedesktop/PolicyKit1/Authority", &polkit_vtable, f);
  reply = g_dbus_connection_call_sync (f->polkit, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                       "org.freedesktop.DBus", "RequestName",
                                       g_variant_new ("(su)", "org.freedesktop.PolicyKit1", 0),
                                       NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, NULL);
  g_assert_nonnull (reply);
}

static void
set_up (Fixture *f, gconstpointer data)
{
  f->bus = g_test_dbus_new (G_TEST_DBUS_NONE);
  g_test_dbus_up (f->bus);
  f->service = bus_connect (f->bus);
  f->caller = bus_connect (f->bus);
  export(f->service, guarded_xml, PATH, &guarded_vtable, f);
  f->auth = mitherm_auth_new (f->service, MITHERM_AUTH_POLKIT);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  mitherm_auth_free (f->auth);
  g_clear_error (&f->error);
  g_free (f->action);
  g_free (f->subject);
  g_clear_object (&f->polkit);
  g_object_unref (f->caller);
  g_object_unref (f->service);
  g_test_dbus_down (f->bus);
  g_object_unref (f->bus);
}

static void
on_answer (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Fixture *f = user_data;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &f->error);

  g_assert_true ((reply != NULL) == (f->error == NULL));
  f->done = TRUE;
}

static void
call (Fixture *f, GDBusCallFlags flags)
{
  f->done = FALSE;
  g_clear_error (&f->error);
  g_dbus_connection_call (f->caller, g_dbus_connection_get_unique_name (f->service), PATH,
                          INTERFACE, "Change", NULL, NULL, flags, LIMIT_MS, NULL, on_answer, f);
  while (!f->done)
    g_main_context_iteration (NULL, TRUE);
}

static void
expect_refusal (Fixture *f)
{
  g_assert_error (f->error, MITHERM_ERROR, MITHERM_ERROR_NOT_AUTHORIZED);
}

static void
test_yes (Fixture *f, gconstpointer data)
{
  start_polkit (f);
  call (f, G_DBUS_CALL_FLAGS_NONE);
  g_assert_no_error (f->error);
  g_assert_cmpuint (f->asked, ==, 1);
  g_assert_cmpstr (f->action, ==, "org.mitherm.update");
  g_assert_cmpstr (f->subject, ==, g_dbus_connection_get_unique_name (f->caller));
  g_assert_cmpuint (f->flags, ==, 0);
}

static void
test_interaction (Fixture *f, gconstpointer data)
{
  start_polkit (f);
  call (f, G_DBUS_CALL_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION);
  g_assert_no_error (f->error);
  g_assert_cmpuint (f->flags, ==, 1);
}

static void
test_no (Fixture *f, gconstpointer data)
{
  static const Answer answers[] = { ANSWER_NO, ANSWER_CHALLENGE };

  start_polkit (f);
  for (gsize i = 0; i < G_N_ELEMENTS (answers); i++)
    {
      f->answer = answers[i];
      call (f, G_DBUS_CALL_FLAGS_NONE);
      expect_refusal (f); /* even root, who calls here in most places */
    }
}

static void
test_absent (Fixture *f, gconstpointer data)
{
  call (f, G_DBUS_CALL_FLAGS_NONE);
  if (geteuid () == 0)
    g_assert_no_error (f->error);
  else
    expect_refusal (f);
}

/* Its actions are not installed, say. */
static void
test_error (Fixture *f, gconstpointer data)
{
  start_polkit (f);
  f->answer = ANSWER_ERROR;
  call (f, G_DBUS_CALL_FLAGS_NONE);
  if (geteuid () == 0)
    g_assert_no_error (f->error);
  else
    expect_refusal (f);
}

static void
test_bus (Fixture *f, gconstpointer data)
{
  start_polkit (f);
  f->answer = ANSWER_NO;
  mitherm_auth_free (f->auth);
  f->auth = mitherm_auth_new (f->service, MITHERM_AUTH_BUS);
  call (f, G_DBUS_CALL_FLAGS_NONE);
  g_assert_no_error (f->error);
  g_assert_cmpuint (f->asked, ==, 0);
}

/* polkit's troubles are warned of. */
static GLogWriterOutput
quiet (GLogLevelFlags level, const GLogField *fields, gsize n, gpointer data)
{
  return G_LOG_WRITER_HANDLED;
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_log_set_writer_func (quiet, NULL, NULL);
  g_test_add ("/auth/polkit-says-yes", Fixture, NULL, set_up, test_yes, tear_down);
  g_test_add ("/auth/interaction-is-passed-on", Fixture, NULL, set_up, test_interaction, tear_down);
  g_test_add ("/auth/anything-but-yes-is-no", Fixture, NULL, set_up, test_no, tear_down);
  g_test_add ("/auth/without-polkit-only-root", Fixture, NULL, set_up, test_absent, tear_down);
  g_test_add ("/auth/when-polkit-cannot-answer-only-root", Fixture, NULL, set_up, test_error,
              tear_down);
  g_test_add ("/auth/bus-mode-asks-nobody", Fixture, NULL, set_up, test_bus, tear_down);
  return g_test_run ();
}
