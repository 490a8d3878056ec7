/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-agent.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gio/gunixfdlist.h>
#include <glib-unix.h>

#include "mitherm-error.h"
#include "mitherm-file.h"
#include "mitherm-store.h"

#define INTERFACE  "org.mitherm.CredentialAgent1"
#define AGENTS_MAX 64

typedef struct
{
  MithermAgents *agents;
  char *sender;
  char *path;
  guint watch_id;
} Agent;

struct _MithermAgents
{
  GDBusConnection *connection;
  GPtrArray *list; /* in the order of registration */
};

/* Nobody waits for its answer. */
static void
tell (GDBusConnection *connection, const char *sender, const char *path, const char *method,
      GVariant *parameters)
{
  g_autoptr (GDBusMessage) message
      = g_dbus_message_new_method_call (sender, path, INTERFACE, method);
  g_autoptr (GError) error = NULL;

  if (parameters != NULL)
    g_dbus_message_set_body (message, parameters);
  g_dbus_message_set_flags (message, G_DBUS_MESSAGE_FLAGS_NO_REPLY_EXPECTED
                                         | G_DBUS_MESSAGE_FLAGS_NO_AUTO_START);
  if (!g_dbus_connection_send_message (connection, message, G_DBUS_SEND_MESSAGE_FLAGS_NONE, NULL,
                                       &error))
    g_debug ("%s of agent %s: %s", method, sender, error->message);
}

/* Registration */

static void
agent_free (gpointer data)
{
  Agent *agent = data;

  g_clear_handle_id (&agent->watch_id, g_bus_unwatch_name);
  g_free (agent->sender);
  g_free (agent->path);
  g_free (agent);
}

static Agent *
find_agent (MithermAgents *self, const char *sender)
{
  for (guint i = 0; i < self->list->len; i++)
    {
      Agent *agent = g_ptr_array_index (self->list, i);

      if (g_strcmp0 (agent->sender, sender) == 0)
        return agent;
    }
  return NULL;
}

static void
release (MithermAgents *self, Agent *agent)
{
  tell (self->connection, agent->sender, agent->path, "Release", NULL);
  g_ptr_array_remove (self->list, agent);
}

static void
on_vanished (GDBusConnection *connection, const char *name, gpointer user_data)
{
  Agent *agent = user_data;

  g_message ("Credential agent %s has left the bus", name);
  g_ptr_array_remove (agent->agents->list, agent);
}

MithermAgents *
mitherm_agents_new (GDBusConnection *connection)
{
  MithermAgents *self = g_new0 (MithermAgents, 1);

  self->connection = g_object_ref (connection);
  self->list = g_ptr_array_new_with_free_func (agent_free);
  return self;
}

void
mitherm_agents_free (MithermAgents *self)
{
  if (self == NULL)
    return;
  while (self->list->len > 0)
    release (self, g_ptr_array_index (self->list, 0));
  g_ptr_array_unref (self->list);
  g_object_unref (self->connection);
  g_free (self);
}

gboolean
mitherm_agents_register (MithermAgents *self, const char *sender, const char *path, GError **error)
{
  Agent *agent = find_agent (self, sender);

  if (agent != NULL && g_str_equal (agent->path, path))
    g_ptr_array_remove (self->list, agent);
  else if (agent != NULL)
    release (self, agent);
  if (self->list->len >= AGENTS_MAX)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BUSY,
                   "%d credential agents are registered; that is enough.", AGENTS_MAX);
      return FALSE;
    }
  agent = g_new0 (Agent, 1);
  agent->agents = self;
  agent->sender = g_strdup (sender);
  agent->path = g_strdup (path);
  agent->watch_id = g_bus_watch_name_on_connection (
      self->connection, sender, G_BUS_NAME_WATCHER_FLAGS_NONE, NULL, on_vanished, agent, NULL);
  g_ptr_array_add (self->list, agent);
  g_message ("Credential agent %s registered", sender);
  return TRUE;
}

gboolean
mitherm_agents_unregister (MithermAgents *self, const char *sender, const char *path,
                           GError **error)
{
  Agent *agent = find_agent (self, sender);

  if (agent == NULL || !g_str_equal (agent->path, path))
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND,
                   "You have registered no credential agent at %s.", path);
      return FALSE;
    }
  g_ptr_array_remove (self->list, agent);
  return TRUE;
}

guint
mitherm_agents_count (MithermAgents *self)
{
  return self->list->len;
}

/* One request */

