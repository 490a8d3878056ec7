/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-bus.h"

#define BUS_NAME         "org.mitherm"
#define ROOT_PATH        "/org/mitherm"
#define DEVICE_INTERFACE "org.mitherm.Device1"
#define OBJECT_MANAGER   "org.freedesktop.DBus.ObjectManager"
#define PROPERTIES       "org.freedesktop.DBus.Properties"
#define OBJECTS_TIMEOUT  10000
/* The daemon reads images before it answers. */
#define CALL_TIMEOUT_MS 60000
#define RETRY_S         5

struct _BridgeBus
{
  GDBusConnection *connection;
  const BridgeBusCallbacks *callbacks;
  gpointer data;
  guint watch_id, signal_id, retry_id;
  char *owner; /* unique name; NULL: no daemon */
  gboolean running;
  char *complaint;           /* why it does not tell its objects, as last logged; NULL: it does */
  GCancellable *cancellable; /* of the question for its objects */
};

static void ask_for_objects (BridgeBus *self);

/* Device1 first: it says which thermometer the rest is about. */
static void
tell_interfaces (BridgeBus *self, const char *path, GVariant *interfaces)
{
  for (int others = 0; others < 2; others++)
    {
      GVariantIter iter;
      const char *interface;
      GVariant *properties;

      g_variant_iter_init (&iter, interfaces);
      while (g_variant_iter_loop (&iter, "{&s@a{sv}}", &interface, &properties))
        if (g_str_equal (interface, DEVICE_INTERFACE) != (gboolean) others)
          self->callbacks->on_properties (path, interface, properties, self->data);
    }
}

static gboolean
on_retry (gpointer data)
{
  BridgeBus *self = data;

  self->retry_id = 0;
  ask_for_objects (self);
  return G_SOURCE_REMOVE;
}

static void
on_objects_ready (GObject *source, GAsyncResult *result, gpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  g_autoptr (GVariantIter) objects = NULL;
  BridgeBus *self = data;
  const char *path;
  GVariant *interfaces;

  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  if (reply == NULL)
    {
      if (g_strcmp0 (self->complaint, error->message) != 0)
        g_message ("the daemon does not tell its thermometers: %s", error->message);
      g_free (self->complaint);
      self->complaint = g_strdup (error->message);
      self->retry_id = g_timeout_add_seconds (RETRY_S, on_retry, self);
      return;
    }
  g_variant_get (reply, "(a{oa{sa{sv}}})", &objects);
  while (g_variant_iter_loop (objects, "{&o@a{sa{sv}}}", &path, &interfaces))
    tell_interfaces (self, path, interfaces);
  g_clear_pointer (&self->complaint, g_free);
  self->running = TRUE;
  self->callbacks->on_daemon (TRUE, self->data);
}

static void
ask_for_objects (BridgeBus *self)
{
  g_dbus_connection_call (self->connection, self->owner, ROOT_PATH, OBJECT_MANAGER,
                          "GetManagedObjects", NULL, G_VARIANT_TYPE ("(a{oa{sa{sv}}})"),
                          G_DBUS_CALL_FLAGS_NO_AUTO_START, OBJECTS_TIMEOUT, self->cancellable,
                          on_objects_ready, self);
}

static void
forget_owner (BridgeBus *self)
{
  gboolean was_there = self->owner != NULL;

  g_clear_handle_id (&self->retry_id, g_source_remove);
  if (self->cancellable != NULL)
    g_cancellable_cancel (self->cancellable);
  g_clear_object (&self->cancellable);
  g_clear_pointer (&self->owner, g_free);
  g_clear_pointer (&self->complaint, g_free);
  self->running = FALSE;
  /* Also one that had no time to tell everything: its signals have told something. */
  if (was_there)
    self->callbacks->on_daemon (FALSE, self->data);
}

static void
on_appeared (GDBusConnection *connection, const char *name, const char *owner, gpointer data)
{
  BridgeBus *self = data;

  forget_owner (self);
  self->owner = g_strdup (owner);
  self->cancellable = g_cancellable_new ();
  ask_for_objects (self);
}

