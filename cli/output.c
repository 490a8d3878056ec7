/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "output.h"

#include <json-glib/json-glib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct _Table
{
  guint columns;
  GPtrArray *cells;
};

Table *
table_new (guint columns)
{
  Table *self = g_new0 (Table, 1);

  self->columns = columns;
  self->cells = g_ptr_array_new_with_free_func (g_free);
  return self;
}

void
table_free (Table *self)
{
  g_ptr_array_unref (self->cells);
  g_free (self);
}

void
table_add (Table *self, ...)
{
  va_list cells;
  const char *cell;

  va_start (cells, self);
  while ((cell = va_arg (cells, const char *)) != NULL)
    g_ptr_array_add (self->cells, output_clean (cell));
  va_end (cells);
  g_return_if_fail (self->cells->len % self->columns == 0);
}

void
table_print (Table *self)
{
  table_print_with_end (self, "\n");
}

void
table_print_with_end (Table *self, const char *end)
{
  g_autofree int *widths = g_new0 (int, self->columns);

  for (guint i = 0; i < self->cells->len; i++)
    {
      int width = (int) g_utf8_strlen (self->cells->pdata[i], -1);
      widths[i % self->columns] = MAX (widths[i % self->columns], width);
    }
  for (guint i = 0; i < self->cells->len; i++)
    {
      const char *cell = self->cells->pdata[i];
      gboolean last = i % self->columns == self->columns - 1;
      int pad = last ? 0 : widths[i % self->columns] - (int) g_utf8_strlen (cell, -1) + 2;

      printf ("%s%*s%s", cell, pad, "", last ? end : "");
    }
}

char *
output_age (guint64 time_us)
{
  gint64 seconds = (g_get_real_time () - (gint64) time_us) / G_USEC_PER_SEC;

  if (time_us == 0)
    return g_strdup ("never");
  if (seconds < 2)
    return g_strdup ("now");
  if (seconds < 120)
    return g_strdup_printf ("%" G_GINT64_FORMAT " s ago", seconds);
  if (seconds < 7200)
    return g_strdup_printf ("%" G_GINT64_FORMAT " min ago", seconds / 60);
  return g_strdup_printf ("%" G_GINT64_FORMAT " h ago", seconds / 3600);
}

char *
output_bytes (double bytes)
{
  if (bytes < 1000)
    return g_strdup_printf ("%.0f B", bytes);
  return g_strdup_printf ("%.1f kB", bytes / 1000);
}

char *
output_clean (const char *text)
{
  g_autofree char *valid = g_utf8_make_valid (text, -1);
  GString *clean = g_string_new (NULL);

  for (const char *p = valid; *p != '\0'; p = g_utf8_next_char (p))
    {
      gunichar c = g_utf8_get_char (p);
      g_string_append_unichar (clean, g_unichar_iscntrl (c) ? '?' : c);
    }
  return g_string_free (clean, FALSE);
}

void
output_json (GVariant *value)
{
  g_autoptr (GVariant) sunk = g_variant_ref_sink (value);
  g_autofree char *text = json_gvariant_serialize_data (sunk, NULL);

  printf ("%s\n", text);
  fflush (stdout);
}

/* JSON has no NaN: a value that is not there is null. */
static GVariant *
null_for_nan (GVariant *value)
{
  if (value == NULL || !g_variant_is_of_type (value, G_VARIANT_TYPE_DOUBLE)
      || !isnan (g_variant_get_double (value)))
    return value;
  g_variant_unref (value);
  return g_variant_ref_sink (g_variant_new_maybe (G_VARIANT_TYPE_DOUBLE, NULL));
}

GVariant *
output_properties (GDBusProxy *proxy)
{
  GDBusInterfaceInfo *info = g_dbus_interface_get_info (G_DBUS_INTERFACE (proxy));
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_VARDICT);
  /* What mithermctl cancel takes; its other properties do not tell. */
  if (g_str_equal (info->name, "org.mitherm.Job1"))
    g_variant_builder_add (&builder, "{sv}", "Job",
                           g_variant_new_object_path (g_dbus_proxy_get_object_path (proxy)));
  for (guint i = 0; info->properties != NULL && info->properties[i] != NULL; i++)
    {
      const char *name = info->properties[i]->name;
      g_autoptr (GVariant) value = null_for_nan (g_dbus_proxy_get_cached_property (proxy, name));

      if (value != NULL)
        g_variant_builder_add (&builder, "{sv}", name, value);
    }
  return g_variant_builder_end (&builder);
}

