/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "app.h"
#include "output.h"

#include <glib-unix.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* One job being watched. */
typedef struct
{
  App *app;
  MithermDBusJob1 *job;
  GMainLoop *loop;
  gboolean terminal;
  gboolean bar_shown;
  char *last_state;
  int last_tenth;
  gint64 last_print_us;
  gboolean gone;
  guint interrupts;
} Follow;

static gboolean
is_over (const char *state)
{
  return g_strcmp0 (state, "done") == 0 || g_strcmp0 (state, "failed") == 0
         || g_strcmp0 (state, "cancelled") == 0;
}

static void
clear_bar (Follow *follow)
{
  if (follow->bar_shown)
    printf ("\r\033[K");
  follow->bar_shown = FALSE;
}

static char *
hop_text (MithermDBusJob1 *job)
{
  if (mitherm_dbus_job1_get_hops (job) < 2)
    return g_strdup ("");
  return g_strdup_printf ("[%u/%u] ", mitherm_dbus_job1_get_hop (job),
                          mitherm_dbus_job1_get_hops (job));
}

static char *
left_text (MithermDBusJob1 *job)
{
  double rate = mitherm_dbus_job1_get_bytes_per_second (job);
  guint64 left = mitherm_dbus_job1_get_bytes_total (job) - mitherm_dbus_job1_get_bytes_done (job);
  guint seconds;

  if (rate < 1)
    return g_strdup ("");
  seconds = (guint) ceil ((double) left / rate);
  return g_strdup_printf ("%u:%02u left", seconds / 60, seconds % 60);
}

static void
print_bar (Follow *follow)
{
  double progress = mitherm_dbus_job1_get_progress (follow->job);
  g_autofree char *hop = hop_text (follow->job);
  g_autofree char *rate = output_bytes (mitherm_dbus_job1_get_bytes_per_second (follow->job));
  g_autofree char *left = left_text (follow->job);
  char bar[31];

  for (int i = 0; i < 30; i++)
    bar[i] = i < (int) (progress * 30) ? '#' : '.';
  bar[30] = '\0';
  printf ("\r\033[K%suploading [%s] %3.0f %%  %s/s  %s", hop, bar, progress * 100, rate, left);
  fflush (stdout);
  follow->bar_shown = TRUE;
}

static void
print_line (Follow *follow, const char *state, int tenth)
{
  g_autofree char *hop = hop_text (follow->job);

  if (g_strcmp0 (state, "uploading") == 0 && tenth > 0)
    {
      g_autofree char *rate = output_bytes (mitherm_dbus_job1_get_bytes_per_second (follow->job));
      printf ("%s%s %d %%, %s/s\n", hop, state, tenth * 10, rate);
    }
  else
    printf ("%s%s\n", hop, state);
  fflush (stdout);
}

static void
print_json (Follow *follow)
{
  output_json (output_properties (G_DBUS_PROXY (follow->job)));
}

static void
show (Follow *follow)
{
  const char *state = mitherm_dbus_job1_get_state (follow->job);
  gboolean uploading = g_strcmp0 (state, "uploading") == 0;
  int tenth = uploading ? (int) (mitherm_dbus_job1_get_progress (follow->job) * 10) : 0;
  gboolean changed = g_strcmp0 (state, follow->last_state) != 0 || tenth != follow->last_tenth;

  if (uploading && follow->terminal && !follow->app->json)
    {
      print_bar (follow);
      return;
    }
  if (!changed || state == NULL || is_over (state))
    return;
  g_free (follow->last_state);
  follow->last_state = g_strdup (state);
  follow->last_tenth = tenth;
  clear_bar (follow);
  if (follow->app->json)
    print_json (follow);
  else
    print_line (follow, state, tenth);
}

static void
on_changed (GDBusProxy *proxy, GVariant *changed, GStrv invalidated, gpointer data)
{
  Follow *follow = data;

  show (follow);
  if (is_over (mitherm_dbus_job1_get_state (follow->job)))
    g_main_loop_quit (follow->loop);
}

static void
on_owner (GObject *proxy, GParamSpec *pspec, gpointer data)
{
  Follow *follow = data;
  g_autofree char *owner = g_dbus_proxy_get_name_owner (G_DBUS_PROXY (proxy));

  if (owner != NULL)
    return;
  follow->gone = TRUE;
  g_main_loop_quit (follow->loop);
}

