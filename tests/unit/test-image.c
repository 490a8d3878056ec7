/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "images.h"
#include "vectors.h"

#include "mi-bytes.h"
#include "mi-crypto.h"
#include "mi-image.h"

#include <string.h>

static guint8 root[64];

/* Offsets of the parts of the vector "signed". */
#define SIGNED_TAG       4100
#define SIGNED_TAG_SIZE  67
#define SIGNED_CERTS     (SIGNED_TAG + SIGNED_TAG_SIZE)
#define SIGNED_CERT_SIZE 1149
#define SIGNED_SIGNATURE (SIGNED_CERTS + SIGNED_CERT_SIZE)
#define SIGNED_PADDING   5

static JsonObject *
find_case (const char *name)
{
  JsonArray *cases = json_object_get_array_member (vectors_load ("image"), "synthetic");
  guint i;

  for (i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *item = json_array_get_object_element (cases, i);

      if (g_str_equal (json_object_get_string_member (item, "name"), name))
        return item;
    }
  g_error ("no case %s", name);
}

static GByteArray *
signed_image (void)
{
  gsize len;
  guint8 *data = vectors_bytes (find_case ("signed"), "data", &len);

  return g_byte_array_new_take (data, len);
}

/* The recipes of the vectors' "how". */

static GByteArray *
make_plain (void)
{
  return images_build (4100, 21, 0, 0, 0);
}

static GByteArray *
make_ids (void)
{
  return images_build (4100, 22, 0x1141, 0x020a, 0x99993001);
}

static GByteArray *
make_crc_wrong (void)
{
  GByteArray *image = make_plain ();

  memset (image->data + 0x100, 0, 2);
  return image;
}

static GByteArray *
make_no_magic (void)
{
  GByteArray *image = make_plain ();

  memcpy (image->data + 8, "XXXX", 4);
  return image;
}

static GByteArray *
make_too_large (void)
{
  GByteArray *image = make_plain ();

  mi_put_u32 (image->data + 0x18, 5000);
  return image;
}

static GByteArray *
make_truncated (void)
{
  return g_byte_array_set_size (make_plain (), 4000);
}

static GByteArray *
make_body_changed (void)
{
  GByteArray *image = signed_image ();

  image->data[200] ^= 1;
  return image;
}

static GByteArray *
make_tag_changed (void)
{
  GByteArray *image = signed_image ();

  image->data[SIGNED_TAG + 34] = 7;
  return image;
}

static GByteArray *
make_signature_changed (void)
{
  GByteArray *image = signed_image ();

  image->data[SIGNED_SIGNATURE + 10] ^= 1;
  return image;
}

static GByteArray *
make_padding_removed (void)
{
  GByteArray *image = signed_image ();

  while (image->data[image->len - 1] == 0xff)
    g_byte_array_set_size (image, image->len - 1);
  return image;
}

static GByteArray *
make_zigbee (void)
{
  g_autoptr (GByteArray) image = images_build (4100, 22, 0x1141, 0x0203, 0x99993001);

  return images_container (image, 0x1141, 0x0203);
}

static void
append_pem (GByteArray *out, const guint8 *der, gsize len)
{
  g_autofree char *text = g_base64_encode (der, len);
  gsize i, n = strlen (text);

  g_byte_array_append (out, (const guint8 *) "-----BEGIN CERTIFICATE-----\n", 28);
  for (i = 0; i < n; i += 64)
    {
      g_byte_array_append (out, (const guint8 *) text + i, (guint) MIN (64, n - i));
      g_byte_array_append (out, (const guint8 *) "\n", 1);
    }
  g_byte_array_append (out, (const guint8 *) "-----END CERTIFICATE-----\n", 26);
}

