/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-store.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "mi-bytes.h"
#include "mi-crypto.h"
#include "mitherm-error.h"
#include "mitherm-log.h"

#define FORMAT_VERSION 1
#define FILE_SIZE_MAX  (256 * 1024)
#define NAME_LEN       12 /* A4C138000001 */
#define SUFFIX         ".conf"
#define BROKEN         ".conf.broken-"
#define TEMPORARY      ".tmp"
#define DEVICE_GROUP   "device"

struct _MithermStore
{
  char *path;
  int lock_fd;
  int keys_fd;
  GHashTable *records; /* address (in the record) -> MithermRecord */
  const MithermStoreIo *io;
};

static int
open_file (int dir, const char *name)
{
  return openat (dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static int
rename_file (int dir, const char *from, const char *to)
{
  return renameat (dir, from, dir, to);
}

static const MithermStoreIo real_io = { open_file, write, fsync, rename_file };

/* Secrets */

void
mitherm_secret_scope_begin (void)
{
#ifdef M_PERTURB
  mallopt (M_PERTURB, 0x5a);
#endif
}

void
mitherm_secret_scope_end (void)
{
#ifdef M_PERTURB
  mallopt (M_PERTURB, 0);
#endif
}

void
mitherm_secret_free (char *text)
{
  if (text == NULL)
    return;
  mi_crypto_wipe (text, strlen (text));
  g_free (text);
}

/* Plain values */

static const char *const state_names[] = { "old", "pending", "current" };
static const char *const bound_names[] = { "unknown", "no", "yes" };

const char *
mitherm_key_state_to_string (MithermKeyState state)
{
  return state_names[state];
}

static gboolean
lookup_name (const char *const *names, guint n, const char *text, guint *out)
{
  for (guint i = 0; text != NULL && i < n; i++)
    {
      if (g_str_equal (names[i], text))
        {
          *out = i;
          return TRUE;
        }
    }
  return FALSE;
}

gboolean
mitherm_key_state_from_string (const char *text, MithermKeyState *out)
{
  guint value = 0;

  if (!lookup_name (state_names, G_N_ELEMENTS (state_names), text, &value))
    return FALSE;
  *out = (MithermKeyState) value;
  return TRUE;
}

const char *
mitherm_bound_to_string (MithermBound bound)
{
  return bound_names[bound];
}

MithermKeySet *
mitherm_key_set_new (void)
{
  return g_new0 (MithermKeySet, 1);
}

MithermKeySet *
mitherm_key_set_copy (const MithermKeySet *self)
{
  MithermKeySet *copy = mitherm_key_set_new ();

  *copy = *self;
  copy->origin = g_strdup (self->origin);
  return copy;
}

void
mitherm_key_set_free (MithermKeySet *self)
{
  if (self == NULL)
    return;
  g_free (self->origin);
  mi_crypto_wipe (self, sizeof *self);
  g_free (self);
}

void
mitherm_facts_clear (MithermFacts *facts)
{
  g_free (facts->name);
  g_free (facts->model);
  g_free (facts->hardware);
  g_free (facts->firmware);
  memset (facts, 0, sizeof *facts);
}

void
mitherm_facts_copy (const MithermFacts *from, MithermFacts *to)
{
  MithermFacts copy = *from;

  copy.name = g_strdup (from->name);
  copy.model = g_strdup (from->model);
  copy.hardware = g_strdup (from->hardware);
  copy.firmware = g_strdup (from->firmware);
  mitherm_facts_clear (to);
  *to = copy;
}

gboolean
mitherm_facts_differ (const MithermFacts *a, const MithermFacts *b)
{
  return g_strcmp0 (a->name, b->name) != 0 || g_strcmp0 (a->model, b->model) != 0
         || g_strcmp0 (a->hardware, b->hardware) != 0 || g_strcmp0 (a->firmware, b->firmware) != 0
         || a->product_id != b->product_id || a->auth_version != b->auth_version
         || a->bound != b->bound;
}

static MithermRecord *
record_new (const char *address)
{
  MithermRecord *record = g_new0 (MithermRecord, 1);

  g_strlcpy (record->address, address, sizeof record->address);
  record->keys = g_ptr_array_new_with_free_func ((GDestroyNotify) mitherm_key_set_free);
  return record;
}

static void
record_free (MithermRecord *record)
{
  g_ptr_array_unref (record->keys);
  mitherm_facts_clear (&record->facts);
  g_free (record->broken);
  g_free (record);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MithermRecord, record_free)

static MithermRecord *
record_copy (const MithermRecord *record)
{
  MithermRecord *copy = record_new (record->address);

  for (guint i = 0; i < record->keys->len; i++)
    g_ptr_array_add (copy->keys, mitherm_key_set_copy (g_ptr_array_index (record->keys, i)));
  mitherm_facts_copy (&record->facts, &copy->facts);
  copy->broken = g_strdup (record->broken);
  return copy;
}

gboolean
mitherm_record_has_keys (const MithermRecord *record)
{
  for (guint i = 0; record != NULL && i < record->keys->len; i++)
    {
      const MithermKeySet *set = g_ptr_array_index (record->keys, i);

      if (set->state != MITHERM_KEY_OLD)
        return TRUE;
    }
  return FALSE;
}

int
mitherm_record_find_token (const MithermRecord *record, const guint8 token[MI_TOKEN_LEN])
{
  for (guint i = 0; record != NULL && i < record->keys->len; i++)
    {
      const MithermKeySet *set = g_ptr_array_index (record->keys, i);

      if (set->has_token && mi_crypto_equal (set->keys.token, token, MI_TOKEN_LEN))
        return (int) i;
    }
  return -1;
}

/* File format */

static void
set_hex (GKeyFile *file, const char *group, const char *key, const guint8 *data, gsize len)
{
  char *hex = mi_hex_encode (data, len);

  g_key_file_set_string (file, group, key, hex);
  mitherm_secret_free (hex);
}

static void
set_text (GKeyFile *file, const char *key, const char *text)
{
  if (text != NULL && *text != '\0')
    g_key_file_set_string (file, DEVICE_GROUP, key, text);
}

static void
put_facts (GKeyFile *file, const MithermRecord *record)
{
  const MithermFacts *facts = &record->facts;

  g_key_file_set_integer (file, DEVICE_GROUP, "Format", FORMAT_VERSION);
  g_key_file_set_string (file, DEVICE_GROUP, "Address", record->address);
  set_text (file, "Name", facts->name);
  set_text (file, "Model", facts->model);
  set_text (file, "Hardware", facts->hardware);
  set_text (file, "Firmware", facts->firmware);
  g_key_file_set_integer (file, DEVICE_GROUP, "ProductId", facts->product_id);
  g_key_file_set_integer (file, DEVICE_GROUP, "AuthVersion", (int) facts->auth_version);
  g_key_file_set_string (file, DEVICE_GROUP, "Bound", mitherm_bound_to_string (facts->bound));
  g_key_file_set_int64 (file, DEVICE_GROUP, "InfoTime", facts->info_us);
}

static char *
key_group (guint i)
{
  return g_strdup_printf ("key %u", i + 1);
}

static void
put_key (GKeyFile *file, guint i, const MithermKeySet *set)
{
  g_autofree char *group = key_group (i);

  g_key_file_set_string (file, group, "State", mitherm_key_state_to_string (set->state));
  if (set->has_token)
    set_hex (file, group, "Token", set->keys.token, MI_TOKEN_LEN);
  if (set->has_bind_key)
    set_hex (file, group, "BindKey", set->keys.bind_key, MI_BIND_KEY_LEN);
  if (set->keys.has_did)
    set_hex (file, group, "Did", set->keys.did, MI_DID_LEN);
  g_key_file_set_integer (file, group, "AuthVersion", set->keys.auth_version);
  g_key_file_set_string (file, group, "Origin", set->origin != NULL ? set->origin : "");
  g_key_file_set_int64 (file, group, "Created", set->created_us);
}

static gboolean
bad_file (GError **error, const char *what, const char *group)
{
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE, "%s in group [%s]", what, group);
  return FALSE;
}

/* A missing key is fine, a malformed one is not. */
static gboolean
get_hex (GKeyFile *file, const char *group, const char *key, guint8 *out, gsize len, gboolean *has,
         GError **error)
{
  char *hex = g_key_file_get_string (file, group, key, NULL);
  gboolean ok = hex == NULL || mi_hex_decode (hex, out, len);

  *has = hex != NULL;
  mitherm_secret_free (hex);
  return ok || bad_file (error, key, group);
}

static gboolean
get_key (GKeyFile *file, const char *group, MithermRecord *record, GError **error)
{
  g_autoptr (MithermKeySet) set = mitherm_key_set_new ();
  g_autofree char *state = g_key_file_get_string (file, group, "State", NULL);

  if (!mitherm_key_state_from_string (state, &set->state))
    return bad_file (error, "State", group);
  if (!get_hex (file, group, "Token", set->keys.token, MI_TOKEN_LEN, &set->has_token, error)
      || !get_hex (file, group, "BindKey", set->keys.bind_key, MI_BIND_KEY_LEN, &set->has_bind_key,
                   error)
      || !get_hex (file, group, "Did", set->keys.did, MI_DID_LEN, &set->keys.has_did, error))
    return FALSE;
  if (!set->has_token && !set->has_bind_key)
    return bad_file (error, "neither Token nor BindKey", group);
  set->keys.auth_version = (guint16) g_key_file_get_integer (file, group, "AuthVersion", NULL);
  set->origin = g_key_file_get_string (file, group, "Origin", NULL);
  set->created_us = g_key_file_get_int64 (file, group, "Created", NULL);
  g_ptr_array_add (record->keys, g_steal_pointer (&set));
  return TRUE;
}

static void
get_facts (GKeyFile *file, MithermFacts *facts)
{
  g_autofree char *bound = g_key_file_get_string (file, DEVICE_GROUP, "Bound", NULL);
  guint value = MITHERM_BOUND_UNKNOWN;

  facts->name = g_key_file_get_string (file, DEVICE_GROUP, "Name", NULL);
  facts->model = g_key_file_get_string (file, DEVICE_GROUP, "Model", NULL);
  facts->hardware = g_key_file_get_string (file, DEVICE_GROUP, "Hardware", NULL);
  facts->firmware = g_key_file_get_string (file, DEVICE_GROUP, "Firmware", NULL);
  facts->product_id = (guint16) g_key_file_get_integer (file, DEVICE_GROUP, "ProductId", NULL);
  facts->auth_version = (guint) g_key_file_get_integer (file, DEVICE_GROUP, "AuthVersion", NULL);
  lookup_name (bound_names, G_N_ELEMENTS (bound_names), bound, &value);
  facts->bound = (MithermBound) value;
  facts->info_us = g_key_file_get_int64 (file, DEVICE_GROUP, "InfoTime", NULL);
}

static gboolean
parse_record (GKeyFile *file, MithermRecord *record, GError **error)
{
  g_autofree char *address = g_key_file_get_string (file, DEVICE_GROUP, "Address", NULL);
  guint n_current = 0;

  if (g_key_file_get_integer (file, DEVICE_GROUP, "Format", NULL) != FORMAT_VERSION)
    return bad_file (error, "unknown Format", DEVICE_GROUP);
  if (g_strcmp0 (address, record->address) != 0)
    return bad_file (error, "Address of another thermometer", DEVICE_GROUP);
  get_facts (file, &record->facts);
  for (guint i = 0;; i++)
    {
      g_autofree char *group = key_group (i);

      if (!g_key_file_has_group (file, group))
        break;
      if (!get_key (file, group, record, error))
        return FALSE;
      n_current
          += ((MithermKeySet *) g_ptr_array_index (record->keys, i))->state == MITHERM_KEY_CURRENT;
    }
  if (n_current > 1)
    return bad_file (error, "more than one current set", "key");
  return TRUE;
}

/* Names: A4:C1:38:00:00:01 <-> A4C138000001 */

static char *
name_of_address (const char *address)
{
  guint8 bytes[6];

  if (!mi_address_parse (address, bytes))
    return NULL;
  return g_strdup_printf ("%02X%02X%02X%02X%02X%02X", bytes[0], bytes[1], bytes[2], bytes[3],
                          bytes[4], bytes[5]);
}

static gboolean
address_of_name (const char *name, char address[18])
{
  guint8 bytes[6];
  g_autofree char *hex = g_strndup (name, NAME_LEN);

  if (!mi_hex_decode (hex, bytes, sizeof bytes))
    return FALSE;
  g_snprintf (address, 18, "%02X:%02X:%02X:%02X:%02X:%02X", bytes[0], bytes[1], bytes[2], bytes[3],
              bytes[4], bytes[5]);
  return TRUE;
}

/* Writing */

static gboolean
storage_error (GError **error, const char *what, const char *name)
{
  int code = errno;

  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE, "cannot %s the key file %s: %s", what,
               name, g_strerror (code));
  return FALSE;
}

