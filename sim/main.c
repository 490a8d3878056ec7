/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-fake-bluez.h"
#include "sim-options.h"
#include "sim-peripheral.h"
#include "sim-stdio.h"

#include <glib/gprintf.h>
#include <locale.h>

#define EXIT_USAGE 2

static const char summary[]
    = "Virtual Mi thermometers: the device side of registration, login and both updates.";
static const char description[]
    = "One of --stdio, --fake-bluez and --bluez is needed:\n"
      "  mitherm-sim --stdio --devices=FILE --device=A4:C1:38:00:00:01\n"
      "  mitherm-sim --fake-bluez --bus=ADDRESS (--count=N | --devices=FILE)\n"
      "  mitherm-sim --bluez=hci1 --devices=FILE\n\n"
      "See docs/simulator.md for the devices file, the JSON lines and the faults.";

static gboolean
usage (GError **error, const char *message)
{
  g_set_error_literal (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, message);
  return FALSE;
}

static gboolean
on_seed (const char *name, const char *value, gpointer data, GError **error)
{
  SimOptions *options = data;
  guint64 seed;

  if (!g_ascii_string_to_unsigned (value, 10, 0, G_MAXINT64, &seed, NULL))
    return usage (error, "--seed is not a number");
  options->seed = (gint64) seed;
  options->has_seed = TRUE;
  return TRUE;
}

static gboolean
check_options (const SimOptions *options, GError **error)
{
  int fronts = options->stdio + options->fake_bluez + (options->bluez != NULL);

  if (fronts != 1)
    return usage (error, "say one of --stdio, --fake-bluez and --bluez");
  if (options->stdio && (options->device == NULL || options->devices == NULL))
    return usage (error, "--stdio needs --device and --devices");
  if (options->bluez != NULL && options->devices == NULL)
    return usage (error, "--bluez needs --devices");
  if (options->fake_bluez && options->bus == NULL)
    return usage (error, "--fake-bluez needs --bus");
  if (options->fake_bluez && (options->devices != NULL) == (options->count > 0))
    return usage (error, "--fake-bluez needs either --devices or --count");
  if (options->count < 0 || options->count > 65535 || options->adapters < 0
      || options->adapters > 16)
    return usage (error, "--count goes up to 65535, --adapters up to 16");
  if (options->disconnect_delay_ms < 0)
    return usage (error, "--disconnect-delay is negative");
  return TRUE;
}

static gboolean
parse_options (SimOptions *options, int *argc, char ***argv, GError **error)
{
  const GOptionEntry entries[] = {
    { "stdio", 0, 0, G_OPTION_ARG_NONE, &options->stdio, "One thermometer as JSON lines", NULL },
    { "fake-bluez", 0, 0, G_OPTION_ARG_NONE, &options->fake_bluez, "Be org.bluez on a private bus",
      NULL },
    { "bluez", 0, 0, G_OPTION_ARG_STRING, &options->bluez, "Be a peripheral on a real adapter",
      "ADAPTER" },
    { "bus", 0, 0, G_OPTION_ARG_STRING, &options->bus, "Bus for --fake-bluez and --bluez",
      "ADDRESS" },
    { "device", 0, 0, G_OPTION_ARG_STRING, &options->device, "Thermometer for --stdio", "ADDRESS" },
    { "devices", 0, 0, G_OPTION_ARG_FILENAME, &options->devices, "Devices file", "FILE" },
    { "count", 0, 0, G_OPTION_ARG_INT, &options->count, "So many thermometers of the usual kind",
      "N" },
    { "adapters", 0, 0, G_OPTION_ARG_INT, &options->adapters, "So many adapters for --fake-bluez",
      "N" },
    { "monitors", 0, 0, G_OPTION_ARG_NONE, &options->monitors,
      "Offer advertisement monitors, as bluetoothd -E does", NULL },
    { "disconnect-delay", 0, 0, G_OPTION_ARG_INT, &options->disconnect_delay_ms,
      "How long Disconnect takes with --fake-bluez (2000, as with BlueZ)", "MS" },
    { "control", 0, 0, G_OPTION_ARG_NONE, &options->control,
      "JSON lines on standard input and output", NULL },
    { "seed", 0, 0, G_OPTION_ARG_CALLBACK, (gpointer) on_seed, "Deterministic randomness", "N" },
    { "version", 0, 0, G_OPTION_ARG_NONE, &options->version, "Print the version", NULL },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  GOptionGroup *group = g_option_group_new ("main", "", "", options, NULL);

  g_option_group_add_entries (group, entries);
  g_option_context_set_main_group (context, group);
  g_option_context_set_summary (context, summary);
  g_option_context_set_description (context, description);
  if (!g_option_context_parse (context, argc, argv, error))
    return FALSE;
  if (*argc > 1)
    return usage (error, "arguments are options only");
  return options->version || check_options (options, error);
}

/* Returns: (transfer full) (nullable): the group of the devices file that means @address */
static char *
find_group (GKeyFile *file, const char *address)
{
  g_auto (GStrv) groups = g_key_file_get_groups (file, NULL);

  for (guint i = 0; groups[i] != NULL; i++)
    if (g_ascii_strcasecmp (groups[i], address) == 0)
      return g_strdup (groups[i]);
  return NULL;
}

static GKeyFile *
load_devices (const SimOptions *options, GError **error)
{
  g_autoptr (GKeyFile) file = g_key_file_new ();

  if (!g_key_file_load_from_file (file, options->devices, G_KEY_FILE_NONE, error))
    {
      g_prefix_error (error, "%s: ", options->devices);
      return NULL;
    }
  return g_steal_pointer (&file);
}

/* What every front's devices are made of. */
typedef struct
{
  MiRandomFunc random;
  gpointer random_data;
  MiModels *models;
} SimSources;

/* Programs run from the build folder take the data of the source tree. */
static MiModels *
load_models (void)
{
  g_autofree char *program = g_file_read_link ("/proc/self/exe", NULL);
  gboolean built = program != NULL && g_str_has_prefix (program, MITHERM_BUILD_DIR "/");

  return mi_models_load (built ? MITHERM_SOURCE_DATA_DIR : MITHERM_DATA_DIR, MITHERM_CONF_DIR,
                         NULL);
}

static int
run_stdio (const SimOptions *options, const SimSources *sources, GError **error)
{
  g_autoptr (GKeyFile) file = load_devices (options, error);
  g_autoptr (SimDevice) device = NULL;
  g_autofree char *group = NULL;

  if (file == NULL)
    return 1;
  group = find_group (file, options->device);
  if (group == NULL)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_INVALID_ARGUMENT, "%s: no group [%s]",
                   options->devices, options->device);
      return 1;
    }
  device = sim_device_new (file, group, sources->random, sources->random_data, error);
  if (device == NULL)
    return 1;
  sim_device_set_models (device, sources->models);
  return sim_stdio_run (device);
}

