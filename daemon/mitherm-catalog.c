/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-catalog.h"

#include <errno.h>
#include <string.h>

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>

#include "mitherm-error.h"

#define INDEX_NAME "index.conf"
#define SHA256_LEN 64
#define NAME_LEN   128
/* json-glib recurses without a limit; no index opens that many brackets, nested or not. */
#define OPENED_MAX 256

typedef struct
{
  char *sha256;
  char *name;
  char *version;
  char *kind;
  char **models;
  guint32 size;
  GArray *hardware_ids; /* of guint32 */
  gboolean custom;
} Entry;

struct _MithermCatalog
{
  char *dir;
  MiModels *models;
  const guint8 *roots;
  gsize n_roots;
  GPtrArray *entries; /* of Entry */
  /* model, hardware and version -> Entry, nullable: most thermometers are alike */
  GHashTable *offers;
};

struct _MithermCatalogIndex
{
  char *custom_version;   /* (nullable) */
  GHashTable *custom_ids; /* base name -> GArray of guint32 */
  GHashTable *original_ids;
};

static void
entry_free (gpointer data)
{
  Entry *entry = data;

  g_free (entry->sha256);
  g_free (entry->name);
  g_free (entry->version);
  g_free (entry->kind);
  g_strfreev (entry->models);
  g_array_unref (entry->hardware_ids);
  g_free (entry);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Entry, entry_free)

/* firmware.json */

gboolean
mitherm_catalog_index_is (GBytes *file)
{
  gsize len;
  const char *text = g_bytes_get_data (file, &len);
  gsize i = 0;

  while (i < len && g_ascii_isspace (text[i]))
    i++;
  return i < len && text[i] == '{';
}

static void
read_names (JsonObject *object, const char *member, GHashTable *ids)
{
  JsonNode *node = json_object_get_member (object, member);
  JsonArray *names
      = node != NULL && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;

  for (guint32 i = 0; names != NULL && i < json_array_get_length (names); i++)
    {
      JsonNode *item = json_array_get_element (names, i);
      const char *path = JSON_NODE_HOLDS_VALUE (item) ? json_node_get_string (item) : NULL;
      g_autofree char *base = NULL;
      GArray *list;

      if (path == NULL || g_str_equal (path, "?"))
        continue;
      base = g_path_get_basename (path);
      list = g_hash_table_lookup (ids, base);
      if (list == NULL)
        {
          list = g_array_new (FALSE, FALSE, sizeof i);
          g_hash_table_insert (ids, g_steal_pointer (&base), list);
        }
      g_array_append_val (list, i);
    }
}

static gboolean
is_flat (const char *text, gsize len)
{
  guint opened = 0;

  for (gsize i = 0; i < len; i++)
    opened += text[i] == '{' || text[i] == '[';
  return opened <= OPENED_MAX;
}

MithermCatalogIndex *
mitherm_catalog_index_new (GBytes *file, GError **error)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (MithermCatalogIndex) self = NULL;
  JsonObject *object;
  JsonNode *version;
  gsize len;
  const char *text = g_bytes_get_data (file, &len);

  if (len == 0 || !is_flat (text, len)
      || !json_parser_load_from_data (parser, text, (gssize) len, NULL)
      || json_parser_get_root (parser) == NULL
      || !JSON_NODE_HOLDS_OBJECT (json_parser_get_root (parser)))
    {
      g_set_error_literal (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                           "The index of the firmware files is not a JSON object.");
      return NULL;
    }
  object = json_node_get_object (json_parser_get_root (parser));
  self = g_new0 (MithermCatalogIndex, 1);
  self->custom_ids
      = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, (GDestroyNotify) g_array_unref);
  self->original_ids
      = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, (GDestroyNotify) g_array_unref);
  version = json_object_get_member (object, "version");
  if (version != NULL && JSON_NODE_HOLDS_VALUE (version)
      && json_node_get_value_type (version) == G_TYPE_INT64)
    {
      gint64 number = json_node_get_int (version); /* 88 = 0x58 = 5.8 */

      self->custom_version
          = g_strdup_printf ("V%d.%d", (int) (number >> 4 & 0xf), (int) (number & 0xf));
    }
  read_names (object, "custom", self->custom_ids);
  read_names (object, "original", self->original_ids);
  return g_steal_pointer (&self);
}

void
mitherm_catalog_index_free (MithermCatalogIndex *self)
{
  if (self == NULL)
    return;
  g_free (self->custom_version);
  g_hash_table_unref (self->custom_ids);
  g_hash_table_unref (self->original_ids);
  g_free (self);
}

/* On disk */

