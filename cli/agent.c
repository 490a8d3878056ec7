/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "agent.h"

#include <errno.h>
#include <gio/gunixfdlist.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define AGENT_PATH "/org/mitherm/ctl/agent"
#define CALL_FLAGS G_DBUS_CALL_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION
/* The daemon takes no more either. */
#define ANSWER_MAX (16 * 1024)

struct _Agent
{
  App *app;
  char **argv;
  MithermDBusCredentialAgent1 *skeleton;
  MithermDBusManager1 *manager;
  GSubprocess *running;
  GCancellable *cancellable; /* of the one that runs */
};

/* One request that the command works on. */
typedef struct
{
  Agent *agent;
  GDBusMethodInvocation *invocation;
  GSubprocess *process;
} Request;

static void fail (GDBusMethodInvocation *invocation, const char *format, ...) G_GNUC_PRINTF (2, 3);

static void
fail (GDBusMethodInvocation *invocation, const char *format, ...)
{
  g_autofree char *message = NULL;
  va_list args;

  va_start (args, format);
  message = g_strdup_vprintf (format, args);
  va_end (args);
  fprintf (stderr, "mithermctl: %s\n", message);
  g_dbus_method_invocation_return_dbus_error (invocation, "org.mitherm.Error.CredentialRefused",
                                              message);
}

/* The answer goes back as a file in memory. */
static void
pass_back (Request *request, const char *text, gsize len)
{
  int fd = memfd_create ("mithermctl-credential", MFD_CLOEXEC);
  g_autoptr (GUnixFDList) fds = NULL;

  if (fd < 0 || write (fd, text, len) != (ssize_t) len)
    {
      fail (request->invocation, "The credential cannot be passed on: %s", g_strerror (errno));
      if (fd >= 0)
        close (fd);
      return;
    }
  fds = g_unix_fd_list_new_from_array (&fd, 1);
  g_dbus_method_invocation_return_value_with_unix_fd_list (request->invocation,
                                                           g_variant_new ("(h)", 0), fds);
}

static void
request_free (Request *request)
{
  g_clear_object (&request->agent->cancellable);
  g_clear_object (&request->agent->running);
  g_object_unref (request->process);
  g_free (request);
}

/* Nothing on standard output: only the way it ended tells something. */
static void
tell_end (Request *request)
{
  GSubprocess *process = request->process;

  if (g_subprocess_get_if_signaled (process))
    fail (request->invocation, "The credential command was ended by signal %d",
          g_subprocess_get_term_sig (process));
  else
    fail (request->invocation, "The credential command wrote no answer (exit status %d)",
          g_subprocess_get_exit_status (process));
}

