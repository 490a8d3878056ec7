/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-procedure.h"

G_BEGIN_DECLS

/* One state of a procedure: its name in logs and errors, its handler, and how long it may last. */
typedef struct
{
  const char *name;
  /* Takes one event of this state. FALSE + @error becomes the FAILED effect. */
  gboolean (*handler) (MiProcedure *self, const MiEvent *event, MiEffects *effects, GError **error);
  guint limit_ms; /* 0: none of its own */
} MiState;

/**
 * MiProcedureClass:
 * @dispatch: (nullable): called instead of the state's handler for every event; it calls the
 *   handler itself. For procedures that turn bytes into messages first.
 * @deadline: (nullable): another time at which TIMER is wanted, -1: none
 * @clear: wipes and releases everything but the structure itself
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

/* Adds the DONE effect: the procedure is inert from here on. */
void mi_procedure_done (MiProcedure *self, MiEffects *effects);

/**
 * mi_procedure_default:
 *
 * What every state does with CANCEL, LINK_LOST and a TIMER past the state's limit (an error), with
 * an early TIMER (nothing), and with an event that does not fit (an error naming both).
 */
gboolean mi_procedure_default (MiProcedure *self, const MiEvent *event, GError **error);

const char *mi_event_kind_name (MiEventKind kind);

G_END_DECLS
