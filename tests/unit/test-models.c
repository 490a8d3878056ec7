/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "images.h"
#include "vectors.h"

#include "mi-bytes.h"
#include "mi-models.h"

#include <glib/gstdio.h>

#include <string.h>

static MiModels *shipped;
static guint8 root[64];

static const MiModel *
model (const char *name)
{
  const MiModel *found = mi_models_find (shipped, name);

  if (found == NULL)
    g_error ("model %s is not shipped", name);
  return found;
}

static MiImage *
take_image (GByteArray *bytes)
{
  g_autoptr (GBytes) file = images_bytes (bytes);

  return mi_image_new (file, root);
}

/* The vectors' signed image, product id 0x055B. */
static MiImage *
signed_image (void)
{
  JsonArray *cases = json_object_get_array_member (vectors_load ("image"), "synthetic");
  guint i;

  for (i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *item = json_array_get_object_element (cases, i);
      gsize len;
      guint8 *data;

      if (!g_str_equal (json_object_get_string_member (item, "name"), "signed"))
        continue;
      data = vectors_bytes (item, "data", &len);
      return take_image (g_byte_array_new_take (data, len));
    }
  g_error ("no signed image in the vectors");
}

static MiImage *
custom_image (guint16 type)
{
  return take_image (
      images_build_text (4100, IMAGES_CUSTOM, type, "github.com/pvvx", "V5.8", NULL));
}

static MiImage *
stock_image (const char *name, const char *second_name)
{
  return take_image (
      images_build_text (4100, 0, 0, "mible-login-info", "1.0.0_0130", name, second_name, NULL));
}

/* The data that is shipped. */

static void
test_shipped_data_is_sound (void)
{
  g_autoptr (GPtrArray) problems = NULL;
  g_autoptr (MiModels) models = mi_models_load (MITHERM_SOURCE_DATA_DIR, NULL, &problems);
  guint i;

  for (i = 0; i < problems->len; i++)
    g_test_message ("%s", (const char *) g_ptr_array_index (problems, i));
  g_assert_cmpuint (problems->len, ==, 0);
  g_assert_cmpuint (mi_models_list (models)->len, ==, 15);
}

/* Every row of the table in protocol/gatt.md section 7. */
static void
test_product_ids (void)
{
  static const struct
  {
    guint16 id;
    const char *model;
  } rows[] = {
    { 0x055b, "LYWSD03MMC" }, { 0x045b, "LYWSD02" },     { 0x16e4, "LYWSD02MMC" },
    { 0x2542, "LYWSD02MMC" }, { 0x2832, "MJWSD05MMC" },  { 0x4c47, "MJWSD05MMC" },
    { 0x55b5, "MJWSD06MMC" }, { 0x5bea, "MJWSD06MMC" },  { 0x0387, "MHO-C401" },
    { 0x06d3, "MHO-C303" },   { 0x1203, "XMWSDJ04MMC" }, { 0x0347, "CGG1" },
    { 0x0b48, "CGG1" },       { 0x066f, "CGDK2" },       { 0x0a83, "CGPR1" },
    { 0x0576, "CGD1" },       { 0x0863, "SJWS01LM" },
  };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (rows); i++)
    {
      const MiModel *found = mi_models_find_by_product_id (shipped, rows[i].id);

      /* CGG1 and CGG1-M share theirs. */
      g_assert_nonnull (found);
      g_assert_true (g_str_has_prefix (mi_model_get_name (found), rows[i].model));
      g_assert_true (mi_model_has_product_id (model (rows[i].model), rows[i].id));
    }
  g_assert_null (mi_models_find_by_product_id (shipped, 0x1234));
}

static void
test_names (void)
{
  g_assert_true (mi_models_find_by_name (shipped, "LYWSD03MMC") == model ("LYWSD03MMC"));
  g_assert_true (mi_models_find_by_name (shipped, "Qingping Temp & RH M") == model ("CGG1"));
  g_assert_true (mi_models_find_by_name (shipped, "Qingping Temp RH M") == model ("CGG1-M"));
  g_assert_true (mi_models_find_by_name (shipped, "Qingping Temp & RH Lite") == model ("CGDK2"));
  g_assert_null (mi_models_find_by_name (shipped, "ATC_123456"));
  g_assert_null (mi_models_find_by_name (shipped, NULL));
  g_assert_true (mi_models_find_by_model_string (shipped, "miaomiaoce.sensor_ht.t2")
                 == model ("LYWSD03MMC"));
  g_assert_null (mi_models_find_by_model_string (shipped, "other"));
}

