/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz.h"

#include "mi-crypto.h"
#include "mi-image.h"

#include <string.h>

static void
look (MiImage *image)
{
  g_autoptr (GVariant) facts = g_variant_ref_sink (mi_image_describe (image, NULL, NULL));
  g_autoptr (GError) error = NULL;

  g_assert (g_variant_is_of_type (facts, G_VARIANT_TYPE_VARDICT));
  g_assert (mi_image_kind_to_string (mi_image_get_kind (image)) != NULL);
  for (guint i = 0; i < MI_CHECK_COUNT; i++)
    g_assert (mi_verdict_to_string (mi_image_get_verdict (image, i)) != NULL);
  for (guint i = 0; i < mi_image_get_n_certificates (image); i++)
    g_assert (mi_image_get_certificate (image, i) != NULL);
  if (!mi_image_check (image, &error))
    g_assert_error (error, MI_ERROR, MI_ERROR_BAD_IMAGE);
  else
    g_assert (mi_image_get_header (image) != NULL && mi_image_get_header (image)->crc_ok);
  /* Nobody has the vendor's key: what no fuzzer can sign is never signed. */
  g_assert (!mi_image_is_signed (image));
  mi_image_contains (image, "miaomiaoce");
  g_assert (mi_image_get_blocks (image) * 16 >= g_bytes_get_size (mi_image_get_payload (image)));
}

/* Fuzzers do not guess checksums: sets the CRC of the image, so that the rest is reached. */
static void
repair (guint8 *data, gsize len)
{
  guint32 size;

  if (len < MI_IMAGE_MIN_SIZE)
    return;
  memcpy (data + 8, "KNLT", 4);
  data[6] = 0x5d;
  data[7] = 2;
  size = mi_get_u32 (data + 0x18);
  if (size < MI_IMAGE_MIN_SIZE || size > len)
    mi_put_u32 (data + 0x18, size = (guint32) ((len - 4) / 16 * 16 + 4));
  mi_put_u32 (data + size - 4, mi_crc32 (0xffffffff, data, size - 4));
}

static void
wrap (GBytes *file, gsize at)
{
  gsize len = g_bytes_get_size (file);
  g_autoptr (GBytes) image = g_bytes_new_from_bytes (file, 0, MIN (at, len));
  g_autoptr (GBytes) envelope = g_bytes_new_from_bytes (file, MIN (at, len), len - MIN (at, len));
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) both = mi_image_apply_envelope (image, envelope, &error);
  g_autoptr (MiImage) result = NULL;

  if (both == NULL)
    {
      g_assert_error (error, MI_ERROR, MI_ERROR_BAD_IMAGE);
      return;
    }
  result = mi_image_new (both, NULL);
  look (result);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  MiReader in = MI_READER (data, size);
  guint8 mode = mi_reader_u8 (&in);
  gsize len = mi_reader_left (&in);
  g_autoptr (GBytes) file = NULL;
  g_autoptr (MiImage) image = NULL;
  guint8 *exact;

  fuzz_begin ();
  exact = g_memdup2 (mi_reader_take (&in, len), len);
  if (mode & 1 && exact != NULL)
    repair (exact, len);
  file = g_bytes_new_take (exact, len);
  image = mi_image_new (file, NULL);
  look (image);
  if (mode & 2)
    wrap (file, mode * 8u);
  return 0;
}