static void
on_cancelled (GObject *source, GAsyncResult *result, gpointer data)
{
  g_autoptr (GError) error = NULL;

  if (mitherm_dbus_job1_call_cancel_finish (MITHERM_DBUS_JOB1 (source), result, &error))
    return;
  g_dbus_error_strip_remote_error (error);
  fprintf (stderr, "\nmithermctl: not cancelled: %s\n", error->message);
}

/* The first ctrl-c cancels the job, the second leaves it alone and goes. */
static gboolean
on_interrupt (gpointer data)
{
  Follow *follow = data;

  if (follow->interrupts++ > 0)
    {
      g_main_loop_quit (follow->loop);
      return G_SOURCE_CONTINUE;
    }
  mitherm_dbus_job1_call_cancel (follow->job, G_DBUS_CALL_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION, -1,
                                 NULL, on_cancelled, follow);
  return G_SOURCE_CONTINUE;
}

static ExitStatus
conclude (Follow *follow)
{
  const char *state = mitherm_dbus_job1_get_state (follow->job);
  const char *error = mitherm_dbus_job1_get_error (follow->job);
  g_autofree char *message = output_clean (mitherm_dbus_job1_get_error_message (follow->job));
  GVariant *result = mitherm_dbus_job1_get_result (follow->job);

  clear_bar (follow);
  if (follow->app->json)
    print_json (follow);
  if (g_strcmp0 (state, "done") == 0)
    {
      if (!follow->app->json)
        {
          printf ("done\n");
          if (result != NULL)
            output_facts (result, 2);
        }
      return EXIT_DONE;
    }
  if (g_str_has_prefix (error, "org.mitherm.Error."))
    fprintf (stderr, "mithermctl: %s: %s\n", error + strlen ("org.mitherm.Error."), message);
  else
    fprintf (stderr, "mithermctl: %s %s\n", state, message);
  return g_strcmp0 (state, "cancelled") == 0 ? EXIT_CANCELLED : app_exit_status (error, TRUE);
}

static ExitStatus
follow_to_end (Follow *follow)
{
  guint interrupt = g_unix_signal_add (SIGINT, on_interrupt, follow);
  guint terminate = g_unix_signal_add (SIGTERM, on_interrupt, follow);

  show (follow);
  if (!is_over (mitherm_dbus_job1_get_state (follow->job)))
    g_main_loop_run (follow->loop);
  g_source_remove (interrupt);
  g_source_remove (terminate);
  if (is_over (mitherm_dbus_job1_get_state (follow->job)))
    return conclude (follow);
  clear_bar (follow);
  if (!follow->gone)
    {
      fprintf (stderr, "mithermctl: the job goes on: %s\n",
               g_dbus_proxy_get_object_path (G_DBUS_PROXY (follow->job)));
      return EXIT_FAILED;
    }
  fprintf (stderr,
           "mithermctl: the daemon has gone; the job ended with it. An interrupted upload leaves "
           "the old firmware running\n");
  return EXIT_NOT_FOUND;
}

ExitStatus
app_follow_job (App *app, const char *path)
{
  g_autoptr (GMainLoop) loop = g_main_loop_new (NULL, FALSE);
  g_autoptr (GError) error = NULL;
  g_autoptr (MithermDBusJob1) job = mitherm_dbus_job1_proxy_new_sync (
      app->connection, G_DBUS_PROXY_FLAGS_NONE, "org.mitherm", path, NULL, &error);
  Follow follow = { .app = app, .job = job, .loop = loop, .terminal = isatty (STDOUT_FILENO) };
  ExitStatus status;

  if (job == NULL)
    return app_report (app, error);
  if (mitherm_dbus_job1_get_state (job) == NULL)
    {
      fprintf (stderr, "mithermctl: no such job: %s\n", path);
      return EXIT_NOT_FOUND;
    }
  g_signal_connect (job, "g-properties-changed", G_CALLBACK (on_changed), &follow);
  g_signal_connect (job, "notify::g-name-owner", G_CALLBACK (on_owner), &follow);
  status = follow_to_end (&follow);
  g_free (follow.last_state);
  return status;
}

ExitStatus
app_take_job (App *app, const char *path, gboolean detach)
{
  if (!detach)
    return app_follow_job (app, path);
  if (app->json)
    output_json (g_variant_new_parsed ("{'job': <%s>}", path));
  else
    printf ("%s\n", path);
  return EXIT_DONE;
}
