/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "mitherm-error.h"
#include "mitherm-keyfile.h"

#define ADDRESS "A4:C1:38:00:00:01"
#define OTHER   "A4:C1:38:00:00:02"

typedef struct
{
  char *dir;
  MithermStore *store;
} Fixture;

static void
reopen (Fixture *f)
{
  g_autoptr (GError) error = NULL;

  g_clear_pointer (&f->store, mitherm_store_free);
  f->store = mitherm_store_new (f->dir, &error);
  g_assert_no_error (error);
}

static void
set_up (Fixture *f, gconstpointer data)
{
  f->dir = g_dir_make_tmp ("mitherm-store-XXXXXX", NULL);
  reopen (f);
}

static void
remove_tree (const char *path)
{
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *child = g_build_filename (path, name, NULL);

      if (g_file_test (child, G_FILE_TEST_IS_DIR))
        remove_tree (child);
      else
        g_unlink (child);
    }
  g_rmdir (path);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  g_clear_pointer (&f->store, mitherm_store_free);
  remove_tree (f->dir);
  g_free (f->dir);
}

/* A set whose token and bind key consist of @seed. */
static MithermKeySet *
make_set (guint8 seed, MithermKeyState state)
{
  MithermKeySet *set = mitherm_key_set_new ();

  memset (set->keys.token, seed, MI_TOKEN_LEN);
  memset (set->keys.bind_key, seed ^ 0xff, MI_BIND_KEY_LEN);
  memset (set->keys.did + 1, 'd', MI_DID_LEN - 1);
  set->keys.has_did = set->has_token = set->has_bind_key = TRUE;
  set->keys.auth_version = 1;
  set->state = state;
  set->origin = g_strdup ("activate");
  set->created_us = 1700000000000000 + seed;
  return set;
}

static void
add (Fixture *f, const char *address, guint8 seed, MithermKeyState state)
{
  g_autoptr (MithermKeySet) set = make_set (seed, state);
  g_autoptr (GError) error = NULL;

  g_assert_true (mitherm_store_add (f->store, address, set, &error));
  g_assert_no_error (error);
}

static int
find (Fixture *f, const char *address, guint8 seed)
{
  guint8 token[MI_TOKEN_LEN];

  memset (token, seed, sizeof token);
  return mitherm_record_find_token (mitherm_store_lookup (f->store, address), token);
}

static MithermKeyState
state_of (Fixture *f, const char *address, guint8 seed)
{
  int index = find (f, address, seed);

  g_assert_cmpint (index, >=, 0);
  return ((MithermKeySet *) g_ptr_array_index (mitherm_store_lookup (f->store, address)->keys,
                                               index))
      ->state;
}

static void
promote (Fixture *f, const char *address, guint8 seed)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (
      mitherm_store_promote (f->store, address, (guint) find (f, address, seed), &error));
  g_assert_no_error (error);
}

static char *
key_path (Fixture *f, const char *name)
{
  return g_build_filename (f->dir, "keys", name, NULL);
}

static void
test_round_trip (Fixture *f, gconstpointer data)
{
  g_autoptr (MithermKeySet) set = make_set (1, MITHERM_KEY_CURRENT);
  const MithermKeySet *got;

  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  reopen (f);
  g_assert_cmpuint (mitherm_store_lookup (f->store, ADDRESS)->keys->len, ==, 1);
  got = g_ptr_array_index (mitherm_store_lookup (f->store, ADDRESS)->keys, 0);
  g_assert_cmpmem (got->keys.token, MI_TOKEN_LEN, set->keys.token, MI_TOKEN_LEN);
  g_assert_cmpmem (got->keys.bind_key, MI_BIND_KEY_LEN, set->keys.bind_key, MI_BIND_KEY_LEN);
  g_assert_cmpmem (got->keys.did, MI_DID_LEN, set->keys.did, MI_DID_LEN);
  g_assert_true (got->keys.has_did && got->has_token && got->has_bind_key);
  g_assert_cmpint (got->keys.auth_version, ==, 1);
  g_assert_cmpint (got->created_us, ==, set->created_us);
  g_assert_cmpstr (got->origin, ==, "activate");
  g_assert_cmpint (got->state, ==, MITHERM_KEY_CURRENT);
}