static gboolean
write_all (MithermStore *self, int fd, const char *data, gsize len)
{
  while (len > 0)
    {
      ssize_t n = self->io->write_data (fd, data, len);

      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0)
        {
          errno = n == 0 ? ENOSPC : errno;
          return FALSE;
        }
      data += n;
      len -= (gsize) n;
    }
  return TRUE;
}

static gboolean
write_temporary (MithermStore *self, const char *temporary, const char *data, gsize len,
                 GError **error)
{
  int fd = self->io->open_file (self->keys_fd, temporary);
  gboolean ok;

  if (fd < 0)
    return storage_error (error, "create", temporary);
  /* Left over from an older umask or a restored backup. */
  ok = fchmod (fd, 0600) == 0 && write_all (self, fd, data, len) && self->io->sync_fd (fd) == 0;
  if (!ok)
    storage_error (error, "write", temporary);
  if (close (fd) != 0 && ok)
    ok = storage_error (error, "close", temporary);
  return ok;
}

/*
 * GLib's g_file_set_contents_full() syncs the file but not its directory, so that after a power
 * cut the old name may still point to the old keys; hence by hand.
 */
static gboolean
replace_file (MithermStore *self, const char *name, const char *data, gsize len, GError **error)
{
  g_autofree char *final = g_strconcat (name, SUFFIX, NULL);
  g_autofree char *temporary = g_strconcat (name, TEMPORARY, NULL);

  if (!write_temporary (self, temporary, data, len, error))
    {
      unlinkat (self->keys_fd, temporary, 0);
      return FALSE;
    }
  if (self->io->rename_file (self->keys_fd, temporary, final) != 0)
    {
      storage_error (error, "rename", temporary);
      unlinkat (self->keys_fd, temporary, 0);
      return FALSE;
    }
  if (self->io->sync_fd (self->keys_fd) != 0)
    return storage_error (error, "sync the directory of", final);
  return TRUE;
}

