/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "app.h"
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gunixinputstream.h>
#include <gio/gunixoutputstream.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUS_NAME     "org.mitherm"
#define ROOT_PATH    "/org/mitherm"
#define ERROR_PREFIX "org.mitherm.Error."
/* The daemon takes no more; it refuses what has one byte more. */
#define INPUT_MAX (1024 * 1024)

void
app_parse (App *app, const Command *command, const GOptionEntry *entries, int *argc, char ***argv)
{
  g_autofree char *title = g_strdup_printf ("%s — %s", command->arguments, command->summary);
  g_autoptr (GOptionContext) context = g_option_context_new (title);
  const GOptionEntry common[]
      = { { "bus", 'b', 0, G_OPTION_ARG_STRING, &app->bus,
            "Bus of the daemon: system (default), session or an address", "BUS" },
          { "json", 'j', 0, G_OPTION_ARG_NONE, &app->json, "Print JSON instead of text", NULL },
          { "wait", 'w', 0, G_OPTION_ARG_INT, &app->wait_s,
            "Wait that long for a thermometer to be heard", "SECONDS" },
          G_OPTION_ENTRY_NULL };
  g_autofree char *program = g_strdup_printf ("mithermctl %s", command->name);
  g_autoptr (GError) error = NULL;

  (*argv)[0] = program;
  g_set_prgname (program);
  g_option_context_add_main_entries (context, common, NULL);
  if (entries != NULL)
    g_option_context_add_main_entries (context, entries, NULL);
  g_option_context_set_description (context, command->description);
  if (!g_option_context_parse (context, argc, argv, &error))
    exit (app_usage (command, "%s", error->message));
  (*argv)[0] = (char *) command->name;
}

ExitStatus
app_usage (const Command *command, const char *format, ...)
{
  g_autofree char *message = NULL;
  va_list args;

  va_start (args, format);
  message = g_strdup_vprintf (format, args);
  va_end (args);
  fprintf (stderr, "mithermctl: %s\nTry: mithermctl %s --help\n", message, command->name);
  return EXIT_USAGE;
}

static GDBusConnection *
connect_bus (const char *bus, GError **error)
{
  if (bus == NULL || g_str_equal (bus, "system"))
    return g_bus_get_sync (G_BUS_TYPE_SYSTEM, NULL, error);
  if (g_str_equal (bus, "session"))
    return g_bus_get_sync (G_BUS_TYPE_SESSION, NULL, error);
  return g_dbus_connection_new_for_address_sync (
      bus,
      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT
          | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
      NULL, NULL, error);
}

gboolean
app_connect (App *app, ExitStatus *status)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *owner = NULL;

  *status = EXIT_NOT_FOUND;
  if (app->bus == NULL)
    app->bus = g_strdup (g_getenv ("MITHERM_BUS"));
  app->connection = connect_bus (app->bus, &error);
  if (app->connection == NULL)
    {
      fprintf (stderr, "mithermctl: cannot reach the %s bus: %s\n",
               app->bus != NULL ? app->bus : "system", error->message);
      return FALSE;
    }
  g_dbus_connection_set_exit_on_close (app->connection, FALSE);
  app->objects = mitherm_dbus_object_manager_client_new_sync (
      app->connection, G_DBUS_OBJECT_MANAGER_CLIENT_FLAGS_NONE, BUS_NAME, ROOT_PATH, NULL, &error);
  if (app->objects != NULL)
    owner
        = g_dbus_object_manager_client_get_name_owner (G_DBUS_OBJECT_MANAGER_CLIENT (app->objects));
  if (owner == NULL)
    {
      fprintf (stderr,
               "mithermctl: the daemon mithermd is not running on the %s bus%s%s\n"
               "Start it with: systemctl start mithermd (or run mithermd --bus=ADDRESS and give "
               "mithermctl the same --bus)\n",
               app->bus != NULL ? app->bus : "system", error != NULL ? ": " : "",
               error != NULL ? error->message : "");
      return FALSE;
    }
  *status = EXIT_DONE;
  return TRUE;
}

