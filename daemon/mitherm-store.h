/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <sys/types.h>

#include <glib.h>

#include "mi-procedure.h"

G_BEGIN_DECLS

/*
 * The key store (docs/storage.md): one file per thermometer in STATE-DIR/keys, replaced as a whole
 * by write, fsync, rename and fsync of the directory. A change is in memory only after it is
 * durable on disk; a change that cannot be made durable changes nothing. Nothing is written while
 * nothing changes. Errors: MITHERM_ERROR_STORAGE.
 */

/* How many superseded key sets are kept for each thermometer. */
#define MITHERM_STORE_HISTORY 32

typedef enum
{
  MITHERM_KEY_OLD,
  MITHERM_KEY_PENDING, /* the thermometer may hold them */
  MITHERM_KEY_CURRENT, /* at most one */
} MithermKeyState;

/**
 * MithermKeySet:
 * @keys: token, bind key, DID and authentication version
 * @has_token: %FALSE for imported sets that only decrypt
 * @has_bind_key: %FALSE for imported sets that only log in
 * @origin: where they come from: "activate", "import"
 * @created_us: microseconds since 1970 UTC
 *
 * One set of keys. Wiped when freed.
 */
typedef struct
{
  MiKeys keys;
  gboolean has_token;
  gboolean has_bind_key;
  MithermKeyState state;
  char *origin;
  gint64 created_us;
} MithermKeySet;

MithermKeySet *mitherm_key_set_new (void);
MithermKeySet *mitherm_key_set_copy (const MithermKeySet *self);
void mitherm_key_set_free (MithermKeySet *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MithermKeySet, mitherm_key_set_free)

typedef enum
{
  MITHERM_BOUND_UNKNOWN,
  MITHERM_BOUND_NO,
  MITHERM_BOUND_YES,
} MithermBound;

/**
 * MithermFacts:
 * @info_us: when they were last read from the thermometer, microseconds since 1970 UTC, 0: never
 *
 * What is known of a thermometer, for the time after a restart. Strings may be %NULL.
 */
typedef struct
{
  char *name;
  char *model;
  char *hardware;
  char *firmware;
  guint16 product_id;
  guint auth_version;
  MithermBound bound;
  gint64 info_us;
} MithermFacts;

void mitherm_facts_clear (MithermFacts *facts);
void mitherm_facts_copy (const MithermFacts *from, MithermFacts *to);
/* Whether they differ in anything but the time of reading. */
gboolean mitherm_facts_differ (const MithermFacts *a, const MithermFacts *b);

/**
 * MithermRecord:
 * @keys: (element-type MithermKeySet): newest first
 * @broken: (nullable): name of the file that could not be read and was put aside
 *
 * What is stored about one thermometer; borrowed from the store until its next change.
 */
typedef struct
{
  char address[18];
  GPtrArray *keys;
  MithermFacts facts;
  char *broken;
} MithermRecord;

/* The system calls by which the store writes; tests make them fail. Same rules as the calls. */
typedef struct
{
  int (*open_file) (int dir, const char *name);
  ssize_t (*write_data) (int fd, const void *data, size_t len);
  int (*sync_fd) (int fd);
  int (*rename_file) (int dir, const char *from, const char *to);
} MithermStoreIo;

typedef struct _MithermStore MithermStore;

/**
 * mitherm_store_new:
 * @state_dir: made with mode 0700 if it does not exist
 *
 * Opens the store and reads every key file. Files that cannot be understood are logged and renamed
 * to NAME.broken-TIME. Fails if the directory cannot be used, or another daemon uses it.
 */
MithermStore *mitherm_store_new (const char *state_dir, GError **error);
void mitherm_store_free (MithermStore *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MithermStore, mitherm_store_free)
void mitherm_store_set_io (MithermStore *self, const MithermStoreIo *io);

/* Returns: (nullable): the record of @address, upper case with colons */
const MithermRecord *mitherm_store_lookup (MithermStore *self, const char *address);

typedef void (*MithermStoreFunc) (const MithermRecord *record, gpointer user_data);
void mitherm_store_foreach (MithermStore *self, MithermStoreFunc func, gpointer user_data);

/* Whether there is a current or pending set: keys that may work now. */
gboolean mitherm_record_has_keys (const MithermRecord *record);
/* Index of the set that has @token, or -1. */
int mitherm_record_find_token (const MithermRecord *record, const guint8 token[MI_TOKEN_LEN]);

/**
 * mitherm_store_add:
 *
 * Adds a set as the newest. The same token and bind key are the same set: it gets what @set knows
 * more, and a better state. A new current set makes the former one old; a pending set never touches
 * another. With neither change nor news nothing is written.
 */
gboolean mitherm_store_add (MithermStore *self, const char *address, const MithermKeySet *set,
                            GError **error);

/**
 * mitherm_store_promote:
 * @index: of the set that the thermometer has proven to hold
 *
 * Makes it current; the former current set and all pending ones become old.
 */
gboolean mitherm_store_promote (MithermStore *self, const char *address, guint index,
                                GError **error);

/**
 * mitherm_store_forget:
 * @purge: erase everything about @address; else move its sets to the history
 */
gboolean mitherm_store_forget (MithermStore *self, const char *address, gboolean purge,
                               GError **error);

/* Stores @facts of a thermometer that has a file; others have no memory. */
gboolean mitherm_store_set_facts (MithermStore *self, const char *address,
                                  const MithermFacts *facts, GError **error);

const char *mitherm_key_state_to_string (MithermKeyState state);
gboolean mitherm_key_state_from_string (const char *text, MithermKeyState *out);
const char *mitherm_bound_to_string (MithermBound bound);

/**
 * mitherm_secret_scope_begin: / mitherm_secret_scope_end:
 *
 * Between them the C library overwrites whatever is freed (where it can: glibc), for parsers that
 * copy secrets where we cannot wipe them.
 */
void mitherm_secret_scope_begin (void);
void mitherm_secret_scope_end (void);
/* Overwrites and frees a string. */
void mitherm_secret_free (char *text);

G_END_DECLS
