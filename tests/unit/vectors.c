/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "vectors.h"

#include "mi-bytes.h"

#include <string.h>

static GPtrArray *parsers;

JsonObject *
vectors_load (const char *name)
{
  const char *folder = g_getenv ("MITHERM_VECTORS");
  g_autofree char *file = g_strconcat (name, ".json", NULL);
  g_autofree char *path = NULL;
  g_autoptr (GError) error = NULL;
  JsonParser *parser = json_parser_new ();

  if (folder == NULL)
    g_error ("MITHERM_VECTORS names no folder");
  path = g_build_filename (folder, file, NULL);
  json_parser_load_from_file (parser, path, &error);
  g_assert_no_error (error);
  if (parsers == NULL)
    parsers = g_ptr_array_new ();
  g_ptr_array_add (parsers, parser);
  return json_node_get_object (json_parser_get_root (parser));
}

guint8 *
vectors_hex (const char *hex, gsize *len)
{
  guint8 *bytes = mi_hex_decode_alloc (hex, len);

  g_assert_nonnull (bytes);
  return bytes;
}

guint8 *
vectors_bytes (JsonObject *object, const char *member, gsize *len)
{
  *len = 0;
  if (!json_object_has_member (object, member) || json_object_get_null_member (object, member))
    return NULL;
  return vectors_hex (json_object_get_string_member (object, member), len);
}

char *
vectors_path (const char *prefix, const char *name)
{
  g_autofree char *clean = g_ascii_strdown (name, -1);

  g_strcanon (clean, "abcdefghijklmnopqrstuvwxyz0123456789.", '-');
  return g_strconcat (prefix, "/", clean, NULL);
}
