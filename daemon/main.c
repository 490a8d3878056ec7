/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <locale.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib-unix.h>
#ifdef HAVE_SYSTEMD
#  include <systemd/sd-daemon.h>
#endif

#include "mi-bytes.h"
#include "mi-certificate.h"
#include "mitherm-bluez.h"
#include "mitherm-error.h"
#include "mitherm-log.h"
#include "mitherm-manager.h"

#define BUS_NAME "org.mitherm"
#define ROOT_LEN 64

/* Documented in mithermd(8). */
#define EXIT_USAGE 2

typedef struct
{
  char *bus;
  char *bluez_bus;
  char *state_dir;
  char *config_file;
  char *data_dir;
  char *authorization;
  gboolean verbose;
  gboolean version;
} Options;

typedef struct
{
  Options options;
  GKeyFile *config;
  GByteArray *roots;
  GByteArray *credential_roots;
  char **adapters; /* NULL: all */
  GMainLoop *loop;
  GDBusConnection *bus;
  GDBusConnection *bluez_bus;
  MithermStore *store;
  MiModels *models;
  MiRules *rules;
  MithermAuth *auth;
  MithermCatalog *catalog;
  MithermRadio *radio;
  MithermManager *manager;
  guint name_id;
  guint watchdog_source;
  int status;
} Daemon;

static void
notify (const char *state)
{
#ifdef HAVE_SYSTEMD
  sd_notify (0, state);
#endif
}

static gboolean
parse_options (Options *options, int *argc, char ***argv)
{
  const GOptionEntry entries[] = {
    { "bus", 0, 0, G_OPTION_ARG_STRING, &options->bus, "Bus to offer " BUS_NAME " on",
      "ADDRESS|system|session" },
    { "bluez-bus", 0, 0, G_OPTION_ARG_STRING, &options->bluez_bus, "Bus on which BlueZ is",
      "ADDRESS|system" },
    { "state-dir", 0, 0, G_OPTION_ARG_FILENAME, &options->state_dir, "Where keys are kept", "DIR" },
    { "config", 0, 0, G_OPTION_ARG_FILENAME, &options->config_file, "Configuration file", "FILE" },
    { "data-dir", 0, 0, G_OPTION_ARG_FILENAME, &options->data_dir, "Where models.d and rules.d are",
      "DIR" },
    { "authorization", 0, 0, G_OPTION_ARG_STRING, &options->authorization,
      "Who may change something: asked of polkit, or whoever reaches the bus", "polkit|bus" },
    { "verbose", 0, 0, G_OPTION_ARG_NONE, &options->verbose, "Log debug messages", NULL },
    { "version", 0, 0, G_OPTION_ARG_NONE, &options->version, "Print the version and exit", NULL },
    { NULL }
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("- Mi thermometers on D-Bus");
  g_autoptr (GError) error = NULL;

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, argc, argv, &error))
    {
      g_printerr ("mithermd: %s\n", error->message);
      return FALSE;
    }
  if (*argc > 1)
    {
      g_printerr ("mithermd: unexpected argument \"%s\"\n", (*argv)[1]);
      return FALSE;
    }
  if (options->authorization != NULL && !g_str_equal (options->authorization, "polkit")
      && !g_str_equal (options->authorization, "bus"))
    {
      g_printerr ("mithermd: --authorization is \"%s\", taken are polkit and bus\n",
                  options->authorization);
      return FALSE;
    }
  return TRUE;
}

static char *
default_state_dir (void)
{
  const char *systemd = g_getenv ("STATE_DIRECTORY");

  if (systemd != NULL && *systemd != '\0')
    return g_strndup (systemd, strcspn (systemd, ":"));
  if (geteuid () == 0)
    return g_strdup ("/var/lib/mitherm");
  return g_build_filename (g_get_user_state_dir (), "mitherm", NULL);
}

/* Programs run from the build folder take the data of the source tree. */
static char *
default_data_dir (void)
{
  g_autofree char *program = g_file_read_link ("/proc/self/exe", NULL);

  if (program != NULL && g_str_has_prefix (program, MITHERM_BUILD_DIR "/"))
    return g_strdup (MITHERM_SOURCE_DATA_DIR);
  return g_strdup (MITHERM_DATA_DIR);
}

/* Configuration */