/* Makes @record durable, then takes its place in memory; on failure it is dropped. */
static gboolean
commit (MithermStore *self, MithermRecord *record, GError **error)
{
  g_autoptr (MithermRecord) owned = record;
  g_autofree char *name = name_of_address (record->address);
  GKeyFile *file;
  char *data;
  gsize len = 0;
  gboolean ok;

  if (name == NULL)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE, "no Bluetooth address: %s",
                   record->address);
      return FALSE;
    }
  mitherm_secret_scope_begin ();
  file = g_key_file_new ();
  put_facts (file, record);
  for (guint i = 0; i < record->keys->len; i++)
    put_key (file, i, g_ptr_array_index (record->keys, i));
  data = g_key_file_to_data (file, &len, NULL);
  g_key_file_unref (file);
  ok = replace_file (self, name, data, len, error);
  mitherm_secret_free (data);
  if (ok)
    {
      g_clear_pointer (&owned->broken, g_free);
      g_hash_table_replace (self->records, owned->address, owned);
      owned = NULL;
    }
  mitherm_secret_scope_end ();
  return ok;
}

/* Reading */

static gboolean
read_record (MithermStore *self, const char *name, MithermRecord *record, GError **error)
{
  g_autofree char *path = g_build_filename (self->path, "keys", name, NULL);
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autofree char *data = NULL;
  gsize len = 0;
  struct stat info;
  gboolean ok;

  if (g_lstat (path, &info) == 0 && (!S_ISREG (info.st_mode) || info.st_size > FILE_SIZE_MAX))
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE,
                   "not a regular file of at most %d bytes", FILE_SIZE_MAX);
      return FALSE;
    }
  if (!g_file_get_contents (path, &data, &len, error))
    return FALSE;
  if ((info.st_mode & 077) != 0 && g_chmod (path, 0600) == 0)
    g_warning ("%s was readable by others; its mode is 0600 again", path);
  ok = g_key_file_load_from_data (file, data, len, G_KEY_FILE_NONE, error)
       && parse_record (file, record, error);
  mi_crypto_wipe (data, len);
  return ok;
}