static void
test_hardware_ids (void)
{
  static const guint lywsd03mmc[] = { 0, 3, 4, 5, 10, 14 };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (lywsd03mmc); i++)
    g_assert_true (mi_models_find_by_hardware_id (shipped, lywsd03mmc[i]) == model ("LYWSD03MMC"));
  g_assert_true (mi_models_find_by_hardware_id (shipped, 8) == model ("MHO-C401"));
  g_assert_true (mi_models_find_by_hardware_id (shipped, 12) == model ("MJWSD05MMC"));
  g_assert_true (mi_models_find_by_hardware_id (shipped, 49) == model ("LYWSD02MMC"));
  g_assert_null (mi_models_find_by_hardware_id (shipped, 19)); /* another chip family */
  g_assert_null (mi_models_find_by_hardware_id (shipped, 0x10000));
}

static void
test_limits_and_transports (void)
{
  g_assert_cmpuint (mi_model_get_limit (model ("LYWSD03MMC")), ==, 131072);
  g_assert_cmpuint (mi_model_get_limit (model ("MJWSD06MMC")), ==, 212992);
  g_assert_cmpstr (mi_model_get_transports (model ("MJWSD05MMC"))[0], ==, "telink");
  g_assert_true (mi_model_has_transport (model ("MJWSD05MMC"), "mible"));
  g_assert_false (mi_model_has_transport (model ("LYWSD02MMC"), "telink"));
  g_assert_null (mi_model_get_transports (model ("MHO-C303"))[0]);
  g_assert_cmpuint (mi_model_get_min_battery (model ("CGG1")), ==, 2500);
}

static void
test_signed (void)
{
  static const struct
  {
    const char *model;
    const char *running;
    MiSigned state;
  } rows[] = {
    { "LYWSD03MMC", "1.0.0_0130", MI_SIGNED_NOT_REQUIRED },
    { "LYWSD03MMC", "0130", MI_SIGNED_NOT_REQUIRED },
    { "LYWSD03MMC", "2.1.1_0159", MI_SIGNED_REQUIRED },
    { "LYWSD03MMC", "0159", MI_SIGNED_REQUIRED },
    { "LYWSD03MMC", "2.1.2_0001", MI_SIGNED_REQUIRED },
    { "LYWSD03MMC", "2.0.0_0001", MI_SIGNED_UNKNOWN },
    { "LYWSD03MMC", "V5.8", MI_SIGNED_NOT_REQUIRED },
    { "LYWSD03MMC", "9999", MI_SIGNED_UNKNOWN },
    { "LYWSD03MMC", NULL, MI_SIGNED_UNKNOWN },
    { "LYWSD03MMC", "", MI_SIGNED_UNKNOWN },
    { "MJWSD06MMC", "2.1.1_0009", MI_SIGNED_NOT_REQUIRED },
    { "MJWSD06MMC", "2.1.2_0001", MI_SIGNED_UNKNOWN },
    { "MJWSD05MMC", "2.0.0_0026", MI_SIGNED_UNKNOWN },
    { "CGDK2", "1.1.1_0223", MI_SIGNED_NOT_REQUIRED },
    { NULL, "1.0.0_0010", MI_SIGNED_NOT_REQUIRED },
    { NULL, "2.1.1_0159", MI_SIGNED_UNKNOWN },
  };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (rows); i++)
    {
      const MiModel *of = rows[i].model != NULL ? model (rows[i].model) : NULL;

      if (mi_models_get_signed (shipped, of, rows[i].running) != rows[i].state)
        g_error ("%s on %s", rows[i].running, rows[i].model);
    }
}

/* Versions */