/* The certificate @der with the signature of another key over the same TBS. */
static GByteArray *
resign_certificate (const guint8 *der, gsize len)
{
  static const guint8 algorithm[]
      = { 0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02 };
  guint8 key[32], signature[64], head[4] = { 0x30, 0x82 }, bits[3] = { 0x03 };
  gsize tbs_len = 4 + (gsize) (der[6] << 8 | der[7]);
  GByteArray *out = g_byte_array_new ();
  g_autoptr (GByteArray) value = NULL;

  g_assert_cmpuint (der[4] << 8 | der[5], ==, 0x3082);
  g_assert_cmpuint (4 + tbs_len, <, len);
  memset (key, 0x42, sizeof key);
  g_assert_true (mi_ecdsa_sign (key, der + 4, tbs_len, signature, NULL));
  value = images_signature_der (signature);
  bits[1] = (guint8) (value->len + 1);
  g_byte_array_append (out, der + 4, (guint) tbs_len);
  g_byte_array_append (out, algorithm, sizeof algorithm);
  g_byte_array_append (out, bits, sizeof bits);
  g_byte_array_append (out, value->data, value->len);
  head[2] = (guint8) (out->len >> 8);
  head[3] = (guint8) out->len;
  return g_byte_array_prepend (out, head, sizeof head);
}

/* "signed" with other certificates, tag and signature made to match. */
static GByteArray *
make_other_root (void)
{
  JsonObject *vectors = vectors_load ("image");
  JsonArray *chain = json_object_get_array_member (vectors, "chain");
  gsize len0, len1, key_len;
  g_autofree guint8 *der0 = vectors_hex (json_array_get_string_element (chain, 0), &len0);
  g_autofree guint8 *der1 = vectors_hex (json_array_get_string_element (chain, 1), &len1);
  g_autofree guint8 *key
      = vectors_bytes (json_object_get_object_member (vectors, "signer"), "private", &key_len);
  g_autoptr (GByteArray) certs = g_byte_array_new (), value = NULL, first = NULL;
  GByteArray *image = g_byte_array_set_size (signed_image (), SIGNED_CERTS);
  guint8 signature[64];

  first = resign_certificate (der0, len0);
  append_pem (certs, first->data, first->len);
  append_pem (certs, der1, len1);
  mi_put_u16 (image->data + SIGNED_TAG + 24, (guint16) certs->len);
  mi_put_u32 (image->data + SIGNED_CERTS - 4, mi_crc32 (0, image->data, SIGNED_CERTS - 4));
  g_assert_true (mi_ecdsa_sign (key, image->data, image->len, signature, NULL));
  value = images_signature_der (signature);
  g_byte_array_append (image, certs->data, certs->len);
  g_byte_array_append (image, value->data, value->len);
  while (image->len % 16 != 0)
    g_byte_array_append (image, (const guint8 *) "\xff", 1);
  return image;
}

static const struct
{
  const char *name;
  GByteArray *(*make) (void);
  MiImageKind kind;
  gboolean sound;
  gboolean own_signature; /* the vector's key is not told: bytes that depend on it differ */
} recipes[] = {
  { "plain", make_plain, MI_IMAGE_UNKNOWN, TRUE },
  { "plain with ids", make_ids, MI_IMAGE_UNKNOWN, TRUE },
  { "crc wrong", make_crc_wrong, MI_IMAGE_DAMAGED, FALSE },
  { "no magic", make_no_magic, MI_IMAGE_UNKNOWN, FALSE },
  { "size field larger than the file", make_too_large, MI_IMAGE_DAMAGED, FALSE },
  { "truncated", make_truncated, MI_IMAGE_DAMAGED, FALSE },
  { "signed", signed_image, MI_IMAGE_STOCK_SIGNED, TRUE },
  { "signed, one body byte changed", make_body_changed, MI_IMAGE_DAMAGED, FALSE },
  { "signed, tag changed", make_tag_changed, MI_IMAGE_DAMAGED, TRUE },
  { "signed, signature changed", make_signature_changed, MI_IMAGE_DAMAGED, TRUE },
  { "signed, padding removed", make_padding_removed, MI_IMAGE_STOCK_SIGNED, TRUE },
  { "signed, first certificate by another root", make_other_root, MI_IMAGE_DAMAGED, TRUE, TRUE },
  { "zigbee", make_zigbee, MI_IMAGE_UNKNOWN, TRUE },
};

/* Facts against the vectors'. */

static void compare_objects (JsonObject *expected, JsonObject *found, gboolean own_signature);

static gboolean
depends_on_signature (const char *member)
{
  static const char *const members[]
      = { "sha256",    "sha256_image", "crc",      "cert_size", "padding",
          "file_size", "image_size",   "trailing", NULL };

  return g_strv_contains (members, member);
}