static void
on_ended (GObject *source, GAsyncResult *result, gpointer data)
{
  Request *request = data;
  g_autoptr (GBytes) out = NULL;
  g_autoptr (GError) error = NULL;
  const char *text;
  gsize len = 0;

  if (!g_subprocess_communicate_finish (G_SUBPROCESS (source), result, &out, NULL, &error)
      && g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    g_dbus_method_invocation_return_dbus_error (request->invocation, "org.mitherm.Error.Cancelled",
                                                "The request was cancelled");
  else if (error != NULL)
    fail (request->invocation, "The credential command's answer cannot be read: %s",
          error->message);
  else
    {
      /* What was written counts before the status: a refusal is JSON with status 1. */
      text = g_bytes_get_data (out, &len);
      if (len == 0)
        tell_end (request);
      else if (len > ANSWER_MAX)
        fail (request->invocation, "The credential command wrote more than %d bytes", ANSWER_MAX);
      else
        pass_back (request, text, len);
    }
  request_free (request);
}

/* Takes @fd. */
static void
run_command (Agent *self, GDBusMethodInvocation *invocation, int fd)
{
  g_autoptr (GSubprocessLauncher) launcher
      = g_subprocess_launcher_new (G_SUBPROCESS_FLAGS_STDOUT_PIPE);
  g_autoptr (GError) error = NULL;
  GSubprocess *process;
  Request *request;

  g_subprocess_launcher_take_stdin_fd (launcher, fd);
  process = g_subprocess_launcher_spawnv (launcher, (const char *const *) self->argv, &error);
  if (process == NULL)
    {
      fail (invocation, "The credential command cannot be run: %s", error->message);
      return;
    }
  request = g_new0 (Request, 1);
  request->agent = self;
  request->invocation = invocation;
  request->process = process;
  g_set_object (&self->running, process);
  self->cancellable = g_cancellable_new ();
  g_subprocess_communicate_async (process, NULL, self->cancellable, on_ended, request);
}

static gboolean
on_request (MithermDBusCredentialAgent1 *skeleton, GDBusMethodInvocation *invocation,
            GUnixFDList *fds, const char *device, GVariant *handle, GVariant *options,
            gpointer data)
{
  Agent *self = data;
  g_autoptr (GError) error = NULL;
  int fd = -1;

  if (self->running != NULL)
    fail (invocation, "The credential command is busy with another request");
  else if (fds == NULL
           || (fd = g_unix_fd_list_get (fds, g_variant_get_handle (handle), &error)) < 0)
    fail (invocation, "The request for a credential came without a descriptor");
  else
    run_command (self, invocation, fd);
  return TRUE;
}

/* The command is ended; its output is not waited for: what it started may hold it. But its end is,
 * because GLib kills from a thread of its own, which our exit would not wait for. */
static void
stop (Agent *self)
{
  if (self->running == NULL)
    return;
  g_subprocess_force_exit (self->running);
  g_subprocess_wait (self->running, NULL, NULL);
  g_cancellable_cancel (self->cancellable);
}

static gboolean
on_cancel (MithermDBusCredentialAgent1 *skeleton, GDBusMethodInvocation *invocation,
           const char *device, gpointer data)
{
  stop (data);
  mitherm_dbus_credential_agent1_complete_cancel (skeleton, invocation);
  return TRUE;
}

static gboolean
on_release (MithermDBusCredentialAgent1 *skeleton, GDBusMethodInvocation *invocation, gpointer data)
{
  mitherm_dbus_credential_agent1_complete_release (skeleton, invocation);
  return TRUE;
}

static gboolean
export_agent (Agent *self, GError **error)
{
  self->skeleton = mitherm_dbus_credential_agent1_skeleton_new ();
  g_signal_connect (self->skeleton, "handle-request-credential", G_CALLBACK (on_request), self);
  g_signal_connect (self->skeleton, "handle-cancel", G_CALLBACK (on_cancel), self);
  g_signal_connect (self->skeleton, "handle-release", G_CALLBACK (on_release), self);
  return g_dbus_interface_skeleton_export (G_DBUS_INTERFACE_SKELETON (self->skeleton),
                                           self->app->connection, AGENT_PATH, error);
}

Agent *
agent_new (App *app, const char *command, ExitStatus *status)
{
  g_autoptr (Agent) self = g_new0 (Agent, 1);
  g_autoptr (GError) error = NULL;

  self->app = app;
  if (!g_shell_parse_argv (command, NULL, &self->argv, &error))
    {
      fprintf (stderr, "mithermctl: --credential-command: %s\n", error->message);
      *status = EXIT_USAGE;
      return NULL;
    }
  self->manager = mitherm_dbus_manager1_proxy_new_sync (
      app->connection,
      G_DBUS_PROXY_FLAGS_DO_NOT_LOAD_PROPERTIES | G_DBUS_PROXY_FLAGS_DO_NOT_CONNECT_SIGNALS,
      "org.mitherm", "/org/mitherm", NULL, &error);
  if (self->manager == NULL || !export_agent (self, &error)
      || !mitherm_dbus_manager1_call_register_credential_agent_sync (self->manager, AGENT_PATH,
                                                                     CALL_FLAGS, -1, NULL, &error))
    {
      *status = app_report (app, error);
      return NULL;
    }
  return g_steal_pointer (&self);
}

void
agent_free (Agent *self)
{
  if (self == NULL)
    return;
  stop (self);
  while (self->running != NULL)
    g_main_context_iteration (NULL, TRUE);
  if (self->skeleton != NULL
      && g_dbus_interface_skeleton_get_connection (G_DBUS_INTERFACE_SKELETON (self->skeleton))
             != NULL)
    g_dbus_interface_skeleton_unexport (G_DBUS_INTERFACE_SKELETON (self->skeleton));
  g_clear_object (&self->skeleton);
  g_clear_object (&self->manager);
  g_strfreev (self->argv);
  g_free (self);
}