static void
test_version_equal (void)
{
  g_assert_true (mi_version_equal ("1.0.0_0130", "0130"));
  g_assert_true (mi_version_equal ("0130", "1.0.0_0130"));
  g_assert_true (mi_version_equal ("v5.8", "V5.8"));
  g_assert_true (mi_version_equal ("5.8", "V5.8"));
  g_assert_false (mi_version_equal ("1.0.0_0130", "0131"));
  g_assert_false (mi_version_equal ("1.0.0_0130", "130"));
  g_assert_false (mi_version_equal ("1.0.0_0130", "2.1.1_0130"));
  g_assert_false (mi_version_equal ("V5.8", "V5.9"));
  g_assert_false (mi_version_equal ("", ""));
  g_assert_false (mi_version_equal (NULL, NULL));
}

static void
check_order (const char *a, const char *b, int expected)
{
  int order = 99;

  g_assert_true (mi_version_compare (a, b, &order));
  g_assert_cmpint (order, ==, expected);
  g_assert_true (mi_version_compare (b, a, &order));
  g_assert_cmpint (order, ==, -expected);
}

static void
test_version_compare (void)
{
  int order;

  check_order ("1.0.0_0130", "2.1.1_0159", -1);
  check_order ("2.1.1_0159", "2.1.1", 0);
  check_order ("2.1.1_0159", "2.1.1_0160", -1);
  check_order ("2.10.0_0001", "2.9.9_0001", 1);
  check_order ("V5.8", "V5.10", -1);
  check_order ("3", "2.1.1_0159", 1);
  g_assert_false (mi_version_compare ("0130", "1.0.0_0130", &order));
  g_assert_false (mi_version_compare (NULL, "1", &order));
  g_assert_false (mi_version_compare ("1.x", "1", &order));
  g_assert_false (mi_version_compare ("1.2.3.4.5", "1", &order));
  g_assert_true (mi_version_is_custom ("V5.8"));
  g_assert_false (mi_version_is_custom ("1.0.0_0130"));
  g_assert_false (mi_version_is_custom ("0130"));
}

/* Does it fit? */

static void
check_fit (const char *of, const char *running, MiImage *taken, MiFit expected)
{
  g_autoptr (MiImage) image = taken;
  g_autofree char *reason = NULL;
  MiFit fit
      = mi_models_fit (shipped, of != NULL ? model (of) : NULL, NULL, running, image, &reason);

  g_assert_nonnull (reason);
  if (fit != expected)
    g_error ("%s: %d (%s)", of, (int) fit, reason);
}

static void
test_fit_by_tag (void)
{
  check_fit ("LYWSD03MMC", "1.0.0_0130", signed_image (), MI_FIT_YES);
  check_fit ("MJWSD06MMC", "2.1.1_0009", signed_image (), MI_FIT_NO);
  check_fit ("MHO-C122", NULL, signed_image (), MI_FIT_UNKNOWN); /* no product id is known */
  check_fit (NULL, NULL, signed_image (), MI_FIT_UNKNOWN);
}

static void
test_fit_by_type (void)
{
  check_fit ("LYWSD03MMC", NULL, custom_image (0x020a), MI_FIT_YES);
  check_fit ("LYWSD03MMC", NULL, custom_image (0x020e), MI_FIT_YES);
  check_fit ("LYWSD03MMC", NULL, custom_image (0x0201), MI_FIT_NO);
  check_fit ("LYWSD03MMC", NULL, custom_image (0x0210), MI_FIT_NO);
  check_fit ("MHO-C401", NULL, custom_image (0x0201), MI_FIT_UNKNOWN);
  check_fit ("MHO-C401", NULL, custom_image (0x0208), MI_FIT_UNKNOWN);
  check_fit ("MHO-C401", NULL, custom_image (0x020a), MI_FIT_NO);
  check_fit ("MJWSD05MMC", "2.0.0_0026", custom_image (0x0209), MI_FIT_YES);
  check_fit ("MJWSD05MMC", "0026", custom_image (0x020c), MI_FIT_NO);
  check_fit ("MJWSD05MMC", "0005", custom_image (0x020c), MI_FIT_YES);
  check_fit ("MJWSD05MMC", "V5.8", custom_image (0x020c), MI_FIT_UNKNOWN);
  check_fit ("CGG1", NULL, custom_image (0x0207), MI_FIT_NO);
  check_fit ("MHO-C303", NULL, custom_image (0x020a), MI_FIT_NO);
}