static void
compare_nodes (const char *member, JsonNode *expected, JsonNode *found, gboolean own_signature)
{
  guint i;

  if (expected == NULL || JSON_NODE_HOLDS_NULL (expected))
    {
      if (found != NULL)
        g_error ("fact %s should be absent", member);
      return;
    }
  if (found == NULL)
    g_error ("fact %s is missing", member);
  if (JSON_NODE_HOLDS_OBJECT (expected))
    compare_objects (json_node_get_object (expected), json_node_get_object (found), own_signature);
  else if (JSON_NODE_HOLDS_ARRAY (expected))
    {
      JsonArray *a = json_node_get_array (expected), *b = json_node_get_array (found);

      g_assert_cmpuint (json_array_get_length (a), ==, json_array_get_length (b));
      for (i = 0; i < json_array_get_length (a); i++)
        compare_nodes (member, json_array_get_element (a, i), json_array_get_element (b, i),
                       own_signature);
    }
  else if (!(own_signature && depends_on_signature (member)) && !json_node_equal (expected, found))
    {
      g_autofree char *a = json_to_string (expected, FALSE), *b = json_to_string (found, FALSE);

      g_error ("fact %s is %s, expected %s", member, b, a);
    }
}

static void
compare_objects (JsonObject *expected, JsonObject *found, gboolean own_signature)
{
  g_autoptr (GList) members = json_object_get_members (expected);
  GList *l;

  for (l = members; l != NULL; l = l->next)
    compare_nodes (l->data, json_object_get_member (expected, l->data),
                   json_object_get_member (found, l->data), own_signature);
}

static void
compare_facts (MiImage *image, JsonObject *expected, gboolean own_signature)
{
  g_autoptr (GVariant) facts = g_variant_ref_sink (mi_image_describe (image, NULL, NULL));
  g_autoptr (JsonNode) node = json_gvariant_serialize (facts);
  JsonObject *found = json_node_get_object (node);

  compare_objects (expected, found, own_signature);
  if (!json_object_has_member (expected, "header_size"))
    g_assert_false (json_object_has_member (found, "header_size"));
  if (!json_object_has_member (expected, "verify"))
    g_assert_false (json_object_has_member (found, "verify"));
}

static void
test_synthetic (gconstpointer data)
{
  JsonObject *item = (JsonObject *) data;
  const char *name = json_object_get_string_member (item, "name");
  JsonObject *facts = json_object_get_object_member (item, "facts");
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (MiImage) image = NULL;
  g_autoptr (GError) error = NULL;
  guint i = 0;

  while (i < G_N_ELEMENTS (recipes) && !g_str_equal (recipes[i].name, name))
    i++;
  if (i == G_N_ELEMENTS (recipes))
    g_error ("no recipe for the case '%s'", name);
  bytes = images_bytes (recipes[i].make ());
  image = mi_image_new (bytes, root);
  compare_facts (image, facts, recipes[i].own_signature);
  g_assert_cmpstr (mi_image_kind_to_string (mi_image_get_kind (image)), ==,
                   mi_image_kind_to_string (recipes[i].kind));
  if (mi_image_check (image, &error) != recipes[i].sound)
    g_error ("soundness: %s", error != NULL ? error->message : "accepted");
  if (!recipes[i].sound)
    g_assert_error (error, MI_ERROR, MI_ERROR_BAD_IMAGE);
}

static GBytes *
read_firmware (const char *name)
{
  const char *folder = g_getenv ("MITHERM_FIRMWARE");
  g_autofree char *path = NULL, *content = NULL;
  gsize len;

  if (folder == NULL)
    return NULL;
  path = g_build_filename (folder, name, NULL);
  if (!g_file_get_contents (path, &content, &len, NULL))
    return NULL;
  return g_bytes_new_take (g_steal_pointer (&content), len);
}

static void
test_real (gconstpointer data)
{
  JsonObject *item = (JsonObject *) data;
  g_autoptr (GBytes) bytes = read_firmware (json_object_get_string_member (item, "file"));
  g_autoptr (MiImage) image = NULL;

  if (bytes == NULL)
    {
      g_test_skip ("firmware file absent from the folder in MITHERM_FIRMWARE");
      return;
    }
  image = mi_image_new (bytes, NULL);
  compare_facts (image, json_object_get_object_member (item, "facts"), FALSE);
  g_assert_cmpint (mi_image_get_kind (image), !=, MI_IMAGE_UNKNOWN);
}

/* A flipped bit anywhere in a signed file. */

