/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "app.h"
#include "images.h"
#include "output.h"

#include <stdio.h>

static const char *
text_of (GVariant *hop, const char *key, const char *otherwise)
{
  const char *text = otherwise;

  g_variant_lookup (hop, key, "&s", &text);
  return text;
}

static void
print_list (GVariant *hop, const char *key, const char *heading)
{
  g_autofree const char **items = NULL;

  if (!g_variant_lookup (hop, key, "^a&s", &items))
    return;
  for (const char **item = items; *item != NULL; item++)
    {
      g_autofree char *clean = output_clean (*item);

      printf ("     %s%s\n", heading, clean);
    }
}

static void
print_hop (GVariant *hop, gsize number, char **paths)
{
  guint32 image = 0, size = 0, limit = 0, battery = 0;
  gboolean decides = FALSE;
  const char *refusal = text_of (hop, "refusal", "none");
  g_autofree char *from = output_clean (text_of (hop, "from", "unknown"));
  g_autofree char *to = output_clean (text_of (hop, "to", "unknown"));
  g_autofree char *path = NULL;

  g_variant_lookup (hop, "image", "u", &image);
  g_variant_lookup (hop, "size", "u", &size);
  g_variant_lookup (hop, "limit", "u", &limit);
  g_variant_lookup (hop, "min-battery", "u", &battery);
  g_variant_lookup (hop, "device-decides", "b", &decides);
  path = output_clean (paths[image]);
  printf ("%" G_GSIZE_FORMAT ". %s: %s -> %s\n", number, path, from, to);
  printf ("     transport %s, %u bytes", text_of (hop, "transport", "unknown"), size);
  if (limit != 0)
    printf (" of %u", limit);
  printf (", battery at least %u mV\n", battery);
  if (g_strcmp0 (refusal, "none") != 0)
    printf ("     REFUSED: %s\n", refusal);
  if (decides)
    printf ("     the device decides: only the version read back counts\n");
  print_list (hop, "risks", "needs --accept=");
  print_list (hop, "reasons", "- ");
}

static ExitStatus
plan (App *app, const char *name, char **paths, int n_paths, const char *envelope,
      const char *expect)
{
  g_autoptr (GUnixFDList) fds = g_unix_fd_list_new ();
  g_autoptr (MithermDBusDevice1) device = NULL;
  g_autoptr (MithermDBusManager1) manager = NULL;
  g_autoptr (GVariant) hops = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GVariantDict) options = G_VARIANT_DICT_INIT (NULL);
  g_autoptr (GVariant) images = NULL;
  ExitStatus status;

  images = images_open (fds, paths, n_paths, &status);
  if (images == NULL || !images_add_file (fds, &options, "envelope", envelope, &status))
    return status;
  if (expect != NULL)
    g_variant_dict_insert (&options, "expect-version", "s", expect);
  device = app_find_device (app, name, &status);
  manager = device != NULL ? app_get_manager (app, &status) : NULL;
  if (manager == NULL)
    return status;
  if (!mitherm_dbus_manager1_call_plan_sync (
          manager, g_dbus_proxy_get_object_path (G_DBUS_PROXY (device)), images,
          g_variant_dict_end (&options), G_DBUS_CALL_FLAGS_NONE, -1, fds, &hops, NULL, NULL,
          &error))
    return app_report (app, error);
  if (app->json)
    output_json (hops);
  else
    for (gsize i = 0; i < g_variant_n_children (hops); i++)
      {
        g_autoptr (GVariant) hop = g_variant_get_child_value (hops, i);

        print_hop (hop, i + 1, paths);
      }
  return EXIT_DONE;
}

static ExitStatus
run_plan (App *app, int argc, char **argv)
{
  g_autofree char *envelope = NULL;
  g_autofree char *expect = NULL;
  const GOptionEntry entries[]
      = { ENVELOPE_ENTRY (&envelope), EXPECT_ENTRY (&expect), G_OPTION_ENTRY_NULL };
  int first;

  app_parse (app, &cmd_plan, entries, &argc, &argv);
  if (argc < 2 || argc > 2 + IMAGES_MAX)
    return app_usage (&cmd_plan, "plan takes a thermometer and one to eight images");
  first = argc > 2 ? 2 : 1;
  return plan (app, argc > 2 ? argv[1] : NULL, argv + first, argc - first, envelope, expect);
}

const Command cmd_plan = {
  "plan", "[DEV] IMAGE...", "tell what an update would do, and why",
  "Nothing is sent. The thermometer is judged by what was last read from it: info --read asks\n"
  "it. The hops come in the order in which update would send them.",
  run_plan
};