static void
test_facts (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  MithermFacts facts = {
    .name = g_strdup ("Küche; = [x]"),
    .model = g_strdup ("LYWSD03MMC"),
    .firmware = g_strdup ("1.0.0_0130"),
    .product_id = 0x055b,
    .auth_version = 1,
    .bound = MITHERM_BOUND_YES,
    .info_us = 42,
  };
  const MithermFacts *got;

  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  g_assert_true (mitherm_store_set_facts (f->store, ADDRESS, &facts, &error));
  reopen (f);
  got = &mitherm_store_lookup (f->store, ADDRESS)->facts;
  g_assert_false (mitherm_facts_differ (got, &facts));
  g_assert_cmpstr (got->name, ==, facts.name);
  g_assert_null (got->hardware);
  g_assert_cmpint (got->info_us, ==, 42);
  mitherm_facts_clear (&facts);
}

static void
test_modes (Fixture *f, gconstpointer data)
{
  g_autofree char *path = key_path (f, "A4C138000001.conf");
  g_autofree char *dir = key_path (f, NULL);
  struct stat info;

  umask (0);
  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  g_assert_cmpint (g_stat (path, &info), ==, 0);
  g_assert_cmpint (info.st_mode & 07777, ==, 0600);
  g_assert_cmpint (g_stat (dir, &info), ==, 0);
  g_assert_cmpint (info.st_mode & 07777, ==, 0700);
}

static void
test_pending_never_overwrites (Fixture *f, gconstpointer data)
{
  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  add (f, ADDRESS, 2, MITHERM_KEY_PENDING);
  add (f, ADDRESS, 3, MITHERM_KEY_PENDING);
  reopen (f);
  g_assert_cmpint (state_of (f, ADDRESS, 1), ==, MITHERM_KEY_CURRENT);
  g_assert_cmpint (state_of (f, ADDRESS, 2), ==, MITHERM_KEY_PENDING);
  g_assert_cmpint (state_of (f, ADDRESS, 3), ==, MITHERM_KEY_PENDING);
  g_assert_cmpint (find (f, ADDRESS, 3), ==, 0); /* newest first */
  g_assert_cmpint (find (f, ADDRESS, 1), ==, 2);
}

static void
test_promotion (Fixture *f, gconstpointer data)
{
  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  add (f, ADDRESS, 2, MITHERM_KEY_PENDING);
  add (f, ADDRESS, 3, MITHERM_KEY_PENDING);
  promote (f, ADDRESS, 2);
  reopen (f);
  g_assert_cmpint (state_of (f, ADDRESS, 1), ==, MITHERM_KEY_OLD);
  g_assert_cmpint (state_of (f, ADDRESS, 2), ==, MITHERM_KEY_CURRENT);
  g_assert_cmpint (state_of (f, ADDRESS, 3), ==, MITHERM_KEY_OLD);
}

static void
test_did_later (Fixture *f, gconstpointer data)
{
  g_autoptr (MithermKeySet) set = make_set (1, MITHERM_KEY_PENDING);
  g_autoptr (GError) error = NULL;

  set->keys.has_did = FALSE;
  g_assert_true (mitherm_store_add (f->store, ADDRESS, set, &error));
  add (f, ADDRESS, 1, MITHERM_KEY_PENDING);
  reopen (f);
  g_assert_cmpuint (mitherm_store_lookup (f->store, ADDRESS)->keys->len, ==, 1);
  g_assert_true (
      ((MithermKeySet *) g_ptr_array_index (mitherm_store_lookup (f->store, ADDRESS)->keys, 0))
          ->keys.has_did);
}

