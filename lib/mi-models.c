/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-models.h"

#include "mi-data-private.h"

#include <string.h>

#define IMAGE_GROUP "image "
#define CUSTOM_TYPE 0x0200

struct _MiModel
{
  char *name;
  char **names;
  char **hardware;
  char *model_string;
  GArray *product_ids; /* guint16 */
  GArray *image_types; /* guint16 */
  gboolean any_image_type;
  char **variants; /* "0x0209:0026": a type and the hardware or version that shows it */
  char **image_strings;
  char **not_image_strings;
  char **transports;
  char **families;
  char **signed_from; /* "2.1.1:required" */
  char **builds;      /* "0130:1.0.0" */
  guint32 limit;
  guint min_battery;
};

/* A file known by its SHA-256. */
typedef struct
{
  char *version; /* (nullable) */
  char **models;
  gboolean readout;
} KnownImage;

struct _MiModels
{
  GPtrArray *models;  /* MiModel */
  GHashTable *images; /* hex SHA-256 -> KnownImage */
};

static void
model_free (gpointer data)
{
  MiModel *self = data;

  g_free (self->name);
  g_strfreev (self->names);
  g_strfreev (self->hardware);
  g_free (self->model_string);
  g_clear_pointer (&self->product_ids, g_array_unref);
  g_clear_pointer (&self->image_types, g_array_unref);
  g_strfreev (self->variants);
  g_strfreev (self->image_strings);
  g_strfreev (self->not_image_strings);
  g_strfreev (self->transports);
  g_strfreev (self->families);
  g_strfreev (self->signed_from);
  g_strfreev (self->builds);
  g_free (self);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC (MiModel, model_free)

static void
known_image_free (gpointer data)
{
  KnownImage *self = data;

  g_free (self->version);
  g_strfreev (self->models);
  g_free (self);
}

/* Reading key files. */

static gboolean
read_ids (GKeyFile *file, const char *group, const char *key, GArray **out)
{
  g_auto (GStrv) list = mi_data_get_list (file, group, key);
  guint i;

  *out = g_array_new (FALSE, FALSE, sizeof (guint16));
  for (i = 0; list[i] != NULL; i++)
    {
      guint64 number;
      guint16 id;

      if (!mi_data_parse_number (list[i], G_MAXUINT16, &number))
        return FALSE;
      id = (guint16) number;
      g_array_append_val (*out, id);
    }
  return TRUE;
}

static gboolean
read_number (GKeyFile *file, const char *group, const char *key, guint32 *out)
{
  g_autofree char *text = g_key_file_get_string (file, group, key, NULL);
  guint64 number;

  if (text == NULL)
    return TRUE;
  if (!mi_data_parse_number (g_strstrip (text), G_MAXUINT32, &number))
    return FALSE;
  *out = (guint32) number;
  return TRUE;
}

/* Every item "LEFT:RIGHT". */
static gboolean
read_pairs (GKeyFile *file, const char *group, const char *key, char ***out)
{
  guint i;

  *out = mi_data_get_list (file, group, key);
  for (i = 0; (*out)[i] != NULL; i++)
    {
      const char *colon = strchr ((*out)[i], ':');

      if (colon == NULL || colon == (*out)[i] || colon[1] == '\0')
        return FALSE;
    }
  return TRUE;
}

/* Item @i of pairs: what stands before the colon into @left; Returns: what stands behind it */
static const char *
pair_right (const char *pair, char *left, gsize left_len)
{
  const char *colon = strchr (pair, ':');

  g_strlcpy (left, pair, MIN (left_len, (gsize) (colon - pair) + 1));
  return colon + 1;
}

static gboolean
parse_signed (const char *text, MiSigned *out)
{
  MiSigned state;

  for (state = MI_SIGNED_UNKNOWN; state <= MI_SIGNED_NOT_REQUIRED; state++)
    {
      if (g_str_equal (mi_signed_to_string (state), text))
        {
          *out = state;
          return TRUE;
        }
    }
  return FALSE;
}

static gboolean
check_signed (char **pairs)
{
  guint i;

  for (i = 0; pairs[i] != NULL; i++)
    {
      char version[32];
      const char *state = pair_right (pairs[i], version, sizeof version);
      MiSigned parsed;
      int order;

      if (!mi_version_compare (version, "0", &order) || !parse_signed (state, &parsed))
        return FALSE;
    }
  return TRUE;
}

/* Returns: the first key that cannot be read, NULL if all is well */
static const char *
read_model (MiModel *self, GKeyFile *file, const char *group)
{
  guint32 min_battery = 0;

  self->names = mi_data_get_list (file, group, "Names");
  self->hardware = mi_data_get_list (file, group, "Hardware");
  self->model_string = g_key_file_get_string (file, group, "ModelString", NULL);
  self->image_strings = mi_data_get_list (file, group, "ImageStrings");
  self->not_image_strings = mi_data_get_list (file, group, "NotImageStrings");
  self->transports = mi_data_get_list (file, group, "Transports");
  self->families = mi_data_get_list (file, group, "Families");
  self->any_image_type = g_key_file_get_boolean (file, group, "AnyImageType", NULL);
  if (!read_ids (file, group, "ProductIds", &self->product_ids))
    return "ProductIds";
  if (!read_ids (file, group, "ImageTypes", &self->image_types))
    return "ImageTypes";
  if (!read_pairs (file, group, "Variants", &self->variants))
    return "Variants";
  if (!read_pairs (file, group, "Builds", &self->builds))
    return "Builds";
  if (!read_pairs (file, group, "Signed", &self->signed_from) || !check_signed (self->signed_from))
    return "Signed";
  if (!read_number (file, group, "Limit", &self->limit))
    return "Limit";
  if (!read_number (file, group, "MinBattery", &min_battery))
    return "MinBattery";
  self->min_battery = min_battery;
  return NULL;
}

static void
report_unknown_keys (GKeyFile *file, const char *group, const char *const *known,
                     const char *origin, GPtrArray *problems)
{
  g_auto (GStrv) keys = g_key_file_get_keys (file, group, NULL, NULL);
  guint i;

  for (i = 0; keys != NULL && keys[i] != NULL; i++)
    {
      if (!g_strv_contains (known, keys[i]))
        mi_data_problem (problems, "%s: [%s]: unknown key %s ignored", origin, group, keys[i]);
    }
}

static void
add_model (MiModels *self, GKeyFile *file, const char *group, const char *origin,
           GPtrArray *problems)
{
  static const char *const known[]
      = { "Names",        "ProductIds",      "Hardware",     "ModelString", "Transports", "Limit",
          "Families",     "Signed",          "MinBattery",   "ImageTypes",  "Variants",   "Builds",
          "ImageStrings", "NotImageStrings", "AnyImageType", NULL };
  g_autoptr (MiModel) model = g_new0 (MiModel, 1);
  const char *bad;
  guint i;

  model->name = g_strdup (group);
  bad = read_model (model, file, group);
  if (bad != NULL)
    {
      mi_data_problem (problems, "%s: [%s]: %s cannot be read, model skipped", origin, group, bad);
      return;
    }
  report_unknown_keys (file, group, known, origin, problems);
  for (i = 0; i < self->models->len; i++)
    {
      MiModel *other = g_ptr_array_index (self->models, i);

      if (g_str_equal (other->name, group))
        {
          model_free (other);
          self->models->pdata[i] = g_steal_pointer (&model);
          return;
        }
    }
  g_ptr_array_add (self->models, g_steal_pointer (&model));
}

static gboolean
is_sha256 (const char *text)
{
  return text != NULL && strlen (text) == 64 && strspn (text, "0123456789abcdef") == 64;
}

static void
add_image (MiModels *self, GKeyFile *file, const char *group, const char *origin,
           GPtrArray *problems)
{
  static const char *const known[] = { "Sha256", "Version", "Models", "ReadOut", NULL };
  g_autofree char *sha256 = g_key_file_get_string (file, group, "Sha256", NULL);
  KnownImage *image;

  if (!is_sha256 (sha256))
    {
      mi_data_problem (problems, "%s: [%s]: Sha256 cannot be read, image skipped", origin, group);
      return;
    }
  report_unknown_keys (file, group, known, origin, problems);
  image = g_new0 (KnownImage, 1);
  image->version = g_key_file_get_string (file, group, "Version", NULL);
  image->models = mi_data_get_list (file, group, "Models");
  image->readout = g_key_file_get_boolean (file, group, "ReadOut", NULL);
  g_hash_table_replace (self->images, g_steal_pointer (&sha256), image);
}

void
mi_models_add_key_file (MiModels *self, GKeyFile *file, const char *origin, GPtrArray *problems)
{
  g_auto (GStrv) groups = g_key_file_get_groups (file, NULL);
  guint i;

  for (i = 0; groups[i] != NULL; i++)
    {
      if (g_str_has_prefix (groups[i], IMAGE_GROUP))
        add_image (self, file, groups[i], origin, problems);
      else
        add_model (self, file, groups[i], origin, problems);
    }
}

MiModels *
mi_models_new (void)
{
  MiModels *self = g_new0 (MiModels, 1);

  self->models = g_ptr_array_new_with_free_func (model_free);
  self->images = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, known_image_free);
  return self;
}

