/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "sim-device.h"

G_BEGIN_DECLS

/* What happens to one packet on its way. */
typedef enum
{
  PAIR_FAULT_NONE,
  PAIR_FAULT_LOST,
  PAIR_FAULT_REPEATED,
  PAIR_FAULT_CORRUPTED_FIRST, /* lowest bit of its first byte */
  PAIR_FAULT_CORRUPTED_LAST,  /* highest bit of its last byte */
  PAIR_FAULT_CUT,             /* the link drops instead of it */
} PairFault;

/* A key set that the host made durable. */
typedef struct
{
  MiKeys keys;
  MiKeyState state;
} PairKeys;

/**
 * Pair:
 *
 * A host's procedures against a simulated thermometer, in memory, on a virtual clock. Packets of
 * both directions are counted from 0; the fault hits packet number @fault_at.
 */
typedef struct
{
  SimDevice *device;
  MiSizes sizes;
  gint64 now_ms;
  guint packets;
  PairFault fault;
  guint fault_at;
  gboolean link_up;
  GArray *store; /* of PairKeys, newest first */
  guint persists;
  guint reads;
  gboolean fail_persist;
  GRand *random;
  GQueue events; /* of queued MiEvent for the running procedure, data owned */
  GError *error; /* of the last procedure that failed */
  const guint8 *server_key;
  GBytes *certificate;
  guint32 utc;
} Pair;

/**
 * pair_new:
 * @config: text of a devices file with one group
 */
Pair *pair_new (const char *config, guint32 seed);
void pair_free (Pair *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Pair, pair_free)

/* A #MiRandomFunc; @user_data is a GRand. */
gboolean pair_random (guint8 *out, gsize len, gpointer user_data);

/* A new connection; waits (virtual time) until the device can be connected. */
void pair_connect (Pair *self, guint16 att_payload);
void pair_disconnect (Pair *self);

/**
 * pair_run:
 *
 * Drives @procedure to its end and frees it. Asserts that it ends, within @limit_ms of virtual
 * time, with exactly one DONE or FAILED. Returns: %TRUE if done; else self->error is set
 */
gboolean pair_run (Pair *self, MiProcedure *procedure, gint64 limit_ms);

/* Lets virtual time pass. */
void pair_pass (Pair *self, gint64 ms);

/* Whether the store has this token. */
gboolean pair_knows (Pair *self, const guint8 token[MI_TOKEN_LEN]);

G_END_DECLS