static char *
file_path (MithermCatalog *self, const char *sha256)
{
  g_autofree char *name = g_strconcat (sha256, ".bin", NULL);

  return g_build_filename (self->dir, name, NULL);
}

static gboolean
is_sha256 (const char *text)
{
  return strlen (text) == SHA256_LEN && strspn (text, "0123456789abcdef") == SHA256_LEN;
}

static void
read_entry (MithermCatalog *self, GKeyFile *file, const char *group)
{
  g_autoptr (Entry) entry = g_new0 (Entry, 1);
  g_autofree gint *ids = NULL;
  gsize n_ids = 0;

  entry->hardware_ids = g_array_new (FALSE, FALSE, sizeof (guint32));
  if (!is_sha256 (group) || self->entries->len >= MITHERM_CATALOG_MAX)
    return;
  entry->sha256 = g_strdup (group);
  entry->name = g_key_file_get_string (file, group, "Name", NULL);
  entry->version = g_key_file_get_string (file, group, "Version", NULL);
  entry->kind = g_key_file_get_string (file, group, "Kind", NULL);
  entry->models = g_key_file_get_string_list (file, group, "Models", NULL, NULL);
  entry->size = (guint32) MAX (g_key_file_get_integer (file, group, "Size", NULL), 0);
  entry->custom = g_key_file_get_boolean (file, group, "Custom", NULL);
  ids = g_key_file_get_integer_list (file, group, "HardwareIds", &n_ids, NULL);
  g_array_append_vals (entry->hardware_ids, ids, (guint) n_ids);
  if (entry->version == NULL || entry->kind == NULL)
    {
      g_warning ("%s/" INDEX_NAME ": [%s] is not complete and left out", self->dir, group);
      return;
    }
  if (entry->models == NULL)
    entry->models = g_new0 (char *, 1);
  g_ptr_array_add (self->entries, g_steal_pointer (&entry));
}

static void
read_entries (MithermCatalog *self)
{
  g_autofree char *path = g_build_filename (self->dir, INDEX_NAME, NULL);
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) groups = NULL;

  if (!g_key_file_load_from_file (file, path, G_KEY_FILE_NONE, &error))
    {
      if (!g_error_matches (error, G_FILE_ERROR, G_FILE_ERROR_NOENT))
        g_warning ("%s: %s; the catalogue is empty", path, error->message);
      return;
    }
  groups = g_key_file_get_groups (file, NULL);
  for (char **group = groups; *group != NULL; group++)
    read_entry (self, file, *group);
}

static gboolean
write_file (const char *path, const char *data, gsize len, GError **error)
{
  g_autoptr (GError) local = NULL;

  if (g_file_set_contents_full (path, data, (gssize) len,
                                G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE, 0600,
                                &local))
    return TRUE;
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE, "The catalogue cannot be written: %s",
               local->message);
  return FALSE;
}

static gboolean
write_entries (MithermCatalog *self, GError **error)
{
  g_autofree char *path = g_build_filename (self->dir, INDEX_NAME, NULL);
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autofree char *text = NULL;
  gsize len;

  for (guint i = 0; i < self->entries->len; i++)
    {
      const Entry *entry = g_ptr_array_index (self->entries, i);

      g_key_file_set_string (file, entry->sha256, "Name", entry->name != NULL ? entry->name : "");
      g_key_file_set_string (file, entry->sha256, "Version", entry->version);
      g_key_file_set_string (file, entry->sha256, "Kind", entry->kind);
      g_key_file_set_string_list (file, entry->sha256, "Models",
                                  (const char *const *) entry->models,
                                  g_strv_length (entry->models));
      g_key_file_set_integer (file, entry->sha256, "Size", (gint) entry->size);
      g_key_file_set_boolean (file, entry->sha256, "Custom", entry->custom);
      if (entry->hardware_ids->len > 0)
        g_key_file_set_integer_list (file, entry->sha256, "HardwareIds",
                                     (gint *) (gpointer) entry->hardware_ids->data,
                                     entry->hardware_ids->len);
    }
  text = g_key_file_to_data (file, &len, NULL);
  return write_file (path, text, len, error);
}

static GBytes *
read_image (MithermCatalog *self, const Entry *entry, GError **error)
{
  g_autofree char *path = file_path (self, entry->sha256);
  g_autofree char *sha256 = NULL;
  g_autoptr (GError) local = NULL;
  g_autoptr (GBytes) file = NULL;
  char *data;
  gsize len;

  if (!g_file_get_contents (path, &data, &len, &local))
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE, "%s", local->message);
      return NULL;
    }
  file = g_bytes_new_take (data, len);
  sha256 = g_compute_checksum_for_bytes (G_CHECKSUM_SHA256, file);
  if (!g_str_equal (sha256, entry->sha256))
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE,
                   "%s is not the file any more that was added.", path);
      return NULL;
    }
  return g_steal_pointer (&file);
}

