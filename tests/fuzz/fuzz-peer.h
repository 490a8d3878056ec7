/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "fuzz.h"

#include "mi-frame.h"

G_BEGIN_DECLS

/**
 * FuzzPeer:
 * @answer: the target's idea of what a good device would say next, for FUZZ_ITEM_ANSWER
 * @check: (nullable): told every effect of the host
 * @persisted: (nullable): told before PERSISTED; FALSE: nothing was to be made durable
 * @opcode: last opcode the host has written
 * @type, @message, @len: last message the host has sent
 * @faults: one bit per frame, either direction, in turn: it is lost
 *
 * A device for the procedures that talk on CONTROL and AUTH. It takes every message, so that the
 * input decides what happens and not whether framing can be guessed.
 */
typedef struct _FuzzPeer FuzzPeer;
struct _FuzzPeer
{
  FuzzRun run;
  MiSizes host_sizes;
  MiSizes sizes;
  MiFrame *frame;
  MiEffects *effects;
  void (*answer) (FuzzPeer *self);
  void (*check) (FuzzPeer *self, const MiEffect *effect);
  gboolean (*persisted) (FuzzPeer *self);
  guint8 opcode;
  gboolean explore;
  guint8 type;
  guint8 message[MI_FRAME_MAX];
  gsize len;
  guint32 faults;
  guint frames;
  guint budget;
  GQueue queue; /* frames on their way */
  gpointer user_data;
};

enum
{
  FUZZ_ITEM_ANSWER = FUZZ_ITEM_OWN,
  FUZZ_ITEM_MESSAGE, /* the device sends type (first byte) and the rest */
  FUZZ_ITEM_OPCODE,  /* the device sends the first byte as an opcode */
  FUZZ_ITEM_TICK,    /* the device's timer */
  FUZZ_ITEM_CORRUPT, /* the host gets the device's next message with bits flipped */
};

/**
 * fuzz_peer_init:
 * @in: the first bytes choose generation, sizes and faults
 *
 * Set run.procedure afterwards: it needs @host_sizes.
 */
void fuzz_peer_init (FuzzPeer *self, MiReader *in);
void fuzz_peer_send (FuzzPeer *self, guint8 type, const guint8 *data, gsize len);
void fuzz_peer_opcode (FuzzPeer *self, guint8 opcode);
/* The keys are durable, if there are any. */
void fuzz_peer_persisted (FuzzPeer *self);
/* Plays the rest of the input against @procedure (consumed), to the end. */
void fuzz_peer_play (FuzzPeer *self, MiProcedure *procedure, MiReader *in);

G_END_DECLS