static void
on_file (gpointer target, GKeyFile *file, const char *origin, GPtrArray *problems)
{
  mi_models_add_key_file (target, file, origin, problems);
}

MiModels *
mi_models_load (const char *data_dir, const char *conf_dir, GPtrArray **problems)
{
  MiModels *self = mi_models_new ();
  g_autoptr (GPtrArray) list = g_ptr_array_new_with_free_func (g_free);

  mi_data_load (data_dir, conf_dir, "models.d", on_file, self, list);
  if (problems != NULL)
    *problems = g_steal_pointer (&list);
  return self;
}

void
mi_models_free (MiModels *self)
{
  if (self == NULL)
    return;
  g_ptr_array_unref (self->models);
  g_hash_table_unref (self->images);
  g_free (self);
}

/* Finding a model. */

typedef gboolean (*ModelPredicate) (const MiModel *model, gconstpointer what);

static const MiModel *
find_first (MiModels *self, ModelPredicate predicate, gconstpointer what)
{
  guint i;

  for (i = 0; i < self->models->len; i++)
    {
      const MiModel *model = g_ptr_array_index (self->models, i);

      if (predicate (model, what))
        return model;
    }
  return NULL;
}

static gboolean
has_own_name (const MiModel *model, gconstpointer name)
{
  return g_str_equal (model->name, name);
}

