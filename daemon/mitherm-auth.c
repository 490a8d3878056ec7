/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-auth.h"

#include "mitherm-error.h"

/*
 * polkit's one method is called directly: the client library would add a thread, a proxy and a
 * cache to a daemon that asks a few times a day.
 */
#define POLKIT_NAME      "org.freedesktop.PolicyKit1"
#define POLKIT_PATH      "/org/freedesktop/PolicyKit1/Authority"
#define POLKIT_INTERFACE "org.freedesktop.PolicyKit1.Authority"
#define ACTION_PREFIX    "org.mitherm."

#define ALLOW_USER_INTERACTION 1
#define CHECK_LIMIT_MS         (20 * 1000)
#define INTERACTIVE_LIMIT_MS   (150 * 1000)

struct _MithermAuth
{
  GDBusConnection *connection;
  MithermAuthMode mode;
};

typedef struct
{
  GDBusConnection *connection;
  GDBusMethodInvocation *invocation;
  GObject *object;
  MithermAuthFunc func;
  const char *action;
} Check;

MithermAuth *
mitherm_auth_new (GDBusConnection *connection, MithermAuthMode mode)
{
  MithermAuth *self = g_new0 (MithermAuth, 1);

  self->connection = g_object_ref (connection);
  self->mode = mode;
  return self;
}

void
mitherm_auth_free (MithermAuth *self)
{
  if (self == NULL)
    return;
  g_object_unref (self->connection);
  g_free (self);
}

static void
check_end (Check *check, const char *refusal)
{
  if (refusal == NULL)
    check->func (check->invocation, check->object);
  else
    g_dbus_method_invocation_return_error (check->invocation, MITHERM_ERROR,
                                           MITHERM_ERROR_NOT_AUTHORIZED,
                                           "You may not do this (" ACTION_PREFIX "%s): %s.",
                                           check->action, refusal);
  g_object_unref (check->connection);
  g_clear_object (&check->object);
  g_free (check);
}

static void
on_user_ready (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Check *check = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  guint32 uid = G_MAXUINT32;

  if (reply != NULL)
    g_variant_get (reply, "(u)", &uid);
  check_end (check, uid == 0 ? NULL : "polkit does not answer for it, and then only root may");
}

static void
ask_for_user (Check *check)
{
  g_dbus_connection_call (
      check->connection, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
      "GetConnectionUnixUser",
      g_variant_new ("(s)", g_dbus_method_invocation_get_sender (check->invocation)),
      G_VARIANT_TYPE ("(u)"), G_DBUS_CALL_FLAGS_NONE, CHECK_LIMIT_MS, NULL, on_user_ready, check);
}

static void
on_polkit_ready (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Check *check = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  gboolean authorized = FALSE, challenge = FALSE;

  if (reply != NULL)
    {
      g_variant_get (reply, "((bba{ss}))", &authorized, &challenge, NULL);
      check_end (check, authorized ? NULL
                        : challenge
                            ? "a password is needed; call as root or with interaction allowed"
                            : "polkit says no");
      return;
    }
  /* Not installed, cannot be started, or our actions are not installed: root alone may. */
  g_debug ("polkit cannot answer: %s", error->message);
  ask_for_user (check);
}

static void
ask_polkit (Check *check)
{
  GDBusMessage *message = g_dbus_method_invocation_get_message (check->invocation);
  gboolean interactive
      = (g_dbus_message_get_flags (message) & G_DBUS_MESSAGE_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION)
        != 0;
  g_autofree char *action = g_strconcat (ACTION_PREFIX, check->action, NULL);
  GVariantBuilder subject;

  g_variant_builder_init (&subject, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (
      &subject, "{sv}", "name",
      g_variant_new_string (g_dbus_method_invocation_get_sender (check->invocation)));
  g_dbus_connection_call (check->connection, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                          "CheckAuthorization",
                          g_variant_new ("((sa{sv})sa{ss}us)", "system-bus-name", &subject, action,
                                         NULL, interactive ? ALLOW_USER_INTERACTION : 0, ""),
                          G_VARIANT_TYPE ("((bba{ss}))"), G_DBUS_CALL_FLAGS_NONE,
                          interactive ? INTERACTIVE_LIMIT_MS : CHECK_LIMIT_MS, NULL,
                          on_polkit_ready, check);
}

void
mitherm_auth_check (MithermAuth *self, GDBusMethodInvocation *invocation, const char *action,
                    MithermAuthFunc func, GObject *object)
{
  Check *check;

  if (self->mode == MITHERM_AUTH_BUS)
    {
      func (invocation, object);
      return;
    }
  check = g_new0 (Check, 1);
  check->connection = g_object_ref (self->connection);
  check->invocation = invocation;
  check->object = g_object_ref (object);
  check->func = func;
  check->action = action;
  ask_polkit (check);
}