static void
on_vanished (GDBusConnection *connection, const char *name, gpointer data)
{
  forget_owner (data);
}

static void
on_bus_signal (GDBusConnection *connection, const char *sender, const char *path,
               const char *interface, const char *name, GVariant *parameters, gpointer data)
{
  BridgeBus *self = data;

  if (g_strcmp0 (sender, self->owner) != 0)
    return;
  if (g_str_equal (interface, OBJECT_MANAGER)
      && g_variant_is_of_type (parameters, G_VARIANT_TYPE ("(oa{sa{sv}})")))
    {
      g_autoptr (GVariant) interfaces = g_variant_get_child_value (parameters, 1);
      const char *object;

      g_variant_get_child (parameters, 0, "&o", &object);
      tell_interfaces (self, object, interfaces);
    }
  else if (g_str_equal (interface, OBJECT_MANAGER)
           && g_variant_is_of_type (parameters, G_VARIANT_TYPE ("(oas)")))
    {
      g_autofree const char **interfaces = NULL;
      const char *object;

      g_variant_get (parameters, "(&o^a&s)", &object, &interfaces);
      self->callbacks->on_removed (object, interfaces, self->data);
    }
  else if (g_str_equal (interface, PROPERTIES)
           && g_variant_is_of_type (parameters, G_VARIANT_TYPE ("(sa{sv}as)")))
    {
      g_autoptr (GVariant) properties = g_variant_get_child_value (parameters, 1);
      const char *changed;

      g_variant_get_child (parameters, 0, "&s", &changed);
      self->callbacks->on_properties (path, changed, properties, self->data);
    }
  else
    self->callbacks->on_signal (path, interface, name, parameters, self->data);
}

BridgeBus *
bridge_bus_new (GDBusConnection *connection, const BridgeBusCallbacks *callbacks, gpointer data)
{
  BridgeBus *self = g_new0 (BridgeBus, 1);

  self->connection = g_object_ref (connection);
  self->callbacks = callbacks;
  self->data = data;
  self->signal_id
      = g_dbus_connection_signal_subscribe (connection, BUS_NAME, NULL, NULL, NULL, NULL,
                                            G_DBUS_SIGNAL_FLAGS_NONE, on_bus_signal, self, NULL);
  self->watch_id = g_bus_watch_name_on_connection (
      connection, BUS_NAME, G_BUS_NAME_WATCHER_FLAGS_NONE, on_appeared, on_vanished, self, NULL);
  return self;
}

void
bridge_bus_free (BridgeBus *self)
{
  g_bus_unwatch_name (self->watch_id);
  g_dbus_connection_signal_unsubscribe (self->connection, self->signal_id);
  g_clear_pointer (&self->owner, g_free);
  forget_owner (self);
  g_object_unref (self->connection);
  g_free (self);
}

gboolean
bridge_bus_is_running (BridgeBus *self)
{
  return self->running;
}

void
bridge_bus_call_job (BridgeBus *self, const char *path, const char *method, GVariant *parameters,
                     GCancellable *cancellable, GAsyncReadyCallback callback, gpointer data)
{
  g_dbus_connection_call (self->connection, self->owner, path, DEVICE_INTERFACE, method, parameters,
                          G_VARIANT_TYPE ("(o)"), G_DBUS_CALL_FLAGS_NO_AUTO_START, CALL_TIMEOUT_MS,
                          cancellable, callback, data);
}

char *
bridge_bus_call_job_finish (GAsyncResult *result, GError **error)
{
  g_autoptr (GObject) source = g_async_result_get_source_object (result);
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, error);
  char *path = NULL;

  if (reply != NULL)
    g_variant_get (reply, "(o)", &path);
  return path;
}

gboolean
bridge_bus_never_arrived (const GError *error)
{
  return g_error_matches (error, G_DBUS_ERROR, G_DBUS_ERROR_SERVICE_UNKNOWN)
         || g_error_matches (error, G_DBUS_ERROR, G_DBUS_ERROR_NAME_HAS_NO_OWNER);
}
