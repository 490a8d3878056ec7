/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz.h"

#include "mitherm-keyfile.h"
#include "mitherm-error.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

/* Key files from other programs, and the store's own files, in a folder that lives as long as a
 * run. */

static int
open_file (int dir, const char *name)
{
  return openat (dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

/* A power cut is not what is looked for here. */
static int
sync_nothing (int fd)
{
  return 0;
}

static int
rename_file (int dir, const char *from, const char *to)
{
  return renameat (dir, from, dir, to);
}

static const MithermStoreIo io = { open_file, write, sync_nothing, rename_file };

static void
remove_folder (const char *path)
{
  g_autoptr (GDir) folder = g_dir_open (path, 0, NULL);
  const char *name;

  while (folder != NULL && (name = g_dir_read_name (folder)) != NULL)
    {
      g_autofree char *child = g_build_filename (path, name, NULL);

      if (g_file_test (child, G_FILE_TEST_IS_DIR))
        remove_folder (child);
      else
        g_unlink (child);
    }
  g_rmdir (path);
}

static MithermStore *
open_store (const char *folder)
{
  MithermStore *store = mitherm_store_new (folder, NULL);

  g_assert (store != NULL);
  mitherm_store_set_io (store, &io);
  return store;
}

static void
check_record (const MithermRecord *record, gpointer user_data)
{
  guint *sets = user_data;
  guint8 address[6];
  guint current = 0;

  g_assert (mi_address_parse (record->address, address));
  for (guint i = 0; i < record->keys->len; i++)
    {
      const MithermKeySet *set = record->keys->pdata[i];

      g_assert (set->has_token || set->has_bind_key);
      g_assert (mitherm_key_state_to_string (set->state) != NULL);
      current += g_str_equal (mitherm_key_state_to_string (set->state), "current");
    }
  g_assert (current <= 1);
  *sets += record->keys->len;
}

static void
on_changed (const char *address, gpointer user_data)
{
  guint8 bytes[6];

  g_assert (mi_address_parse (address, bytes));
}

/* No problem report repeats what may be a key. */
static void
check_problems (GVariant *problems)
{
  g_autofree char *text = g_variant_print (problems, FALSE);
  guint run = 0;

  g_assert (g_variant_is_of_type (problems, G_VARIANT_TYPE ("aa{sv}")));
  for (const char *p = text; *p != '\0'; p++)
    {
      run = g_ascii_isxdigit (*p) ? run + 1 : 0;
      g_assert (run < 24);
    }
}

static gboolean
import (MithermStore *store, const char *data, gsize len)
{
  static MiModels *models;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) problems = NULL;
  MithermImport result = { 0 };

  if (models == NULL)
    models = mi_models_load (MITHERM_SOURCE_DATA_DIR, "/nonexistent", NULL);
  if (!mitherm_keyfile_import (store, models, data, len, on_changed, NULL, &result, &error))
    {
      g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS);
      return FALSE;
    }
  problems = g_variant_ref_sink (result.problems);
  check_problems (problems);
  return TRUE;
}

/* What was imported can be exported, and imported again without a loss. */
static void
import_twice (const char *folder, const char *data, gsize len)
{
  g_autofree char *second = g_build_filename (folder, "second", NULL);
  g_autofree char *first = g_build_filename (folder, "first", NULL);
  g_autoptr (MithermStore) one = open_store (first);
  g_autoptr (MithermStore) two = NULL;
  g_autofree char *text = NULL;
  guint sets = 0, sets_again = 0;

  import (one, data, len);
  mitherm_store_foreach (one, check_record, &sets);
  g_debug ("%u sets imported", sets);
  if (sets == 0)
    return;
  text = mitherm_keyfile_export (one, NULL);
  two = open_store (second);
  g_assert (import (two, text, strlen (text)));
  mitherm_store_foreach (two, check_record, &sets_again);
  g_assert (sets == sets_again);
}

/* A key file that says anything: read, or put aside, and never in the way of the next start. */
static void
read_file (const char *folder, const char *data, gsize len)
{
  g_autofree char *state = g_build_filename (folder, "state", NULL);
  g_autofree char *keys = g_build_filename (state, "keys", NULL);
  g_autofree char *file = g_build_filename (keys, "A4C138000001.conf", NULL);
  guint sets = 0, sets_again = 0;

  g_mkdir_with_parents (keys, 0700);
  g_file_set_contents_full (file, data, (gssize) len, G_FILE_SET_CONTENTS_NONE, 0600, NULL);
  for (guint i = 0; i < 2; i++)
    {
      g_autoptr (MithermStore) store = open_store (state);

      mitherm_store_foreach (store, check_record, i == 0 ? &sets : &sets_again);
    }
  g_assert (sets == sets_again);
  g_debug ("%u sets read", sets);
}

static GLogWriterOutput
drop_log (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer user_data)
{
  return G_LOG_WRITER_HANDLED;
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static gboolean quiet;
  MiReader in = MI_READER (data, size);
  guint8 mode = mi_reader_u8 (&in);
  gsize len = mi_reader_left (&in);
  const guint8 *rest = mi_reader_take (&in, len);
  g_autofree char *folder = NULL;
  g_autofree char *exact = NULL;

  fuzz_begin ();
  if (rest == NULL)
    return 0;
  if (!quiet)
    {
      /* The store tells of each broken file. */
      if (g_getenv ("FUZZ_VERBOSE") == NULL)
        g_log_set_writer_func (drop_log, NULL, NULL);
      quiet = TRUE;
    }
  exact = g_malloc (MAX (len, 1));
  memcpy (exact, rest, len);
  folder = g_dir_make_tmp ("mitherm-fuzz-XXXXXX", NULL);
  g_assert (folder != NULL);
  if (mode & 1)
    read_file (folder, exact, len);
  else
    import_twice (folder, exact, len);
  remove_folder (folder);
  return 0;
}
