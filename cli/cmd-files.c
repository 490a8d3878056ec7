/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The commands that pass files to the daemon and back: image, keys. */
#include "config.h"

#include "app.h"
#include "export.h"
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gunixfdlist.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CALL_FLAGS G_DBUS_CALL_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION

/* Takes @fd. */
static GUnixFDList *
pass (int fd, GError **error)
{
  g_autoptr (GUnixFDList) fds = g_unix_fd_list_new ();
  gboolean passed = g_unix_fd_list_append (fds, fd, error) >= 0;

  close (fd);
  return passed ? g_steal_pointer (&fds) : NULL;
}

static void
add_null (GVariantDict *dict, const char *key)
{
  if (!g_variant_dict_contains (dict, key))
    g_variant_dict_insert_value (dict, key, g_variant_new_maybe (G_VARIANT_TYPE_STRING, NULL));
}

/* What a file does not have is null in JSON; D-Bus knows no null, and leaves it out. */
static GVariant *
with_nulls (GVariant *facts)
{
  g_auto (GVariantDict) dict = G_VARIANT_DICT_INIT (facts);
  g_autoptr (GVariant) tag = g_variant_lookup_value (facts, "tag", G_VARIANT_TYPE_VARDICT);

  add_null (&dict, "zigbee");
  add_null (&dict, "tag");
  if (tag != NULL)
    {
      g_auto (GVariantDict) inner = G_VARIANT_DICT_INIT (tag);

      add_null (&inner, "old_version");
      g_variant_dict_insert_value (&dict, "tag", g_variant_dict_end (&inner));
    }
  return g_variant_dict_end (&dict);
}

static ExitStatus
run_image (App *app, int argc, char **argv)
{
  g_autoptr (MithermDBusManager1) manager = NULL;
  g_autoptr (GUnixFDList) fds = NULL;
  g_autoptr (GVariant) facts = NULL;
  g_autoptr (GError) error = NULL;
  ExitStatus status;
  int fd;

  app_parse (app, &cmd_image, NULL, &argc, &argv);
  if (argc != 2)
    return app_usage (&cmd_image, "image takes one file");
  fd = app_open_file (argv[1], &status);
  if (fd < 0)
    return status;
  fds = pass (fd, &error);
  if (fds == NULL)
    return app_report (app, error);
  manager = app_get_manager (app, &status);
  if (manager == NULL)
    return status;
  if (!mitherm_dbus_manager1_call_inspect_image_sync (manager, g_variant_new_handle (0), CALL_FLAGS,
                                                      -1, fds, &facts, NULL, NULL, &error))
    return app_report (app, error);
  if (app->json)
    output_json (with_nulls (facts));
  else
    output_facts (facts, 0);
  return EXIT_DONE;
}

const Command cmd_image = { "image", "FILE", "tell what a firmware file is",
                            "Nothing is changed and nothing is sent.", run_image };

static void
print_problems (GVariant *problems)
{
  for (gsize i = 0; i < g_variant_n_children (problems); i++)
    {
      g_autoptr (GVariant) problem = g_variant_get_child_value (problems, i);
      guint32 line = 0;
      const char *field = "", *reason = "";
      g_autofree char *clean = NULL;

      g_variant_lookup (problem, "line", "u", &line);
      g_variant_lookup (problem, "field", "&s", &field);
      g_variant_lookup (problem, "reason", "&s", &reason);
      clean = output_clean (reason);
      fprintf (stderr, "line %u: %s: %s\n", line, field, clean);
    }
}

