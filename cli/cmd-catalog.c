/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Firmware files that the daemon may offer. */
#include "config.h"

#include "app.h"
#include "output.h"

#include <fcntl.h>
#include <gio/gunixfdlist.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CALL_FLAGS G_DBUS_CALL_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION
#define INDEX_NAME "firmware.json"
/* Larger files the daemon does not take. */
#define FILE_MAX (1024 * 1024)

static void
print_result (App *app, GVariant *result, const char *name)
{
  const char *version = "", *kind = "", *reason = NULL;
  g_auto (GStrv) models = NULL;
  g_autofree char *joined = NULL;
  g_autofree char *clean = output_clean (name);
  gboolean added = FALSE;

  if (app->json)
    {
      output_json (result);
      return;
    }
  g_variant_lookup (result, "added", "b", &added);
  g_variant_lookup (result, "version", "&s", &version);
  g_variant_lookup (result, "kind", "&s", &kind);
  if (g_variant_lookup (result, "reason", "&s", &reason))
    {
      g_autofree char *text = output_clean (reason);

      printf ("skipped  %s\n", text);
      return;
    }
  g_variant_lookup (result, "models", "^as", &models);
  joined = models != NULL ? g_strjoinv (" ", models) : g_strdup ("");
  printf ("%-8s %s  %s  %s  %s\n", added ? "added" : "known", clean, version, kind, joined);
}

/* Returns: %FALSE after printing why */
static gboolean
append_file (GUnixFDList *fds, GVariantBuilder *handles, const char *path, ExitStatus *status)
{
  int fd = app_open_file (path, status), index;

  if (fd < 0)
    return FALSE;
  index = g_unix_fd_list_append (fds, fd, NULL);
  close (fd);
  if (index >= 0)
    g_variant_builder_add (handles, "h", index);
  return index >= 0;
}

/*
 * @index: (nullable): path of firmware.json
 *
 * Returns: whether it was taken; else @error is set, or it could not be opened and that is printed
 */
static gboolean
add_file (App *app, MithermDBusManager1 *manager, const char *path, const char *index,
          ExitStatus *status, GError **error)
{
  g_autoptr (GUnixFDList) fds = g_unix_fd_list_new ();
  g_autofree char *name = g_path_get_basename (path);
  const char *const names[] = { name, INDEX_NAME, NULL };
  g_auto (GVariantBuilder) handles = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE ("ah"));
  g_auto (GVariantDict) options = G_VARIANT_DICT_INIT (NULL);
  g_autoptr (GVariant) results = NULL;

  g_variant_dict_insert_value (&options, "names",
                               g_variant_new_strv (names, index != NULL ? 2 : 1));
  if (!append_file (fds, &handles, path, status)
      || (index != NULL && !append_file (fds, &handles, index, status)))
    return FALSE;
  if (!mitherm_dbus_manager1_call_catalog_add_sync (manager, g_variant_builder_end (&handles),
                                                    g_variant_dict_end (&options), CALL_FLAGS, -1,
                                                    fds, &results, NULL, NULL, error))
    return FALSE;
  for (gsize i = 0; i < g_variant_n_children (results); i++)
    {
      g_autoptr (GVariant) result = g_variant_get_child_value (results, i);

      print_result (app, result, name);
    }
  return TRUE;
}

static gboolean
is_bad_image (const GError *error)
{
  g_autofree char *name = g_dbus_error_get_remote_error (error);

  return g_strcmp0 (name, "org.mitherm.Error.BadImage") == 0;
}

static gboolean
is_candidate (const char *path, const char *name)
{
  struct stat info;

  return name[0] != '.' && !g_str_has_suffix (name, ".json") && stat (path, &info) == 0
         && S_ISREG (info.st_mode) && info.st_size <= FILE_MAX;
}

static int
by_name (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

/* (transfer full) (nullable): (element-type filename): files that may be images, in order */
static GPtrArray *
list_folder (const char *folder)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GDir) dir = g_dir_open (folder, 0, &error);
  GPtrArray *paths;
  const char *name;

  if (dir == NULL)
    {
      fprintf (stderr, "mithermctl: %s\n", error->message);
      return NULL;
    }
  paths = g_ptr_array_new_with_free_func (g_free);
  while ((name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *path = g_build_filename (folder, name, NULL);

      if (is_candidate (path, name))
        g_ptr_array_add (paths, g_steal_pointer (&path));
    }
  g_ptr_array_sort (paths, by_name);
  return paths;
}

