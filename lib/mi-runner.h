/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-link.h"

G_BEGIN_DECLS

#define MI_TYPE_RUNNER (mi_runner_get_type ())
G_DECLARE_FINAL_TYPE (MiRunner, mi_runner, MI, RUNNER, GObject)

/* Make @keys durable; answer later, from the main loop, with mi_runner_persisted(). */
typedef void (*MiRunnerPersistFunc) (MiRunner *self, const MiKeys *keys, MiKeyState state,
                                     gpointer user_data);
/* Get a credential for @keys within @limit_ms; answer with mi_runner_credential(). */
typedef void (*MiRunnerCredentialFunc) (MiRunner *self, const MiKeys *keys, guint limit_ms,
                                        gpointer user_data);
typedef void (*MiRunnerProgressFunc) (MiRunner *self, guint32 done, guint32 total,
                                      gpointer user_data);
/* Each event and effect as one line of hex, for a trace; never called with secrets' own effects. */
typedef void (*MiRunnerTraceFunc) (MiRunner *self, const char *line, gpointer user_data);

typedef struct
{
  MiRunnerPersistFunc persist;
  MiRunnerCredentialFunc credential;
  MiRunnerProgressFunc progress;
  MiRunnerTraceFunc trace;
} MiRunnerCallbacks;

/**
 * mi_runner_new:
 * @link: kept referenced; the runner takes its callbacks over
 *
 * The only place where effects meet GLib: drives procedures, one after another, over one link.
 * Subscribes to the channels a procedure needs before its START event (CONTROL and AUTH for
 * info/register/login; DFU_CONTROL and DFU_DATA for dfu; each once per connection).
 */
MiRunner *mi_runner_new (MiLink *link, const MiRunnerCallbacks *callbacks, gpointer user_data);

/* Negotiated sizes of this connection, for constructing procedures. (transfer none) */
MiSizes *mi_runner_get_sizes (MiRunner *self);
MiLink *mi_runner_get_link (MiRunner *self);

/**
 * mi_runner_run_async:
 * @procedure: borrowed until the callback
 * @cancellable: cancelling sends the CANCEL event; the run then ends at once
 *
 * Errors: MI_ERROR, as the procedure tells.
 */
void mi_runner_run_async (MiRunner *self, MiProcedure *procedure, GCancellable *cancellable,
                          GAsyncReadyCallback callback, gpointer user_data);
gboolean mi_runner_run_finish (MiRunner *self, GAsyncResult *result, GError **error);

/* Answers. Ignored when nothing waits for them. */
void mi_runner_persisted (MiRunner *self, gboolean durable);
void mi_runner_credential (MiRunner *self, const MiCredential *credential); /* NULL: refused */

G_END_DECLS