/* @what: for the log */
static GByteArray *
read_roots (Daemon *self, const char *group, const char *what, GError **error)
{
  g_auto (GStrv) texts = g_key_file_get_string_list (self->config, group, "RootKey", NULL, NULL);
  g_autoptr (GByteArray) roots = g_byte_array_new ();
  guint8 root[ROOT_LEN];

  for (char **text = texts; text != NULL && *text != NULL; text++)
    {
      if (!mi_hex_decode (g_strstrip (*text), root, sizeof root))
        {
          g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                       "[%s] RootKey has an entry that is not %d hex digits", group, 2 * ROOT_LEN);
          return NULL;
        }
      g_byte_array_append (roots, root, sizeof root);
    }
  if (roots->len != 0 && (roots->len != ROOT_LEN || memcmp (roots->data, mi_mijia_root, ROOT_LEN)))
    g_warning ("%s are checked with %u key(s) of the configuration instead of the vendor's", what,
               roots->len / ROOT_LEN);
  return g_steal_pointer (&roots);
}

static gboolean
read_config (Daemon *self, GError **error)
{
  const char *path = self->options.config_file;
  g_autofree char *usual = g_build_filename (MITHERM_CONF_DIR, "mithermd.conf", NULL);

  self->config = g_key_file_new ();
  if (path == NULL && !g_file_test (usual, G_FILE_TEST_EXISTS))
    path = NULL;
  else if (path == NULL)
    path = usual;
  if (path != NULL && !g_key_file_load_from_file (self->config, path, G_KEY_FILE_NONE, error))
    {
      g_prefix_error (error, "%s: ", path);
      return FALSE;
    }
  self->adapters = g_key_file_get_string_list (self->config, "radio", "Adapters", NULL, NULL);
  self->roots = read_roots (self, "images", "Images", error);
  if (self->roots != NULL)
    self->credential_roots = read_roots (self, "registration", "Credentials", error);
  return self->credential_roots != NULL;
}

/* TRUE unless the configuration says otherwise. */
static gboolean
wants (Daemon *self, const char *group, const char *key)
{
  g_autoptr (GError) error = NULL;
  gboolean enabled = g_key_file_get_boolean (self->config, group, key, &error);

  return error != NULL || enabled;
}

static guint
read_number (Daemon *self, const char *key, guint usual, guint most)
{
  g_autoptr (GError) error = NULL;
  gint value = g_key_file_get_integer (self->config, "discovery", key, &error);

  if (error != NULL || value < 0 || value > (gint) most)
    {
      if (g_error_matches (error, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_INVALID_VALUE)
          || error == NULL)
        g_warning ("[discovery] %s is no number from 0 to %u; it is taken as %u", key, most, usual);
      return usual;
    }
  return (guint) value;
}

static void
set_discovery (Daemon *self)
{
  MithermDiscoverySettings settings = MITHERM_DISCOVERY_SETTINGS_INIT;

  settings.passive = wants (self, "discovery", "Passive");
  settings.full_s = read_number (self, "Full", settings.full_s, 86400);
  settings.duty = read_number (self, "Duty", settings.duty, 100);
  settings.period_s = MAX (read_number (self, "Period", settings.period_s, 3600), 2);
  mitherm_bluez_set_discovery (MITHERM_BLUEZ (self->radio), &settings);
}

/* Buses */

static char *
bus_address (const char *bus, GError **error)
{
  if (bus == NULL || g_str_equal (bus, "system"))
    return g_dbus_address_get_for_bus_sync (G_BUS_TYPE_SYSTEM, NULL, error);
  if (g_str_equal (bus, "session"))
    return g_dbus_address_get_for_bus_sync (G_BUS_TYPE_SESSION, NULL, error);
  return g_strdup (bus);
}

static void
on_bus_closed (GDBusConnection *connection, gboolean vanished, GError *error, gpointer user_data)
{
  Daemon *self = user_data;

  g_warning ("The %s bus has gone%s%s", connection == self->bus ? "API's" : "BlueZ",
             error != NULL ? ": " : "", error != NULL ? error->message : "");
  self->status = EXIT_FAILURE;
  g_main_loop_quit (self->loop);
}

