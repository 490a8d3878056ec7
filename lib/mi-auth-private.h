/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-frame.h"
#include "mi-procedure-private.h"

G_BEGIN_DECLS

/* Opcodes on 0x0010 (protocol/gatt.md section 2). */
enum
{
  MI_OPCODE_REGISTERED = 0x11,
  MI_OPCODE_REGISTRATION_FAILED = 0x12,
  MI_OPCODE_VERIFIED = 0x13,
  MI_OPCODE_NOT_VERIFIED = 0x14,
  MI_OPCODE_REGISTER = 0x15,
  MI_OPCODE_LOGGED_IN = 0x21,
  MI_OPCODE_LOGIN_FAILED = 0x23,
  MI_OPCODE_LOGIN = 0x24,
  MI_OPCODE_READ_INFO = 0xa2,
  MI_OPCODE_EXPLORE = 0xa4,
  MI_OPCODE_NOT_BOUND = 0xe0,
  MI_OPCODE_ALREADY_BOUND = 0xe1,
  MI_OPCODE_ALREADY_LOGGED_IN = 0xe2,
  MI_OPCODE_OOB_NEEDED = 0xe3,
};

/* Limit of the state in which a size exploration runs; the framing ends it after 1 s. */
#define MI_AUTH_EXPLORE_LIMIT_MS 5000

/**
 * MiAuth:
 * @held: final opcode that overtook the acknowledgement of our pending message, 0: none
 * @ready: delivered by mi_auth_expect(), handled when the handler returns
 * @overall_deadline_ms: of the device's own procedure, -1: none
 *
 * Base of the procedures that talk by opcodes on 0x0010 and messages on 0x0019.
 */
typedef struct
{
  MiProcedure parent;
  MiFrame *frame;
  MiSizes *sizes; /* borrowed */
  gboolean explore;
  guint32 held;
  gint64 held_deadline_ms;
  gint64 overall_deadline_ms;
  MiFrameEvent ready;
} MiAuth;

gpointer mi_auth_alloc (const MiProcedureClass *klass, guint state, MiSizes *sizes,
                        gboolean explore);

/* For the class structures. */
gboolean mi_auth_dispatch (MiProcedure *self, const MiEvent *event, MiEffects *effects,
                           GError **error);
gint64 mi_auth_deadline (MiProcedure *self);
void mi_auth_clear (MiProcedure *self);

/* mi_procedure_default(), and the meaning of the opcodes that end every procedure. */
gboolean mi_auth_default (MiProcedure *self, const MiInput *in, GError **error);

/* Starts the exploration if one is wanted and none was tried: TRUE means EXPLORED will come. */
gboolean mi_auth_begin_explore (MiAuth *self, MiEffects *effects);

void mi_auth_write_opcode (MiEffects *effects, guint32 opcode);
gboolean mi_auth_send (MiAuth *self, guint8 type, const guint8 *data, gsize len, MiEffects *effects,
                       GError **error);
void mi_auth_expect (MiAuth *self, guint8 type, gsize max, MiEffects *effects);

/**
 * mi_auth_await_last:
 * @type: of our last message, which is being sent
 * @success: opcode that the device answers it with
 * @failure: likewise
 * @next: state that waits for either
 *
 * For the handler of a state whose message is the last one. Opcodes and acknowledgements come from
 * two characteristics, whose order gets lost on the way: an opcode that is early is given to the
 * handler again when the message is acknowledged, or after 400 ms.
 * Returns: %FALSE if @in is something else, or an opcode that counts now
 */
gboolean mi_auth_await_last (MiAuth *self, const MiInput *in, guint8 type, guint32 success,
                             guint32 failure, guint next);

/* Whether the message @in has @wanted bytes; another length is MI_ERROR_PROTOCOL. */
gboolean mi_auth_check_length (MiProcedure *self, const MiInput *in, gsize wanted, GError **error);

/* Whether @in is the acknowledgement of @type, or a message of @type. */
#define mi_input_is_sent(in, t)    ((in)->kind == MI_INPUT_SENT && (in)->type == (t))
#define mi_input_is_message(in, t) ((in)->kind == MI_INPUT_MESSAGE && (in)->type == (t))
#define mi_input_is_opcode(in, o)  ((in)->kind == MI_INPUT_OPCODE && (in)->opcode == (o))
#define mi_input_is_event(in, k)   ((in)->kind == MI_INPUT_EVENT && (in)->event->kind == (k))

/* Used by dfu, too: a failed transfer as an error. */
void mi_auth_set_transfer_error (GError **error, const MiFrameEvent *event, const char *state);

G_END_DECLS