static void
put_aside (MithermStore *self, const char *name, MithermRecord *record, const GError *reason)
{
  g_autofree char *stem = g_strndup (name, NAME_LEN);
  g_autofree char *aside
      = g_strdup_printf ("%s" BROKEN "%" G_GINT64_FORMAT, stem, g_get_real_time ());

  g_ptr_array_set_size (record->keys, 0);
  mitherm_facts_clear (&record->facts);
  if (renameat (self->keys_fd, name, self->keys_fd, aside) == 0)
    {
      mitherm_log_device (G_LOG_LEVEL_WARNING, record->address,
                          "The key file %s/keys/%s cannot be used (%s) and was renamed to %s",
                          self->path, name, reason->message, aside);
      record->broken = g_steal_pointer (&aside);
      return;
    }
  mitherm_log_device (G_LOG_LEVEL_WARNING, record->address,
                      "The key file %s/keys/%s cannot be used (%s), nor renamed (%s)", self->path,
                      name, reason->message, g_strerror (errno));
  record->broken = g_strdup (name);
}

static void
load_file (MithermStore *self, const char *name)
{
  g_autoptr (MithermRecord) record = NULL;
  g_autoptr (GError) error = NULL;
  char address[18];

  if (!address_of_name (name, address))
    return;
  record = record_new (address);
  if (!read_record (self, name, record, &error))
    put_aside (self, name, record, error);
  g_hash_table_replace (self->records, record->address, record);
  record = NULL;
}