static MiImage *
inspect (MithermCatalog *self, GBytes *file)
{
  if (self->n_roots == 0)
    return mi_image_new (file, NULL);
  return mi_image_new_with_roots (file, self->roots, self->n_roots);
}

/* Adding */

static Entry *
find_entry (MithermCatalog *self, const char *sha256)
{
  for (guint i = 0; i < self->entries->len; i++)
    {
      Entry *entry = g_ptr_array_index (self->entries, i);

      if (g_str_equal (entry->sha256, sha256))
        return entry;
    }
  return NULL;
}

static gboolean
refuse (GError **error, const char *name, const char *reason)
{
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BAD_IMAGE, "%s%s%s.", name != NULL ? name : "",
               name != NULL ? ": " : "", reason);
  return FALSE;
}

static gboolean
check_offered (MithermCatalog *self, MiImage *image, const char *name, GError **error)
{
  g_autoptr (GError) local = NULL;

  if (!mi_image_check (image, &local))
    return refuse (error, name, local->message);
  if (mi_models_image_is_readout (self->models, image))
    return refuse (error, name, "it is the read-out of a flash, not a file for updates");
  if (mi_models_get_image_version (self->models, image) == NULL)
    return refuse (error, name, "its version cannot be told");
  if (!mi_models_image_is_offered (self->models, image))
    return refuse (error, name,
                   "it is not to be offered: its kind is unknown, it is damaged, or a read-out");
  return TRUE;
}

static gboolean
is_for_any (MithermCatalog *self, char **models, const GArray *ids)
{
  gboolean told = FALSE;

  for (guint i = 0; i < ids->len; i++)
    {
      const MiModel *model
          = mi_models_find_by_hardware_id (self->models, g_array_index (ids, guint32, i));

      told |= model != NULL;
      if (model != NULL
          && g_strv_contains ((const char *const *) models, mi_model_get_name (model)))
        return TRUE;
    }
  return !told || models[0] == NULL;
}

/* What the index says of a file has to agree with what is in the file. */
static gboolean
check_index (MithermCatalog *self, Entry *entry, const MithermCatalogIndex *index, GError **error)
{
  const GArray *custom = NULL, *original = NULL;

  if (index == NULL || entry->name == NULL)
    return TRUE;
  custom = g_hash_table_lookup (index->custom_ids, entry->name);
  original = g_hash_table_lookup (index->original_ids, entry->name);
  if ((custom != NULL && !entry->custom) || (original != NULL && custom == NULL && entry->custom))
    return refuse (error, entry->name, "it is of another kind than its index says");
  if (custom != NULL && index->custom_version != NULL
      && !mi_version_equal (entry->version, index->custom_version))
    return refuse (error, entry->name, "it has another version than its index says");
  if (custom == NULL)
    custom = original;
  if (custom == NULL)
    return TRUE;
  if (!is_for_any (self, entry->models, custom))
    return refuse (error, entry->name, "it is for other hardware than its index says");
  g_array_append_vals (entry->hardware_ids, custom->data, custom->len);
  return TRUE;
}

static char *
clean_name (const char *name)
{
  g_autofree char *base = NULL;
  g_autofree char *valid = NULL;

  if (name == NULL || *name == '\0')
    return NULL;
  base = g_path_get_basename (name);
  valid = g_utf8_make_valid (base, -1);
  for (char *at = valid; *at != '\0'; at = g_utf8_next_char (at))
    if (g_ascii_iscntrl (*at))
      *at = '?';
  return g_utf8_substring (valid, 0, MIN (g_utf8_strlen (valid, -1), NAME_LEN));
}

static gboolean
is_custom (MiImage *image)
{
  MiImageKind kind = mi_image_get_body_kind (image);

  return kind == MI_IMAGE_CUSTOM_PVVX || kind == MI_IMAGE_CUSTOM_ATC1441;
}

static Entry *
make_entry (MithermCatalog *self, MiImage *image, const char *name)
{
  g_autoptr (GVariant) facts = g_variant_ref_sink (mi_models_describe_image (self->models, image));
  Entry *entry = g_new0 (Entry, 1);

  entry->hardware_ids = g_array_new (FALSE, FALSE, sizeof (guint32));
  entry->sha256 = g_strdup (mi_image_get_sha256 (image));
  entry->name = clean_name (name);
  entry->version = g_strdup (mi_models_get_image_version (self->models, image));
  if (!g_variant_lookup (facts, "kind", "s", &entry->kind))
    entry->kind = g_strdup ("unknown");
  entry->models = mi_models_get_image_models (self->models, image);
  entry->size = (guint32) mi_image_get_file_size (image);
  entry->custom = is_custom (image);
  return entry;
}

