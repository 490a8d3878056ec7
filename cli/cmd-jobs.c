/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "app.h"
#include "output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int
by_path (gconstpointer a, gconstpointer b)
{
  const char *left = strrchr (g_dbus_object_get_object_path (G_DBUS_OBJECT (a)), '/');
  const char *right = strrchr (g_dbus_object_get_object_path (G_DBUS_OBJECT (b)), '/');

  return atoi (left + 1) - atoi (right + 1);
}

static char *
device_of (App *app, MithermDBusJob1 *job)
{
  g_autoptr (GDBusInterface) device = g_dbus_object_manager_get_interface (
      app->objects, mitherm_dbus_job1_get_device (job), "org.mitherm.Device1");

  if (device == NULL)
    return g_strdup ("-");
  return mitherm_dbus_device1_dup_address (MITHERM_DBUS_DEVICE1 (device));
}

static void
add_job (App *app, Table *table, const char *path, MithermDBusJob1 *job)
{
  g_autofree char *device = device_of (app, job);
  g_autofree char *progress
      = g_strdup_printf ("%.0f %%", mitherm_dbus_job1_get_progress (job) * 100);
  const char *error = mitherm_dbus_job1_get_error (job);

  if (g_str_has_prefix (error, "org.mitherm.Error."))
    error += strlen ("org.mitherm.Error.");
  table_add (table, strrchr (path, '/') + 1, mitherm_dbus_job1_get_kind (job), device,
             mitherm_dbus_job1_get_state (job), progress, error, NULL);
}

static ExitStatus
run_jobs (App *app, int argc, char **argv)
{
  g_autoptr (Table) table = table_new (6);
  g_autolist (GDBusObject) objects = NULL;
  ExitStatus status;

  app_parse (app, &cmd_jobs, NULL, &argc, &argv);
  if (argc > 1)
    return app_usage (&cmd_jobs, "jobs takes no argument");
  if (!app_connect (app, &status))
    return status;
  table_add (table, "JOB", "KIND", "DEVICE", "STATE", "PROGRESS", "ERROR", NULL);
  objects = g_list_sort (g_dbus_object_manager_get_objects (app->objects), by_path);
  for (GList *l = objects; l != NULL; l = l->next)
    {
      const char *path = g_dbus_object_get_object_path (l->data);
      g_autoptr (MithermDBusJob1) job = mitherm_dbus_object_get_job1 (l->data);

      if (job == NULL)
        continue;
      if (app->json)
        output_json (output_properties (G_DBUS_PROXY (job)));
      else
        add_job (app, table, path, job);
    }
  if (!app->json)
    table_print (table);
  return EXIT_DONE;
}

const Command cmd_jobs = { "jobs", "", "show running and recently finished jobs",
                           "A finished job stays for at least a minute.", run_jobs };

static ExitStatus
run_cancel (App *app, int argc, char **argv)
{
  g_autofree char *path = NULL;
  g_autoptr (GDBusInterface) job = NULL;
  g_autoptr (GError) error = NULL;
  ExitStatus status;

  app_parse (app, &cmd_cancel, NULL, &argc, &argv);
  if (argc != 2)
    return app_usage (&cmd_cancel, "cancel takes one job: a number of mithermctl jobs");
  if (!app_connect (app, &status))
    return status;
  path = *argv[1] == '/' ? g_strdup (argv[1]) : g_strdup_printf ("/org/mitherm/job/%s", argv[1]);
  if (g_variant_is_object_path (path))
    job = g_dbus_object_manager_get_interface (app->objects, path, "org.mitherm.Job1");
  if (job == NULL)
    {
      fprintf (stderr, "mithermctl: no job %s: mithermctl jobs shows them\n", argv[1]);
      return EXIT_NOT_FOUND;
    }
  if (!mitherm_dbus_job1_call_cancel_sync (MITHERM_DBUS_JOB1 (job),
                                           G_DBUS_CALL_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION, -1,
                                           NULL, &error))
    return app_report (app, error);
  return EXIT_DONE;
}

const Command cmd_cancel = {
  "cancel", "JOB", "stop a job",
  "The thermometer goes on running; an interrupted upload leaves the old firmware. After the\n"
  "end of an upload the job cannot be stopped any more.",
  run_cancel
};