static gboolean
has_advertised_name (const MiModel *model, gconstpointer name)
{
  return g_strv_contains ((const char *const *) model->names, name);
}

static gboolean
has_model_string (const MiModel *model, gconstpointer text)
{
  return g_strcmp0 (model->model_string, text) == 0;
}

static gboolean
has_id (GArray *ids, guint16 id)
{
  guint i;

  for (i = 0; i < ids->len; i++)
    {
      if (g_array_index (ids, guint16, i) == id)
        return TRUE;
    }
  return FALSE;
}

static gboolean
has_product_id (const MiModel *model, gconstpointer id)
{
  return has_id (model->product_ids, *(const guint16 *) id);
}

static gboolean
has_image_type (const MiModel *model, gconstpointer id)
{
  return has_id (model->image_types, *(const guint16 *) id);
}

GPtrArray *
mi_models_list (MiModels *self)
{
  return self->models;
}

const MiModel *
mi_models_find (MiModels *self, const char *model)
{
  return model != NULL ? find_first (self, has_own_name, model) : NULL;
}

const MiModel *
mi_models_find_by_name (MiModels *self, const char *advertised)
{
  const MiModel *found = NULL;
  guint i;

  for (i = 0; advertised != NULL && i < self->models->len; i++)
    {
      const MiModel *model = g_ptr_array_index (self->models, i);

      if (!has_advertised_name (model, advertised))
        continue;
      if (found != NULL)
        return NULL;
      found = model;
    }
  return found;
}

const MiModel *
mi_models_find_by_product_id (MiModels *self, guint16 product_id)
{
  return find_first (self, has_product_id, &product_id);
}

const MiModel *
mi_models_find_by_model_string (MiModels *self, const char *model_string)
{
  return model_string != NULL ? find_first (self, has_model_string, model_string) : NULL;
}

const MiModel *
mi_models_find_by_hardware_id (MiModels *self, guint hardware_id)
{
  guint16 type = (guint16) (CUSTOM_TYPE + hardware_id);

  return hardware_id <= 0xff ? find_first (self, has_image_type, &type) : NULL;
}