static void
test_history_is_bounded (Fixture *f, gconstpointer data)
{
  add (f, ADDRESS, 250, MITHERM_KEY_CURRENT);
  add (f, ADDRESS, 251, MITHERM_KEY_PENDING);
  for (guint i = 0; i < MITHERM_STORE_HISTORY + 10; i++)
    add (f, ADDRESS, (guint8) (1 + i), MITHERM_KEY_OLD);
  reopen (f);
  g_assert_cmpuint (mitherm_store_lookup (f->store, ADDRESS)->keys->len, ==,
                    MITHERM_STORE_HISTORY + 2);
  g_assert_cmpint (state_of (f, ADDRESS, 250), ==, MITHERM_KEY_CURRENT);
  g_assert_cmpint (state_of (f, ADDRESS, 251), ==, MITHERM_KEY_PENDING);
  g_assert_cmpint (find (f, ADDRESS, 1), ==, -1);
  g_assert_cmpint (find (f, ADDRESS, MITHERM_STORE_HISTORY + 10), ==, 0);
}

static void
test_forget (Fixture *f, gconstpointer data)
{
  g_autofree char *path = key_path (f, "A4C138000001.conf");
  g_autoptr (GError) error = NULL;

  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  add (f, ADDRESS, 2, MITHERM_KEY_PENDING);
  g_assert_true (mitherm_record_has_keys (mitherm_store_lookup (f->store, ADDRESS)));
  g_assert_true (mitherm_store_forget (f->store, ADDRESS, FALSE, &error));
  reopen (f);
  g_assert_false (mitherm_record_has_keys (mitherm_store_lookup (f->store, ADDRESS)));
  g_assert_cmpint (state_of (f, ADDRESS, 1), ==, MITHERM_KEY_OLD);
  g_assert_cmpint (state_of (f, ADDRESS, 2), ==, MITHERM_KEY_OLD);
  g_assert_true (mitherm_store_forget (f->store, ADDRESS, TRUE, &error));
  g_assert_null (mitherm_store_lookup (f->store, ADDRESS));
  g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
}

/* System calls that fail at the N-th one, or kill the writer there */

static int calls;
static int fail_at;
static int fail_errno;

static gboolean
fails (void)
{
  if (++calls != fail_at)
    return FALSE;
  errno = fail_errno;
  return TRUE;
}