static MiImageCheck
expected_check (gsize offset)
{
  if (offset < SIGNED_TAG)
    return MI_CHECK_CRC;
  if (offset < SIGNED_CERTS)
    return MI_CHECK_TAG;
  if (offset < SIGNED_SIGNATURE)
    return MI_CHECK_CHAIN;
  return offset < 5392 - SIGNED_PADDING ? MI_CHECK_SIGNATURE : MI_CHECK_PADDING;
}

static void
check_flip (GByteArray *file, gsize bit)
{
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (MiImage) image = NULL;
  MiImageCheck check = expected_check (bit / 8);

  file->data[bit / 8] ^= (guint8) (1 << bit % 8);
  bytes = g_bytes_new_static (file->data, file->len);
  image = mi_image_new (bytes, root);
  if (mi_image_is_signed (image) || mi_image_get_kind (image) == MI_IMAGE_STOCK_SIGNED)
    g_error ("bit %" G_GSIZE_FORMAT " flipped, and still signed", bit);
  if (mi_image_get_verdict (image, check) == MI_VERDICT_VALID)
    g_error ("bit %" G_GSIZE_FORMAT " flipped, and verdict %d still valid", bit, (int) check);
  file->data[bit / 8] ^= (guint8) (1 << bit % 8);
}

typedef struct
{
  gsize from, to, step; /* bytes, bytes, bits */
} FlipRange;

static void
test_flips (gconstpointer data)
{
  const FlipRange *range = data;
  g_autoptr (GByteArray) file = signed_image ();
  /* Each bit costs up to three checks of a signature: all of them only in the slow mode. */
  gsize step = g_test_slow () ? range->step : MAX (range->step, 11);
  gsize bit;

  g_assert_cmpuint (file->len, ==, 5392);
  for (bit = range->from * 8; bit < range->to * 8; bit += step)
    check_flip (file, bit);
}

/* Kinds, versions, payload. */

typedef struct
{
  GByteArray *image;
  MiImageKind kind;
  const char *version;
  int hardware_id;
} KindCase;

static void
check_kind (const KindCase *expected)
{
  g_autoptr (GBytes) bytes = images_bytes (expected->image);
  g_autoptr (MiImage) image = mi_image_new (bytes, root);

  g_assert_cmpstr (mi_image_kind_to_string (mi_image_get_kind (image)), ==,
                   mi_image_kind_to_string (expected->kind));
  g_assert_cmpint (mi_image_get_body_kind (image), ==, expected->kind);
  g_assert_cmpstr (mi_image_get_version (image), ==, expected->version);
  g_assert_cmpint (mi_image_get_hardware_id (image), ==, expected->hardware_id);
}

static void
test_kind_stock (void)
{
  GByteArray *image = images_build_text (4100, 0, 0, "mible-login-info", "1.0.0_0130", "LYWSD03MMC",
                                         "1.0.0_0130", NULL);

  check_kind (&(KindCase){ image, MI_IMAGE_STOCK, "1.0.0_0130", -1 });
}

static void
test_kind_two_versions (void)
{
  GByteArray *image
      = images_build_text (4100, 0, 0, "mible-login-info", "1.0.0_0130", "1.0.0_0131", NULL);

  check_kind (&(KindCase){ image, MI_IMAGE_STOCK, NULL, -1 });
}

static void
test_kind_pvvx (void)
{
  GByteArray *image = images_build_text (4100, IMAGES_CUSTOM, 0x020a, "https://github.com/pvvx",
                                         "V5.8", "mible-login-info", "1.0.0_0130", NULL);

  check_kind (&(KindCase){ image, MI_IMAGE_CUSTOM_PVVX, "V5.8", 0x0a });
}

static void
test_kind_pvvx_needs_its_manufacturer (void)
{
  GByteArray *image = images_build_text (4100, 0, 0x020a, "github.com/pvvx", "V5.8", NULL);

  check_kind (&(KindCase){ image, MI_IMAGE_UNKNOWN, NULL, -1 });
}

static void
test_kind_atc1441 (void)
{
  GByteArray *image = images_build_text (4100, 0, 0, "ATC_", "V5.8", NULL);

  check_kind (&(KindCase){ image, MI_IMAGE_CUSTOM_ATC1441, NULL, -1 });
}

