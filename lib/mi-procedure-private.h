/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-procedure.h"

G_BEGIN_DECLS

/**
 * MiInputKind:
 * @MI_INPUT_EVENT: the event as it came
 * @MI_INPUT_MESSAGE: a whole chunked message: @type, @data, @len
 * @MI_INPUT_SENT: our message of @type was acknowledged
 * @MI_INPUT_OPCODE: @opcode came on the control characteristic
 * @MI_INPUT_EXPLORED: the size exploration has ended
 *
 * What a state's handler gets to see, after framing.
 */
typedef enum
{
  MI_INPUT_EVENT,
  MI_INPUT_MESSAGE,
  MI_INPUT_SENT,
  MI_INPUT_OPCODE,
  MI_INPUT_EXPLORED,
} MiInputKind;

typedef struct
{
  MiInputKind kind;
  const MiEvent *event; /* the event behind it */
  guint8 type;
  const guint8 *data;
  gsize len;
  guint32 opcode;
} MiInput;

/* FALSE + @error becomes the FAILED effect. */
typedef gboolean (*MiHandler) (MiProcedure *self, const MiInput *in, MiEffects *effects,
                               GError **error);

/* One state of a procedure: its name in logs and errors, its handler, and how long it may last. */
typedef struct
{
  const char *name;
  MiHandler handler;
  guint limit_ms; /* 0: none of its own */
} MiState;

/**
 * MiProcedureClass:
 * @dispatch: (nullable): called instead of the state's handler for every event; it calls
 *   mi_procedure_handle() itself. For procedures that turn bytes into messages first.
 * @deadline: (nullable): another time at which TIMER is wanted, -1: none
 * @clear: (nullable): wipes and releases everything but the structure itself
 */
typedef struct
{
  const char *name;
  gsize size;
  const MiState *states;
  gboolean (*dispatch) (MiProcedure *self, const MiEvent *event, MiEffects *effects,
                        GError **error);
  gint64 (*deadline) (MiProcedure *self);
  void (*clear) (MiProcedure *self);
} MiProcedureClass;

/* First member of every procedure. */
struct _MiProcedure
{
  const MiProcedureClass *klass;
  guint state;
  gint64 now_ms;            /* of the event being handled */
  gint64 state_deadline_ms; /* -1: none */
  gboolean finished;
  GError *error; /* of the FAILED effect */
};

/* @klass->size zeroed bytes in state @state; released by mi_procedure_free(). */
gpointer mi_procedure_alloc (const MiProcedureClass *klass, guint state);

/* Enters @state; its time limit starts now. */
void mi_procedure_enter (MiProcedure *self, guint state);

/* Gives @in to the handler of the current state. */
gboolean mi_procedure_handle (MiProcedure *self, const MiInput *in, MiEffects *effects,
                              GError **error);

/* Adds the DONE effect: the procedure is inert from here on. */
void mi_procedure_done (MiProcedure *self, MiEffects *effects);

/**
 * mi_procedure_default:
 *
 * What every state does with CANCEL, LINK_LOST, IO_FAILED and a TIMER past the state's limit (an
 * error), with an early TIMER (nothing), and with anything that does not fit (an error naming
 * both).
 */
gboolean mi_procedure_default (MiProcedure *self, const MiInput *in, GError **error);

/* The earlier of two deadlines, -1 being none. */
gint64 mi_deadline_min (gint64 a, gint64 b);

G_END_DECLS