static int
test_open (int dir, const char *name)
{
  if (fails ())
    return -1;
  return openat (dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

/* Short writes, so that there are many places to fail at. */
static ssize_t
test_write (int fd, const void *data, size_t len)
{
  if (fails ())
    return -1;
  return write (fd, data, MIN (len, 50));
}

static int
test_sync (int fd)
{
  return fails () ? -1 : fsync (fd);
}

static int
test_rename (int dir, const char *from, const char *to)
{
  return fails () ? -1 : renameat (dir, from, dir, to);
}

static const MithermStoreIo failing_io = { test_open, test_write, test_sync, test_rename };

static gboolean
try_add (Fixture *f, guint8 seed, int at, int code)
{
  g_autoptr (MithermKeySet) set = make_set (seed, MITHERM_KEY_PENDING);
  g_autoptr (GError) error = NULL;
  gboolean ok;

  calls = 0;
  fail_at = at;
  fail_errno = code;
  mitherm_store_set_io (f->store, &failing_io);
  ok = mitherm_store_add (f->store, ADDRESS, set, &error);
  mitherm_store_set_io (f->store, NULL);
  if (!ok)
    g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE);
  return ok;
}

/* After a failure at any call: an error, the old keys in memory and after a restart. */
static void
test_every_failing_call (Fixture *f, gconstpointer data)
{
  int at = 1;

  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  for (; !try_add (f, 2, at, at % 2 ? ENOSPC : EROFS); at++)
    {
      g_assert_cmpint (state_of (f, ADDRESS, 1), ==, MITHERM_KEY_CURRENT);
      g_assert_cmpint (find (f, ADDRESS, 2), ==, -1);
      reopen (f);
      g_assert_cmpint (state_of (f, ADDRESS, 1), ==, MITHERM_KEY_CURRENT);
      /* Only when nothing but the directory's fsync failed may the new keys be there. */
      if (find (f, ADDRESS, 2) >= 0)
        {
          g_assert_cmpint (state_of (f, ADDRESS, 2), ==, MITHERM_KEY_PENDING);
          break;
        }
    }
  g_assert_cmpint (at, >, 8);
}

static int
crash_open (int dir, const char *name)
{
  if (++calls == fail_at)
    _exit (1);
  return openat (dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static ssize_t
crash_write (int fd, const void *data, size_t len)
{
  if (++calls == fail_at)
    _exit (1);
  return write (fd, data, MIN (len, 50));
}

static int
crash_sync (int fd)
{
  if (++calls == fail_at)
    _exit (1);
  return fsync (fd);
}

static int
crash_rename (int dir, const char *from, const char *to)
{
  if (++calls == fail_at)
    _exit (1);
  return renameat (dir, from, dir, to);
}

static const MithermStoreIo crashing_io = { crash_open, crash_write, crash_sync, crash_rename };

/* Returns whether the writer came to its end. */
static gboolean
write_and_crash (Fixture *f, int at)
{
  pid_t pid = fork ();
  int status = 0;

  if (pid == 0)
    {
      g_autoptr (MithermKeySet) set = make_set (2, MITHERM_KEY_PENDING);

      calls = 0;
      fail_at = at;
      mitherm_store_set_io (f->store, &crashing_io);
      _exit (mitherm_store_add (f->store, ADDRESS, set, NULL) ? 0 : 2);
    }
  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  g_assert_true (WIFEXITED (status));
  g_assert_cmpint (WEXITSTATUS (status), !=, 2);
  return WEXITSTATUS (status) == 0;
}

/* A crash before any call leaves the old file whole, and nothing in the way of the next one. */
static void
test_every_crash (Fixture *f, gconstpointer data)
{
  int at = 1;

  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  while (!write_and_crash (f, at))
    {
      g_autofree char *left = key_path (f, "A4C138000001.tmp");

      reopen (f);
      g_assert_cmpint (state_of (f, ADDRESS, 1), ==, MITHERM_KEY_CURRENT);
      g_assert_null (mitherm_store_lookup (f->store, ADDRESS)->broken);
      g_assert_false (g_file_test (left, G_FILE_TEST_EXISTS));
      at++;
    }
  reopen (f);
  g_assert_cmpint (state_of (f, ADDRESS, 2), ==, MITHERM_KEY_PENDING);
  g_assert_cmpint (at, >, 8);
}

/* Really no room, by the kernel's word. */
static void
test_file_size_limit (Fixture *f, gconstpointer data)
{
  g_autoptr (MithermKeySet) set = make_set (2, MITHERM_KEY_PENDING);
  g_autoptr (GError) error = NULL;
  struct rlimit old, small;

  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  signal (SIGXFSZ, SIG_IGN);
  g_assert_cmpint (getrlimit (RLIMIT_FSIZE, &old), ==, 0);
  small = old;
  small.rlim_cur = 64;
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &small), ==, 0);
  g_assert_false (mitherm_store_add (f->store, ADDRESS, set, &error));
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &old), ==, 0);
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE);
  reopen (f);
  g_assert_cmpint (state_of (f, ADDRESS, 1), ==, MITHERM_KEY_CURRENT);
  g_assert_cmpint (find (f, ADDRESS, 2), ==, -1);
}

static void
break_file (Fixture *f, const char *name, const char *text)
{
  g_autofree char *path = key_path (f, name);

  g_assert_true (g_file_set_contents (path, text, -1, NULL));
}

static guint
count_aside (Fixture *f)
{
  g_autofree char *path = key_path (f, NULL);
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  const char *name;
  guint n = 0;

  while ((name = g_dir_read_name (dir)) != NULL)
    n += strstr (name, ".broken-") != NULL;
  return n;
}

/* The warning is part of what is tested; it must not be fatal. */
static GLogWriterOutput
quiet (GLogLevelFlags level, const GLogField *fields, gsize n, gpointer data)
{
  return G_LOG_WRITER_HANDLED;
}

