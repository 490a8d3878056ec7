/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-flash.h"

#include "mi.h"

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>

static const guint32 banks[] = { 0x00000, 0x20000, 0x40000 };

static guint8
byte_at (SimFlash *flash, guint32 address)
{
  guint8 value;

  sim_flash_read (flash, address, &value, 1);
  return value;
}

static void
put_byte (SimFlash *flash, guint32 address, guint8 value)
{
  g_assert_true (sim_flash_program (flash, address, &value, 1));
}

static void
put_image (SimFlash *flash, guint32 bank)
{
  static const guint8 head[] = { 0x26, 0x80, 0, 0, 0, 0, 0x5d, 0x02, 0x4b, 0x4e, 0x4c, 0x54 };

  g_assert_true (sim_flash_program (flash, bank, head, sizeof head));
}

static void
test_new_is_erased (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();

  g_assert_cmpuint (byte_at (flash, 0), ==, 0xff);
  g_assert_cmpuint (byte_at (flash, SIM_FLASH_SIZE - 1), ==, 0xff);
  g_assert_cmpuint (sim_flash_get_written (flash, 0, SIM_FLASH_SIZE), ==, 0);
}

static void
test_program_clears_only (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();

  put_byte (flash, 5, 0xf0);
  g_assert_cmpuint (byte_at (flash, 5), ==, 0xf0);
  put_byte (flash, 5, 0x3c);
  g_assert_cmpuint (byte_at (flash, 5), ==, 0x30);
  put_byte (flash, 5, 0xff);
  g_assert_cmpuint (byte_at (flash, 5), ==, 0x30);
}

static void
test_erase_is_by_sector (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();

  put_byte (flash, 0x0fff, 0);
  put_byte (flash, 0x1000, 0);
  put_byte (flash, 0x2fff, 0);
  put_byte (flash, 0x3000, 0);
  sim_flash_erase (flash, 0x1800, 0x1000);
  g_assert_cmpuint (byte_at (flash, 0x0fff), ==, 0);
  g_assert_cmpuint (byte_at (flash, 0x1000), ==, 0xff);
  g_assert_cmpuint (byte_at (flash, 0x2fff), ==, 0xff);
  g_assert_cmpuint (byte_at (flash, 0x3000), ==, 0);
}

static void
test_end_is_guarded (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();
  const guint8 two[2] = { 0, 0 };
  guint8 out[4];

  g_assert_false (sim_flash_program (flash, SIM_FLASH_SIZE - 1, two, 2));
  g_assert_cmpuint (byte_at (flash, SIM_FLASH_SIZE - 1), ==, 0xff);
  g_assert_false (sim_flash_rewrite (flash, G_MAXUINT32, two, 2));
  sim_flash_read (flash, SIM_FLASH_SIZE - 2, out, sizeof out);
  g_assert_cmpuint (out[3], ==, 0xff);
  sim_flash_erase (flash, SIM_FLASH_SIZE - 4, G_MAXUINT32);
  sim_flash_erase (flash, G_MAXUINT32, 1);
}

static void
test_written_is_the_last_byte (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();
  guint8 data[0x1800];

  memset (data, 0xff, sizeof data); /* written although it changes no bit */
  g_assert_true (sim_flash_program (flash, 0x20000, data, sizeof data));
  g_assert_cmpuint (sim_flash_get_written (flash, 0x20000, 0x20000), ==, 0x1800);
  g_assert_cmpuint (sim_flash_get_written (flash, 0, 0x20000), ==, 0);
  sim_flash_erase (flash, 0x21000, 1);
  g_assert_cmpuint (sim_flash_get_written (flash, 0x20000, 0x20000), ==, 0x1000);
}

static void
test_rewrite_sets_bits (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();
  const guint8 first[3] = { 1, 2, 3 };
  const guint8 second[2] = { 0xf0, 0x0f };

  g_assert_true (sim_flash_program (flash, 0xffe, first, sizeof first));
  g_assert_true (sim_flash_rewrite (flash, 0xfff, second, sizeof second));
  g_assert_cmpuint (byte_at (flash, 0xffe), ==, 1);
  g_assert_cmpuint (byte_at (flash, 0xfff), ==, 0xf0);
  g_assert_cmpuint (byte_at (flash, 0x1000), ==, 0x0f);
}