static GVariant *
describe (const Entry *entry, gboolean tell_added, gboolean added)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (&builder, "{sv}", "name",
                         g_variant_new_string (entry->name != NULL ? entry->name : ""));
  g_variant_builder_add (&builder, "{sv}", "sha256", g_variant_new_string (entry->sha256));
  g_variant_builder_add (&builder, "{sv}", "version", g_variant_new_string (entry->version));
  g_variant_builder_add (&builder, "{sv}", "kind", g_variant_new_string (entry->kind));
  g_variant_builder_add (&builder, "{sv}", "models",
                         g_variant_new_strv ((const char *const *) entry->models, -1));
  g_variant_builder_add (&builder, "{sv}", "size", g_variant_new_uint32 (entry->size));
  g_variant_builder_add (&builder, "{sv}", "hardware-ids",
                         g_variant_new_fixed_array (G_VARIANT_TYPE_UINT32,
                                                    entry->hardware_ids->data,
                                                    entry->hardware_ids->len, sizeof (guint32)));
  if (tell_added)
    g_variant_builder_add (&builder, "{sv}", "added", g_variant_new_boolean (added));
  return g_variant_builder_end (&builder);
}

static gboolean
store_entry (MithermCatalog *self, Entry *entry, GBytes *file, GError **error)
{
  g_autofree char *path = file_path (self, entry->sha256);
  gsize len;
  const char *data = g_bytes_get_data (file, &len);

  if (g_mkdir_with_parents (self->dir, 0700) < 0)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE, "%s: %s", self->dir,
                   g_strerror (errno));
      return FALSE;
    }
  if (!write_file (path, data, len, error))
    return FALSE;
  g_ptr_array_add (self->entries, entry);
  if (write_entries (self, error))
    return TRUE;
  g_ptr_array_steal_index (self->entries, self->entries->len - 1);
  g_unlink (path);
  return FALSE;
}

GVariant *
mitherm_catalog_add (MithermCatalog *self, GBytes *file, const char *name,
                     const MithermCatalogIndex *index, GError **error)
{
  g_autoptr (MiImage) image = inspect (self, file);
  g_autoptr (Entry) entry = NULL;
  const Entry *known = find_entry (self, mi_image_get_sha256 (image));

  if (!check_offered (self, image, name, error))
    return NULL;
  if (known != NULL)
    return describe (known, TRUE, FALSE);
  entry = make_entry (self, image, name);
  if (!check_index (self, entry, index, error))
    return NULL;
  if (self->entries->len >= MITHERM_CATALOG_MAX)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE,
                   "The catalogue holds %u files already; remove some.", self->entries->len);
      return NULL;
    }
  if (!store_entry (self, entry, file, error))
    return NULL;
  g_hash_table_remove_all (self->offers);
  known = g_steal_pointer (&entry);
  return describe (known, TRUE, TRUE);
}

gboolean
mitherm_catalog_remove (MithermCatalog *self, const char *sha256, GError **error)
{
  Entry *found = NULL;
  guint index = 0;
  g_autofree char *path = NULL;

  for (guint i = 0; i < self->entries->len && strlen (sha256) >= 8; i++)
    {
      Entry *entry = g_ptr_array_index (self->entries, i);

      if (!g_str_has_prefix (entry->sha256, sha256))
        continue;
      found = entry;
      index = i;
    }
  if (found == NULL)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND,
                   "No file of the catalogue has a SHA-256 that begins with \"%s\" (8 digits are "
                   "wanted at least).",
                   sha256);
      return FALSE;
    }
  path = file_path (self, found->sha256);
  g_hash_table_remove_all (self->offers);
  g_ptr_array_steal_index (self->entries, index);
  if (!write_entries (self, error))
    {
      g_ptr_array_insert (self->entries, (gint) index, found);
      return FALSE;
    }
  entry_free (found);
  if (g_unlink (path) < 0)
    g_warning ("%s: %s", path, g_strerror (errno));
  return TRUE;
}

GVariant *
mitherm_catalog_list (MithermCatalog *self)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("aa{sv}"));
  for (guint i = 0; i < self->entries->len; i++)
    g_variant_builder_add_value (&builder,
                                 describe (g_ptr_array_index (self->entries, i), FALSE, FALSE));
  return g_variant_builder_end (&builder);
}