static void
test_broken_file (Fixture *f, gconstpointer data)
{
  static const char *const texts[] = {
    "",
    "garbage",
    "[device]\nFormat=9\nAddress=" ADDRESS "\n",
    "[device]\nFormat=1\nAddress=" OTHER "\n",
    "[device]\nFormat=1\nAddress=" ADDRESS "\n[key 1]\nState=current\nToken=12\n",
    "[device]\nFormat=1\nAddress=" ADDRESS
    "\n[key 1]\nState=what\nToken=000102030405060708090a0b\n",
    "[device]\nFormat=1\nAddress=" ADDRESS "\n[key 1]\nState=current\n",
    "[device]\nFormat=1\nAddress=" ADDRESS
    "\n[key 1]\nState=current\nToken=000102030405060708090a0b\n"
    "[key 2]\nState=current\nToken=000102030405060708090a0c\n",
  };

  add (f, OTHER, 7, MITHERM_KEY_CURRENT);
  for (gsize i = 0; i < G_N_ELEMENTS (texts); i++)
    {
      break_file (f, "A4C138000001.conf", texts[i]);
      reopen (f);
      g_assert_cmpuint (count_aside (f), ==, i + 1);
      g_assert_nonnull (mitherm_store_lookup (f->store, ADDRESS)->broken);
      g_assert_false (mitherm_record_has_keys (mitherm_store_lookup (f->store, ADDRESS)));
      g_assert_cmpint (state_of (f, OTHER, 7), ==, MITHERM_KEY_CURRENT);
    }
  reopen (f); /* still known to be broken */
  g_assert_nonnull (mitherm_store_lookup (f->store, ADDRESS)->broken);
  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  reopen (f);
  g_assert_null (mitherm_store_lookup (f->store, ADDRESS)->broken);
}

static void
test_nothing_written (Fixture *f, gconstpointer data)
{
  g_autofree char *path = key_path (f, "A4C138000001.conf");
  MithermFacts facts = { .bound = MITHERM_BOUND_YES, .info_us = 1 };
  struct stat before, after;

  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  g_assert_true (mitherm_store_set_facts (f->store, ADDRESS, &facts, NULL));
  g_assert_cmpint (g_stat (path, &before), ==, 0);
  facts.info_us = 2;
  g_assert_true (mitherm_store_set_facts (f->store, ADDRESS, &facts, NULL));
  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  promote (f, ADDRESS, 1);
  g_assert_true (mitherm_store_set_facts (f->store, OTHER, &facts, NULL));
  g_assert_cmpint (g_stat (path, &after), ==, 0);
  g_assert_cmpuint (before.st_ino, ==, after.st_ino);
  g_assert_null (mitherm_store_lookup (f->store, OTHER));
}

static void
test_one_daemon (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (mitherm_store_new (f->dir, &error));
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE);
}

/* Import and export */

static guint n_changed;

static void
on_changed (const char *address, gpointer user_data)
{
  n_changed++;
}

static gboolean
import (Fixture *f, const char *text, MithermImport *out, GError **error)
{
  g_autoptr (MiModels) models = mi_models_load (MITHERM_SOURCE_DATA_DIR, NULL, NULL);
  gboolean ok;

  n_changed = 0;
  ok = mitherm_keyfile_import (f->store, models, text, strlen (text), on_changed, NULL, out, error);
  if (ok)
    g_variant_ref_sink (out->problems);
  return ok;
}