MithermDBusManager1 *
app_get_manager (App *app, ExitStatus *status)
{
  g_autoptr (GError) error = NULL;
  MithermDBusManager1 *manager;

  if (!app_connect (app, status))
    return NULL;
  manager = mitherm_dbus_manager1_proxy_new_sync (app->connection, G_DBUS_PROXY_FLAGS_NONE,
                                                  BUS_NAME, ROOT_PATH, NULL, &error);
  if (manager == NULL)
    *status = app_report (app, error);
  return manager;
}

static gboolean
matches (MithermDBusDevice1 *device, const char *name)
{
  return name == NULL || g_ascii_strcasecmp (mitherm_dbus_device1_get_address (device), name) == 0
         || g_strcmp0 (mitherm_dbus_device1_get_name (device), name) == 0;
}

/* (element-type MithermDBusDevice1) */
static GPtrArray *
matching_devices (App *app, const char *name)
{
  g_autolist (GDBusObject) objects = g_dbus_object_manager_get_objects (app->objects);
  GPtrArray *found = g_ptr_array_new_with_free_func (g_object_unref);

  for (GList *l = objects; l != NULL; l = l->next)
    {
      MithermDBusDevice1 *device = mitherm_dbus_object_get_device1 (MITHERM_DBUS_OBJECT (l->data));

      if (device != NULL && matches (device, name))
        g_ptr_array_add (found, device);
      else
        g_clear_object (&device);
    }
  return found;
}

static gboolean
on_wait_over (gpointer data)
{
  *(gboolean *) data = TRUE;
  return G_SOURCE_REMOVE;
}

static GPtrArray *
wait_for_devices (App *app, const char *name)
{
  GPtrArray *found = matching_devices (app, name);
  gboolean over = FALSE;
  guint timer = app->wait_s > 0 ? g_timeout_add_seconds (app->wait_s, on_wait_over, &over) : 0;

  while (found->len == 0 && timer != 0 && !over)
    {
      g_main_context_iteration (NULL, TRUE);
      g_ptr_array_unref (found);
      found = matching_devices (app, name);
    }
  if (timer != 0 && !over)
    g_source_remove (timer);
  return found;
}

void
app_wait_for_any (App *app)
{
  g_ptr_array_unref (wait_for_devices (app, NULL));
}

MithermDBusDevice1 *
app_find_device (App *app, const char *name, ExitStatus *status)
{
  g_autoptr (GPtrArray) found = NULL;

  if (!app_connect (app, status))
    return NULL;
  found = wait_for_devices (app, name);
  if (found->len == 1)
    return g_object_ref (found->pdata[0]);
  *status = EXIT_NOT_FOUND;
  if (found->len == 0 && name == NULL)
    fprintf (stderr,
             "mithermctl: no thermometer has been heard yet (--wait=SECONDS waits for one)\n");
  else if (found->len == 0)
    fprintf (stderr,
             "mithermctl: no thermometer \"%s\": mithermctl list shows what is known "
             "(--wait=SECONDS waits for it)\n",
             name);
  else
    {
      fprintf (stderr, "mithermctl: %s%s%s; say which by its address:\n", name != NULL ? "\"" : "",
               name != NULL ? name : "there is more than one thermometer",
               name != NULL ? "\" is the name of more than one thermometer" : "");
      for (guint i = 0; i < found->len; i++)
        fprintf (stderr, "  %s  %s\n", mitherm_dbus_device1_get_address (found->pdata[i]),
                 mitherm_dbus_device1_get_name (found->pdata[i]));
    }
  return NULL;
}