static void
test_fit_by_names (void)
{
  check_fit ("LYWSD03MMC", NULL, stock_image ("LYWSD03MMC", NULL), MI_FIT_YES);
  check_fit ("LYWSD03MMC", NULL, stock_image ("MHO-C401", NULL), MI_FIT_NO);
  check_fit ("LYWSD02", NULL, stock_image ("LYWSD02MMC", NULL), MI_FIT_NO);
  check_fit ("CGG1", NULL, stock_image ("CGG1", NULL), MI_FIT_YES);
  check_fit ("CGG1", NULL, stock_image ("CGG1", "CGDK2"), MI_FIT_NO);
  check_fit ("CGDK2", NULL, stock_image ("CGG1", "CGDK2"), MI_FIT_UNKNOWN);
  check_fit ("CGG1-M", NULL, stock_image ("CGG1", "CGDK2"), MI_FIT_UNKNOWN);
  check_fit ("LYWSD03MMC", NULL, stock_image ("nothing", NULL), MI_FIT_UNKNOWN);
  check_fit ("LYWSD03MMC", NULL, take_image (images_build (4100, 21, 0, 0, 0)), MI_FIT_UNKNOWN);
}

static void
test_fit_by_family (void)
{
  check_fit ("LYWSD03MMC", NULL, take_image (images_build_text (4100, 0, 0, "ATC_", NULL)),
             MI_FIT_YES);
  check_fit ("CGG1", NULL, take_image (images_build_text (4100, 0, 0, "ATC_", NULL)), MI_FIT_NO);
  check_fit ("LYWSD03MMC", NULL, take_image (images_build_text (4100, 0, 0, "tuya", NULL)),
             MI_FIT_NO);
  check_fit ("MHO-C122", NULL, take_image (images_build_text (4100, 0, 0, "tuya", NULL)),
             MI_FIT_UNKNOWN);
}

/* A tag that does not verify is not believed where it agrees, but where it warns. */
static void
test_fit_unverified_tag (void)
{
  JsonObject *vectors = vectors_load ("image");
  gsize len;
  guint8 *data
      = vectors_bytes (json_object_get_object_member (vectors, "envelope"), "envelope", &len);
  g_autoptr (GBytes) envelope = g_bytes_new_take (data, len);
  g_autoptr (GBytes) plain = images_bytes (images_build (8196, 21, 0, 0, 0));
  g_autoptr (GBytes) out = mi_image_apply_envelope (plain, envelope, NULL);

  check_fit ("LYWSD03MMC", NULL, mi_image_new (out, root), MI_FIT_UNKNOWN);
  check_fit ("CGG1", NULL, mi_image_new (out, root), MI_FIT_NO);
}

static void
test_image_models (void)
{
  g_autoptr (MiImage) tag = signed_image (), type = custom_image (0x020a),
                      names = stock_image ("CGG1", "CGDK2");
  g_auto (GStrv) by_tag = mi_models_get_image_models (shipped, tag);
  g_auto (GStrv) by_type = mi_models_get_image_models (shipped, type);
  g_auto (GStrv) by_names = mi_models_get_image_models (shipped, names);

  g_assert_cmpuint (g_strv_length (by_tag), ==, 1);
  g_assert_cmpstr (by_tag[0], ==, "LYWSD03MMC");
  g_assert_cmpuint (g_strv_length (by_type), ==, 1);
  g_assert_cmpstr (by_type[0], ==, "LYWSD03MMC");
  g_assert_cmpuint (g_strv_length (by_names), ==, 2);
}

static void
test_describe (void)
{
  g_autoptr (MiImage) image = custom_image (0x020a);
  g_autoptr (GVariant) facts = g_variant_ref_sink (mi_models_describe_image (shipped, image));
  g_autofree const char **models = NULL;
  const char *kind, *version;

  g_assert_true (g_variant_lookup (facts, "kind", "&s", &kind));
  g_assert_true (g_variant_lookup (facts, "version", "&s", &version));
  g_assert_true (g_variant_lookup (facts, "models", "^a&s", &models));
  g_assert_cmpstr (kind, ==, "custom-pvvx");
  g_assert_cmpstr (version, ==, "V5.8");
  g_assert_cmpstr (models[0], ==, "LYWSD03MMC");
}