static void
test_export_import (Fixture *f, gconstpointer data)
{
  g_autofree char *text = NULL;
  g_autofree char *again = NULL;
  g_autoptr (GError) error = NULL;
  MithermImport result = { 0 };

  add (f, ADDRESS, 1, MITHERM_KEY_OLD);
  add (f, ADDRESS, 2, MITHERM_KEY_CURRENT);
  add (f, ADDRESS, 3, MITHERM_KEY_PENDING);
  add (f, OTHER, 4, MITHERM_KEY_CURRENT);
  text = mitherm_keyfile_export (f->store, NULL);
  g_assert_true (mitherm_store_forget (f->store, ADDRESS, TRUE, NULL));
  g_assert_true (mitherm_store_forget (f->store, OTHER, TRUE, NULL));
  g_assert_true (import (f, text, &result, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (result.imported, ==, 4);
  g_assert_cmpuint (result.skipped, ==, 0);
  g_assert_cmpuint (g_variant_n_children (result.problems), ==, 0);
  g_variant_unref (result.problems);
  reopen (f);
  g_assert_cmpint (state_of (f, ADDRESS, 1), ==, MITHERM_KEY_OLD);
  g_assert_cmpint (state_of (f, ADDRESS, 2), ==, MITHERM_KEY_CURRENT);
  g_assert_cmpint (state_of (f, ADDRESS, 3), ==, MITHERM_KEY_PENDING);
  g_assert_cmpint (find (f, ADDRESS, 3), ==, 0);
  g_assert_cmpint (state_of (f, OTHER, 4), ==, MITHERM_KEY_CURRENT);
  again = mitherm_keyfile_export (f->store, ADDRESS);
  g_assert_nonnull (strstr (again, ADDRESS));
  g_assert_null (strstr (again, OTHER));
}

static void
test_import_keeps_current (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  MithermImport result = { 0 };

  add (f, ADDRESS, 1, MITHERM_KEY_CURRENT);
  g_assert_true (import (f, "a4:c1:38:00:00:01,020202020202020202020202\n", &result, &error));
  g_assert_no_error (error);
  g_variant_unref (result.problems);
  g_assert_cmpint (state_of (f, ADDRESS, 1), ==, MITHERM_KEY_CURRENT);
  g_assert_cmpint (state_of (f, ADDRESS, 2), ==, MITHERM_KEY_PENDING);
}

typedef struct
{
  const char *name;
  const char *text;
  guint imported;
  guint skipped;
  guint problems;
  guint line; /* of the first problem */
} ImportCase;

static const ImportCase imports[] = {
  { "extractor-json",
    "[{\"name\":\"x\",\"mac\":\"A4:C1:38:00:00:01\",\"token\":\"010101010101010101010101\","
    "\"model\":\"miaomiaoce.sensor_ht.t2\",\"BLE_DATA\":{\"beaconkey\":"
    "\"fefefefefefefefefefefefefefefefe\"}}]",
    1 },
  { "nested-json",
    "{\"result\":{\"list\":[{\"a\":{\"mac\":\"A4C138000001\",\"token\":\"010101010101010101010101\""
    "}},{\"mac\":\"A4:C1:38:00:00:02\",\"bindkey\":\"fefefefefefefefefefefefefefefefe\"}]}}",
    2 },
  { "other-devices-are-skipped",
    "[{\"mac\":\"A4:C1:38:00:00:01\",\"token\":\"010101010101010101010101\"},"
    "{\"mac\":\"A4:C1:38:00:00:09\",\"token\":\"01010101010101010101010101010101\",\"model\":"
    "\"zhimi.airpurifier.m1\"}]",
    1, 1 },
  { "bad-token-has-its-line", "[\n{\"mac\":\"A4:C1:38:00:00:01\",\n\"token\":\"01\"}]", 0, 0, 1,
    2 },
  { "extractor-text",
    "Server de\n---------\n   NAME:     Bedroom\n   ID:       blt.3.1abcdefghig00\n"
    "   BLE KEY:  fefefefefefefefefefefefefefefefe\n   MAC:      A4:C1:38:00:00:01\n"
    "   TOKEN:    010101010101010101010101\n   MODEL:    miaomiaoce.sensor_ht.t2\n---------\n"
    "   NAME:     Lamp\n   MAC:      A4:C1:38:00:00:08\n   TOKEN:    "
    "01010101010101010101010101010101\n   MODEL:    yeelink.light.x\n",
    1, 1 },
  { "list",
    "# address token key\nA4:C1:38:00:00:01;010101010101010101010101;"
    "fefefefefefefefefefefefefefefefe\n\nA4-C1-38-00-00-02 fefefefefefefefefefefefefefefefe\n"
    "a4:c1:38:00:00:03\t0101\n",
    2, 0, 1, 5 },
  { "yaml",
    "sensors:\n  - mac: \"A4:C1:38:00:00:01\"\n    encryption_key: "
    "'fefefefefefefefefefefefefefefefe'\n  - mac: A4:C1:38:00:00:02\n    encryption_key: "
    "fdfdfdfdfdfdfdfdfdfdfdfdfdfdfdfd\n",
    2 },
  { "yaml-bad-address", "mac: A4:C1:38:00:00\nencryption_key: fefefefefefefefefefefefefefefefe\n",
    0, 0, 1, 1 },
};

static void
test_import (Fixture *f, gconstpointer data)
{
  const ImportCase *c = data;
  g_autoptr (GError) error = NULL;
  MithermImport result = { 0 };

  g_assert_true (import (f, c->text, &result, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (result.imported, ==, c->imported);
  g_assert_cmpuint (n_changed, ==, c->imported);
  g_assert_cmpuint (result.skipped, ==, c->skipped);
  g_assert_cmpuint (g_variant_n_children (result.problems), ==, c->problems);
  if (c->problems > 0)
    {
      g_autoptr (GVariant) first = g_variant_get_child_value (result.problems, 0);
      guint line = 0;

      g_assert_true (g_variant_lookup (first, "line", "u", &line));
      g_assert_cmpuint (line, ==, c->line);
    }
  if (c->imported > 0 && strstr (c->text, "010101010101010101010101") != NULL)
    g_assert_cmpint (state_of (f, ADDRESS, 1), ==, MITHERM_KEY_CURRENT);
  g_variant_unref (result.problems);
}

static void
test_import_nonsense (Fixture *f, gconstpointer data)
{
  static const char *const texts[] = { "", "hello\n", "{", "{}", "[1,2,{\"mac\":5}]", "\xff\xfe" };
  g_autofree char *deep = g_strnfill (5000, '[');

  for (gsize i = 0; i <= G_N_ELEMENTS (texts); i++)
    {
      g_autoptr (GError) error = NULL;
      MithermImport result = { 0 };

      g_assert_false (import (f, i < G_N_ELEMENTS (texts) ? texts[i] : deep, &result, &error));
      g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS);
    }
}

#define ADD(path, func) g_test_add (path, Fixture, NULL, set_up, func, tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_log_set_writer_func (quiet, NULL, NULL);
  ADD ("/store/keys-survive-a-restart", test_round_trip);
  ADD ("/store/facts-survive-a-restart", test_facts);
  ADD ("/store/nobody-else-can-read", test_modes);
  ADD ("/store/pending-never-overwrites", test_pending_never_overwrites);
  ADD ("/store/promotion-moves-the-others-to-history", test_promotion);
  ADD ("/store/did-may-come-later", test_did_later);
  ADD ("/store/history-is-bounded", test_history_is_bounded);
  ADD ("/store/forget-keeps-history-purge-does-not", test_forget);
  ADD ("/store/every-failing-call-changes-nothing", test_every_failing_call);
  ADD ("/store/every-crash-leaves-whole-files", test_every_crash);
  ADD ("/store/file-size-limit-is-a-storage-error", test_file_size_limit);
  ADD ("/store/broken-file-is-put-aside", test_broken_file);
  ADD ("/store/nothing-is-written-while-nothing-changes", test_nothing_written);
  ADD ("/store/second-daemon-is-refused", test_one_daemon);
  ADD ("/keyfile/export-imports-again", test_export_import);
  ADD ("/keyfile/import-keeps-the-current-set", test_import_keeps_current);
  ADD ("/keyfile/nonsense-is-refused", test_import_nonsense);
  for (gsize i = 0; i < G_N_ELEMENTS (imports); i++)
    {
      g_autofree char *path = g_strconcat ("/keyfile/import/", imports[i].name, NULL);

      g_test_add (path, Fixture, &imports[i], set_up, test_import, tear_down);
    }
  return g_test_run ();
}