static void
test_kind_tuya (void)
{
  GByteArray *image = images_build_text (4100, 0, 0, "tuya_ble", NULL);

  check_kind (&(KindCase){ image, MI_IMAGE_TUYA, NULL, -1 });
}

static void
test_unexplained_rest (void)
{
  GByteArray *file = images_build_text (4100, 0, 0, "mible-login-info", NULL);
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (MiImage) image = NULL;

  g_byte_array_append (file, (const guint8 *) "\xff\xff\xff\xfe", 4);
  bytes = images_bytes (file);
  image = mi_image_new (bytes, root);
  g_assert_cmpint (mi_image_get_kind (image), ==, MI_IMAGE_DAMAGED);
  g_assert_cmpint (mi_image_get_body_kind (image), ==, MI_IMAGE_STOCK);
}

static void
test_payload_of_container (void)
{
  g_autoptr (GByteArray) inner = images_build (4100, 22, 0x1141, 0x0203, 0x99993001);
  g_autoptr (GBytes) file = images_bytes (images_container (inner, 0x1141, 0x0203));
  g_autoptr (MiImage) image = mi_image_new (file, NULL);
  GBytes *payload = mi_image_get_payload (image);

  g_assert_cmpmem (g_bytes_get_data (payload, NULL), g_bytes_get_size (payload), inner->data,
                   inner->len);
  g_assert_cmpuint (mi_image_get_blocks (image), ==, 257);
  g_assert_true (mi_image_check (image, NULL));
}

/* Container fields that lie, one at a time. */
static void
test_bad_containers (void)
{
  static const struct
  {
    gsize offset;
    guint32 value;
    gsize width;
  } lies[] = {
    { 0x06, 55, 2 },         { 0x06, 0xffff, 2 }, { 0x34, 4163, 4 },
    { 0x34, 0, 4 },          { 0x38, 1, 2 },      { 0x3a, 4101, 4 },
    { 0x3a, 0xffffffff, 4 }, { 0x3a, 0, 4 },      { 0x3a, 4099, 4 },
  };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (lies); i++)
    {
      g_autoptr (GByteArray) inner = images_build (4100, 22, 0x1141, 0x0203, 1);
      GByteArray *file = images_container (inner, 0x1141, 0x0203);
      g_autoptr (GBytes) bytes = NULL;
      g_autoptr (MiImage) image = NULL;
      g_autoptr (GError) error = NULL;

      if (lies[i].width == 2)
        mi_put_u16 (file->data + lies[i].offset, (guint16) lies[i].value);
      else
        mi_put_u32 (file->data + lies[i].offset, lies[i].value);
      bytes = images_bytes (file);
      image = mi_image_new (bytes, NULL);
      g_assert_false (mi_image_check (image, &error));
      g_assert_error (error, MI_ERROR, MI_ERROR_BAD_IMAGE);
    }
}

/* Every prefix around the ends of parts, and a sample of the others. */
static gsize
next_prefix (gsize len)
{
  static const gsize ends[] = { 0, 0x40, SIGNED_TAG, SIGNED_CERTS, SIGNED_SIGNATURE, 5392 };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (ends); i++)
    {
      if (len + 40 > ends[i] && len < ends[i] + 40)
        return len + 1;
    }
  return len + 17;
}

/* Whatever the length, a prefix of a signed file and of a container is described. */
static void
test_prefixes (void)
{
  g_autoptr (GByteArray) file = signed_image ();
  g_autoptr (GByteArray) container = images_container (file, 0x1141, 0x0203);
  gsize len;

  for (len = 0; len < file->len; len = next_prefix (len))
    {
      g_autoptr (GBytes) a = g_bytes_new (file->data, len), b = g_bytes_new (container->data, len);
      g_autoptr (MiImage) image = mi_image_new (a, root), boxed = mi_image_new (b, root);
      g_autoptr (GVariant) facts = g_variant_ref_sink (mi_image_describe (image, NULL, NULL));

      g_assert_true (g_variant_is_of_type (facts, G_VARIANT_TYPE_VARDICT));
      g_assert_false (len < SIGNED_TAG && mi_image_check (image, NULL));
      g_assert_false (mi_image_check (boxed, NULL));
      g_assert_true (mi_image_is_signed (image) == (len >= file->len - SIGNED_PADDING));
    }
}

