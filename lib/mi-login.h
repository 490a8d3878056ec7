/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-procedure.h"

G_BEGIN_DECLS

/**
 * mi_login_new:
 * @sizes: borrowed, of this connection
 * @token: 12 bytes, copied
 * @random: 16 bytes are drawn per login
 * @explore: try the size exploration first
 *
 * Login (protocol/login.md). %MI_ERROR_WRONG_TOKEN: the device's confirmation does not match;
 * %MI_ERROR_NOT_BOUND: opcode E0; %MI_ERROR_LOGIN_REFUSED: opcode 23. Opcode E2 is success
 * without session keys.
 */
MiProcedure *mi_login_new (MiSizes *sizes, const guint8 token[MI_TOKEN_LEN], MiRandomFunc random,
                           gpointer random_data, gboolean explore);

/* After DONE: the device said that it was logged in already (E2). */
gboolean mi_login_was_already (MiProcedure *self);

/**
 * MiSession:
 *
 * Keys of the encrypted channel after a login (protocol/login.md section 4). Plain value; wipe it
 * with mi_crypto_wipe().
 */
typedef struct
{
  guint8 dev_key[16];
  guint8 app_key[16];
  guint8 dev_iv[4];
  guint8 app_iv[4];
  guint32 sent;     /* counter of the last message sent, 0: none */
  guint32 received; /* counter of the last message accepted */
} MiSession;

/* Derives the session from a login's values; the procedure uses it itself. */
gboolean mi_session_derive (MiSession *self, const guint8 token[MI_TOKEN_LEN],
                            const guint8 app_random[MI_RANDOM_LEN],
                            const guint8 device_random[MI_RANDOM_LEN], GError **error);
/* After DONE: FALSE after E2. */
gboolean mi_login_get_session (MiProcedure *self, MiSession *out);
/* @out: @len + 6 bytes; host to device. */
gboolean mi_session_seal (MiSession *self, const guint8 *plain, gsize len, guint8 *out,
                          GError **error);
/* @out: @len - 6 bytes; device to host. Replays and wrong tags are errors and change nothing. */
gboolean mi_session_open (MiSession *self, const guint8 *sealed, gsize len, guint8 *out,
                          GError **error);

G_END_DECLS