const char *
mi_model_get_name (const MiModel *self)
{
  return self->name;
}

const char *const *
mi_model_get_names (const MiModel *self)
{
  return (const char *const *) self->names;
}

const char *const *
mi_model_get_hardware (const MiModel *self)
{
  return (const char *const *) self->hardware;
}

const char *
mi_model_get_model_string (const MiModel *self)
{
  return self->model_string;
}

gboolean
mi_model_has_product_id (const MiModel *self, guint16 product_id)
{
  return has_id (self->product_ids, product_id);
}

const guint16 *
mi_model_get_product_ids (const MiModel *self, gsize *n)
{
  *n = self->product_ids->len;
  return (const guint16 *) (gconstpointer) self->product_ids->data;
}

const char *const *
mi_model_get_transports (const MiModel *self)
{
  return (const char *const *) self->transports;
}

gboolean
mi_model_has_transport (const MiModel *self, const char *transport)
{
  return g_strv_contains (mi_model_get_transports (self), transport);
}

guint32
mi_model_get_limit (const MiModel *self)
{
  return self->limit;
}

guint
mi_model_get_min_battery (const MiModel *self)
{
  return self->min_battery;
}

/* Versions and signatures. */

char *
mi_models_normalise_version (MiModels *self, const MiModel *model, const char *version)
{
  guint i;

  for (i = 0; model != NULL && version != NULL && model->builds[i] != NULL; i++)
    {
      char build[16];
      const char *rest = pair_right (model->builds[i], build, sizeof build);

      if (g_str_equal (build, version))
        return g_strdup_printf ("%s_%s", rest, build);
    }
  return g_strdup (version);
}

const char *
mi_signed_to_string (MiSigned state)
{
  static const char *const names[] = { "unknown", "required", "not-required" };

  g_return_val_if_fail (state < G_N_ELEMENTS (names), "unknown");
  return names[state];
}

MiSigned
mi_models_get_signed (MiModels *self, const MiModel *model, const char *running)
{
  g_autofree char *version = NULL;
  MiSigned state = MI_SIGNED_UNKNOWN;
  int order;
  guint i;

  if (mi_version_is_custom (running))
    return MI_SIGNED_NOT_REQUIRED;
  version = mi_models_normalise_version (self, model, running);
  if (model == NULL)
    return mi_version_compare (version, "2", &order) && order < 0 ? MI_SIGNED_NOT_REQUIRED
                                                                  : MI_SIGNED_UNKNOWN;
  for (i = 0; model->signed_from[i] != NULL; i++)
    {
      char from[32];
      const char *text = pair_right (model->signed_from[i], from, sizeof from);

      if (mi_version_compare (version, from, &order) && order >= 0)
        parse_signed (text, &state);
    }
  return state;
}

/* Which models is an image for? */

typedef enum
{
  SOURCE_NONE,
  SOURCE_TAG,
  SOURCE_TYPE,
  SOURCE_SHA256,
  SOURCE_NAMES,
} Source;

static const KnownImage *
find_known (MiModels *self, MiImage *image)
{
  const KnownImage *known = g_hash_table_lookup (self->images, mi_image_get_payload_sha256 (image));

  return known != NULL ? known : g_hash_table_lookup (self->images, mi_image_get_sha256 (image));
}

static void
add_matching (MiModels *self, GPtrArray *names, ModelPredicate predicate, gconstpointer what)
{
  guint i;

  for (i = 0; i < self->models->len; i++)
    {
      const MiModel *model = g_ptr_array_index (self->models, i);

      if (predicate (model, what))
        g_ptr_array_add (names, g_strdup (model->name));
    }
}

/* Whether the names that a stock image of this model contains are there, and no other's. */
static gboolean
is_named_inside (const MiModel *model, gconstpointer data)
{
  MiImage *image = (MiImage *) data;
  guint i;

  for (i = 0; model->image_strings[i] != NULL; i++)
    {
      if (!mi_image_contains (image, model->image_strings[i]))
        return FALSE;
    }
  if (i == 0)
    return FALSE;
  for (i = 0; model->not_image_strings[i] != NULL; i++)
    {
      if (mi_image_contains (image, model->not_image_strings[i]))
        return FALSE;
    }
  return TRUE;
}

