/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "app.h"

/* Seconds since 1970, or a date as in ISO 8601, local where it names no zone. */
static gboolean
parse_time (const char *text, gint64 *time_s)
{
  g_autoptr (GTimeZone) local = g_time_zone_new_local ();
  g_autoptr (GDateTime) date = NULL;

  if (g_ascii_string_to_signed (text, 10, 0, G_MAXINT64, time_s, NULL))
    return TRUE;
  date = g_date_time_new_from_iso8601 (text, local);
  if (date != NULL)
    *time_s = g_date_time_to_unix (date);
  return date != NULL;
}

static ExitStatus
set_clock (App *app, const char *name, GVariant *options, gboolean detach)
{
  g_autoptr (GVariant) sunk = g_variant_ref_sink (options);
  g_autoptr (MithermDBusDevice1) device = NULL;
  g_autofree char *job = NULL;
  g_autoptr (GError) error = NULL;
  ExitStatus status;

  device = app_find_device (app, name, &status);
  if (device == NULL)
    return status;
  if (!mitherm_dbus_device1_call_set_clock_sync (
          device, sunk, G_DBUS_CALL_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION, -1, &job, NULL, &error))
    return app_report (app, error);
  return app_take_job (app, job, detach);
}

static ExitStatus
run_clock (App *app, int argc, char **argv)
{
  g_autofree char *time = NULL;
  g_autofree char *zone = NULL;
  gboolean detach = FALSE;
  const GOptionEntry entries[]
      = { { "time", 't', 0, G_OPTION_ARG_STRING, &time,
            "Instead of now: seconds since 1970, or 2026-01-31T12:00:00", "TIME" },
          { "zone", 'z', 0, G_OPTION_ARG_STRING, &zone,
            "Instead of that of the daemon: Europe/Berlin or +02:00", "ZONE" },
          { "detach", 'd', 0, G_OPTION_ARG_NONE, &detach, "Print the job and do not wait for it",
            NULL },
          G_OPTION_ENTRY_NULL };
  g_auto (GVariantDict) options = G_VARIANT_DICT_INIT (NULL);
  gint64 time_s;

  app_parse (app, &cmd_clock, entries, &argc, &argv);
  if (argc > 2)
    return app_usage (&cmd_clock, "clock takes one thermometer at most");
  if (time != NULL && !parse_time (time, &time_s))
    return app_usage (&cmd_clock, "\"%s\" is no time", time);
  if (time != NULL)
    g_variant_dict_insert (&options, "time", "x", time_s);
  if (zone != NULL)
    g_variant_dict_insert (&options, "zone", "s", zone);
  return set_clock (app, argc > 1 ? argv[1] : NULL, g_variant_dict_end (&options), detach);
}

const Command cmd_clock
    = { "clock", "[DEV]", "set the clock of a thermometer",
        "DEV is an address, a unique name, or nothing when there is only one.\n"
        "Thermometers without a display of the time take it, too: they date their records by it.",
        run_clock };
