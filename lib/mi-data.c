/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-data-private.h"

#include <string.h>

#define SUFFIX ".conf"

void
mi_data_problem (GPtrArray *problems, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  if (problems != NULL)
    g_ptr_array_add (problems, g_strdup_vprintf (format, args));
  va_end (args);
}

gboolean
mi_data_parse_number (const char *text, guint64 max, guint64 *out)
{
  gboolean hex = g_str_has_prefix (text, "0x") || g_str_has_prefix (text, "0X");

  return g_ascii_string_to_unsigned (hex ? text + 2 : text, hex ? 16 : 10, 0, max, out, NULL);
}

char **
mi_data_get_list (GKeyFile *file, const char *group, const char *key)
{
  char **list = g_key_file_get_string_list (file, group, key, NULL, NULL);
  guint i;

  if (list == NULL)
    return g_new0 (char *, 1);
  for (i = 0; list[i] != NULL; i++)
    g_strstrip (list[i]);
  return list;
}

/* Adds NAME -> path for every file of the folder; a folder that is not there is empty. */
static void
list_folder (GHashTable *files, const char *base, const char *folder, GPtrArray *problems)
{
  g_autofree char *path = g_build_filename (base, folder, NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (GDir) dir = g_dir_open (path, 0, &error);
  const char *name;

  if (dir == NULL)
    {
      if (!g_error_matches (error, G_FILE_ERROR, G_FILE_ERROR_NOENT))
        mi_data_problem (problems, "%s: %s", path, error->message);
      return;
    }
  while ((name = g_dir_read_name (dir)) != NULL)
    {
      if (g_str_has_suffix (name, SUFFIX) && name[0] != '.')
        g_hash_table_replace (files, g_strdup (name), g_build_filename (path, name, NULL));
    }
}

void
mi_data_load (const char *data_dir, const char *conf_dir, const char *folder, MiDataFunc func,
              gpointer target, GPtrArray *problems)
{
  g_autoptr (GHashTable) files = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  g_autoptr (GList) names = NULL;
  GList *l;

  if (data_dir != NULL)
    list_folder (files, data_dir, folder, problems);
  if (conf_dir != NULL)
    list_folder (files, conf_dir, folder, problems);
  names = g_list_sort (g_hash_table_get_keys (files), (GCompareFunc) strcmp);
  for (l = names; l != NULL; l = l->next)
    {
      const char *path = g_hash_table_lookup (files, l->data);
      g_autoptr (GKeyFile) file = g_key_file_new ();
      g_autoptr (GError) error = NULL;

      if (g_key_file_load_from_file (file, path, G_KEY_FILE_NONE, &error))
        func (target, file, path, problems);
      else
        mi_data_problem (problems, "%s: %s", path, error->message);
    }
}