/* "custom" in a model's families stands for every custom kind. */
static gboolean
has_family (const MiModel *model, MiImageKind body)
{
  const char *const *families = (const char *const *) model->families;

  if (g_strv_contains (families, mi_image_kind_to_string (body)))
    return TRUE;
  return (body == MI_IMAGE_CUSTOM_PVVX || body == MI_IMAGE_CUSTOM_ATC1441)
         && g_strv_contains (families, "custom");
}

static gboolean
is_for_atc1441 (const MiModel *model, gconstpointer data)
{
  return has_family (model, MI_IMAGE_CUSTOM_ATC1441);
}

static Source
find_names_inside (MiModels *self, MiImage *image, GPtrArray *names)
{
  MiImageKind body = mi_image_get_body_kind (image);

  if (body == MI_IMAGE_STOCK)
    add_matching (self, names, is_named_inside, image);
  else if (body == MI_IMAGE_CUSTOM_ATC1441)
    add_matching (self, names, is_for_atc1441, NULL);
  return names->len > 0 ? SOURCE_NAMES : SOURCE_NONE;
}

/* protocol/image.md section 9: verified tag > 0x1141 type > known SHA-256 > names */
static Source
find_candidates (MiModels *self, MiImage *image, GPtrArray *names)
{
  const MiImageTag *tag = mi_image_get_tag (image);
  gint hardware_id = mi_image_get_hardware_id (image);
  const KnownImage *known = find_known (self, image);
  guint i;

  if (mi_image_is_signed (image))
    {
      add_matching (self, names, has_product_id, &tag->pid);
      return SOURCE_TAG;
    }
  if (hardware_id >= 0)
    {
      guint16 type = (guint16) (CUSTOM_TYPE + hardware_id);

      add_matching (self, names, has_image_type, &type);
      return SOURCE_TYPE;
    }
  if (known != NULL && known->models[0] != NULL)
    {
      for (i = 0; known->models[i] != NULL; i++)
        g_ptr_array_add (names, g_strdup (known->models[i]));
      return SOURCE_SHA256;
    }
  return find_names_inside (self, image, names);
}

char **
mi_models_get_image_models (MiModels *self, MiImage *image)
{
  GPtrArray *names = g_ptr_array_new ();

  find_candidates (self, image, names);
  g_ptr_array_add (names, NULL);
  return (char **) g_ptr_array_free (names, FALSE);
}

const char *
mi_models_get_image_version (MiModels *self, MiImage *image)
{
  const char *version = mi_image_get_version (image);
  const KnownImage *known;

  if (version != NULL)
    return version;
  known = find_known (self, image);
  return known != NULL ? known->version : NULL;
}

gboolean
mi_models_image_is_readout (MiModels *self, MiImage *image)
{
  const KnownImage *known = find_known (self, image);

  return known != NULL && known->readout;
}

gboolean
mi_models_image_is_offered (MiModels *self, MiImage *image)
{
  const char *version = mi_models_get_image_version (self, image);

  switch (mi_image_get_kind (image))
    {
    case MI_IMAGE_UNKNOWN:
    case MI_IMAGE_ENVELOPED:
    case MI_IMAGE_DAMAGED:
      return FALSE;
    case MI_IMAGE_STOCK:
      if (version != NULL && g_str_has_prefix (version, "2.1.1_"))
        return FALSE;
      break;
    case MI_IMAGE_STOCK_SIGNED:
    case MI_IMAGE_CUSTOM_PVVX:
    case MI_IMAGE_CUSTOM_ATC1441:
    case MI_IMAGE_TUYA:
      break;
    }
  return version != NULL && !mi_models_image_is_readout (self, image);
}

GVariant *
mi_models_describe_image (MiModels *self, MiImage *image)
{
  g_auto (GStrv) names = mi_models_get_image_models (self, image);

  return mi_image_describe (image, mi_models_get_image_version (self, image),
                            (const char *const *) names);
}

/* Does an image fit a device? */

G_GNUC_PRINTF (3, 4)
static MiFit
fit_because (MiFit fit, char **reason, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  if (reason != NULL)
    *reason = g_strdup_vprintf (format, args);
  va_end (args);
  return fit;
}