static GDBusConnection *
open_bus (Daemon *self, const char *address, GError **error)
{
  GDBusConnection *connection = g_dbus_connection_new_for_address_sync (
      address,
      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT
          | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
      NULL, NULL, error);

  if (connection == NULL)
    {
      g_prefix_error (error, "the bus %s cannot be reached: ", address);
      return NULL;
    }
  g_signal_connect (connection, "closed", G_CALLBACK (on_bus_closed), self);
  return connection;
}

static gboolean
open_buses (Daemon *self, GError **error)
{
  g_autofree char *api = bus_address (self->options.bus, error);
  g_autofree char *bluez = api != NULL ? bus_address (self->options.bluez_bus, error) : NULL;

  if (bluez == NULL)
    return FALSE;
  self->bus = open_bus (self, api, error);
  if (self->bus == NULL)
    return FALSE;
  self->bluez_bus
      = g_str_equal (api, bluez) ? g_object_ref (self->bus) : open_bus (self, bluez, error);
  return self->bluez_bus != NULL;
}

/* The name */

static void
on_name_acquired (GDBusConnection *connection, const char *name, gpointer user_data)
{
  Daemon *self = user_data;

  g_message ("mithermd " MITHERM_VERSION " is %s, with %u known thermometer(s)", name,
             mitherm_manager_count_devices (self->manager));
  notify ("READY=1\nSTATUS=Listening for thermometers");
}

static void
on_name_lost (GDBusConnection *connection, const char *name, gpointer user_data)
{
  Daemon *self = user_data;

  if (self->status == EXIT_FAILURE || g_dbus_connection_is_closed (self->bus))
    return;
  g_printerr ("mithermd: the name %s cannot be had on this bus: another mithermd runs, or the bus "
              "policy does not allow it\n",
              name);
  self->status = EXIT_FAILURE;
  g_main_loop_quit (self->loop);
}

static gboolean
on_signal (gpointer user_data)
{
  g_main_loop_quit (((Daemon *) user_data)->loop);
  return G_SOURCE_CONTINUE;
}

#ifdef HAVE_SYSTEMD
static gboolean
on_watchdog (gpointer user_data)
{
  notify ("WATCHDOG=1");
  return G_SOURCE_CONTINUE;
}
#endif

static void
start_watchdog (Daemon *self)
{
#ifdef HAVE_SYSTEMD
  guint64 usec = 0;

  if (sd_watchdog_enabled (0, &usec) > 0)
    self->watchdog_source = g_timeout_add ((guint) (usec / 2000), on_watchdog, NULL);
#endif
}

/* Putting it together */

static void
tell_problems (GPtrArray *problems)
{
  for (guint i = 0; problems != NULL && i < problems->len; i++)
    g_warning ("%s", (const char *) g_ptr_array_index (problems, i));
}

static void
load_data (Daemon *self)
{
  g_autofree char *usual = default_data_dir ();
  g_autoptr (GPtrArray) models = NULL;
  g_autoptr (GPtrArray) rules = NULL;
  const char *data_dir = self->options.data_dir != NULL ? self->options.data_dir : usual;

  self->models = mi_models_load (data_dir, MITHERM_CONF_DIR, &models);
  tell_problems (models);
  if (mi_models_list (self->models)->len == 0)
    g_warning ("No models are known in %s: thermometers will be of unknown model", data_dir);
  self->rules = mi_rules_load (data_dir, MITHERM_CONF_DIR, &rules);
  tell_problems (rules);
}

static MithermAuthMode
auth_mode (const Options *options)
{
  gboolean is_system = options->bus == NULL || g_str_equal (options->bus, "system");

  if (options->authorization != NULL)
    return g_str_equal (options->authorization, "polkit") ? MITHERM_AUTH_POLKIT : MITHERM_AUTH_BUS;
  return is_system ? MITHERM_AUTH_POLKIT : MITHERM_AUTH_BUS;
}

static int
complain (int status, const GError *error)
{
  g_printerr ("mithermd: %s\n", error->message);
  return status;
}