/* Files known by their SHA-256. */
static void
test_known_image (void)
{
  g_autoptr (MiModels) models = mi_models_new ();
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (GPtrArray) problems = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (MiImage) image = take_image (images_build (4100, 21, 0, 0, 0));
  g_autofree char *text = g_strdup_printf (
      "[A]\nFamilies=stock\n[B]\nFamilies=stock\n[image x]\nSha256=%s\nVersion=9.9.9_0001\n"
      "Models=A\nReadOut=true\n",
      mi_image_get_payload_sha256 (image));

  g_assert_true (g_key_file_load_from_data (file, text, (gsize) -1, G_KEY_FILE_NONE, NULL));
  g_assert_null (mi_models_get_image_version (models, image));
  mi_models_add_key_file (models, file, "test", problems);
  g_assert_cmpuint (problems->len, ==, 0);
  g_assert_cmpstr (mi_models_get_image_version (models, image), ==, "9.9.9_0001");
  g_assert_true (mi_models_image_is_readout (models, image));
  g_assert_cmpint (mi_models_fit (models, mi_models_find (models, "A"), NULL, NULL, image, NULL),
                   ==, MI_FIT_YES);
  g_assert_cmpint (mi_models_fit (models, mi_models_find (models, "B"), NULL, NULL, image, NULL),
                   ==, MI_FIT_NO);
}

static void
check_offered (MiImage *taken, gboolean offered)
{
  g_autoptr (MiImage) image = taken;

  g_assert_true (mi_models_image_is_offered (shipped, image) == offered);
  g_assert_false (mi_models_image_is_readout (shipped, image));
}

static void
test_offered (void)
{
  check_offered (signed_image (), TRUE);
  check_offered (custom_image (0x020a), TRUE);
  check_offered (stock_image ("LYWSD03MMC", NULL), TRUE);
  check_offered (take_image (images_build (4100, 21, 0x1141, 0x020a, 0)), FALSE);
  check_offered (take_image (images_build_text (4100, 0, 0, "mible-login-info", "2.1.1_0159",
                                                "LYWSD03MMC", NULL)),
                 FALSE);
}

/* Every real file that the vectors know: its hash, version and models are in the data. */
static void
test_real_files_are_known (void)
{
  JsonArray *real = json_object_get_array_member (vectors_load ("image"), "real");
  g_autofree char *path
      = g_build_filename (MITHERM_SOURCE_DATA_DIR, "models.d", "images.conf", NULL);
  g_autofree char *text = NULL;
  guint i;

  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  for (i = 0; i < json_array_get_length (real); i++)
    {
      JsonObject *facts
          = json_object_get_object_member (json_array_get_object_element (real, i), "facts");

      g_assert_nonnull (strstr (text, json_object_get_string_member (facts, "sha256_image")));
    }
}

/* What the data says about a real file, and what the file itself says. */
static void
test_real_file (gconstpointer data)
{
  JsonObject *item = (JsonObject *) data;
  const char *folder = g_getenv ("MITHERM_FIRMWARE");
  g_autofree char *path = NULL, *content = NULL, *reason = NULL;
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (MiImage) image = NULL;
  g_auto (GStrv) names = NULL;
  gsize len;

  if (folder != NULL)
    path = g_build_filename (folder, json_object_get_string_member (item, "file"), NULL);
  if (path == NULL || !g_file_get_contents (path, &content, &len, NULL))
    {
      g_test_skip ("firmware file absent from the folder in MITHERM_FIRMWARE");
      return;
    }
  bytes = g_bytes_new_take (g_steal_pointer (&content), len);
  image = mi_image_new (bytes, NULL);
  names = mi_models_get_image_models (shipped, image);
  g_assert_cmpuint (g_strv_length (names), >=, 1);
  if (mi_models_find (shipped, names[0]) != NULL)
    g_assert_cmpint (mi_models_fit (shipped, model (names[0]), NULL, NULL, image, &reason), !=,
                     MI_FIT_NO);
  g_assert_cmpint (mi_models_fit (shipped, model ("CGD1"), NULL, NULL, image, NULL), ==, MI_FIT_NO);
  if (mi_image_get_body_kind (image) == MI_IMAGE_CUSTOM_PVVX)
    g_assert_cmpstr (mi_models_get_image_version (shipped, image), ==, "V5.8");
  if (mi_image_get_body_kind (image) == MI_IMAGE_STOCK)
    g_assert_nonnull (mi_models_get_image_version (shipped, image));
  if (mi_image_get_body_kind (image) == MI_IMAGE_STOCK && g_str_equal (names[0], "LYWSD03MMC"))
    g_assert_nonnull (strstr (json_object_get_string_member (item, "file"),
                              mi_models_get_image_version (shipped, image)));
}