/* "replay 3, no_key 12" */
static char *
counts_text (GVariant *counts)
{
  GString *text = g_string_new (NULL);
  GVariantIter iter;
  const char *name;
  guint32 count;

  g_variant_iter_init (&iter, counts);
  while (g_variant_iter_next (&iter, "{&su}", &name, &count))
    g_string_append_printf (text, "%s%s %u", text->len > 0 ? ", " : "", name, count);
  if (text->len == 0)
    g_string_append_c (text, '-');
  return g_string_free (text, FALSE);
}

static char *
value_text (const char *name, GVariant *value)
{
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_UINT64)
      && (g_str_equal (name, "LastSeen") || g_str_equal (name, "Updated")))
    return output_age (g_variant_get_uint64 (value));
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_STRING)
      || g_variant_is_of_type (value, G_VARIANT_TYPE_OBJECT_PATH))
    return output_clean (g_variant_get_string (value, NULL));
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_BOOLEAN))
    return g_strdup (g_variant_get_boolean (value) ? "yes" : "no");
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_STRING_ARRAY))
    {
      g_autofree const char **items = g_variant_get_strv (value, NULL);
      g_autofree char *joined = g_strjoinv (", ", (char **) items);
      return output_clean (joined);
    }
  if (g_variant_is_of_type (value, G_VARIANT_TYPE ("a{su}")))
    return counts_text (value);
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_MAYBE))
    return g_strdup ("-");
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_DOUBLE))
    return g_strdup_printf ("%g", g_variant_get_double (value));
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_BYTE))
    return g_strdup_printf ("%u", g_variant_get_byte (value));
  return g_variant_print (value, FALSE);
}

/* What people look for first, then the rest by name. */
static int
fact_rank (const char *name)
{
  static const char *const first[] = { "Address",        "Name", "Model",  "Firmware", "version",
                                       "version-before", "kind", "models", "verdict" };

  for (guint i = 0; i < G_N_ELEMENTS (first); i++)
    if (g_str_equal (name, first[i]))
      return (int) i;
  return G_N_ELEMENTS (first);
}

static int
by_rank_and_name (gconstpointer a, gconstpointer b)
{
  const char *left = *(const char *const *) a, *right = *(const char *const *) b;
  int difference = fact_rank (left) - fact_rank (right);

  return difference != 0 ? difference : strcmp (left, right);
}

/* (transfer container): the keys of an a{sv}, in the order in which people read them */
static GPtrArray *
sorted_names (GVariant *facts)
{
  GPtrArray *names = g_ptr_array_new ();
  GVariantIter iter;
  const char *name;

  g_variant_iter_init (&iter, facts);
  while (g_variant_iter_next (&iter, "{&sv}", &name, NULL))
    g_ptr_array_add (names, (gpointer) name);
  g_ptr_array_sort (names, by_rank_and_name);
  return names;
}

void
output_facts (GVariant *facts, int indent)
{
  g_autoptr (GPtrArray) names = sorted_names (facts);

  for (guint n = 0; n < names->len; n++)
    {
      const char *name = names->pdata[n];
      g_autoptr (GVariant) child = g_variant_lookup_value (facts, name, NULL);

      if (g_variant_is_of_type (child, G_VARIANT_TYPE_VARDICT))
        {
          printf ("%*s%s:\n", indent, "", name);
          output_facts (child, indent + 2);
        }
      else if (g_variant_is_of_type (child, G_VARIANT_TYPE ("aa{sv}")))
        {
          for (gsize i = 0; i < g_variant_n_children (child); i++)
            {
              g_autoptr (GVariant) item = g_variant_get_child_value (child, i);
              printf ("%*s%s %" G_GSIZE_FORMAT ":\n", indent, "", name, i + 1);
              output_facts (item, indent + 2);
            }
        }
      else
        {
          g_autofree char *text = value_text (name, child);
          printf ("%*s%s: %s\n", indent, "", name, text);
        }
    }
}