/* protocol/ota-telink.md section 5 */
static void
test_lowest_marked_bank_boots (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();
  guint32 bank = 1;

  g_assert_false (sim_flash_boot (flash, banks, 3, &bank));
  put_image (flash, banks[2]);
  g_assert_true (sim_flash_boot (flash, banks, 3, &bank));
  g_assert_cmpuint (bank, ==, 0x40000);
  put_image (flash, banks[1]);
  g_assert_true (sim_flash_boot (flash, banks, 3, &bank));
  g_assert_cmpuint (bank, ==, 0x20000);
  put_image (flash, banks[0]);
  g_assert_true (sim_flash_boot (flash, banks, 3, &bank));
  g_assert_cmpuint (bank, ==, 0);
}

/* The three moments of a power loss at the end of an update, from bank 0 to 1 and back. */
static void
test_power_cut_always_boots (gconstpointer data)
{
  guint32 old = banks[GPOINTER_TO_UINT (data)];
  guint32 new = banks[1 - GPOINTER_TO_UINT (data)];
  g_autoptr (SimFlash) flash = sim_flash_new ();
  static const guint8 head[] = { 0x26, 0x80, 0, 0, 0, 0, 0x5d, 0x02, 0xff, 0x4e, 0x4c, 0x54 };
  guint32 bank;

  put_image (flash, old);
  g_assert_true (sim_flash_program (flash, new, head, sizeof head));
  g_assert_true (sim_flash_boot (flash, banks, 2, &bank));
  g_assert_cmpuint (bank, ==, old);
  sim_flash_mark (flash, new);
  g_assert_true (sim_flash_boot (flash, banks, 2, &bank));
  g_assert_cmpuint (bank, ==, 0);
  sim_flash_unmark (flash, old);
  g_assert_true (sim_flash_boot (flash, banks, 2, &bank));
  g_assert_cmpuint (bank, ==, new);
  g_assert_false (sim_flash_is_marked (flash, old));
  /* a mark that was zeroed cannot come back without an erase */
  sim_flash_mark (flash, old);
  g_assert_false (sim_flash_is_marked (flash, old));
}

static void
test_last_record_counts (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();
  guint8 out[SIM_RECORD_MAX];

  g_assert_cmpuint (sim_flash_get_record (flash, 1, out), ==, 0);
  sim_flash_put_record (flash, 1, (const guint8 *) "abc", 3);
  sim_flash_put_record (flash, 2, (const guint8 *) "other", 5);
  sim_flash_put_record (flash, 1, (const guint8 *) "de", 2);
  g_assert_cmpuint (sim_flash_get_record (flash, 1, out), ==, 2);
  g_assert_cmpmem (out, 2, "de", 2);
  sim_flash_drop_record (flash, 1);
  g_assert_cmpuint (sim_flash_get_record (flash, 1, out), ==, 0);
  g_assert_cmpuint (sim_flash_get_record (flash, 2, out), ==, 5);
}

static void
test_full_sector_is_compacted (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();
  guint8 out[SIM_RECORD_MAX];
  guint8 data[SIM_RECORD_MAX];

  sim_flash_put_record (flash, 7, (const guint8 *) "kept", 4);
  for (guint i = 0; i < 1000; i++)
    {
      memset (data, (int) (i & 0xff), sizeof data);
      sim_flash_put_record (flash, 9, data, sizeof data);
    }
  g_assert_cmpuint (sim_flash_get_record (flash, 9, out), ==, SIM_RECORD_MAX);
  g_assert_cmpmem (out, SIM_RECORD_MAX, data, SIM_RECORD_MAX);
  g_assert_cmpuint (sim_flash_get_record (flash, 7, out), ==, 4);
  g_assert_cmpmem (out, 4, "kept", 4);
}

