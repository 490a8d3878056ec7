/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <string.h>

#include "mi-bytes.h"
#include "mitherm-job-private.h"

/* The job "clock": sets the time of a thermometer (protocol/gatt.md section 4, ccb7). */

#define LEN_PLAIN    4 /* u32 seconds */
#define LEN_HOURS    5 /* and i8 hours of the zone */
#define LEN_QUARTERS 6 /* and i8 quarters of an hour */
#define QUARTER_S    900
#define HOUR_S       3600
/* The clock goes on between the write and the look at it. */
#define TOLERANCE_S 10

typedef struct
{
  gint64 time_s; /* -1: now */
  GTimeZone *zone;
  guint8 value[LEN_QUARTERS];
  gsize len;
} Clock;

static void
clock_free (gpointer data)
{
  Clock *clock = data;

  g_time_zone_unref (clock->zone);
  g_free (clock);
}

static gint32
offset_at (GTimeZone *zone, gint64 time_s)
{
  return g_time_zone_get_offset (zone,
                                 g_time_zone_find_interval (zone, G_TIME_TYPE_UNIVERSAL, time_s));
}

/*
 * The device adds the zone to what it shows. A part of the zone for which its value has no room is
 * put into the time, so that at least what it shows is right.
 */
static void
encode (Clock *clock, gint64 time_s, gint32 offset_s)
{
  gint32 hours = offset_s / HOUR_S, rest_s = offset_s % HOUR_S, quarters = 0;

  if (clock->len == LEN_QUARTERS)
    {
      quarters = rest_s / QUARTER_S;
      rest_s %= QUARTER_S;
    }
  if (clock->len != LEN_PLAIN)
    time_s += rest_s;
  mi_put_u32 (clock->value, (guint32) time_s);
  clock->value[4] = (guint8) hours;
  clock->value[5] = (guint8) quarters;
}

static void
tell (MithermJob *self, gint64 time_s, gint32 offset_s, gint64 before_s)
{
  g_autofree char *zone = g_strdup_printf ("%c%02d:%02d", offset_s < 0 ? '-' : '+',
                                           ABS (offset_s) / HOUR_S, ABS (offset_s) % HOUR_S / 60);

  g_variant_dict_insert (&self->result, "time", "x", time_s);
  g_variant_dict_insert (&self->result, "before", "x", before_s);
  mitherm_job_result_string (self, "zone", zone);
}

static void start (MithermJob *self, const GError *error);

static void
on_read_back (MithermJob *self, const GError *error)
{
  Clock *clock = self->data;
  gsize len = 0;
  const guint8 *data = self->value != NULL ? g_bytes_get_data (self->value, &len) : NULL;
  gint64 off_s;

  if (error != NULL)
    {
      mitherm_job_repeat (self, error, start);
      return;
    }
  off_s = data != NULL && len == clock->len ? (gint64) mi_get_u32 (data) - mi_get_u32 (clock->value)
                                            : G_MAXINT64;
  if (off_s < 0 || off_s > TOLERANCE_S
      || (len > LEN_PLAIN && memcmp (data + LEN_PLAIN, clock->value + LEN_PLAIN, len - LEN_PLAIN)))
    {
      mitherm_job_fail_new (self, MITHERM_ERROR_PROTOCOL,
                            "The thermometer did not keep the time that it was given.");
      return;
    }
  mitherm_job_done (self);
}

static void
on_written (MithermJob *self, const GError *error)
{
  if (error != NULL)
    {
      mitherm_job_repeat (self, error, start);
      return;
    }
  mitherm_job_set_state (self, "verifying");
  mitherm_job_read (self, MI_CHANNEL_TIME, on_read_back);
}

static void
on_value (MithermJob *self, const GError *error)
{
  Clock *clock = self->data;
  const guint8 *data;
  gint64 time_s;
  gint32 offset_s;

  if (error != NULL)
    {
      mitherm_job_repeat (self, error, start);
      return;
    }
  data = g_bytes_get_data (self->value, &clock->len);
  if (clock->len < LEN_PLAIN || clock->len > LEN_QUARTERS)
    {
      mitherm_job_fail_new (self, MITHERM_ERROR_UNSUPPORTED,
                            "Its clock has a value of %" G_GSIZE_FORMAT
                            " bytes; 4, 5 and 6 are known.",
                            clock->len);
      return;
    }
  time_s = clock->time_s >= 0 ? clock->time_s : g_get_real_time () / G_USEC_PER_SEC;
  offset_s = offset_at (clock->zone, time_s);
  encode (clock, time_s, offset_s);
  tell (self, time_s, offset_s, mi_get_u32 (data));
  mitherm_job_write (self, MI_CHANNEL_TIME, clock->value, clock->len, on_written);
}

static void
on_connected (MithermJob *self, const GError *error)
{
  MiLinkFlags flags;

  if (error != NULL)
    {
      mitherm_job_fail (self, error);
      return;
    }
  flags = mi_link_get_flags (self->link, MI_CHANNEL_TIME);
  if ((flags & MI_LINK_READ) == 0 || (flags & MI_LINK_WRITE) == 0)
    {
      mitherm_job_fail_new (self, MITHERM_ERROR_UNSUPPORTED,
                            "The running firmware has no clock that can be set.");
      return;
    }
  mitherm_job_set_state (self, "info");
  mitherm_job_read (self, MI_CHANNEL_TIME, on_value);
}

static void
start (MithermJob *self, const GError *error)
{
  mitherm_job_connect (self, on_connected);
}

static const MithermJobKind clock_kind = {
  .name = "clock",
  .action = "configure",
  .start = start,
  .free_data = clock_free,
};

/*
 * GLib reads the file of that name, wherever it is and whatever is in it: only names of zones,
 * which begin with a capital letter, and offsets get there.
 */
static gboolean
is_zone (const char *zone)
{
  static const char digits[] = "0123456789:",
                    letters[] = G_CSET_A_2_Z G_CSET_a_2_z "0123456789_+-/";

  if (g_ascii_isupper (*zone))
    return strspn (zone, letters) == strlen (zone);
  if (*zone == '+' || *zone == '-')
    zone++;
  return strspn (zone, digits) == strlen (zone);
}

static GTimeZone *
parse_zone (const char *zone, GError **error)
{
  GTimeZone *found = NULL;

  if (zone == NULL || *zone == '\0')
    found = g_time_zone_new_local ();
  else if (is_zone (zone))
    found = g_time_zone_new_identifier (zone);
  if (found == NULL)
    g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                 "\"%s\" is no time zone: a name as Europe/Berlin, or +02:00, is wanted.", zone);
  return found;
}

MithermJob *
mitherm_job_clock_new (MithermDevice *device, gint64 time_s, const char *zone, GError **error)
{
  g_autoptr (GTimeZone) parsed = NULL;
  MithermJob *self;
  Clock *clock;

  /* Room for the zone's rest on both sides. */
  if (time_s < -1 || time_s > (gint64) G_MAXUINT32 - HOUR_S || (time_s >= 0 && time_s < HOUR_S))
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                   "Option \"time\" is %" G_GINT64_FORMAT
                   "; seconds since 1970 UTC are wanted, at most until 2106.",
                   time_s);
      return NULL;
    }
  parsed = parse_zone (zone, error);
  if (parsed == NULL || !mitherm_job_check_free (device, error))
    return NULL;
  clock = g_new0 (Clock, 1);
  clock->time_s = time_s;
  clock->zone = g_steal_pointer (&parsed);
  self = mitherm_job_new (device, &clock_kind, clock);
  mitherm_job_submit (self);
  return self;
}