/* Custom images of one model that are not interchangeable: told by hardware or version. */
static MiFit
fit_variant (const MiModel *model, const char *hardware, const char *running, MiImage *image,
             char **reason)
{
  guint id = (guint) mi_image_get_hardware_id (image);
  guint i;

  if (model->any_image_type || model->image_types->len == 1)
    return fit_because (MI_FIT_YES, reason, "image for hardware id %u, which is %s", id,
                        model->name);
  for (i = 0; model->variants[i] != NULL; i++)
    {
      char type[16];
      const char *sign = pair_right (model->variants[i], type, sizeof type);
      guint64 number;

      if (g_strcmp0 (sign, hardware) != 0 && !mi_version_equal (sign, running))
        continue;
      if (mi_data_parse_number (type, G_MAXUINT16, &number) && number == CUSTOM_TYPE + id)
        return fit_because (MI_FIT_YES, reason, "image for hardware id %u, which %s (%s) has", id,
                            model->name, sign);
      return fit_because (MI_FIT_NO, reason, "image for hardware id %u, this %s (%s) is another",
                          id, model->name, sign);
    }
  return fit_because (MI_FIT_UNKNOWN, reason,
                      "image for hardware id %u; which revision of %s this is cannot be told", id,
                      model->name);
}

static MiFit
fit_stated (const MiModel *model, Source source, MiImage *image, GPtrArray *names, gboolean listed,
            char **reason)
{
  const MiImageTag *tag = mi_image_get_tag (image);
  g_autofree char *all = NULL;

  if (source == SOURCE_TAG)
    {
      if (!listed && model->product_ids->len == 0)
        return fit_because (MI_FIT_UNKNOWN, reason, "the product id of %s is not known",
                            model->name);
      return fit_because (listed ? MI_FIT_YES : MI_FIT_NO, reason,
                          "its signed tag says product 0x%04x (%s)", tag->pid, tag->model);
    }
  g_ptr_array_add (names, NULL);
  all = g_strjoinv (", ", (char **) names->pdata);
  if (source == SOURCE_TYPE)
    return fit_because (MI_FIT_NO, reason, "image for hardware id %d%s%s, not for %s",
                        mi_image_get_hardware_id (image), all[0] != '\0' ? ": " : "", all,
                        model->name);
  if (source == SOURCE_SHA256)
    return fit_because (listed ? MI_FIT_YES : MI_FIT_NO, reason, "known file for %s", all);
  if (listed && names->len > 2)
    return fit_because (MI_FIT_UNKNOWN, reason, "the names inside the image fit %s alike", all);
  return fit_because (listed ? MI_FIT_YES : MI_FIT_NO, reason, "the names inside the image say %s",
                      all);
}

static gboolean
lists_name (GPtrArray *names, const char *name)
{
  return g_ptr_array_find_with_equal_func (names, name, g_str_equal, NULL);
}

MiFit
mi_models_fit (MiModels *self, const MiModel *model, const char *hardware, const char *running,
               MiImage *image, char **reason)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  const MiImageTag *tag = mi_image_get_tag (image);
  MiImageKind body = mi_image_get_body_kind (image);
  Source source;
  gboolean listed;

  if (model == NULL)
    return fit_because (MI_FIT_UNKNOWN, reason, "the thermometer's model is not known");
  source = find_candidates (self, image, names);
  listed = lists_name (names, model->name);
  if (source == SOURCE_TYPE && listed)
    return fit_variant (model, hardware, running, image, reason);
  if (source == SOURCE_TAG || source == SOURCE_TYPE || source == SOURCE_SHA256)
    return fit_stated (model, source, image, names, listed, reason);
  /* Not trusted where it agrees, but believed where it warns. */
  if (tag != NULL && tag->valid && model->product_ids->len > 0
      && !mi_model_has_product_id (model, tag->pid))
    return fit_because (MI_FIT_NO, reason, "its tag, though not verified, says product 0x%04x",
                        tag->pid);
  if (body != MI_IMAGE_UNKNOWN && !has_family (model, body))
    return fit_because (MI_FIT_NO, reason, "%s firmware is not known to run on %s",
                        mi_image_kind_to_string (body), model->name);
  if (source == SOURCE_NONE)
    return fit_because (MI_FIT_UNKNOWN, reason, "nothing in the image tells which model it is for");
  return fit_stated (model, source, image, names, listed, reason);
}