static int
set_up (Daemon *self)
{
  MithermManagerConfig config = { 0 };
  g_autoptr (GError) error = NULL;
  g_autofree char *usual = default_state_dir ();

  if (!read_config (self, &error))
    return complain (EXIT_USAGE, error);
  self->store = mitherm_store_new (
      self->options.state_dir != NULL ? self->options.state_dir : usual, &error);
  if (self->store == NULL)
    return complain (EXIT_FAILURE, error);
  if (!open_buses (self, &error))
    return complain (EXIT_FAILURE, error);
  load_data (self);
  self->auth = mitherm_auth_new (self->bus, auth_mode (&self->options));
  self->radio = mitherm_bluez_new (self->bluez_bus);
  set_discovery (self);
  mitherm_bluez_set_adapters (MITHERM_BLUEZ (self->radio), (const char *const *) self->adapters);
  config.connection = self->bus;
  config.radio = self->radio;
  config.store = self->store;
  config.models = self->models;
  config.rules = self->rules;
  config.auth = self->auth;
  config.roots = self->roots->data;
  config.n_roots = self->roots->len / ROOT_LEN;
  config.credential_roots = self->credential_roots->data;
  config.n_credential_roots = self->credential_roots->len / ROOT_LEN;
  self->catalog
      = mitherm_catalog_new (self->options.state_dir != NULL ? self->options.state_dir : usual,
                             self->models, self->roots->data, self->roots->len / ROOT_LEN);
  config.catalog = self->catalog;
  config.stale_s = (guint) CLAMP (
      g_key_file_get_integer (self->config, "sensor", "StaleAfter", NULL), 0, 7 * 24 * 3600);
  config.discovery = wants (self, "radio", "Discovery");
  config.wait_for_reads = !wants (self, "update", "Pipelined");
  self->manager = mitherm_manager_new (&config);
  if (!mitherm_manager_export (self->manager, &error))
    return complain (EXIT_FAILURE, error);
  return EXIT_SUCCESS;
}

static int
run (Daemon *self)
{
  guint term = g_unix_signal_add (SIGTERM, on_signal, self);
  guint interrupt = g_unix_signal_add (SIGINT, on_signal, self);

  self->name_id
      = g_bus_own_name_on_connection (self->bus, BUS_NAME, G_BUS_NAME_OWNER_FLAGS_DO_NOT_QUEUE,
                                      on_name_acquired, on_name_lost, self, NULL);
  start_watchdog (self);
  g_main_loop_run (self->loop);
  notify ("STOPPING=1");
  g_source_remove (term);
  g_source_remove (interrupt);
  g_bus_unown_name (self->name_id);
  mitherm_manager_stop (self->manager);
  return self->status;
}

static void
tear_down (Daemon *self)
{
  g_clear_handle_id (&self->watchdog_source, g_source_remove);
  g_clear_object (&self->manager);
  g_clear_object (&self->radio);
  g_clear_pointer (&self->auth, mitherm_auth_free);
  g_clear_pointer (&self->catalog, mitherm_catalog_free);
  g_clear_pointer (&self->rules, mi_rules_free);
  g_clear_pointer (&self->models, mi_models_free);
  g_clear_pointer (&self->store, mitherm_store_free);
  if (self->bus != NULL && !g_dbus_connection_is_closed (self->bus))
    g_dbus_connection_flush_sync (self->bus, NULL, NULL);
  g_clear_object (&self->bluez_bus);
  g_clear_object (&self->bus);
  g_clear_pointer (&self->roots, g_byte_array_unref);
  g_clear_pointer (&self->credential_roots, g_byte_array_unref);
  g_clear_pointer (&self->adapters, g_strfreev);
  g_clear_pointer (&self->config, g_key_file_unref);
  g_clear_pointer (&self->loop, g_main_loop_unref);
  g_free (self->options.bus);
  g_free (self->options.bluez_bus);
  g_free (self->options.state_dir);
  g_free (self->options.config_file);
  g_free (self->options.data_dir);
  g_free (self->options.authorization);
}

int
main (int argc, char **argv)
{
  Daemon self = { 0 };
  int status;

#ifdef M_ARENA_MAX
  mallopt (M_ARENA_MAX, 1); /* GDBus' thread needs no heap of its own */
#endif
  setlocale (LC_ALL, "");
  if (!parse_options (&self.options, &argc, &argv))
    return EXIT_USAGE;
  if (self.options.version)
    {
      g_print ("mithermd " MITHERM_VERSION "\n");
      return EXIT_SUCCESS;
    }
  if (self.options.verbose)
    g_setenv ("G_MESSAGES_DEBUG", "all", TRUE);
  self.loop = g_main_loop_new (NULL, FALSE);
  status = set_up (&self);
  if (status == EXIT_SUCCESS)
    status = run (&self);
  tear_down (&self);
  return status;
}