static void
check_size_field (guint32 size, gboolean sound)
{
  GByteArray *file = images_build (4132, 21, 0, 0, 0);
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (MiImage) image = NULL;
  g_autoptr (GError) error = NULL;

  mi_put_u32 (file->data + 0x18, size);
  if (size >= 0x20 && size <= file->len)
    images_fix_crc (file);
  bytes = images_bytes (file);
  image = mi_image_new (bytes, NULL);
  g_assert_true (mi_image_check (image, &error) == sound);
  if (!sound)
    g_assert_error (error, MI_ERROR, MI_ERROR_BAD_IMAGE);
}

static void
test_size_field (void)
{
  check_size_field (4132, TRUE);
  check_size_field (0x24, TRUE);
  check_size_field (4130, FALSE);
  check_size_field (0x14, FALSE);
  check_size_field (0, FALSE);
  check_size_field (4148, FALSE);
  check_size_field (0xfffffff4, FALSE);
}

/* Only the last magic counts, and one inside the body only if it says that it is there. */
static void
test_magic_in_body (void)
{
  static const guint8 magic[]
      = { 0, 0, 0, 0, 0x4d, 0x49, 0xef, 0x54, 0x46, 0x4f, 0x54, 0x41, 0x82, 0x56, 0x26, 0x47 };
  GByteArray *file = images_build (4100, 21, 0, 0, 0);
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (MiImage) image = NULL;

  memcpy (file->data + 1000, magic, sizeof magic);
  images_fix_crc (file);
  bytes = images_bytes (file);
  image = mi_image_new (bytes, NULL);
  g_assert_null (mi_image_get_tag (image));
  g_assert_true (mi_image_check (image, NULL));
}

static void
test_tlv_past_tag (void)
{
  GByteArray *file = signed_image ();
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (MiImage) image = NULL;

  /* The last TLV (product id, 4 bytes) claims 5: one byte into the CRC. */
  g_assert_cmpuint (file->data[SIGNED_CERTS - 9], ==, 4);
  file->data[SIGNED_CERTS - 9] = 5;
  bytes = images_bytes (file);
  image = mi_image_new (bytes, root);
  g_assert_nonnull (mi_image_get_tag (image));
  g_assert_false (mi_image_get_tag (image)->valid);
  g_assert_cmpint (mi_image_get_verdict (image, MI_CHECK_TAG), ==, MI_VERDICT_INVALID);
  g_assert_cmpint (mi_image_get_kind (image), ==, MI_IMAGE_DAMAGED);
}

static void
test_any_of_several_roots (void)
{
  g_autoptr (GBytes) bytes = images_bytes (signed_image ());
  guint8 roots[128];
  g_autoptr (MiImage) both = NULL, vendor = mi_image_new (bytes, NULL), none = NULL;

  memcpy (roots, mi_mijia_root, 64);
  memcpy (roots + 64, root, 64);
  both = mi_image_new_with_roots (bytes, roots, 2);
  none = mi_image_new_with_roots (bytes, NULL, 0);
  g_assert_true (mi_image_is_signed (both));
  g_assert_false (mi_image_is_signed (vendor));
  g_assert_cmpint (mi_image_get_verdict (vendor, MI_CHECK_CHAIN), ==, MI_VERDICT_INVALID);
  g_assert_cmpint (mi_image_get_verdict (vendor, MI_CHECK_SIGNATURE), ==, MI_VERDICT_VALID);
  g_assert_false (mi_image_is_signed (none));
}

/* Envelopes. */

static GBytes *
envelope_bytes (void)
{
  gsize len;
  guint8 *data = vectors_bytes (json_object_get_object_member (vectors_load ("image"), "envelope"),
                                "envelope", &len);

  return g_bytes_new_take (data, len);
}

static void
test_envelope (void)
{
  JsonObject *expected = json_object_get_object_member (vectors_load ("image"), "envelope");
  g_autoptr (GBytes) plain = images_bytes (make_plain ()), envelope = envelope_bytes ();
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) out = mi_image_apply_envelope (plain, envelope, &error);
  g_autoptr (MiImage) image = NULL;
  g_autofree guint8 *tail = NULL;
  const guint8 *data;
  gsize len, tail_len;

  g_assert_no_error (error);
  data = g_bytes_get_data (out, &len);
  tail = vectors_bytes (expected, "tail", &tail_len);
  g_assert_cmpuint (len, ==, json_object_get_int_member (expected, "result_length"));
  g_assert_cmpmem (data + 4100 + 4, tail_len, tail, tail_len);
  image = mi_image_new (out, root);
  g_assert_cmpstr (mi_image_get_sha256 (image), ==,
                   json_object_get_string_member (expected, "result_sha256"));
  g_assert_cmpint (mi_image_get_kind (image), ==, MI_IMAGE_ENVELOPED);
  g_assert_cmpint (mi_image_get_verdict (image, MI_CHECK_PADDING), ==, MI_VERDICT_INVALID);
  g_assert_false (mi_image_is_signed (image));
}