static ExitStatus
keys_import (App *app, const char *path)
{
  g_autoptr (MithermDBusManager1) manager = NULL;
  g_autoptr (GUnixFDList) fds = NULL;
  g_autoptr (GVariant) problems = NULL;
  g_autoptr (GError) error = NULL;
  guint imported, skipped;
  ExitStatus status;
  int fd = app_open_file (path, &status);

  if (fd < 0)
    return status;
  fds = pass (fd, &error);
  if (fds == NULL)
    return app_report (app, error);
  manager = app_get_manager (app, &status);
  if (manager == NULL)
    return status;
  if (!mitherm_dbus_manager1_call_import_keys_sync (
          manager, g_variant_new_handle (0), g_variant_new ("a{sv}", NULL), CALL_FLAGS, -1, fds,
          &imported, &skipped, &problems, NULL, NULL, &error))
    return app_report (app, error);
  if (app->json)
    output_json (
        g_variant_new_parsed ("{'imported': <%u>, 'skipped': <%u>, 'problems': <%@aa{sv}>}",
                              imported, skipped, problems));
  else
    printf ("%u imported, %u skipped\n", imported, skipped);
  print_problems (problems);
  return g_variant_n_children (problems) > 0 && imported == 0 ? EXIT_FAILED : EXIT_DONE;
}

static gboolean
write_all (int out, const char *text, gsize len, GError **error)
{
  for (gsize done = 0; done < len;)
    {
      ssize_t n = write (out, text + done, len - done);

      if (n < 0 && errno == EINTR)
        continue;
      if (n < 0)
        {
          g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno), "%s", g_strerror (errno));
          return FALSE;
        }
      done += (gsize) n;
    }
  return TRUE;
}

/* Everything in @memory: (transfer full): wiped and freed by wipe_text() */
static char *
read_memory (int memory, GError **error)
{
  off_t len = lseek (memory, 0, SEEK_END);
  char *text = len >= 0 ? g_malloc0 ((gsize) len + 1) : NULL;

  if (text != NULL && pread (memory, text, (gsize) len, 0) == len)
    return text;
  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno), "%s", g_strerror (errno));
  g_free (text);
  return NULL;
}

static void
wipe_text (char *text)
{
  if (text != NULL)
    explicit_bzero (text, strlen (text));
  g_free (text);
}

/* @memory: holds the daemon's export */
static ExitStatus
write_export (int memory, const char *path, ExportFormat format)
{
  g_autoptr (GError) error = NULL;
  char *json = read_memory (memory, &error);
  char *text = json != NULL ? export_format (json, format, &error) : NULL;
  int out = path == NULL || g_str_equal (path, "-")
                ? dup (STDOUT_FILENO)
                : open (path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  gboolean done = text != NULL && out >= 0 && write_all (out, text, strlen (text), &error);

  if (out >= 0 && close (out) < 0)
    done = FALSE;
  if (!done)
    fprintf (stderr, "mithermctl: cannot write %s: %s\n", path != NULL ? path : "standard output",
             error != NULL ? error->message : g_strerror (errno));
  wipe_text (text);
  wipe_text (json);
  return done ? EXIT_DONE : EXIT_FAILED;
}

static ExitStatus
keys_export (App *app, const char *path, MithermDBusDevice1 *device, ExportFormat format)
{
  g_autoptr (MithermDBusManager1) manager = NULL;
  g_autoptr (GUnixFDList) fds = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GVariantDict) options = G_VARIANT_DICT_INIT (NULL);
  ExitStatus status = EXIT_FAILED;
  int memory = memfd_create ("mithermctl", MFD_CLOEXEC);

  if (memory < 0)
    return EXIT_FAILED;
  fds = g_unix_fd_list_new ();
  manager = app_get_manager (app, &status);
  if (manager != NULL && g_unix_fd_list_append (fds, memory, &error) >= 0)
    {
      if (device != NULL)
        g_variant_dict_insert (&options, "device", "o",
                               g_dbus_proxy_get_object_path (G_DBUS_PROXY (device)));
      if (mitherm_dbus_manager1_call_export_keys_sync (manager, g_variant_new_handle (0),
                                                       g_variant_dict_end (&options), CALL_FLAGS,
                                                       -1, fds, NULL, NULL, &error))
        status = write_export (memory, path, format);
    }
  close (memory);
  return error != NULL ? app_report (app, error) : status;
}