static int
run_fake_bluez (const SimOptions *options, const SimSources *sources, GError **error)
{
  g_autoptr (GKeyFile) devices = NULL;
  SimFakeBluezOptions fake = {
    .bus = options->bus,
    .count = (guint) options->count,
    .adapters = (guint) options->adapters,
    .control = options->control,
    .random = sources->random,
    .random_data = sources->random_data,
    .models = sources->models,
    .seed = options->has_seed ? (guint32) options->seed : g_random_int (),
    .monitors = options->monitors,
    .disconnect_delay_ms = (guint) options->disconnect_delay_ms,
  };

  if (options->devices != NULL)
    {
      devices = load_devices (options, error);
      if (devices == NULL)
        return 1;
      fake.devices = devices;
    }
  return sim_fake_bluez_run (&fake, error);
}

static int
run_peripheral (const SimOptions *options, const SimSources *sources, GError **error)
{
  g_autoptr (GKeyFile) devices = load_devices (options, error);
  SimPeripheralOptions peripheral = {
    .adapter = options->bluez,
    .bus = options->bus,
    .devices = devices,
    .control = options->control,
    .random = sources->random,
    .random_data = sources->random_data,
    .models = sources->models,
  };

  return devices != NULL ? sim_peripheral_run (&peripheral, error) : 1;
}

static int
run (const SimOptions *options, GError **error)
{
  g_autoptr (MiModels) models = load_models ();
  SimSources sources = { mi_crypto_random, NULL, models };
  SimRandom deterministic;

  if (options->has_seed)
    {
      sim_random_init (&deterministic, (guint64) options->seed);
      sources.random = sim_random_draw;
      sources.random_data = &deterministic;
    }
  if (options->stdio)
    return run_stdio (options, &sources, error);
  if (options->fake_bluez)
    return run_fake_bluez (options, &sources, error);
  return run_peripheral (options, &sources, error);
}

static void
options_clear (SimOptions *options)
{
  g_free (options->bluez);
  g_free (options->bus);
  g_free (options->device);
  g_free (options->devices);
}

int
main (int argc, char **argv)
{
  SimOptions options = { .disconnect_delay_ms = 2000 }; /* as bluetoothd */
  g_autoptr (GError) error = NULL;
  int status;

  setlocale (LC_ALL, "");
  if (!parse_options (&options, &argc, &argv, &error))
    status = EXIT_USAGE;
  else if (options.version)
    status = printf ("mitherm-sim %s\n", MITHERM_VERSION) < 0;
  else
    status = run (&options, &error);
  if (error != NULL)
    g_printerr ("mitherm-sim: %s\n", error->message);
  options_clear (&options);
  return status;
}