static void
add_real_files (void)
{
  JsonArray *real = json_object_get_array_member (vectors_load ("image"), "real");
  guint i;

  for (i = 0; i < json_array_get_length (real); i++)
    {
      JsonObject *item = json_array_get_object_element (real, i);
      g_autofree char *path
          = vectors_path ("/models/real", json_object_get_string_member (item, "file"));

      g_test_add_data_func (path, item, test_real_file);
    }
}

/* Folders */

typedef struct
{
  char *data;
  char *conf;
} Folders;

static void
write_file (const char *folder, const char *name, const char *text)
{
  g_autofree char *sub = g_build_filename (folder, "models.d", NULL);
  g_autofree char *path = g_build_filename (sub, name, NULL);

  g_assert_cmpint (g_mkdir_with_parents (sub, 0700), ==, 0);
  g_assert_true (g_file_set_contents (path, text, -1, NULL));
}

static void
remove_folder (const char *folder)
{
  g_autofree char *sub = g_build_filename (folder, "models.d", NULL);
  g_autoptr (GDir) dir = g_dir_open (sub, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *path = g_build_filename (sub, name, NULL);

      g_unlink (path);
    }
  g_rmdir (sub);
  g_rmdir (folder);
}

static void
set_up (Folders *folders, gconstpointer data)
{
  folders->data = g_dir_make_tmp ("mi-models-XXXXXX", NULL);
  folders->conf = g_dir_make_tmp ("mi-models-XXXXXX", NULL);
  write_file (folders->data, "a.conf", "[A]\nLimit=1\n");
  write_file (folders->data, "b.conf", "[B]\nLimit=0x10\n");
}

static void
tear_down (Folders *folders, gconstpointer data)
{
  remove_folder (folders->data);
  remove_folder (folders->conf);
  g_free (folders->data);
  g_free (folders->conf);
}

static void
test_replaced_file (Folders *folders, gconstpointer data)
{
  g_autoptr (GPtrArray) problems = NULL;
  g_autoptr (MiModels) models = NULL;

  write_file (folders->conf, "a.conf", "[A2]\nLimit=2\n");
  write_file (folders->conf, "c.conf", "[B]\nLimit=3\n");
  models = mi_models_load (folders->data, folders->conf, &problems);
  g_assert_cmpuint (problems->len, ==, 0);
  g_assert_null (mi_models_find (models, "A"));
  g_assert_cmpuint (mi_model_get_limit (mi_models_find (models, "A2")), ==, 2);
  g_assert_cmpuint (mi_model_get_limit (mi_models_find (models, "B")), ==, 3);
}