typedef struct
{
  GDBusConnection *connection;
  char *sender;
  char *path;
  char *device;
  gint64 deadline_us;
  int fd; /* answer that is being read, or -1 */
  GByteArray *answer;
  guint fd_source;
  guint limit_source;
  GSource *cancel_source;
} Request;

static void
stop_reading (Request *request)
{
  g_clear_handle_id (&request->fd_source, g_source_remove);
  g_clear_handle_id (&request->limit_source, g_source_remove);
  if (request->cancel_source != NULL)
    g_source_destroy (request->cancel_source);
  g_clear_pointer (&request->cancel_source, g_source_unref);
}

static void
request_free (gpointer data)
{
  Request *request = data;

  stop_reading (request);
  if (request->fd >= 0)
    close (request->fd);
  g_clear_pointer (&request->answer, g_byte_array_unref);
  g_object_unref (request->connection);
  g_free (request->sender);
  g_free (request->path);
  g_free (request->device);
  g_free (request);
}

/* Takes @task. */
static void
request_fail (GTask *task, GError *error)
{
  g_task_return_error (task, error);
  g_object_unref (task);
}

/* The agent is told that nobody waits any more. Takes @task. */
static void
request_give_up (GTask *task, GError *error)
{
  Request *request = g_task_get_task_data (task);

  tell (request->connection, request->sender, request->path, "Cancel",
        g_variant_new ("(o)", request->device));
  request_fail (task, error);
}

static GError *
new_timeout (void)
{
  return g_error_new_literal (MITHERM_ERROR, MITHERM_ERROR_TIMEOUT,
                              "The credential agent did not answer in time.");
}

static void
request_end (GTask *task, const char *text, gsize len)
{
  GError *error = NULL;
  MiCredential *credential = mitherm_credential_from_json (text, len, &error);

  if (credential != NULL)
    g_task_return_pointer (task, credential, (GDestroyNotify) mitherm_credential_free);
  else
    g_task_return_error (task, error);
  g_object_unref (task);
}

/* The answer in a pipe or socket, which may be slow */

static gboolean
on_read_limit (gpointer user_data)
{
  Request *request = g_task_get_task_data (user_data);

  request->limit_source = 0;
  stop_reading (request);
  request_give_up (user_data, new_timeout ());
  return G_SOURCE_REMOVE;
}

static gboolean
on_readable (gint fd, GIOCondition condition, gpointer user_data)
{
  GTask *task = user_data;
  Request *request = g_task_get_task_data (task);
  guint8 buffer[4096];
  ssize_t n = read (fd, buffer, sizeof buffer);

  if (n < 0 && (errno == EINTR || errno == EAGAIN))
    return G_SOURCE_CONTINUE;
  if (n > 0)
    g_byte_array_append (request->answer, buffer, (guint) n);
  if (n > 0 && request->answer->len <= MITHERM_CREDENTIAL_MAX)
    return G_SOURCE_CONTINUE;
  request->fd_source = 0;
  stop_reading (request);
  request_end (task, (const char *) request->answer->data, request->answer->len);
  return G_SOURCE_REMOVE;
}

static gboolean
on_read_cancelled (GCancellable *cancellable, gpointer user_data)
{
  GTask *task = user_data;

  stop_reading (g_task_get_task_data (task));
  request_give_up (task, g_error_new_literal (G_IO_ERROR, G_IO_ERROR_CANCELLED, "cancelled"));
  return G_SOURCE_REMOVE;
}

static void
read_slowly (GTask *task)
{
  Request *request = g_task_get_task_data (task);
  gint64 left_us = request->deadline_us - g_get_monotonic_time ();
  GCancellable *cancellable = g_task_get_cancellable (task);

  if (cancellable != NULL)
    {
      request->cancel_source = g_cancellable_source_new (cancellable);
      g_source_set_callback (request->cancel_source, G_SOURCE_FUNC (on_read_cancelled), task, NULL);
      g_source_attach (request->cancel_source, NULL);
    }
  request->answer = g_byte_array_new ();
  request->fd_source
      = g_unix_fd_add (request->fd, G_IO_IN | G_IO_ERR | G_IO_HUP, on_readable, task);
  request->limit_source
      = g_timeout_add ((guint) (MAX (left_us, 0) / 1000) + 1, on_read_limit, task);
}