/* A file put aside in an earlier run still means that this thermometer's keys cannot be used. */
static void
load_broken (MithermStore *self, const char *name)
{
  char address[18];
  MithermRecord *record;

  if (!address_of_name (name, address) || g_hash_table_contains (self->records, address))
    return;
  record = record_new (address);
  record->broken = g_strdup (name);
  g_hash_table_replace (self->records, record->address, record);
}

static gboolean
load_all (MithermStore *self, GError **error)
{
  g_autofree char *path = g_build_filename (self->path, "keys", NULL);
  g_autoptr (GDir) dir = g_dir_open (path, 0, error);
  g_autoptr (GPtrArray) broken = g_ptr_array_new_with_free_func (g_free);
  const char *name;

  if (dir == NULL)
    return FALSE;
  mitherm_secret_scope_begin ();
  while ((name = g_dir_read_name (dir)) != NULL)
    {
      gsize len = strlen (name);

      if (len == NAME_LEN + strlen (SUFFIX) && g_str_has_suffix (name, SUFFIX))
        load_file (self, name);
      else if (len > NAME_LEN && g_str_has_prefix (name + NAME_LEN, BROKEN))
        g_ptr_array_add (broken, g_strdup (name));
      else if (g_str_has_suffix (name, TEMPORARY))
        unlinkat (self->keys_fd, name, 0); /* a write that a crash cut short */
    }
  for (guint i = 0; i < broken->len; i++)
    load_broken (self, g_ptr_array_index (broken, i));
  mitherm_secret_scope_end ();
  return TRUE;
}

static gboolean
open_error (GError **error, const char *path, const char *what)
{
  int code = errno;

  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE, "%s %s: %s", what, path,
               g_strerror (code));
  return FALSE;
}