static char *
temporary_path (void)
{
  g_autofree char *folder = g_dir_make_tmp ("sim-flash-XXXXXX", NULL);

  g_assert_nonnull (folder);
  return g_build_filename (folder, "flash", NULL);
}

static void
remove_file (const char *path)
{
  g_autofree char *folder = g_path_get_dirname (path);

  g_unlink (path);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
}

static void
test_file_holds_everything (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();
  g_autoptr (SimFlash) again = sim_flash_new ();
  g_autofree char *path = temporary_path ();
  g_autoptr (GError) error = NULL;
  guint8 out[SIM_RECORD_MAX];

  put_image (flash, 0x20000);
  sim_flash_put_record (flash, 1, (const guint8 *) "abc", 3);
  put_byte (again, 0x100, 0); /* gone after the load */
  g_assert_true (sim_flash_save (flash, path, &error));
  g_assert_no_error (error);
  g_assert_true (sim_flash_load (again, path, &error));
  g_assert_no_error (error);
  g_assert_true (sim_flash_is_marked (again, 0x20000));
  g_assert_cmpuint (byte_at (again, 0x100), ==, 0xff);
  g_assert_cmpuint (sim_flash_get_written (again, 0x20000, 0x20000), ==, 12);
  g_assert_cmpuint (sim_flash_get_record (again, 1, out), ==, 3);
  remove_file (path);
}

static void
test_nothing_changed_is_not_saved (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();
  g_autofree char *path = temporary_path ();

  put_byte (flash, 0, 0);
  g_assert_true (sim_flash_save (flash, path, NULL));
  g_assert_cmpint (g_unlink (path), ==, 0);
  g_assert_true (sim_flash_save (flash, path, NULL));
  g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
  put_byte (flash, 1, 0);
  g_assert_true (sim_flash_save (flash, path, NULL));
  g_assert_true (g_file_test (path, G_FILE_TEST_EXISTS));
  remove_file (path);
}

static void
test_file_of_wrong_size_is_refused (void)
{
  g_autoptr (SimFlash) flash = sim_flash_new ();
  g_autofree char *path = temporary_path ();
  g_autoptr (GError) error = NULL;

  g_assert_true (g_file_set_contents (path, "short", -1, NULL));
  g_assert_false (sim_flash_load (flash, path, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA);
  remove_file (path);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/sim-flash/a-new-one-is-erased", test_new_is_erased);
  g_test_add_func ("/sim-flash/programming-only-clears-bits", test_program_clears_only);
  g_test_add_func ("/sim-flash/erasing-goes-by-sectors", test_erase_is_by_sector);
  g_test_add_func ("/sim-flash/nothing-passes-the-end", test_end_is_guarded);
  g_test_add_func ("/sim-flash/written-ends-with-the-last-byte", test_written_is_the_last_byte);
  g_test_add_func ("/sim-flash/rewriting-sets-bits-again", test_rewrite_sets_bits);
  g_test_add_func ("/sim-flash/the-lowest-marked-bank-boots", test_lowest_marked_bank_boots);
  g_test_add_data_func ("/sim-flash/power-cut-always-boots/to-the-upper-bank", GUINT_TO_POINTER (0),
                        test_power_cut_always_boots);
  g_test_add_data_func ("/sim-flash/power-cut-always-boots/to-the-lower-bank", GUINT_TO_POINTER (1),
                        test_power_cut_always_boots);
  g_test_add_func ("/sim-flash/the-last-record-of-a-type-counts", test_last_record_counts);
  g_test_add_func ("/sim-flash/a-full-sector-is-compacted", test_full_sector_is_compacted);
  g_test_add_func ("/sim-flash/the-file-holds-everything", test_file_holds_everything);
  g_test_add_func ("/sim-flash/an-unchanged-flash-is-not-saved", test_nothing_changed_is_not_saved);
  g_test_add_func ("/sim-flash/a-file-of-wrong-size-is-refused",
                   test_file_of_wrong_size_is_refused);
  return g_test_run ();
}