static void
test_real_envelope (void)
{
  JsonObject *expected = json_object_get_object_member (vectors_load ("image"), "envelope_real");
  g_autoptr (GBytes) plain = read_firmware ("ATC_v58.bin");
  g_autoptr (GBytes) envelope = read_firmware ("sign_2.1.1_0159c.bin");
  g_autoptr (GBytes) out = NULL;
  g_autoptr (MiImage) image = NULL;

  if (plain == NULL || envelope == NULL)
    {
      g_test_skip ("firmware file absent from the folder in MITHERM_FIRMWARE");
      return;
    }
  out = mi_image_apply_envelope (plain, envelope, NULL);
  g_assert_nonnull (out);
  image = mi_image_new (out, NULL);
  g_assert_cmpstr (mi_image_get_sha256 (image), ==,
                   json_object_get_string_member (expected, "result_sha256"));
  g_assert_cmpint (mi_image_get_kind (image), ==, MI_IMAGE_ENVELOPED);
}

static void
test_envelope_around_another_image (void)
{
  g_autoptr (GBytes) custom = images_bytes (
      images_build_text (8196, IMAGES_CUSTOM, 0x020a, "github.com/pvvx", "V5.8", NULL));
  g_autoptr (GBytes) envelope = envelope_bytes ();
  g_autoptr (GBytes) out = mi_image_apply_envelope (custom, envelope, NULL);
  g_autoptr (MiImage) image = mi_image_new (out, root);

  g_assert_cmpint (mi_image_get_kind (image), ==, MI_IMAGE_ENVELOPED);
  g_assert_cmpint (mi_image_get_body_kind (image), ==, MI_IMAGE_CUSTOM_PVVX);
  g_assert_cmpstr (mi_image_get_version (image), ==, "V5.8");
  g_assert_cmpuint (mi_image_get_tag (image)->firmware_size, ==, 8196);
  g_assert_cmpint (mi_image_get_verdict (image, MI_CHECK_CHAIN), ==, MI_VERDICT_VALID);
  g_assert_cmpint (mi_image_get_verdict (image, MI_CHECK_SIGNATURE), ==, MI_VERDICT_INVALID);
  g_assert_false (mi_image_is_signed (image));
}

static void
check_bad_envelope (GBytes *image, const guint8 *data, gsize len)
{
  g_autoptr (GBytes) envelope = g_bytes_new (data, len);
  g_autoptr (GError) error = NULL;

  g_assert_null (mi_image_apply_envelope (image, envelope, &error));
  g_assert_error (error, MI_ERROR, MI_ERROR_BAD_IMAGE);
}

static void
test_bad_envelopes (void)
{
  g_autoptr (GBytes) plain = images_bytes (make_plain ()), sound = envelope_bytes ();
  g_autoptr (GBytes) trailed = images_bytes (signed_image ());
  gsize len, i;
  g_autofree guint8 *data = g_memdup2 (g_bytes_get_data (sound, NULL), g_bytes_get_size (sound));

  len = g_bytes_get_size (sound);
  g_assert_cmpuint (len, ==, 1302); /* head 1288, x0, two records */
  for (i = 0; i < len; i++)
    {
      /* Whole records may be missing: that is an envelope too. */
      if (i != 1290 && i != 1296)
        check_bad_envelope (plain, data, i);
    }
  check_bad_envelope (trailed, data, len);
  data[6] ^= 1; /* of the magic */
  check_bad_envelope (plain, data, len);
  data[6] ^= 1;
  data[1288] ^= 0x80; /* a fill so short that a record lies outside, or so long that none does */
  data[1289] ^= 0x01;
  data[1290] ^= 0xff;
  data[1291] ^= 0xff;
  check_bad_envelope (plain, data, len);
}

