/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mi-bytes.h"

static void
test_reader_reads_little_endian (void)
{
  const guint8 bytes[] = { 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x88, 0x99 };
  MiReader in = MI_READER (bytes, sizeof bytes);

  g_assert_cmphex (mi_reader_u8 (&in), ==, 0x01);
  g_assert_cmphex (mi_reader_u16 (&in), ==, 0x0302);
  g_assert_cmphex (mi_reader_u32 (&in), ==, 0x07060504);
  g_assert_cmpuint (mi_reader_left (&in), ==, 2);
  g_assert_false (mi_reader_at_end (&in));
  g_assert_true (mi_reader_take (&in, 2) == bytes + 7);
  g_assert_true (mi_reader_at_end (&in));
  g_assert_true (mi_reader_ok (&in));
}

static void
test_reader_stays_failed (void)
{
  const guint8 bytes[] = { 1, 2, 3 };
  MiReader in = MI_READER (bytes, sizeof bytes);

  g_assert_cmphex (mi_reader_u32 (&in), ==, 0);
  g_assert_false (mi_reader_ok (&in));
  g_assert_cmphex (mi_reader_u8 (&in), ==, 0);
  g_assert_null (mi_reader_take (&in, 0));
  g_assert_cmpuint (mi_reader_left (&in), ==, 0);
  g_assert_false (mi_reader_at_end (&in));
}

static void
test_reader_refuses_huge_lengths (void)
{
  const guint8 bytes[] = { 1, 2, 3 };
  MiReader in = MI_READER (bytes, sizeof bytes);

  g_assert_cmphex (mi_reader_u8 (&in), ==, 1);
  g_assert_null (mi_reader_take (&in, G_MAXSIZE));
  g_assert_false (mi_reader_ok (&in));
}

static void
test_reader_of_nothing (void)
{
  MiReader in = MI_READER (NULL, 0);

  g_assert_nonnull (mi_reader_take (&in, 0));
  g_assert_true (mi_reader_at_end (&in));
  g_assert_cmphex (mi_reader_u8 (&in), ==, 0);
  g_assert_false (mi_reader_at_end (&in));
}

static void
test_stores_are_little_endian (void)
{
  guint8 out[4];

  mi_put_u16 (out, 0xbeef);
  g_assert_cmpmem (out, 2, "\xef\xbe", 2);
  g_assert_cmphex (mi_get_u16 (out), ==, 0xbeef);
  mi_put_u32 (out, 0x89abcdef);
  g_assert_cmpmem (out, 4, "\xef\xcd\xab\x89", 4);
  g_assert_cmphex (mi_get_u32 (out), ==, 0x89abcdef);
}

static void
test_hex_takes_both_cases (void)
{
  guint8 out[3];
  g_autofree char *text = NULL;

  g_assert_true (mi_hex_decode ("00aBFf", out, 3));
  g_assert_cmpmem (out, 3, "\x00\xab\xff", 3);
  text = mi_hex_encode (out, 3);
  g_assert_cmpstr (text, ==, "00abff");
}

static void
test_hex_refuses_everything_else (void)
{
  static const char *const wrong[]
      = { "",         "0",      "00",     "00ab",   "00abf",  "00abfff", "00abff0",
          "00abff00", "00 bff", "0x00ab", "00abfg", "-0abff", "00abff ", NULL };
  guint8 out[3];
  gsize len;

  for (guint i = 0; wrong[i] != NULL; i++)
    g_assert_false (mi_hex_decode (wrong[i], out, 3));
  g_assert_null (mi_hex_decode_alloc ("abc", &len));
  g_assert_null (mi_hex_decode_alloc ("zz", &len));
}

static void
test_hex_of_any_length (void)
{
  g_autofree guint8 *none = NULL;
  g_autofree guint8 *some = NULL;
  gsize len = 99;

  none = mi_hex_decode_alloc ("", &len);
  g_assert_nonnull (none);
  g_assert_cmpuint (len, ==, 0);
  some = mi_hex_decode_alloc ("0102", &len);
  g_assert_cmpmem (some, len, "\x01\x02", 2);
}

static void
test_address_is_strict (void)
{
  static const char *const wrong[] = { "",
                                       "A4:C1:38:00:00",
                                       "A4:C1:38:00:00:0",
                                       "A4:C1:38:00:00:01 ",
                                       "A4-C1-38-00-00-01",
                                       "A4C138000001",
                                       "A4:C1:38:00:00:01:02",
                                       "A4:C1:38:00:00:0G",
                                       ":A4:C1:38:00:00",
                                       NULL };
  guint8 out[6];

  g_assert_true (mi_address_parse ("a4:C1:38:00:0f:01", out));
  g_assert_cmpmem (out, 6, "\xa4\xc1\x38\x00\x0f\x01", 6);
  for (guint i = 0; wrong[i] != NULL; i++)
    g_assert_false (mi_address_parse (wrong[i], out));
  g_assert_cmpmem (out, 6, "\xa4\xc1\x38\x00\x0f\x01", 6);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/bytes/reader/reads-little-endian", test_reader_reads_little_endian);
  g_test_add_func ("/bytes/reader/stays-failed", test_reader_stays_failed);
  g_test_add_func ("/bytes/reader/refuses-huge-lengths", test_reader_refuses_huge_lengths);
  g_test_add_func ("/bytes/reader/of-nothing-is-at-its-end", test_reader_of_nothing);
  g_test_add_func ("/bytes/stores-are-little-endian", test_stores_are_little_endian);
  g_test_add_func ("/bytes/hex/takes-both-cases", test_hex_takes_both_cases);
  g_test_add_func ("/bytes/hex/refuses-everything-else", test_hex_refuses_everything_else);
  g_test_add_func ("/bytes/hex/of-any-length", test_hex_of_any_length);
  g_test_add_func ("/bytes/address/is-strict", test_address_is_strict);
  return g_test_run ();
}