/* Takes @task and @fd. A file is read at once, a pipe or socket as it comes; nothing else is. */
static void
take_answer (GTask *task, int fd)
{
  Request *request = g_task_get_task_data (task);
  struct stat info = { 0 };
  GError *error = NULL;

  request->fd = fd;
  if (fstat (fd, &info) == 0 && S_ISREG (info.st_mode))
    {
      g_autoptr (GBytes) answer = mitherm_file_read (fd, "credential", &error);
      gsize len = 0;
      const char *text = answer != NULL ? g_bytes_get_data (answer, &len) : "";

      g_clear_error (&error);
      request_end (task, text, len);
    }
  else if ((S_ISFIFO (info.st_mode) || S_ISSOCK (info.st_mode))
           && g_unix_set_fd_nonblocking (fd, TRUE, &error))
    read_slowly (task);
  else
    {
      g_clear_error (&error);
      request_fail (task, g_error_new_literal (MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED,
                                               "The credential agent's answer is no file, pipe "
                                               "or socket."));
    }
}

static void
on_call_failed (GTask *task, GError *error)
{
  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    {
      request_give_up (task, error);
      return;
    }
  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    {
      g_error_free (error);
      request_give_up (task, new_timeout ());
      return;
    }
  g_dbus_error_strip_remote_error (error);
  request_fail (task, g_error_new (MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED,
                                   "The credential agent failed: %s.", error->message));
  g_error_free (error);
}

static void
on_called (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GTask *task = user_data;
  g_autoptr (GUnixFDList) fds = NULL;
  GError *error = NULL;
  g_autoptr (GVariant) reply = g_dbus_connection_call_with_unix_fd_list_finish (
      G_DBUS_CONNECTION (source), &fds, result, &error);
  gint handle = -1;
  int fd;

  if (reply == NULL)
    {
      on_call_failed (task, error);
      return;
    }
  g_variant_get (reply, "(h)", &handle);
  fd = mitherm_file_get_fd (fds, handle, NULL);
  if (fd < 0)
    request_fail (task, g_error_new_literal (MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED,
                                             "The credential agent answered without a "
                                             "descriptor."));
  else
    take_answer (task, fd);
}

/* A memfd at its beginning, so that it may become a program's standard input. */
static int
make_request (const MithermCredentialRequest *request)
{
  char *json = mitherm_credential_request_to_json (request);
  gsize len = strlen (json);
  int fd = memfd_create ("mitherm-credential-request", MFD_CLOEXEC);

  if (fd >= 0 && (write (fd, json, len) != (ssize_t) len || lseek (fd, 0, SEEK_SET) != 0))
    {
      close (fd);
      fd = -1;
    }
  mitherm_secret_free (json);
  return fd;
}

static GUnixFDList *
make_fd_list (const MithermCredentialRequest *request)
{
  int fd = make_request (request);

  return fd >= 0 ? g_unix_fd_list_new_from_array (&fd, 1) : NULL;
}

void
mitherm_agents_request_async (MithermAgents *self, const char *caller, const char *device,
                              const MithermCredentialRequest *what, GCancellable *cancellable,
                              GAsyncReadyCallback callback, gpointer user_data)
{
  GTask *task = g_task_new (NULL, cancellable, callback, user_data);
  Agent *agent = caller != NULL ? find_agent (self, caller) : NULL;
  g_autoptr (GUnixFDList) fds = NULL;
  Request *request;

  g_task_set_source_tag (task, mitherm_agents_request_async);
  g_task_set_check_cancellable (task, FALSE);
  if (agent == NULL && self->list->len > 0)
    agent = g_ptr_array_index (self->list, self->list->len - 1);
  if (agent == NULL || (fds = make_fd_list (what)) == NULL)
    {
      request_fail (task, g_error_new_literal (MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED,
                                               agent == NULL
                                                   ? "The credential agent has gone."
                                                   : "The request for a credential could not be "
                                                     "written."));
      return;
    }
  request = g_new0 (Request, 1);
  request->connection = g_object_ref (self->connection);
  request->sender = g_strdup (agent->sender);
  request->path = g_strdup (agent->path);
  request->device = g_strdup (device);
  request->fd = -1;
  request->deadline_us = g_get_monotonic_time () + (gint64) what->limit_ms * 1000;
  g_task_set_task_data (task, request, request_free);
  g_dbus_connection_call_with_unix_fd_list (
      self->connection, request->sender, request->path, INTERFACE, "RequestCredential",
      g_variant_new ("(oh@a{sv})", device, 0, g_variant_new ("a{sv}", NULL)),
      G_VARIANT_TYPE ("(h)"), G_DBUS_CALL_FLAGS_NO_AUTO_START, (gint) MAX (what->limit_ms, 1), fds,
      cancellable, on_called, task);
}

MiCredential *
mitherm_agents_request_finish (GAsyncResult *result, GError **error)
{
  return g_task_propagate_pointer (G_TASK (result), error);
}