static void
test_broken_files (Folders *folders, gconstpointer data)
{
  static const char *const broken[] = {
    "no key file",
    "[X]\nLimit=many\n",
    "[X]\nLimit=0x1ffffffff\n",
    "[X]\nProductIds=0x55B;none\n",
    "[X]\nProductIds=0x10000\n",
    "[X]\nImageTypes=-1\n",
    "[X]\nSigned=2.1.1\n",
    "[X]\nSigned=2.1.1:perhaps\n",
    "[X]\nSigned=new:required\n",
    "[X]\nBuilds=0130\n",
    "[X]\nMinBattery=2.5V\n",
    "[image X]\nSha256=abc\n",
    "[image X]\nVersion=1\n",
    "\xff\xfe\n",
  };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (broken); i++)
    {
      g_autoptr (GPtrArray) problems = NULL;
      g_autoptr (MiModels) models = NULL;

      write_file (folders->conf, "x.conf", broken[i]);
      models = mi_models_load (folders->data, folders->conf, &problems);
      if (problems->len != 1)
        g_error ("%s: %u problems", broken[i], problems->len);
      g_assert_nonnull (strstr (g_ptr_array_index (problems, 0), "x.conf"));
      g_assert_null (mi_models_find (models, "X"));
      g_assert_nonnull (mi_models_find (models, "A"));
      g_assert_nonnull (mi_models_find (models, "B"));
    }
}

static void
test_unknown_key (Folders *folders, gconstpointer data)
{
  g_autoptr (GPtrArray) problems = NULL;
  g_autoptr (MiModels) models = NULL;

  write_file (folders->conf, "x.conf", "[X]\nLimit=5\nColour=blue\n");
  models = mi_models_load (folders->data, folders->conf, &problems);
  g_assert_cmpuint (problems->len, ==, 1);
  g_assert_nonnull (strstr (g_ptr_array_index (problems, 0), "Colour"));
  g_assert_cmpuint (mi_model_get_limit (mi_models_find (models, "X")), ==, 5);
}

static void
test_no_folders (void)
{
  g_autoptr (GPtrArray) problems = NULL;
  g_autoptr (MiModels) models
      = mi_models_load ("/nonexistent/mitherm", "/nonexistent/etc", &problems);

  g_assert_cmpuint (problems->len, ==, 0);
  g_assert_cmpuint (mi_models_list (models)->len, ==, 0);
}

static void
add_folder_test (const char *path, void (*test) (Folders *, gconstpointer))
{
  g_test_add (path, Folders, NULL, set_up, test, tear_down);
}

int
main (int argc, char **argv)
{
  int status;

  g_test_init (&argc, &argv, NULL);
  g_assert_true (
      mi_hex_decode (json_object_get_string_member (
                         json_object_get_object_member (vectors_load ("image"), "root"), "public"),
                     root, sizeof root));
  shipped = mi_models_load (MITHERM_SOURCE_DATA_DIR, NULL, NULL);
  g_test_add_func ("/models/shipped-data-is-sound", test_shipped_data_is_sound);
  g_test_add_func ("/models/product-ids", test_product_ids);
  g_test_add_func ("/models/names", test_names);
  g_test_add_func ("/models/hardware-ids", test_hardware_ids);
  g_test_add_func ("/models/limits-and-transports", test_limits_and_transports);
  g_test_add_func ("/models/signature-demanded", test_signed);
  g_test_add_func ("/models/version/equal", test_version_equal);
  g_test_add_func ("/models/version/compare", test_version_compare);
  g_test_add_func ("/models/fit/verified-tag", test_fit_by_tag);
  g_test_add_func ("/models/fit/custom-type", test_fit_by_type);
  g_test_add_func ("/models/fit/names-inside", test_fit_by_names);
  g_test_add_func ("/models/fit/family", test_fit_by_family);
  g_test_add_func ("/models/fit/unverified-tag-only-warns", test_fit_unverified_tag);
  g_test_add_func ("/models/image/models", test_image_models);
  g_test_add_func ("/models/image/describe", test_describe);
  g_test_add_func ("/models/image/known-by-sha256", test_known_image);
  g_test_add_func ("/models/image/read-outs-are-not-offered", test_offered);
  g_test_add_func ("/models/image/every-real-file-is-known", test_real_files_are_known);
  g_test_add_func ("/models/folders/absent-ones-are-empty", test_no_folders);
  add_real_files ();
  add_folder_test ("/models/folders/same-name-replaces", test_replaced_file);
  add_folder_test ("/models/folders/broken-file-is-told-and-skipped", test_broken_files);
  add_folder_test ("/models/folders/unknown-key-is-told", test_unknown_key);
  status = g_test_run ();
  mi_models_free (shipped);
  return status;
}