static ExitStatus
add_folder (App *app, MithermDBusManager1 *manager, const char *folder)
{
  g_autoptr (GPtrArray) paths = list_folder (folder);
  g_autofree char *index = g_build_filename (folder, INDEX_NAME, NULL);
  gboolean has_index = g_file_test (index, G_FILE_TEST_IS_REGULAR);
  guint taken = 0;

  if (paths == NULL)
    return EXIT_USAGE;
  for (guint i = 0; i < paths->len; i++)
    {
      const char *path = g_ptr_array_index (paths, i);
      g_autofree char *name = g_path_get_basename (path);
      g_autoptr (GVariant) skipped = NULL;
      GError *error = NULL;
      ExitStatus status;

      if (add_file (app, manager, path, has_index ? index : NULL, &status, &error))
        {
          taken++;
          continue;
        }
      if (error == NULL)
        return status;
      if (!is_bad_image (error))
        return app_report (app, error);
      g_dbus_error_strip_remote_error (error);
      skipped = g_variant_ref_sink (g_variant_new_parsed (
          "{'name': <%s>, 'added': <false>, 'reason': <%s>}", name, error->message));
      print_result (app, skipped, name);
      g_error_free (error);
    }
  if (taken > 0)
    return EXIT_DONE;
  fprintf (stderr, "mithermctl: %s has no firmware file that can be offered\n", folder);
  return EXIT_REFUSED;
}

static ExitStatus
catalog_add (App *app, const char *path)
{
  g_autoptr (MithermDBusManager1) manager = NULL;
  g_autofree char *base = g_path_get_basename (path);
  g_autofree char *folder
      = g_str_equal (base, INDEX_NAME) ? g_path_get_dirname (path) : g_strdup (path);
  GError *error = NULL;
  ExitStatus status;

  manager = app_get_manager (app, &status);
  if (manager == NULL)
    return status;
  if (!g_file_test (path, G_FILE_TEST_EXISTS))
    return app_usage (&cmd_catalog, "there is no %s", path);
  if (g_file_test (folder, G_FILE_TEST_IS_DIR))
    return add_folder (app, manager, folder);
  if (!add_file (app, manager, path, NULL, &status, &error))
    return error != NULL ? app_report (app, error) : status;
  return EXIT_DONE;
}

static ExitStatus
catalog_list (App *app)
{
  g_autoptr (MithermDBusManager1) manager = NULL;
  g_autoptr (GVariant) files = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (Table) table = table_new (5);
  ExitStatus status;

  manager = app_get_manager (app, &status);
  if (manager == NULL)
    return status;
  if (!mitherm_dbus_manager1_call_catalog_list_sync (manager, CALL_FLAGS, -1, &files, NULL, &error))
    return app_report (app, g_steal_pointer (&error));
  if (app->json)
    {
      output_json (files);
      return EXIT_DONE;
    }
  table_add (table, "VERSION", "KIND", "MODELS", "FILE", "SHA-256", NULL);
  for (gsize i = 0; i < g_variant_n_children (files); i++)
    {
      g_autoptr (GVariant) file = g_variant_get_child_value (files, i);
      const char *version = "", *kind = "", *name = "", *sha256 = "";
      g_auto (GStrv) models = NULL;
      g_autofree char *joined = NULL;

      g_variant_lookup (file, "version", "&s", &version);
      g_variant_lookup (file, "kind", "&s", &kind);
      g_variant_lookup (file, "name", "&s", &name);
      g_variant_lookup (file, "sha256", "&s", &sha256);
      if (g_variant_lookup (file, "models", "^as", &models))
        joined = g_strjoinv (" ", models);
      table_add (table, version, kind, joined != NULL && *joined != '\0' ? joined : "-",
                 *name != '\0' ? name : "-", sha256, NULL);
    }
  table_print (table);
  return EXIT_DONE;
}