static gboolean
open_directories (MithermStore *self, GError **error)
{
  g_autofree char *keys = g_build_filename (self->path, "keys", NULL);

  if (g_mkdir_with_parents (self->path, 0700) != 0)
    return open_error (error, self->path, "cannot make the state directory");
  if (g_mkdir_with_parents (keys, 0700) != 0)
    return open_error (error, keys, "cannot make the key directory");
  self->lock_fd = open (self->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (self->lock_fd < 0)
    return open_error (error, self->path, "cannot open the state directory");
  if (flock (self->lock_fd, LOCK_EX | LOCK_NB) != 0)
    return open_error (error, self->path, "another mithermd uses the state directory");
  self->keys_fd = open (keys, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (self->keys_fd < 0)
    return open_error (error, keys, "cannot open the key directory");
  if (faccessat (self->keys_fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
    return open_error (error, keys, "cannot write to the key directory");
  if (fchmod (self->keys_fd, 0700) != 0)
    g_debug ("mode of %s: %s", keys, g_strerror (errno));
  return TRUE;
}

MithermStore *
mitherm_store_new (const char *state_dir, GError **error)
{
  g_autoptr (MithermStore) self = g_new0 (MithermStore, 1);

  self->path = g_strdup (state_dir);
  self->lock_fd = -1;
  self->keys_fd = -1;
  self->io = &real_io;
  self->records
      = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, (GDestroyNotify) record_free);
  if (!open_directories (self, error) || !load_all (self, error))
    return NULL;
  return g_steal_pointer (&self);
}

void
mitherm_store_free (MithermStore *self)
{
  if (self == NULL)
    return;
  g_hash_table_unref (self->records);
  if (self->keys_fd >= 0)
    close (self->keys_fd);
  if (self->lock_fd >= 0)
    close (self->lock_fd);
  g_free (self->path);
  g_free (self);
}

void
mitherm_store_set_io (MithermStore *self, const MithermStoreIo *io)
{
  self->io = io != NULL ? io : &real_io;
}

const MithermRecord *
mitherm_store_lookup (MithermStore *self, const char *address)
{
  return g_hash_table_lookup (self->records, address);
}

void
mitherm_store_foreach (MithermStore *self, MithermStoreFunc func, gpointer user_data)
{
  GHashTableIter iter;
  gpointer record;

  g_hash_table_iter_init (&iter, self->records);
  while (g_hash_table_iter_next (&iter, NULL, &record))
    func (record, user_data);
}

/* Changes: on a copy, which replaces the record once it is on disk. */

static MithermRecord *
copy_or_new (MithermStore *self, const char *address)
{
  const MithermRecord *record = mitherm_store_lookup (self, address);

  return record != NULL ? record_copy (record) : record_new (address);
}

/* What both know is equal, and they have something in common. */
static gboolean
is_same (const MithermKeySet *a, const MithermKeySet *b)
{
  gboolean token = a->has_token && b->has_token
                   && mi_crypto_equal (a->keys.token, b->keys.token, MI_TOKEN_LEN);
  gboolean bind = a->has_bind_key && b->has_bind_key
                  && mi_crypto_equal (a->keys.bind_key, b->keys.bind_key, MI_BIND_KEY_LEN);

  return (token || !a->has_token || !b->has_token) && (bind || !a->has_bind_key || !b->has_bind_key)
         && (token || bind);
}

static int
find_same (const MithermRecord *record, const MithermKeySet *set)
{
  for (guint i = 0; i < record->keys->len; i++)
    {
      if (is_same (g_ptr_array_index (record->keys, i), set))
        return (int) i;
    }
  return -1;
}

/* Adds what @set knows more. Returns whether @own changed. */
static gboolean
merge_set (MithermKeySet *own, const MithermKeySet *set)
{
  gboolean changed = FALSE;

  if (set->has_token && !own->has_token)
    {
      memcpy (own->keys.token, set->keys.token, MI_TOKEN_LEN);
      own->has_token = changed = TRUE;
    }
  if (set->has_bind_key && !own->has_bind_key)
    {
      memcpy (own->keys.bind_key, set->keys.bind_key, MI_BIND_KEY_LEN);
      own->has_bind_key = changed = TRUE;
    }
  if (set->keys.has_did
      && (!own->keys.has_did || memcmp (own->keys.did, set->keys.did, MI_DID_LEN) != 0))
    {
      memcpy (own->keys.did, set->keys.did, MI_DID_LEN);
      own->keys.has_did = changed = TRUE;
    }
  if (set->keys.auth_version != 0 && own->keys.auth_version != set->keys.auth_version)
    {
      own->keys.auth_version = set->keys.auth_version;
      changed = TRUE;
    }
  if (set->state > own->state)
    {
      own->state = set->state;
      changed = TRUE;
    }
  return changed;
}

static void
demote (MithermRecord *record, MithermKeyState state, guint except)
{
  for (guint i = 0; i < record->keys->len; i++)
    {
      MithermKeySet *set = g_ptr_array_index (record->keys, i);

      if (i != except && set->state == state)
        set->state = MITHERM_KEY_OLD;
    }
}

/* The oldest of the old leave first; current and pending sets never do. */
static void
trim_history (MithermRecord *record)
{
  guint n_old = 0;

  for (guint i = 0; i < record->keys->len;)
    {
      const MithermKeySet *set = g_ptr_array_index (record->keys, i);

      if (set->state == MITHERM_KEY_OLD && ++n_old > MITHERM_STORE_HISTORY)
        g_ptr_array_remove_index (record->keys, i);
      else
        i++;
    }
}

/*
 * A set that has learned its other key may now contain one that was stored for itself. Returns: the
 * index of the set at @index afterwards
 */
static int
absorb (MithermRecord *record, int index)
{
  MithermKeySet *set = g_ptr_array_index (record->keys, (guint) index);

  for (int i = (int) record->keys->len - 1; i >= 0 && set->has_token && set->has_bind_key; i--)
    {
      MithermKeySet *other = g_ptr_array_index (record->keys, (guint) i);

      if (i == index || (other->has_token && other->has_bind_key) || !is_same (set, other))
        continue;
      /* The newer one knows better. */
      other->keys.has_did = other->keys.has_did && !set->keys.has_did;
      if (set->keys.auth_version != 0)
        other->keys.auth_version = 0;
      merge_set (set, other);
      g_ptr_array_remove_index (record->keys, (guint) i);
      index -= i < index;
    }
  return index;
}

gboolean
mitherm_store_add (MithermStore *self, const char *address, const MithermKeySet *set,
                   GError **error)
{
  g_autoptr (MithermRecord) record = copy_or_new (self, address);
  int same = find_same (record, set);

  g_return_val_if_fail (set->has_token || set->has_bind_key, FALSE);
  if (same >= 0 && !merge_set (g_ptr_array_index (record->keys, same), set))
    return TRUE;
  if (same < 0)
    {
      g_ptr_array_insert (record->keys, 0, mitherm_key_set_copy (set));
      same = 0;
    }
  same = absorb (record, same);
  if (set->state == MITHERM_KEY_CURRENT)
    demote (record, MITHERM_KEY_CURRENT, (guint) same);
  trim_history (record);
  return commit (self, g_steal_pointer (&record), error);
}

gboolean
mitherm_store_promote (MithermStore *self, const char *address, guint index, GError **error)
{
  const MithermRecord *now = mitherm_store_lookup (self, address);
  g_autoptr (MithermRecord) record = NULL;
  gboolean changes = FALSE;

  g_return_val_if_fail (now != NULL && index < now->keys->len, FALSE);
  for (guint i = 0; i < now->keys->len; i++)
    {
      const MithermKeySet *set = g_ptr_array_index (now->keys, i);

      changes |= (i == index) != (set->state == MITHERM_KEY_CURRENT)
                 || set->state == MITHERM_KEY_PENDING;
    }
  if (!changes)
    return TRUE;
  record = record_copy (now);
  demote (record, MITHERM_KEY_CURRENT, index);
  demote (record, MITHERM_KEY_PENDING, index);
  ((MithermKeySet *) g_ptr_array_index (record->keys, index))->state = MITHERM_KEY_CURRENT;
  trim_history (record);
  return commit (self, g_steal_pointer (&record), error);
}

static gboolean
purge_record (MithermStore *self, const char *address, GError **error)
{
  g_autofree char *name = name_of_address (address);
  g_autofree char *final = g_strconcat (name, SUFFIX, NULL);

  if (unlinkat (self->keys_fd, final, 0) != 0 && errno != ENOENT)
    return storage_error (error, "erase", final);
  if (self->io->sync_fd (self->keys_fd) != 0)
    return storage_error (error, "sync the directory of", final);
  g_hash_table_remove (self->records, address);
  return TRUE;
}

gboolean
mitherm_store_forget (MithermStore *self, const char *address, gboolean purge, GError **error)
{
  const MithermRecord *now = mitherm_store_lookup (self, address);
  g_autoptr (MithermRecord) record = NULL;

  if (now == NULL)
    return TRUE;
  if (purge)
    return purge_record (self, address, error);
  if (!mitherm_record_has_keys (now))
    return TRUE;
  record = record_copy (now);
  demote (record, MITHERM_KEY_CURRENT, G_MAXUINT);
  demote (record, MITHERM_KEY_PENDING, G_MAXUINT);
  trim_history (record);
  return commit (self, g_steal_pointer (&record), error);
}

gboolean
mitherm_store_set_facts (MithermStore *self, const char *address, const MithermFacts *facts,
                         GError **error)
{
  const MithermRecord *now = mitherm_store_lookup (self, address);
  g_autoptr (MithermRecord) record = NULL;

  if (now == NULL || now->keys->len == 0 || !mitherm_facts_differ (&now->facts, facts))
    return TRUE;
  record = record_copy (now);
  mitherm_facts_copy (facts, &record->facts);
  return commit (self, g_steal_pointer (&record), error);
}