static ExitStatus
keys_list (App *app)
{
  g_autolist (GDBusObject) objects = NULL;
  g_autoptr (Table) table = table_new (4);
  ExitStatus status;

  if (!app_connect (app, &status))
    return status;
  objects = g_dbus_object_manager_get_objects (app->objects);
  table_add (table, "ADDRESS", "NAME", "MODEL", "BOUND", NULL);
  for (GList *l = objects; l != NULL; l = l->next)
    {
      g_autoptr (MithermDBusDevice1) device = mitherm_dbus_object_get_device1 (l->data);

      if (device == NULL || !mitherm_dbus_device1_get_has_keys (device))
        continue;
      if (app->json)
        output_json (output_properties (G_DBUS_PROXY (device)));
      else
        table_add (table, mitherm_dbus_device1_get_address (device),
                   mitherm_dbus_device1_get_name (device), mitherm_dbus_device1_get_model (device),
                   mitherm_dbus_device1_get_bound (device), NULL);
    }
  if (!app->json)
    table_print (table);
  return EXIT_DONE;
}

static ExitStatus
keys_forget (App *app, const char *name, gboolean purge)
{
  g_autoptr (MithermDBusDevice1) device = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GVariantDict) options = G_VARIANT_DICT_INIT (NULL);
  ExitStatus status;

  device = app_find_device (app, name, &status);
  if (device == NULL)
    return status;
  if (purge)
    g_variant_dict_insert (&options, "purge", "b", TRUE);
  if (!mitherm_dbus_device1_call_forget_sync (device, g_variant_dict_end (&options), CALL_FLAGS, -1,
                                              NULL, &error))
    return app_report (app, error);
  return EXIT_DONE;
}

static ExitStatus
run_keys (App *app, int argc, char **argv)
{
  gboolean purge = FALSE;
  g_autofree char *only = NULL;
  g_autofree char *format_name = NULL;
  ExportFormat format = EXPORT_JSON;
  const GOptionEntry entries[]
      = { { "purge", 0, 0, G_OPTION_ARG_NONE, &purge,
            "forget: erase the keys instead of keeping them as history", NULL },
          { "device", 0, 0, G_OPTION_ARG_STRING, &only, "export: only this thermometer", "DEV" },
          { "format", 0, 0, G_OPTION_ARG_STRING, &format_name,
            "export: json (default), homeassistant, esphome or ble_monitor", "FORMAT" },
          G_OPTION_ENTRY_NULL };
  g_autoptr (MithermDBusDevice1) device = NULL;
  const char *verb;
  ExitStatus status;

  app_parse (app, &cmd_keys, entries, &argc, &argv);
  verb = argc > 1 ? argv[1] : "";
  if (g_str_equal (verb, "list") && argc == 2)
    return keys_list (app);
  if (g_str_equal (verb, "import") && argc == 3)
    return keys_import (app, argv[2]);
  if (g_str_equal (verb, "forget") && argc == 3)
    return keys_forget (app, argv[2], purge);
  if (!g_str_equal (verb, "export") || argc > 3)
    return app_usage (&cmd_keys, "keys takes list, import FILE, export [FILE] or forget DEV");
  if (format_name != NULL && !export_format_from_string (format_name, &format))
    return app_usage (&cmd_keys, "--format takes json, homeassistant, esphome and ble_monitor");
  if (only != NULL && (device = app_find_device (app, only, &status)) == NULL)
    return status;
  return keys_export (app, argc == 3 ? argv[2] : NULL, device, format);
}

const Command cmd_keys
    = { "keys", "list | import FILE | export [FILE] | forget DEV", "manage stored keys",
        "Keys are secrets: files that export makes are readable by you alone. - stands for\n"
        "standard input or output. Only json has the tokens and all that was stored; the other\n"
        "formats are snippets with bind keys for the configuration of other programs. forget keeps "
        "the keys as history; with --purge they are\n"
        "gone for good, and only a new registration or the vendor's account brings keys back.",
        run_keys };