static ExitStatus
catalog_remove (App *app, const char *sha256)
{
  g_autoptr (MithermDBusManager1) manager = NULL;
  g_auto (GVariantDict) options = G_VARIANT_DICT_INIT (NULL);
  GError *error = NULL;
  ExitStatus status;

  manager = app_get_manager (app, &status);
  if (manager == NULL)
    return status;
  if (!mitherm_dbus_manager1_call_catalog_remove_sync (
          manager, sha256, g_variant_dict_end (&options), CALL_FLAGS, -1, NULL, &error))
    return app_report (app, error);
  return EXIT_DONE;
}

typedef struct
{
  char *version;
  char *accept;
  char *transport;
  int window;
  gboolean activate;
  gboolean detach;
} UpdateOptions;

static void
add_update_options (GVariantDict *options, const UpdateOptions *given)
{
  if (given->version != NULL)
    g_variant_dict_insert (options, "version", "s", given->version);
  if (given->activate)
    g_variant_dict_insert (options, "activate", "b", TRUE);
  if (given->accept != NULL)
    {
      g_auto (GStrv) risks = g_strsplit (given->accept, ",", -1);

      g_variant_dict_insert (options, "accept", "^as", risks);
    }
  if (given->window > 0)
    g_variant_dict_insert (options, "window", "u", (guint) given->window);
  if (given->transport != NULL)
    g_variant_dict_insert (options, "transport", "s", given->transport);
}

static ExitStatus
catalog_update (App *app, const char *name, const UpdateOptions *given)
{
  g_autoptr (MithermDBusDevice1) device = NULL;
  g_auto (GVariantDict) options = G_VARIANT_DICT_INIT (NULL);
  g_autofree char *job = NULL;
  GError *error = NULL;
  ExitStatus status;

  if (given->window < 0)
    return app_usage (&cmd_catalog, "--window is negative");
  device = app_find_device (app, name, &status);
  if (device == NULL)
    return status;
  add_update_options (&options, given);
  if (!mitherm_dbus_device1_call_update_from_catalog_sync (device, g_variant_dict_end (&options),
                                                           CALL_FLAGS, -1, &job, NULL, &error))
    return app_report (app, error);
  return app_take_job (app, job, given->detach);
}

static ExitStatus
run_catalog (App *app, int argc, char **argv)
{
  UpdateOptions given = { 0 };
  const GOptionEntry entries[]
      = { { "version", 0, 0, G_OPTION_ARG_STRING, &given.version,
            "update: this version instead of the newest", "VERSION" },
          { "activate", 'a', 0, G_OPTION_ARG_NONE, &given.activate,
            "update: register first if it is not bound", NULL },
          { "accept", 0, 0, G_OPTION_ARG_STRING, &given.accept, "update: risks taken", "RISK,..." },
          { "window", 0, 0, G_OPTION_ARG_INT, &given.window, "update: blocks between two reads (8)",
            "BLOCKS" },
          { "transport", 0, 0, G_OPTION_ARG_STRING, &given.transport,
            "update: auto, telink or mible", "NAME" },
          { "detach", 'd', 0, G_OPTION_ARG_NONE, &given.detach,
            "update: print the job and do not wait for it", NULL },
          G_OPTION_ENTRY_NULL };
  const char *verb;
  ExitStatus status;

  app_parse (app, &cmd_catalog, entries, &argc, &argv);
  verb = argc > 1 ? argv[1] : "";
  if (g_str_equal (verb, "list") && argc == 2)
    status = catalog_list (app);
  else if (g_str_equal (verb, "add") && argc == 3)
    status = catalog_add (app, argv[2]);
  else if (g_str_equal (verb, "remove") && argc == 3)
    status = catalog_remove (app, argv[2]);
  else if (g_str_equal (verb, "update") && argc <= 3)
    status = catalog_update (app, argc == 3 ? argv[2] : NULL, &given);
  else
    status = app_usage (&cmd_catalog,
                        "catalog takes list, add DIR|FILE, remove SHA256 or update [DEV]");
  g_free (given.version);
  g_free (given.accept);
  g_free (given.transport);
  return status;
}

const Command cmd_catalog = {
  "catalog", "list | add DIR|FILE | remove SHA256 | update [DEV]",
  "keep firmware files that the daemon may offer",
  "add copies files to the daemon; in a folder it heeds firmware.json. Only sound files of a\n"
  "known version are kept. info shows as UpdateVersion what is newer for a thermometer.",
  run_catalog
};
