/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "app.h"
#include "output.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

typedef struct
{
  App *app;
  GMainLoop *loop;
} Monitor;

static const char *
short_path (const char *path)
{
  return g_str_has_prefix (path, "/org/mitherm/") ? path + strlen ("/org/mitherm/") : path;
}

static void
print_event (Monitor *monitor, const char *what, const char *path, GVariant *properties)
{
  g_autoptr (GVariant) sunk = g_variant_ref_sink (properties);
  GVariantIter iter;
  const char *name;
  GVariant *value;

  if (monitor->app->json)
    {
      output_json (g_variant_new_parsed ("{'event': <%s>, 'object': <%s>, 'properties': <%@a{sv}>}",
                                         what, path, sunk));
      return;
    }
  printf ("%s %s", short_path (path), what);
  g_variant_iter_init (&iter, sunk);
  while (g_variant_iter_loop (&iter, "{&sv}", &name, &value))
    {
      g_autofree char *raw = g_variant_print (value, FALSE);
      g_autofree char *text = output_clean (raw);
      printf (" %s=%s", name, text);
    }
  printf ("\n");
  fflush (stdout);
}

static void
on_interface_changed (GDBusObjectManagerClient *objects, GDBusObjectProxy *object,
                      GDBusProxy *proxy, GVariant *changed, const char *const *invalidated,
                      gpointer data)
{
  print_event (data, "changed", g_dbus_proxy_get_object_path (proxy), changed);
}

static void
on_object_added (GDBusObjectManager *objects, GDBusObject *object, gpointer data)
{
  g_autolist (GDBusInterface) interfaces = g_dbus_object_get_interfaces (object);

  for (GList *l = interfaces; l != NULL; l = l->next)
    print_event (data, "added", g_dbus_object_get_object_path (object),
                 output_properties (l->data));
}

static void
on_object_removed (GDBusObjectManager *objects, GDBusObject *object, gpointer data)
{
  print_event (data, "removed", g_dbus_object_get_object_path (object),
               g_variant_new ("a{sv}", NULL));
}

static gboolean
on_interrupt (gpointer data)
{
  g_main_loop_quit (((Monitor *) data)->loop);
  return G_SOURCE_CONTINUE;
}

static ExitStatus
run_monitor (App *app, int argc, char **argv)
{
  g_autoptr (GMainLoop) loop = g_main_loop_new (NULL, FALSE);
  g_autolist (GDBusObject) objects = NULL;
  Monitor monitor = { app, loop };
  ExitStatus status;
  guint interrupt, terminate;

  app_parse (app, &cmd_monitor, NULL, &argc, &argv);
  if (argc > 1)
    return app_usage (&cmd_monitor, "monitor takes no argument");
  if (!app_connect (app, &status))
    return status;
  objects = g_dbus_object_manager_get_objects (app->objects);
  for (GList *l = objects; l != NULL; l = l->next)
    on_object_added (app->objects, l->data, &monitor);
  g_signal_connect (app->objects, "interface-proxy-properties-changed",
                    G_CALLBACK (on_interface_changed), &monitor);
  g_signal_connect (app->objects, "object-added", G_CALLBACK (on_object_added), &monitor);
  g_signal_connect (app->objects, "object-removed", G_CALLBACK (on_object_removed), &monitor);
  interrupt = g_unix_signal_add (SIGINT, on_interrupt, &monitor);
  terminate = g_unix_signal_add (SIGTERM, on_interrupt, &monitor);
  g_main_loop_run (loop);
  g_source_remove (interrupt);
  g_source_remove (terminate);
  return EXIT_DONE;
}

const Command cmd_monitor
    = { "monitor", "", "print what changes, until interrupted",
        "One line a change; one JSON object a line with --json.", run_monitor };