ExitStatus
app_exit_status (const char *error_name, gboolean late)
{
  static const struct
  {
    const char *name;
    ExitStatus status;
  } statuses[] = {
    { "AlreadyBound", EXIT_REFUSED },    { "BadImage", EXIT_REFUSED },
    { "BatteryLow", EXIT_REFUSED },      { "Busy", EXIT_REFUSED },
    { "Cancelled", EXIT_CANCELLED },     { "InvalidArgs", EXIT_USAGE },
    { "NeedsCredential", EXIT_REFUSED }, { "NoKeys", EXIT_REFUSED },
    { "NotAuthorized", EXIT_REFUSED },   { "NotBound", EXIT_REFUSED },
    { "NotFound", EXIT_NOT_FOUND },      { "NotSigned", EXIT_REFUSED },
    { "Unsupported", EXIT_REFUSED },     { "WrongHardware", EXIT_REFUSED },
  };

  if (error_name == NULL || !g_str_has_prefix (error_name, ERROR_PREFIX))
    return EXIT_FAILED;
  error_name += strlen (ERROR_PREFIX);
  if (late && g_str_equal (error_name, "BadImage"))
    return EXIT_FAILED;
  for (gsize i = 0; i < G_N_ELEMENTS (statuses); i++)
    if (g_str_equal (error_name, statuses[i].name))
      return statuses[i].status;
  return EXIT_FAILED;
}

static ExitStatus
bus_error_status (const char *name)
{
  static const char *const gone[]
      = { "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
          "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.UnknownObject",
          "org.freedesktop.DBus.Error.Disconnected" };

  for (gsize i = 0; i < G_N_ELEMENTS (gone); i++)
    if (g_strcmp0 (name, gone[i]) == 0)
      return EXIT_NOT_FOUND;
  if (g_strcmp0 (name, "org.freedesktop.DBus.Error.AccessDenied") == 0)
    return EXIT_REFUSED;
  return app_exit_status (name, FALSE);
}

ExitStatus
app_report (App *app, GError *error)
{
  g_autofree char *name = g_dbus_error_get_remote_error (error);
  g_autofree char *clean = NULL;
  const char *shown = name != NULL ? name : "";

  g_dbus_error_strip_remote_error (error);
  clean = output_clean (error->message);
  if (app->json)
    output_json (g_variant_new_parsed ("{'error': <%s>, 'message': <%s>}", shown, clean));
  if (g_str_has_prefix (shown, ERROR_PREFIX))
    shown += strlen (ERROR_PREFIX);
  fprintf (stderr, "mithermctl: %s%s%s\n", shown, *shown != '\0' ? ": " : "", clean);
  return name != NULL ? bus_error_status (name) : EXIT_FAILED;
}

static int
copy_to_memory (int fd, const char *path)
{
  g_autoptr (GInputStream) in = g_unix_input_stream_new (fd, FALSE);
  int memory = memfd_create ("mithermctl", MFD_CLOEXEC);
  g_autoptr (GOutputStream) out = memory < 0 ? NULL : g_unix_output_stream_new (memory, FALSE);
  g_autofree char *data = g_malloc (INPUT_MAX + 1);
  g_autoptr (GError) error = NULL;
  gsize len = 0;
  gboolean copied = out != NULL
                    && g_input_stream_read_all (in, data, INPUT_MAX + 1, &len, NULL, &error)
                    && g_output_stream_write_all (out, data, len, NULL, NULL, &error)
                    && lseek (memory, 0, SEEK_SET) == 0;

  explicit_bzero (data, len); /* they may be keys */
  if (!copied)
    {
      fprintf (stderr, "mithermctl: %s: %s\n", path,
               error != NULL ? error->message : g_strerror (errno));
      if (memory >= 0)
        close (memory);
      return -1;
    }
  return memory;
}

int
app_open_file (const char *path, ExitStatus *status)
{
  int fd;

  *status = EXIT_USAGE;
  if (g_str_equal (path, "-"))
    return copy_to_memory (STDIN_FILENO, "standard input");
  /* No waiting for somebody to write into a FIFO: the daemon takes none anyway. */
  fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    fprintf (stderr, "mithermctl: cannot open %s: %s\n", path, g_strerror (errno));
  return fd;
}
