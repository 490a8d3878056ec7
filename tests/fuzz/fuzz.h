/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi-bytes.h"
#include "mi-procedure.h"

G_BEGIN_DECLS

/* What libFuzzer, AFL++ and run-corpus call; each fuzz-NAME.c has one. */
int LLVMFuzzerTestOneInput (const guint8 *data, gsize size);

/* First call of every target: from now on a critical of GLib is a crash. */
void fuzz_begin (void);

/* A #MiRandomFunc: a deterministic stream; @user_data: guint32 state. */
gboolean fuzz_random (guint8 *out, gsize len, gpointer user_data);

/* The rest of the input is a list of these. */
typedef struct
{
  guint8 kind;
  gint64 delta_ms;
  const guint8 *data; /* in memory of exactly @len bytes, valid until the next item */
  gsize len;
} FuzzItem;

typedef struct
{
  MiReader in;
  guint8 *copy;
} FuzzItems;

/* Returns: %FALSE at the end of the input */
gboolean fuzz_items_next (FuzzItems *self, FuzzItem *out);
void fuzz_items_clear (FuzzItems *self);

/* Kinds of items that mean the same for every procedure; a target's own begin at FUZZ_ITEM_OWN. */
enum
{
  FUZZ_ITEM_CONTROL,   /* received on CONTROL */
  FUZZ_ITEM_AUTH,      /* received on AUTH */
  FUZZ_ITEM_OTHER,     /* received on the channel of the first two bytes */
  FUZZ_ITEM_DEADLINE,  /* time passes up to the deadline */
  FUZZ_ITEM_WAIT,      /* time passes, whether a timer is due or not */
  FUZZ_ITEM_WRITTEN,   /* channel first */
  FUZZ_ITEM_VALUE,     /* channel first */
  FUZZ_ITEM_IO_FAILED, /* channel first */
  FUZZ_ITEM_PERSISTED,
  FUZZ_ITEM_PERSIST_FAILED,
  FUZZ_ITEM_CREDENTIAL,
  FUZZ_ITEM_CREDENTIAL_REFUSED,
  FUZZ_ITEM_CANCEL,
  FUZZ_ITEM_LINK_LOST,
  FUZZ_ITEM_START,
  FUZZ_ITEM_OWN,
};

/**
 * FuzzRun:
 * @effect: (nullable): told every effect after it was checked
 *
 * One procedure, stepped with the contract of mi-procedure.h checked after every step: DONE or
 * FAILED once and last, nothing after it, no overflow, a deadline in every wait.
 */
typedef struct _FuzzRun FuzzRun;
struct _FuzzRun
{
  MiProcedure *procedure;
  MiEffects *effects;
  gint64 now_ms;
  gboolean started;
  gboolean finished;
  gboolean done;
  guint steps;
  void (*effect) (FuzzRun *self, const MiEffect *effect);
  gpointer user_data;
};

void fuzz_run_init (FuzzRun *self, MiProcedure *procedure);
void fuzz_run_step (FuzzRun *self, const MiEvent *event);
void fuzz_run_event (FuzzRun *self, MiEventKind kind, guint16 channel, const guint8 *data,
                     gsize len);
/* An item of the common kinds. Returns: %FALSE if it is none */
gboolean fuzz_run_item (FuzzRun *self, const FuzzItem *item);
/* Lets time pass until it is over, which it must be after few steps; frees the procedure. */
void fuzz_run_finish (FuzzRun *self);

G_END_DECLS