/* Offering */

static gboolean
fits (MithermCatalog *self, const Entry *entry, const MiModel *model, const char *hardware,
      const char *running, gboolean no_risk)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) file = NULL;
  g_autoptr (MiImage) image = NULL;

  /* Cheap, before the file is read. */
  if (entry->models[0] != NULL
      && !g_strv_contains ((const char *const *) entry->models, mi_model_get_name (model)))
    return FALSE;
  file = read_image (self, entry, &error);
  if (error != NULL)
    {
      g_warning ("catalogue: %s", error->message);
      return FALSE;
    }
  image = inspect (self, file);
  if (!mi_models_image_is_offered (self->models, image)
      || mi_models_fit (self->models, model, hardware, running, image, NULL) != MI_FIT_YES)
    return FALSE;
  return !no_risk || mi_image_is_signed (image)
         || mi_models_get_signed (self->models, model, running) == MI_SIGNED_NOT_REQUIRED;
}

static Entry *
find_offer (MithermCatalog *self, const MiModel *model, const char *hardware, const char *running)
{
  Entry *best = NULL;

  for (guint i = 0; i < self->entries->len; i++)
    {
      Entry *entry = g_ptr_array_index (self->entries, i);
      int order;

      if (entry->custom != mi_version_is_custom (running)
          || !mi_version_compare (entry->version, best != NULL ? best->version : running, &order)
          || order <= 0)
        continue;
      if (fits (self, entry, model, hardware, running, TRUE))
        best = entry;
    }
  return best;
}

static Entry *
get_offer (MithermCatalog *self, const MiModel *model, const char *hardware, const char *running)
{
  g_autofree char *key = NULL;
  gpointer found;

  if (model == NULL || running == NULL || *running == '\0' || self->entries->len == 0)
    return NULL;
  key = g_strjoin ("\t", mi_model_get_name (model), hardware != NULL ? hardware : "", running,
                   NULL);
  if (g_hash_table_lookup_extended (self->offers, key, NULL, &found))
    return found;
  /* What devices answer may be anything. */
  if (g_hash_table_size (self->offers) >= MITHERM_CATALOG_MAX)
    g_hash_table_remove_all (self->offers);
  found = find_offer (self, model, hardware, running);
  g_hash_table_insert (self->offers, g_steal_pointer (&key), found);
  return found;
}

const char *
mitherm_catalog_get_offer (MithermCatalog *self, const MiModel *model, const char *hardware,
                           const char *running)
{
  const Entry *entry = get_offer (self, model, hardware, running);

  return entry != NULL ? g_intern_string (entry->version) : NULL;
}

static Entry *
find_version (MithermCatalog *self, const MiModel *model, const char *hardware, const char *running,
              const char *version)
{
  for (guint i = 0; model != NULL && i < self->entries->len; i++)
    {
      Entry *entry = g_ptr_array_index (self->entries, i);

      if (mi_version_equal (entry->version, version)
          && fits (self, entry, model, hardware, running, FALSE))
        return entry;
    }
  return NULL;
}

GBytes *
mitherm_catalog_load (MithermCatalog *self, const MiModel *model, const char *hardware,
                      const char *running, const char *version, GError **error)
{
  const Entry *entry = version != NULL ? find_version (self, model, hardware, running, version)
                                       : get_offer (self, model, hardware, running);

  if (entry != NULL)
    return read_image (self, entry, error);
  if (version != NULL)
    g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND,
                 "The catalogue has no version %s that fits this thermometer.", version);
  else if (model == NULL || running == NULL || *running == '\0')
    g_set_error_literal (error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND,
                         "Model and version of the thermometer are not known yet: read them first "
                         "(ReadInfo, mithermctl info --read).");
  else
    g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND,
                 "The catalogue has nothing newer than %s for this thermometer.", running);
  return NULL;
}

/* Construction */

MithermCatalog *
mitherm_catalog_new (const char *state_dir, MiModels *models, const guint8 *roots, gsize n_roots)
{
  MithermCatalog *self = g_new0 (MithermCatalog, 1);

  self->dir = g_build_filename (state_dir, "catalog", NULL);
  self->models = models;
  self->roots = roots;
  self->n_roots = n_roots;
  self->entries = g_ptr_array_new_with_free_func (entry_free);
  self->offers = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  read_entries (self);
  return self;
}

void
mitherm_catalog_free (MithermCatalog *self)
{
  if (self == NULL)
    return;
  g_hash_table_unref (self->offers);
  g_ptr_array_unref (self->entries);
  g_free (self->dir);
  g_free (self);
}
