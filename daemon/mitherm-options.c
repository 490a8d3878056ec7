/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-options.h"

#include "mitherm-error.h"

static void
take_value (GVariant *value, const MithermOption *option)
{
  const char *type = option->type;

  if (g_str_equal (type, "as"))
    *(char ***) option->out = g_variant_dup_strv (value, NULL);
  else if (g_str_equal (type, "ah"))
    *(GVariant **) option->out = g_variant_ref (value);
  else if (g_str_equal (type, "s") || g_str_equal (type, "o"))
    *(char **) option->out = g_variant_dup_string (value, NULL);
  else
    g_variant_get (value, type, option->out); /* b, u, x, h: plain values */
}

static const MithermOption *
find_option (const MithermOption *known, gsize n_known, const char *key)
{
  for (gsize i = 0; i < n_known; i++)
    {
      if (g_str_equal (known[i].key, key))
        return &known[i];
    }
  return NULL;
}

static char *
list_keys (const MithermOption *known, gsize n_known)
{
  GString *text = g_string_new (NULL);

  for (gsize i = 0; i < n_known; i++)
    g_string_append_printf (text, "%s%s (%s)", i > 0 ? ", " : "", known[i].key, known[i].type);
  return g_string_free (text, FALSE);
}

/* Checked whole before anything is taken, so that a refusal leaves nothing to free. */
static gboolean
check_options (GVariant *options, const MithermOption *known, gsize n_known, GError **error)
{
  GVariantIter iter;
  const char *key;
  GVariant *item;

  g_variant_iter_init (&iter, options);
  while (g_variant_iter_next (&iter, "{&sv}", &key, &item))
    {
      g_autoptr (GVariant) value = item;
      const MithermOption *option = find_option (known, n_known, key);

      if (option == NULL)
        {
          g_autofree char *keys = list_keys (known, n_known);

          g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                       "Unknown option \"%s\"; %s%s.", key,
                       n_known > 0 ? "known here: " : "there are none here", keys);
          return FALSE;
        }
      if (!g_variant_is_of_type (value, G_VARIANT_TYPE (option->type)))
        {
          g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                       "Option \"%s\" has type %s, wanted is %s.", key,
                       g_variant_get_type_string (value), option->type);
          return FALSE;
        }
    }
  return TRUE;
}

gboolean
mitherm_options_parse (GVariant *options, const MithermOption *known, gsize n_known, GError **error)
{
  if (!check_options (options, known, n_known, error))
    return FALSE;
  for (gsize i = 0; i < n_known; i++)
    {
      g_autoptr (GVariant) value = g_variant_lookup_value (options, known[i].key, NULL);

      if (value != NULL)
        take_value (value, &known[i]);
    }
  return TRUE;
}