static void
test_crc_example (void)
{
  g_assert_cmphex (mi_crc32 (0xffffffff, (const guint8 *) "123456789", 9), ==, 0x340bc6d9);
}

static void
add_vectors (void)
{
  JsonObject *vectors = vectors_load ("image");
  JsonArray *synthetic = json_object_get_array_member (vectors, "synthetic");
  JsonArray *real = json_object_get_array_member (vectors, "real");
  guint i;

  for (i = 0; i < json_array_get_length (synthetic); i++)
    {
      JsonObject *item = json_array_get_object_element (synthetic, i);
      g_autofree char *path
          = vectors_path ("/image/synthetic", json_object_get_string_member (item, "name"));

      g_test_add_data_func (path, item, test_synthetic);
    }
  for (i = 0; i < json_array_get_length (real); i++)
    {
      JsonObject *item = json_array_get_object_element (real, i);
      g_autofree char *path
          = vectors_path ("/image/real", json_object_get_string_member (item, "file"));

      g_test_add_data_func (path, item, test_real);
    }
}

static void
add_flips (void)
{
  static const FlipRange body = { 0, SIGNED_TAG, 61 };
  static const FlipRange tag = { SIGNED_TAG, SIGNED_CERTS, 1 };
  static const FlipRange certificates = { SIGNED_CERTS, SIGNED_SIGNATURE, 1 };
  static const FlipRange signature = { SIGNED_SIGNATURE, 5392 - SIGNED_PADDING, 1 };
  static const FlipRange padding = { 5392 - SIGNED_PADDING, 5392, 1 };

  g_test_add_data_func ("/image/flipped-bit/body-turns-crc", &body, test_flips);
  g_test_add_data_func ("/image/flipped-bit/tag-turns-tag", &tag, test_flips);
  g_test_add_data_func ("/image/flipped-bit/certificates-turn-chain", &certificates, test_flips);
  g_test_add_data_func ("/image/flipped-bit/signature-turns-signature", &signature, test_flips);
  g_test_add_data_func ("/image/flipped-bit/padding-turns-padding", &padding, test_flips);
}

int
main (int argc, char **argv)
{
  gsize len;
  g_autofree guint8 *key = NULL;

  g_test_init (&argc, &argv, NULL);
  key = vectors_bytes (json_object_get_object_member (vectors_load ("image"), "root"), "public",
                       &len);
  g_assert_cmpuint (len, ==, sizeof root);
  memcpy (root, key, sizeof root);
  add_vectors ();
  add_flips ();
  g_test_add_func ("/image/crc32-of-123456789", test_crc_example);
  g_test_add_func ("/image/kind/stock", test_kind_stock);
  g_test_add_func ("/image/kind/two-versions-in-a-body-are-none", test_kind_two_versions);
  g_test_add_func ("/image/kind/custom-pvvx", test_kind_pvvx);
  g_test_add_func ("/image/kind/pvvx-needs-its-manufacturer",
                   test_kind_pvvx_needs_its_manufacturer);
  g_test_add_func ("/image/kind/custom-atc1441", test_kind_atc1441);
  g_test_add_func ("/image/kind/tuya", test_kind_tuya);
  g_test_add_func ("/image/kind/unexplained-bytes-behind-the-image-are-damage",
                   test_unexplained_rest);
  g_test_add_func ("/image/container/payload-is-the-embedded-image", test_payload_of_container);
  g_test_add_func ("/image/container/every-lie-is-refused", test_bad_containers);
  g_test_add_func ("/image/every-prefix-is-described", test_prefixes);
  g_test_add_func ("/image/size-field", test_size_field);
  g_test_add_func ("/image/magic-inside-the-body-is-no-tag", test_magic_in_body);
  g_test_add_func ("/image/tlv-past-the-tag-makes-it-invalid", test_tlv_past_tag);
  g_test_add_func ("/image/any-of-several-roots", test_any_of_several_roots);
  g_test_add_func ("/image/envelope/vector", test_envelope);
  g_test_add_func ("/image/envelope/real", test_real_envelope);
  g_test_add_func ("/image/envelope/another-image-is-enveloped-not-signed",
                   test_envelope_around_another_image);
  g_test_add_func ("/image/envelope/bad-ones-are-refused", test_bad_envelopes);
  return g_test_run ();
}
